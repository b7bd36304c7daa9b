"""NumPy .npz: a zip archive of .npy files, whose headers are parsed without numpy."""

from __future__ import annotations

import ast
import warnings
from math import prod

from specinspect.checkpoint.archive import Archive, Member, peek
from specinspect.checkpoint.contents import Contents, refuse_key
from specinspect.checkpoint.dtypes import NUMPY
from specinspect.checkpoint.files import damaged
from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.read import row_major
from specinspect.checkpoint.tensors import ITEMSIZE, FileSpan, TensorInfo, ZipMember
from specinspect.checkpoint.text import quote

_LONGEST_HEADER = 1 << 12
"""Bytes; numpy pads to 64 and needs about 100 for any plain array."""


def is_npz(archive: Archive) -> bool:
    """Whether an archive holds .npy files alone."""
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def open_npz(archive: Archive, key: str | None = None) -> Contents:
    """Read the headers of all arrays.

    Raises:
        CheckpointError: damaged.
    """
    refuse_key(archive.path, key, "an .npz file")
    tensors: dict[str, TensorInfo] = {}
    skipped: list[Skipped] = []
    heads = peek(archive, 12 + _LONGEST_HEADER)
    for member in archive.members.values():
        name = member.name.removesuffix(".npy")
        info = _array(archive.path, member, name, heads[member.name])
        if isinstance(info, str):
            skipped.append(Skipped(name, info))
        else:
            tensors[name] = info
    return Contents("npz", tensors, skipped=tuple(skipped))


def _array(path: str, member: Member, name: str, head: bytes) -> TensorInfo | str:
    if head[:6] != b"\x93NUMPY" or len(head) < 12:
        raise damaged(path, f"an .npy header in {quote(member.name)}", "other bytes")
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _LONGEST_HEADER or start > member.nbytes:
        raise damaged(path, f"an .npy header within {quote(member.name)}", f"a header length of {length}")
    descr, fortran, shape = _header(path, member.name, head[8 + width : start])
    if not isinstance(descr, str):
        return "a structured array"
    dtype = NUMPY.get(descr[1:])
    if dtype is None:
        what = "Python objects" if descr[1:2] == "O" else f"numpy dtype {quote(descr)}"
        return f"stored as {what}, which is not read here"
    expected = prod(shape) * ITEMSIZE[dtype]
    if member.nbytes - start != expected:
        raise damaged(path, f"{expected} bytes of array {quote(name)}", f"{member.nbytes - start}")
    storage: FileSpan | ZipMember
    if member.offset is None:
        storage = ZipMember(path, member.name, expected, skip=start)
    else:
        storage = FileSpan(path, member.offset + start, expected)
    strides = row_major(shape[::-1])[::-1] if fortran and len(shape) > 1 else None
    return TensorInfo(name, dtype, shape, storage, 0, strides, ">" if descr[0] == ">" else "<")


def _header(path: str, member: str, text: bytes) -> tuple[object, bool, tuple[int, ...]]:
    try:
        with warnings.catch_warnings():  # the parser warns of odd literals in a damaged header
            warnings.simplefilter("ignore")
            fields = ast.literal_eval(text.decode("utf-8").strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        if (
            type(shape) is tuple
            and all(type(n) is int and 0 <= n < 2**63 for n in shape)
            and len(shape) <= 64
        ):
            return descr, bool(fortran), shape
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        pass
    raise damaged(path, f"descr, fortran_order and shape in {quote(member)}", "another .npy header")
