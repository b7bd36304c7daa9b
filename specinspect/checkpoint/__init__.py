"""Checkpoints: from a path to names, shapes and dtypes, and one tensor at a time.

Nothing in a file is executed, and no tensor byte is touched before it is read. Importing this package, and
opening a safetensors file, loads neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specinspect.checkpoint.model import Checkpoint, ModuleFacts, Skipped
from specinspect.checkpoint.tensors import (
    FLOAT_DTYPES,
    ITEMSIZE,
    FileSpan,
    InMemory,
    Storage,
    TensorInfo,
    ZipMember,
)

__all__ = [
    "FLOAT_DTYPES",
    "ITEMSIZE",
    "Checkpoint",
    "FileSpan",
    "InMemory",
    "ModuleFacts",
    "Skipped",
    "Storage",
    "TensorInfo",
    "ZipMember",
    "from_module",
    "from_state_dict",
    "open_checkpoint",
]


def open_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Open a checkpoint: read its headers, touch no tensor, execute nothing.

    Args:
        path: a file of any supported format, a `*.index.json`, or a directory that holds weights.
        key: dotted path of the state dict to use where a file nests several; '.' takes everything as one.

    Raises:
        AmbiguousKeyError: several state dicts, and no way to tell which is meant.
        CheckpointError: nothing there, not readable, damaged, or a format that is not read.
    """
    from specinspect.checkpoint.opening import open_checkpoint as opener

    return opener(path, key)


def from_state_dict(
    mapping: Mapping[Any, Any], name: str = "state dict", key: str | None = None
) -> Checkpoint:
    """Describe tensors, parameters or numpy arrays that are in memory; nothing is copied.

    Args:
        mapping: names to tensors, or a container that nests such a mapping as checkpoint files do.
        name: what to call it in messages and reports.
        key: which nested mapping.

    Raises:
        CheckpointError: no tensors, or several mappings and no way to choose.
    """
    from specinspect.checkpoint.memory import from_state_dict as describe

    return describe(mapping, name, key)


def from_module(nn_module: Any) -> Checkpoint:
    """Describe a live module: its state dict, and the plain attributes of every module in it.

    Args:
        nn_module: a torch.nn.Module (anything with `state_dict` and `named_modules`).

    Raises:
        CheckpointError: it is none, or holds no tensors.
    """
    from specinspect.checkpoint.memory import from_module as describe

    return describe(nn_module)
