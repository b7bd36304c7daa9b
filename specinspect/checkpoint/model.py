"""What a checkpoint is once opened: names, shapes and dtypes, and one tensor at a time on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """What is known of one module without running its code: from an nn.Module or a pickled one."""

    type: str
    """Class name without its module path, e.g. 'Conv2d'."""
    attributes: Mapping[str, Any]
    """Plain values only: int, float, bool, str, None, tuples of these (stride, dilation, groups, …)."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A tensor, or a group of them, that is not analysed, and why."""

    name: str
    reason: str
    counted: bool = True
    """Whether it is a tensor of the chosen state dict, rather than something beside it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint: headers only. `read` maps one tensor's bytes."""

    path: str
    format: str
    """'safetensors', 'torch-zip', 'torch-legacy', 'torchscript', 'torch-export', 'npz', 'memory'."""
    files: tuple[str, ...]
    bytes: int
    tensors: Mapping[str, TensorInfo]
    """In checkpoint order."""
    key: str | None = None
    """Dotted path of the state dict inside the file, where the file nests several."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    """config.json (and adapter_config.json) beside the weights, if there is one."""
    modules: Mapping[str, ModuleFacts] = field(default_factory=dict)
    """Module path → facts, where the file holds whole modules rather than a bare state dict."""
    assumptions: tuple[str, ...] = ()
    """What was guessed while opening (which state dict, which files)."""
    skipped: tuple[Skipped, ...] = ()
    """What the file holds beside the chosen state dict (optimizer moments, …)."""
    placeholders: tuple[str, ...] = ()
    """Foreign objects that were not loaded, as 'module.Class'."""

    @property
    def parameters(self) -> int:
        """Number of stored elements, tied storage counted once, transposed or reshaped views included."""
        return sum({info.region: info.size for info in self.tensors.values()}.values())

    @property
    def count(self) -> int:
        """Number of tensors in the chosen state dict, those that cannot be read included."""
        return len(self.tensors) + sum(item.counted for item in self.skipped)

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor on the CPU in its stored dtype, memory-mapped where the file allows.

        Raises:
            CheckpointError: the bytes are not there any more, or not as the header said.
        """
        from specinspect.checkpoint.read import read_tensor

        return read_tensor(self.tensors[name])
