"""What one file holds, before names are tidied and shards are joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from specinspect.checkpoint.model import ModuleFacts, Skipped
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Contents:
    """The tensors of one file and everything that was found or guessed beside them."""

    format: str
    tensors: Mapping[str, TensorInfo]
    key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, ModuleFacts] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    placeholders: tuple[str, ...] = ()


def refuse_key(path: str, key: str | None, kind: str) -> None:
    """Raise when a key was given for a format that holds one flat set of tensors."""
    if key is not None:
        raise CheckpointError(
            f"{quote(path)}: expected nested state dicts to choose {quote(key)} from, "
            f"found {kind}, which is flat",
            "leave --key out",
        )
