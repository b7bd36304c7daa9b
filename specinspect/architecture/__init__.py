"""Architectures: from an nn.Module, or the text MODULE:FACTORY, to plain facts about its layers.

Only `build` and `build_with_notes` import code on request; `read_architecture` traces `forward` of a
module that the caller already holds. Importing this package does not load torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specinspect.architecture.model import (
    Activation,
    Architecture,
    Built,
    Gated,
    ResidualBlock,
    Step,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "Activation",
    "Architecture",
    "Built",
    "Gated",
    "ResidualBlock",
    "Step",
    "build",
    "build_with_notes",
    "check_match",
    "read_architecture",
]


def build(spec: str, arguments: str | None = None) -> nn.Module:
    """Import MODULE:FACTORY and build the network, on the meta device where that works.

    Args:
        spec: an importable module and a class, function or nn.Module instance in it.
        arguments: JSON; an object becomes keyword arguments, an array positional ones.

    Raises:
        SettingsError: nothing there, it raised, or it made no nn.Module.
    """
    return build_with_notes(spec, arguments).module


def build_with_notes(spec: str, arguments: str | None = None) -> Built:
    """Do what `build` does, and say what had to be done differently; hand the notes to `read_architecture`.

    Raises:
        SettingsError: as `build`.
    """
    from specinspect.architecture.build import build_with_notes as make

    return make(spec, arguments)


def read_architecture(
    module: Any, notes: Sequence[str] = (), batch: Callable[[], torch.Tensor | None] = lambda: None
) -> Architecture:
    """Trace a module and return what follows each layer, and its residual blocks.

    A `forward` that torch.fx cannot trace is followed by torch.export, which needs an example of what it
    takes. Failing that is no error: the largest parts that can be traced are read; `notes` says why.
    Tracing patches nn.Module for its duration: not for two threads at once.

    Args:
        module: an nn.Module, on any device; left as it was.
        notes: sentences to put before those of the tracing.
        batch: gives an example input if one is needed and known; others are guessed.

    Raises:
        SettingsError: it is no nn.Module.
    """
    from specinspect.architecture.read import read_architecture as read

    return read(module, notes, batch)


def check_match(architecture: Architecture, names_and_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the model's tensors with a checkpoint's.

    Raises:
        SettingsError: they differ; the message shows the first differences and counts them all.
    """
    from specinspect.architecture.match import check_match as check

    check(architecture, names_and_shapes)
