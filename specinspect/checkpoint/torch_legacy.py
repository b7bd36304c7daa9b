"""Legacy torch files: five pickles one after the other, then the storages."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

from specinspect.checkpoint.contents import Contents
from specinspect.checkpoint.files import damaged, file_size, open_regular
from specinspect.checkpoint.inert import StorageRef
from specinspect.checkpoint.statedict import choose
from specinspect.checkpoint.tensors import FileSpan
from specinspect.checkpoint.text import quote
from specinspect.checkpoint.torch_pickle import describer
from specinspect.checkpoint.unpickle import InertUnpickler, naming
from specinspect.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def open_torch_legacy(path: str, key: str | None = None) -> Contents:
    """Read the pickles of a legacy torch file and walk over its storages without touching their elements.

    Raises:
        CheckpointError: damaged, a plain pickle, or no state dict that can be told from the others.
    """
    with open_regular(path) as file:
        size = file_size(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            value, unpickler, keys, byteorder = _load(path, data)
            spans = _locate(path, data, size, unpickler.storages, keys)

    def resolve(storage: StorageRef) -> FileSpan:
        if storage.key not in spans:
            raise damaged(path, f"a storage {quote(storage.key)}", "none of that name")
        return spans[storage.key]

    chosen = choose(value, key, describer(path, resolve, byteorder), quote(path))
    return Contents(
        "torch-legacy",
        chosen.tensors,
        key=chosen.key,
        modules=chosen.modules,
        assumptions=chosen.assumptions,
        skipped=chosen.skipped,
        placeholders=tuple(unpickler.placeholders),
    )


def _load(path: str, data: mmap.mmap) -> tuple[object, InertUnpickler, list[object], str]:
    with naming(path):
        magic = InertUnpickler(data).load()
        if type(magic) is not int or magic != MAGIC:
            raise CheckpointError(
                f"{quote(path)}: expected a torch file, found a plain pickle",
                "save it with torch.save, safetensors or numpy.savez",
            )
        protocol = InertUnpickler(data).load()
        if type(protocol) is not int or protocol != _PROTOCOL:
            raise damaged(path, f"legacy torch protocol {_PROTOCOL}", "another one")
        system = InertUnpickler(data).load()
        unpickler = InertUnpickler(data)
        value = unpickler.load()
        keys = InertUnpickler(data).load()
    if not isinstance(keys, list):
        raise damaged(path, "a list of storages", f"a {type(keys).__name__}")
    little = not isinstance(system, dict) or system.get("little_endian") is not False
    return value, unpickler, keys, "<" if little else ">"


def _locate(
    path: str, data: mmap.mmap, size: int, itemsizes: Mapping[str, int], keys: list[object]
) -> dict[str, FileSpan]:
    """Return where each storage lies: an element count, then the elements, storage after storage."""
    spans: dict[str, FileSpan] = {}
    at = data.tell()
    for key in keys:
        name = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
        if not isinstance(name, str) or name not in itemsizes:
            raise damaged(path, "only storages that a tensor refers to", "another one")
        count = int.from_bytes(data[at : at + 8], "little")
        nbytes = count * itemsizes[name]
        if at + 8 + nbytes > size:
            raise damaged(path, f"{nbytes} bytes of storage {quote(name)}", f"{max(0, size - at - 8)}")
        spans[name] = FileSpan(path, at + 8, nbytes)
        at += 8 + nbytes
    return spans
