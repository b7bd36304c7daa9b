"""Weights that are spread over several files, with or without an index."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from specinspect.checkpoint.contents import Contents
from specinspect.checkpoint.files import damaged, file_size, open_regular, read_exactly
from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.names import natural_key
from specinspect.checkpoint.strict_json import parse_object
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.checkpoint.text import quote, quote_list
from specinspect.errors import CheckpointError

Open = Callable[[str], Contents]
_LONGEST_INDEX = 100_000_000


def read_index(path: str) -> dict[str, list[str]]:
    """Return the shards of an index in sorted order, each with the names of its tensors.

    Raises:
        CheckpointError: no sound index, a shard outside the index's directory, or shards missing.
    """
    with open_regular(path) as file:
        size = file_size(file)
        if size > _LONGEST_INDEX:
            raise damaged(path, f"an index of at most {_LONGEST_INDEX} bytes", f"{size}")
        data = read_exactly(file, 0, size, "a weights index")
    weight_map = parse_object(data, path, "a weights index").get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(
            f"{quote(path)}: expected an index with 'weight_map', found other JSON",
            "give the weights file or the directory that holds it",
        )
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            raise damaged(path, f"a file name for tensor {quote(name)}", f"a {type(shard).__name__}")
        shards.setdefault(shard, []).append(name)
    if not shards:
        raise damaged(path, "a 'weight_map' with tensors", "an empty one")
    for shard in shards:
        _check_inside(path, shard)
    missing = [shard for shard in sorted(shards) if not (Path(path).parent / shard).exists()]
    if missing:
        raise CheckpointError(
            f"{quote(path)}: expected {len(shards)} shards, missing: {quote_list(missing)}",
            "fetch the missing shards",
        )
    return {shard: shards[shard] for shard in sorted(shards)}


def open_indexed(path: str, shards: Mapping[str, list[str]], open_shard: Open) -> Contents:
    """Join the shards of an index.

    Raises:
        CheckpointError: a shard lacks a tensor that the index promises.
    """
    parts: list[Contents] = []
    for shard, names in shards.items():
        contents = open_shard(shard)
        known = contents.tensors.keys() | {skipped.name for skipped in contents.skipped}
        absent = [name for name in names if name not in known]
        if absent:
            raise CheckpointError(
                f"{quote(path)}: expected {quote_list(absent)} in shard {quote(shard)}, found no such tensor",
                "index and shards do not belong together: fetch them again",
            )
        wanted = set(names)
        extra = tuple(
            Skipped(name, f"in shard {quote(shard)} but not in the index")
            for name in contents.tensors
            if name not in wanted
        )
        kept = {name: info for name, info in contents.tensors.items() if name in wanted}
        parts.append(replace(contents, tensors=kept, skipped=(*contents.skipped, *extra)))
    return join(path, parts)


def join(path: str, parts: list[Contents]) -> Contents:
    """Join the contents of several files: in natural order of the names where each file is, else as given.

    Raises:
        CheckpointError: two files hold a tensor of the same name.
    """
    tensors: dict[str, TensorInfo] = {}
    for part in parts:
        twice = [name for name in part.tensors if name in tensors]
        if twice:
            raise CheckpointError(
                f"{quote(path)}: expected each tensor in one shard, found {quote_list(twice)} in two",
                "the shards belong to different models: give one file",
            )
        tensors.update(part.tensors)
    if all(list(part.tensors) == sorted(part.tensors, key=natural_key) for part in parts):
        # Sorted shards say nothing of the model's order, and a block that was cut in two is one block.
        tensors = dict(sorted(tensors.items(), key=lambda item: natural_key(item[0])))
    formats = dict.fromkeys(part.format for part in parts)
    return Contents(
        next(iter(formats)),
        tensors,
        key=parts[0].key,
        metadata={key: value for part in parts for key, value in part.metadata.items()},
        modules={name: facts for part in parts for name, facts in part.modules.items()},
        assumptions=tuple(dict.fromkeys(note for part in parts for note in part.assumptions)),
        skipped=tuple(skipped for part in parts for skipped in part.skipped),
        placeholders=tuple(dict.fromkeys(name for part in parts for name in part.placeholders)),
    )


def _check_inside(path: str, shard: str) -> None:
    # Links are followed when the shard is opened: hub caches keep every file as a link to a blob elsewhere.
    parts = shard.replace("\\", "/").split("/")
    if not shard or "\x00" in shard or posixpath.isabs(shard) or ".." in parts or ":" in parts[0]:
        raise damaged(path, "shards inside the index's directory", quote(shard))
