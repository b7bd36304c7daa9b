"""Which entries of a stored tensor are NaN, infinite or negative: read from the bits, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specinspect.checkpoint.raw import stored_bytes
from specinspect.checkpoint.read import extent, read_tensor
from specinspect.checkpoint.tensors import InMemory, TensorInfo


@dataclass(frozen=True, slots=True)
class Counts:
    """Entries of one tensor that may be wrong."""

    nan: int = 0
    infinite: int = 0
    negative: int = 0
    """Below zero, -∞ included; neither -0 nor NaN."""

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both."""
        return Counts(self.nan + other.nan, self.infinite + other.infinite, self.negative + other.negative)


@dataclass(frozen=True, slots=True)
class _Format:
    """How a dtype's bit patterns without the sign, read as integers, go from 0 to infinity and on to NaN."""

    word: str
    """Of numpy: the unsigned integer of the same size."""
    largest: int
    """Pattern of the largest finite number."""
    infinity: bool = True
    """Whether the next pattern is infinity, rather than NaN."""
    parts: int = 1
    """Numbers that one entry is made of: two for a complex one, which is NaN if either is."""


_FORMATS: Mapping[str, _Format] = {
    "f64": _Format("u8", 0x7FEF_FFFF_FFFF_FFFF),
    "f32": _Format("u4", 0x7F7F_FFFF),
    "f16": _Format("u2", 0x7BFF),
    "bf16": _Format("u2", 0x7F7F),
    "f8_e5m2": _Format("u1", 0x7B),
    "f8_e4m3": _Format("u1", 0x7E, infinity=False),
    "c64": _Format("u4", 0x7F7F_FFFF, parts=2),
    "c128": _Format("u8", 0x7FEF_FFFF_FFFF_FFFF, parts=2),
}
"""Of every dtype that can be NaN (IEEE 754; bfloat16; the OCP 8-bit formats, whose e4m3 has no infinity)."""
COUNTED = frozenset(_FORMATS)
"""The dtypes whose entries can be counted."""


def count_entries(info: TensorInfo, *, negative: bool = False) -> Counts:
    """Count the entries of a tensor that are NaN, infinite and, if asked for, negative; its dtype in COUNTED.

    Reads 1 MiB at a time from files, whatever the size (deflated archive members are inflated as a whole).

    Raises:
        CheckpointError: the bytes are not there any more, or not as the header said.
    """
    kind, total = _FORMATS[info.dtype], Counts()
    if info.size == 0:
        return total
    for bits in _words(info, kind):
        total += _count(bits, kind, negative=negative)
    if total == Counts() or isinstance(info.storage, InMemory) or extent(info) == info.size:
        return total
    return _count_view(info, kind, negative=negative)  # what was found may lie between the view's entries


def _words(info: TensorInfo, kind: _Format) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield the bit patterns from a view's first to its last element; those of one entry stay together."""
    dtype = np.dtype(("=" if isinstance(info.storage, InMemory) else info.byteorder) + kind.word)
    step, left = kind.parts * dtype.itemsize, b""
    for piece in stored_bytes(info):
        data = left + piece if left else piece
        whole = len(data) // step * step
        yield np.frombuffer(data[:whole], dtype)
        left = bytes(data[whole:])


def _count(bits: NDArray[np.unsignedinteger], kind: _Format, *, negative: bool) -> Counts:
    sign = bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
    magnitude = bits & ~sign
    beyond = magnitude > kind.largest
    nan = bad = int(np.count_nonzero(_entries(beyond, kind)))
    below = 0
    if bad and kind.infinity:
        nan = int(np.count_nonzero(_entries(magnitude > kind.largest + 1, kind)))
    if negative and kind.parts == 1:
        number = ~beyond if not kind.infinity else magnitude <= kind.largest + 1
        below = int(np.count_nonzero((bits > sign) & number))
    return Counts(nan, bad - nan, below)


def _entries(parts: NDArray[np.bool_], kind: _Format) -> NDArray[np.bool_]:
    """Say of each entry whether it holds for one of its parts."""
    return parts if kind.parts == 1 else np.logical_or.reduce(parts.reshape(-1, kind.parts), axis=1)


def _count_view(info: TensorInfo, kind: _Format, *, negative: bool) -> Counts:
    """Count in a view that leaves out, or repeats, some of the elements between its first and its last."""
    import torch

    view, repeats = read_tensor(info), 1
    for axis, step in reversed(list(enumerate(view.stride()))):
        if step == 0:
            view, repeats = view.select(axis, 0), repeats * info.shape[axis]
    total = Counts()
    for row in view if view.ndim else view[None]:
        flat = row.contiguous().reshape(-1).view(torch.uint8).numpy().view(f"={kind.word}")
        total += _count(flat, kind, negative=negative)
    return Counts(total.nan * repeats, total.infinite * repeats, total.negative * repeats)
