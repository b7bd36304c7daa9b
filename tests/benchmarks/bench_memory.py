"""Peak memory of `specinspect report` on a generated sharded checkpoint, against the stated bound.

    python tests/benchmarks/bench_memory.py [--gigabytes 6] [--layers GLOB] [--directory DIR]

Bound: resident memory of a process that imported torch, plus four times the largest layer in float64.
The checkpoint has the shapes of a real transformer (an embedding far taller than wide, square and
rectangular projections) in bfloat16, in shards with an index, and is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# VmHWM, not ru_maxrss: the latter starts at what the parent had when it forked.
CHILD = """
import sys
{code}
with open("/proc/self/status") as status:
    print(next(line for line in status if line.startswith("VmHWM")).split()[1], file=sys.stderr)
"""
BASELINE = CHILD.format(code="import torch, numpy, safetensors")
REPORT = CHILD.format(code="from specinspect.cli.app import run\nassert run(sys.argv[1:]) == 0")


def peak(code: str, *arguments: str) -> int:
    """Return the peak resident memory of a child process, in bytes."""
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    return int(process.stderr.split()[-1]) * 1024


def generate(directory: Path, gigabytes: float, width: int, vocabulary: int) -> None:
    """Write shards of about 1 GB with random weights until the size is reached."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    shapes = {"self_attn.q_proj": (width, width), "self_attn.o_proj": (width, width)}
    shapes |= {"mlp.up_proj": (4 * width, width), "mlp.down_proj": (width, 4 * width)}
    weight_map: dict[str, str] = {}
    total, block, shard = 0, 0, 0
    while total < gigabytes * 1e9:
        tensors = {}
        size = 0
        if shard == 0:
            tensors["model.embed_tokens.weight"] = torch.empty(vocabulary, width, dtype=torch.bfloat16)
        while size < 1e9:
            for name, shape in shapes.items():
                tensors[f"model.layers.{block}.{name}.weight"] = torch.empty(shape, dtype=torch.bfloat16)
            block += 1
            size = sum(2 * t.numel() for t in tensors.values())
        for tensor in tensors.values():
            tensor.normal_(0, 0.02, generator=generator)
        file = f"model-{shard:05d}.safetensors"
        save_file(tensors, directory / file)
        weight_map |= dict.fromkeys(tensors, file)
        total += size
        shard += 1
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--layers", default="*", help="only these layers, to save time")
    parser.add_argument("--directory", help="where to make the checkpoint [default: a temporary directory]")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        generate(Path(name), arguments.gigabytes, arguments.width, arguments.vocabulary)
        size = sum(f.stat().st_size for f in Path(name).iterdir())
        base = peak(BASELINE)
        used = peak(
            REPORT, "report", "--json", "--no-cache", "--layers", arguments.layers, "-o", os.devnull, name
        )
    largest = 8 * max(arguments.vocabulary, 4 * arguments.width) * arguments.width
    bound = base + 4 * largest
    sys.stdout.write(
        f"checkpoint {size / 1e9:.1f} GB, largest layer in float64 {largest / 2**20:.0f} MiB\n"
        f"import torch {base / 2**20:.0f} MiB, report {used / 2**20:.0f} MiB, "
        f"bound {bound / 2**20:.0f} MiB: {(used - base) / largest:.2f} times the largest layer\n"
    )
    sys.exit(used > bound)


if __name__ == "__main__":
    main()
