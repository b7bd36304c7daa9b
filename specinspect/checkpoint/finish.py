"""The last step for every format: tidy names, and the `Checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specinspect.checkpoint.contents import Contents
from specinspect.checkpoint.model import Checkpoint
from specinspect.checkpoint.names import strip_module_path, strip_wrappers
from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError


def finish(
    path: str,
    files: tuple[str, ...],
    nbytes: int,
    contents: Contents,
    config: Mapping[str, Any] | None = None,
    assumptions: tuple[str, ...] = (),
) -> Checkpoint:
    """Return the checkpoint with wrapper prefixes removed from its names.

    Raises:
        CheckpointError: there are no tensors.
    """
    if not contents.tensors and not contents.skipped:
        raise CheckpointError(
            f"{quote(path)}: expected tensors, found none in this {contents.format} file", "save a state dict"
        )
    renamed, notes = strip_wrappers(contents.tensors)
    return Checkpoint(
        path=path,
        format=contents.format,
        files=files,
        bytes=nbytes,
        tensors={renamed[name]: replace(info, name=renamed[name]) for name, info in contents.tensors.items()},
        key=contents.key,
        metadata=contents.metadata,
        config=config or {},
        modules={strip_module_path(name, renamed): facts for name, facts in contents.modules.items()},
        assumptions=(*assumptions, *contents.assumptions, *notes),
        skipped=contents.skipped,
        placeholders=contents.placeholders,
    )
