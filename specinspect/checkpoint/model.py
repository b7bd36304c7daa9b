"""What a checkpoint is once opened: names, shapes and dtypes, and one tensor at a time on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specinspect.checkpoint.tensors import TensorInfo

if TYPE_CHECKING:
    import torch


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
