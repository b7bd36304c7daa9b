"""Safetensors: eight bytes of header length, a JSON header, then the tensors without gaps.

Order: the header's own. safetensors sorts names as text when it saves, within each dtype; where a file looks
like that, its order says nothing about the model, and names are sorted naturally (layers.2 before layers.10).
"""

from __future__ import annotations

from math import prod
from typing import Any

from specinspect.checkpoint.contents import Contents, refuse_key
from specinspect.checkpoint.dtypes import SAFETENSORS
from specinspect.checkpoint.files import damaged, file_size, open_regular, read_exactly
from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.names import natural_key
from specinspect.checkpoint.strict_json import parse_object
from specinspect.checkpoint.tensors import ITEMSIZE, FileSpan, TensorInfo
from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError

LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the reference implementation."""


def open_safetensors(path: str, key: str | None = None) -> Contents:
    """Read the header of a safetensors file.

    Raises:
        CheckpointError: the header does not describe the file exactly, as the reference implementation asks.
    """
    refuse_key(path, key, "a safetensors file")
    header, data_start, data_bytes = _read_header(path)
    metadata = _metadata(path, header.pop("__metadata__", {}))
    tensors: dict[str, TensorInfo] = {}
    skipped: list[Skipped] = []
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        dtype_name, shape, begin, end = _entry(path, name, entry, data_bytes)
        spans.append((begin, end, name))
        dtype = SAFETENSORS.get(dtype_name)
        if dtype is None:
            skipped.append(Skipped(name, f"stored as {quote(dtype_name)}, a dtype that is not read here"))
            continue
        expected = prod(shape) * ITEMSIZE[dtype]
        if end - begin != expected:
            raise damaged(
                path,
                f"{expected} bytes for tensor {quote(name)} ({dtype_name} {list(shape)})",
                f"offsets that span {end - begin}",
            )
        tensors[name] = TensorInfo(name, dtype, shape, FileSpan(path, data_start + begin, end - begin))
    _check_cover(path, spans, data_bytes)
    return Contents("safetensors", _in_order(tensors), metadata=metadata, skipped=tuple(skipped))


def _read_header(path: str) -> tuple[dict[str, Any], int, int]:
    with open_regular(path) as file:
        size = file_size(file)
        length = int.from_bytes(read_exactly(file, 0, 8, "a header length"), "little")
        if length > LONGEST_HEADER:
            raise damaged(path, f"a header of at most {LONGEST_HEADER} bytes", f"a header length of {length}")
        data = read_exactly(file, 8, length, "the safetensors header")
    if not data.startswith(b"{"):
        raise damaged(path, "a header that starts with '{'", "other bytes")
    return parse_object(data, path, "a safetensors header"), 8 + length, size - 8 - length


def _metadata(path: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise damaged(path, "__metadata__ that maps text to text", "something else")
    return value


def _entry(path: str, name: str, entry: Any, data_bytes: int) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise damaged(
            path, f"dtype, shape and data_offsets for tensor {quote(name)}", "an entry without them"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise damaged(path, f"a dtype name for tensor {quote(name)}", f"a {type(dtype).__name__}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise damaged(path, f"a shape of non-negative integers for tensor {quote(name)}", quote(shape))
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int for n in offsets)
        or not 0 <= offsets[0] <= offsets[1] <= data_bytes
    ):
        raise damaged(
            path, f"offsets of tensor {quote(name)} within the {data_bytes} bytes of data", quote(offsets)
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def _check_cover(path: str, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Check that the tensors cover the data without overlap, hole or rest."""
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            found = "an overlap with the tensor before" if begin < at else f"a hole of {begin - at} bytes"
            raise damaged(path, f"tensor {quote(name)} to start at data byte {at}", found)
        at = end
    if at != data_bytes:
        raise CheckpointError(
            f"{quote(path)}: expected {at} bytes of tensor data, found {data_bytes}",
            "the header and the data do not belong together: fetch or save it again",
        )


def _in_order(tensors: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    if not _sorted_as_text(tensors):
        return tensors
    return {name: tensors[name] for name in sorted(tensors, key=natural_key)}


def _sorted_as_text(tensors: dict[str, TensorInfo]) -> bool:
    """Whether each dtype stands in one run whose names ascend as text: what saving does to any order."""
    previous: TensorInfo | None = None
    seen: set[str] = set()
    for info in tensors.values():
        if previous is not None and previous.dtype == info.dtype:
            if info.name < previous.name:
                return False
        elif info.dtype in seen:
            return False
        seen.add(info.dtype)
        previous = info
    return True
