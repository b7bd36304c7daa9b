"""Zip-format torch files: `torch.save` since 1.6, and TorchScript archives."""

from __future__ import annotations

from specinspect.checkpoint.archive import Archive
from specinspect.checkpoint.contents import Contents
from specinspect.checkpoint.files import damaged
from specinspect.checkpoint.inert import StorageRef
from specinspect.checkpoint.statedict import choose
from specinspect.checkpoint.tensors import FileSpan, ZipMember
from specinspect.checkpoint.text import quote
from specinspect.checkpoint.torch_pickle import describer
from specinspect.checkpoint.unpickle import unpickle

LONGEST_PICKLE = 1 << 30
"""Bytes of data.pkl, which is read as a whole; that of the largest published models has a few MB."""


def find_root(archive: Archive) -> str | None:
    """Return the folder (with '/') that holds data.pkl, or None where there is no data.pkl."""
    roots = [name.removesuffix("data.pkl") for name in archive.members if name.split("/")[-1] == "data.pkl"]
    return min(roots, key=len) if roots else None


def open_torch_zip(archive: Archive, root: str, key: str | None = None) -> Contents:
    """Read data.pkl of a torch archive, and where its storages lie.

    Raises:
        CheckpointError: damaged, or no state dict that can be told from the others.
    """
    path = archive.path
    scripted = f"{root}constants.pkl" in archive.members and any(
        name.startswith(f"{root}code/") for name in archive.members
    )
    value, placeholders = unpickle(path, archive.read(f"{root}data.pkl", LONGEST_PICKLE))

    def resolve(storage: StorageRef) -> FileSpan | ZipMember:
        return archive.storage(f"{root}data/{storage.key}")

    chosen = choose(value, key, describer(path, resolve, _byteorder(archive, root)), quote(path))
    return Contents(
        "torchscript" if scripted else "torch-zip",
        chosen.tensors,
        key=chosen.key,
        modules=chosen.modules,
        assumptions=chosen.assumptions,
        skipped=chosen.skipped,
        placeholders=placeholders,
    )


def _byteorder(archive: Archive, root: str) -> str:
    name = f"{root}byteorder"
    if name not in archive.members:
        return "<"
    order = archive.read(name, 100)
    if order not in {b"little", b"big"}:
        raise damaged(archive.path, "byteorder 'little' or 'big'", quote(order.decode("latin1")))
    return "<" if order == b"little" else ">"
