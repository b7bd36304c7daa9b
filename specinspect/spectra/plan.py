"""The one place that decides where linear algebra runs, how much of it at once, and with how much memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from specinspect.errors import ResourceError, SettingsError

_M_MMAP_THRESHOLD = -3
SMALL = 4 << 20
"""Bytes: matrices up to this size may be stacked, and any layer may use this much beside its own size."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to compute. Plain data: it travels with a job."""

    device: str
    """'cpu', 'cuda:0', …: a device with float64."""
    notices: tuple[str, ...] = ()
    """What was asked for and could not be had."""

    def batch_bytes(self) -> int:
        """Return how many bytes of float64 matrices may be stacked into one call.

        A quarter of what is free on an accelerator, since the Gram matrix and the solver's copies come on
        top. On the CPU stacking saves only call overhead, so it stays small.
        """
        if self.device == "cpu":
            return SMALL // 4
        import torch

        free, _ = torch.cuda.mem_get_info(self.device)
        return max(SMALL, free // 4)

    def block_bytes(self, layer_bytes: int) -> int:
        """Return how many bytes of Fourier blocks of one layer to hold at a time.

        On the CPU no more than the layer itself in float64 (memory is bounded by the largest layer).
        """
        return max(SMALL, layer_bytes if self.device == "cpu" else self.batch_bytes())


def choose_plan(requested: str) -> Plan:
    """Turn `--device` into a plan.

    Args:
        requested: auto, cpu, cuda, cuda:N or mps.

    Raises:
        SettingsError: not a device name.
        ResourceError: the device is not there.
    """
    kind, _, index = requested.partition(":")
    if kind not in {"auto", "cpu", "cuda", "mps"} or (index and not (kind == "cuda" and index.isdecimal())):
        raise SettingsError(
            f"--device: expected auto, cpu, cuda, cuda:N or mps, got {requested!r}", "leave it at auto"
        )
    if kind == "cpu" or (kind == "auto" and _torch_is_for_the_cpu()):
        return Plan("cpu")
    import torch

    # ROCm builds of torch present AMD devices under the name cuda.
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto" and not available:
        return Plan("cpu")
    if kind == "mps":
        return Plan("cpu", ("mps has no float64: computed on the CPU",))
    number = int(index or 0)
    if number >= available:
        raise ResourceError(
            f"--device {requested}: expected a CUDA or ROCm device, found {available}", "use --device cpu"
        )
    return Plan(f"cuda:{number}")


def _torch_is_for_the_cpu() -> bool:
    """Say whether torch was built without CUDA and ROCm, without loading it: that takes a second."""
    try:
        found = find_spec("torch")
        text = Path(found.origin or "").with_name("version.py").read_text(encoding="utf-8") if found else ""
    except (OSError, ValueError, ImportError):
        return False
    return all(re.search(rf"^{name}\b[^=\n]*= None$", text, re.MULTILINE) for name in ("cuda", "hip"))


def default_jobs() -> int:
    """Return how many layers to compute at once: the cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def return_large_blocks() -> None:
    """Let the C library hand blocks of 8 MB and more back to the system as soon as they are freed (glibc).

    By itself it moves that limit up to 32 MB and keeps smaller blocks in a heap, whose holes add up to
    several times the largest layer over layers of many sizes.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 8 << 20)


def available_memory() -> int | None:
    """Return the bytes of memory that can still be taken, None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
