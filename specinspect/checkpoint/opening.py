"""From a path to a `Checkpoint`: file, index or directory."""

from __future__ import annotations

import os
from pathlib import Path

from specinspect.checkpoint.contents import Contents
from specinspect.checkpoint.detect import detect
from specinspect.checkpoint.directory import is_directory, read_config, select
from specinspect.checkpoint.files import stat_path
from specinspect.checkpoint.finish import finish
from specinspect.checkpoint.model import Checkpoint
from specinspect.checkpoint.text import quote, quote_list
from specinspect.errors import CheckpointError


def open_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Open a checkpoint: read its headers, touch no tensor, execute nothing.

    Args:
        path: a file of any supported format, a `*.index.json`, or a directory that holds weights.
        key: dotted path of the state dict to use where a file nests several; '.' takes everything as one.

    Raises:
        AmbiguousKeyError: several state dicts, and no way to tell which is meant.
        CheckpointError: nothing there, not readable, damaged, or a format that is not read.
    """
    text = os.fspath(path)
    if not is_directory(text):
        return _open_path(text, text, key, ())
    selection = select(text)
    if selection.index is not None:
        return _open_path(os.path.join(text, selection.index), text, key, selection.assumptions)  # noqa: PTH118
    files = tuple(os.path.join(text, name) for name in selection.files)  # noqa: PTH118
    if len(files) == 1:
        return _open_path(files[0], text, key, selection.assumptions)
    from specinspect.checkpoint.shards import join

    contents = join(text, [_open_file(file, key) for file in files])
    return _finish(text, files, contents, selection.assumptions)


def _open_path(file: str, shown: str, key: str | None, assumptions: tuple[str, ...]) -> Checkpoint:
    if detect(file) != "json":
        return _finish(shown, (file,), _open_file(file, key), assumptions)
    from specinspect.checkpoint.shards import open_indexed, read_index

    shards = read_index(file)
    parent = os.path.dirname(file)  # noqa: PTH120 - keeps the spelling that the user gave
    paths = {shard: os.path.join(parent, shard) for shard in shards}  # noqa: PTH118
    contents = open_indexed(file, shards, lambda shard: _open_file(paths[shard], key))
    return _finish(shown, tuple(paths.values()), contents, assumptions)


def _finish(
    shown: str, files: tuple[str, ...], contents: Contents, assumptions: tuple[str, ...]
) -> Checkpoint:
    nbytes = sum(stat_path(file).st_size for file in files)
    config, notes = read_config(os.path.dirname(files[0]) or os.curdir)  # noqa: PTH120
    return finish(shown, files, nbytes, contents, config, (*assumptions, *notes))


def _open_file(path: str, key: str | None) -> Contents:
    # Absolute: tensors are read later, perhaps by a worker process with another working directory.
    path = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links into a hub cache's blobs
    kind = detect(path)
    if kind == "safetensors":
        from specinspect.checkpoint.safetensors import open_safetensors

        return open_safetensors(path, key)
    if kind == "legacy":
        from specinspect.checkpoint.torch_legacy import open_torch_legacy

        return open_torch_legacy(path, key)
    if kind == "zip":
        return _open_zip(path, key)
    raise CheckpointError(f"{quote(path)}: expected tensors, found JSON", "give the weights file")


def _open_zip(path: str, key: str | None) -> Contents:
    from specinspect.checkpoint.archive import open_archive
    from specinspect.checkpoint.npz import is_npz, open_npz
    from specinspect.checkpoint.torch_export import is_torch_export, open_torch_export
    from specinspect.checkpoint.torch_zip import find_root, open_torch_zip

    archive = open_archive(path)
    if is_npz(archive):
        return open_npz(archive, key)
    if is_torch_export(archive):
        return open_torch_export(archive, key)
    root = find_root(archive)
    if root is not None:
        return open_torch_zip(archive, root, key)
    names = {name.split("/")[-1] for name in archive.members}
    found, hint = f"a zip archive with {quote_list(archive.members)}", "give what is inside"
    if "model.weights.h5" in names:
        found, hint = "a Keras model", "convert it to safetensors first"
    elif "model.json" in names:
        found, hint = "a TorchScript archive from before torch 1.1", "load it with torch and save it again"
    raise CheckpointError(f"{quote(path)}: expected a torch file or .npz, found {found}", hint)
