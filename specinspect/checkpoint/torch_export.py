"""torch.export archives (.pt2): raw weights beside a JSON table; older ones store a torch file inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from specinspect.checkpoint.archive import Archive, open_archive
from specinspect.checkpoint.contents import Contents, refuse_key
from specinspect.checkpoint.dtypes import TORCH_EXPORT
from specinspect.checkpoint.files import damaged
from specinspect.checkpoint.inert import StorageRef, TensorRef
from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.strict_json import parse_object
from specinspect.checkpoint.tensors import ITEMSIZE, FileSpan, TensorInfo
from specinspect.checkpoint.text import quote, quote_list
from specinspect.checkpoint.torch_pickle import tensor_info
from specinspect.checkpoint.torch_zip import find_root, open_torch_zip
from specinspect.errors import CheckpointError

_CONFIG_SUFFIX = "_weights_config.json"
_OLD_STATE_DICT = "serialized_state_dict.pt"
_LONGEST_CONFIG = 100_000_000


def is_torch_export(archive: Archive) -> bool:
    """Whether an archive is what torch.export.save writes."""
    return any(
        (name.endswith(_CONFIG_SUFFIX) and "/data/weights/" in f"/{name}")
        or name.split("/")[-1] == _OLD_STATE_DICT
        for name in archive.members
    )


def open_torch_export(archive: Archive, key: str | None = None) -> Contents:
    """Read the table of weights of a torch.export archive.

    Raises:
        CheckpointError: damaged, or several models and no key.
    """
    old = next((name for name in archive.members if name.split("/")[-1] == _OLD_STATE_DICT), None)
    if old is not None:
        return replace(_nested(archive, old, key), format="torch-export")
    configs = {
        name.split("/")[-1].removesuffix(_CONFIG_SUFFIX): name
        for name in archive.members
        if name.endswith(_CONFIG_SUFFIX)
    }
    if len(configs) == 1 and (key is None or key in configs):
        key = None
    elif len(configs) == 1:
        refuse_key(archive.path, key, "one exported model")
    elif key not in configs:
        raise CheckpointError(
            f"{quote(archive.path)}: expected one exported model, found {quote_list(configs)}",
            "choose one with --key NAME",
        )
    config = configs[key] if key else next(iter(configs.values()))
    table = parse_object(archive.read(config, _LONGEST_CONFIG), archive.path, "a table of weights").get(
        "config"
    )
    if not isinstance(table, dict):
        raise damaged(archive.path, "a table of weights with 'config'", "none")
    folder = config[: config.rindex("/") + 1]
    tensors: dict[str, TensorInfo] = {}
    skipped: list[Skipped] = []
    for name, entry in table.items():
        info = _weight(archive, folder, name, entry)
        if isinstance(info, str):
            skipped.append(Skipped(name, info))
        else:
            tensors[name] = info
    return Contents("torch-export", tensors, key=key, skipped=tuple(skipped))


def _weight(archive: Archive, folder: str, name: str, entry: Any) -> TensorInfo | str:
    problem = damaged(
        archive.path, f"path, dtype, sizes and strides of weight {quote(name)}", "a malformed entry"
    )
    if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
        raise problem
    member = folder + entry["path_name"]
    if entry.get("use_pickle"):
        inner = _nested(archive, member, None).tensors
        if len(inner) != 1:
            return "pickled by itself in a way that is not read here"
        return replace(next(iter(inner.values())), name=name)
    meta = entry.get("tensor_meta")
    if not isinstance(meta, dict) or type(meta.get("dtype")) is not int:
        raise problem
    dtype = TORCH_EXPORT.get(meta["dtype"])
    if dtype is None:
        return f"stored as ScalarType {meta['dtype']}, a dtype that is not read here"
    shape, strides = _ints(meta.get("sizes")), _ints(meta.get("strides"))
    offset = _ints([meta.get("storage_offset")])
    if shape is None or strides is None or offset is None or len(shape) != len(strides):
        raise problem
    storage = archive.storage(member)
    stored = StorageRef(member, dtype, ITEMSIZE[dtype], storage.nbytes // ITEMSIZE[dtype], "cpu")
    return tensor_info(archive.path, name, TensorRef(stored, dtype, offset[0], shape, strides), storage, "<")


def _nested(archive: Archive, name: str, key: str | None) -> Contents:
    storage = archive.storage(name)
    if not isinstance(storage, FileSpan):
        raise damaged(archive.path, f"{quote(name)} stored uncompressed", "a deflated member")
    inner = open_archive(archive.path, storage)
    root = find_root(inner)
    if root is None:
        raise damaged(archive.path, f"a torch file in member {quote(name)}", "no data.pkl")
    return open_torch_zip(inner, root, key)


def _ints(value: object) -> tuple[int, ...] | None:
    """Return sizes as the schema writes them: [{"as_int": 3}, …]."""
    if not isinstance(value, list) or len(value) > 64:
        return None
    found = [item.get("as_int") if isinstance(item, dict) else None for item in value]
    if not all(type(n) is int and 0 <= n < 2**63 for n in found):
        return None
    return tuple(n for n in found if n is not None)
