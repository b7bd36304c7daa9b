"""A tensor as its header describes it: where its bytes lie, and how they are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ITEMSIZE: Mapping[str, int] = {
    "f64": 8, "f32": 4, "f16": 2, "bf16": 2, "f8_e4m3": 1, "f8_e5m2": 1,
    "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u64": 8, "u32": 4, "u16": 2, "u8": 1, "bool": 1,
    "c64": 8, "c128": 16,
}  # fmt: skip
"""Bytes per element of every dtype that a checkpoint may hold, under the short names used everywhere."""

FLOAT_DTYPES = frozenset({"f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2"})
"""The real floating-point dtypes: what a linear map can be built from."""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Bytes that lie uncompressed in a file and can be memory-mapped."""

    path: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class ZipMember:
    """Bytes that lie deflated in a zip archive: read as a whole, one member at a time."""

    path: str
    member: str
    nbytes: int
    skip: int = 0
    """Bytes of the inflated member before the data (an .npy header)."""


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """A tensor that the caller already holds (a state dict or a module given from Python)."""

    tensor: torch.Tensor


Storage = FileSpan | ZipMember | InMemory


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its header describes it; no tensor byte has been touched."""

    name: str
    """As the state dict spells it, with wrapper prefixes (`module.`, `_orig_mod.`) removed."""
    dtype: str
    """A key of ITEMSIZE."""
    shape: tuple[int, ...]
    storage: Storage
    offset: int = 0
    """First element within the storage, in elements."""
    strides: tuple[int, ...] | None = None
    """In elements; None for row-major."""
    byteorder: str = "<"
    """'<' or '>' (big-endian .npy only)."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two names exactly when they are the same view of the same stored bytes (tied weights)."""
        return (self._where, self.offset, self.shape, self.strides, self.dtype)

    @property
    def region(self) -> tuple[object, ...]:
        """Equal for two names that start at the same place and have as many elements."""
        return (self._where, self.offset, self.size, self.dtype)

    @property
    def _where(self) -> object:
        if not isinstance(self.storage, InMemory):
            return self.storage
        tensor = self.storage.tensor
        address = getattr(tensor, "data_ptr", None)
        return (address(), str(tensor.device)) if address is not None and self.size else id(tensor)
