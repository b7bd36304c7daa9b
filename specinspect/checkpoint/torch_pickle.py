"""From the descriptions in an unpickled torch file to `TensorInfo`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from specinspect.checkpoint.dtypes import NUMPY
from specinspect.checkpoint.files import damaged
from specinspect.checkpoint.inert import ArrayRef, StorageRef, TensorRef, Unreadable
from specinspect.checkpoint.read import extent, row_major, view_bytes
from specinspect.checkpoint.tensors import ITEMSIZE, FileSpan, InMemory, TensorInfo, ZipMember
from specinspect.checkpoint.text import quote

Resolve = Callable[[StorageRef], FileSpan | ZipMember]
Describe = Callable[[str, object], TensorInfo | str]
"""(name, tensor) → what it is, or why it cannot be read."""

_ALWAYS_ALLOWED = 1 << 20
"""Bytes that an expanded view may seem to have although fewer are stored."""


def describer(path: str, resolve: Resolve, byteorder: str = "<") -> Describe:
    """Return the function that turns the tensors of one file into `TensorInfo`s.

    Args:
        path: the file.
        resolve: where a storage lies in it.
        byteorder: '<' or '>', of the whole file.
    """

    def describe(name: str, value: object) -> TensorInfo | str:
        if isinstance(value, TensorRef):
            return tensor_info(path, name, value, resolve(value.storage), byteorder)
        if isinstance(value, ArrayRef):
            return _array_info(path, name, value)
        return value.reason if isinstance(value, Unreadable) else "not a tensor that can be read here"

    return describe


def tensor_info(
    path: str, name: str, ref: TensorRef, storage: FileSpan | ZipMember, byteorder: str
) -> TensorInfo | str:
    """Return a view of a storage after checking that it stays within it.

    Raises:
        CheckpointError: it does not, or the storage is shorter than the pickle says.
    """
    declared = ref.storage.numel * ref.storage.itemsize
    if declared > storage.nbytes:
        raise damaged(
            path,
            f"{declared} bytes in the storage of tensor {quote(name)}",
            f"{storage.nbytes}",
        )
    itemsize = ITEMSIZE[ref.dtype]
    skipped = ref.storage.start * ref.storage.itemsize
    if skipped % itemsize:
        return f"starts at byte {skipped} of its storage, between two {ref.dtype} elements"
    offset = skipped // itemsize + ref.offset
    strides = None if ref.strides == row_major(ref.shape) else ref.strides
    info = TensorInfo(name, ref.dtype, ref.shape, storage, offset, strides, byteorder)
    end = (offset + extent(info)) * itemsize
    if info.size and (ref.offset < 0 or end > declared):
        raise damaged(
            path,
            f"tensor {quote(name)} within the {declared} bytes of its storage",
            f"a view that ends at byte {end}",
        )
    if info.size * itemsize > max(declared, _ALWAYS_ALLOWED):
        return f"an expanded view: {info.size} elements that share {storage.nbytes // itemsize} stored ones"
    return info


def _array_info(path: str, name: str, array: ArrayRef) -> TensorInfo | str:
    dtype = NUMPY.get(array.dtype.code) if array.dtype else None
    if array.dtype is None or dtype is None:
        return "a numpy array of a dtype that is not read here"
    count = prod(array.shape)
    if len(array.data) != count * ITEMSIZE[dtype]:
        raise damaged(path, f"{count * ITEMSIZE[dtype]} bytes in array {quote(name)}", f"{len(array.data)}")
    span = FileSpan(path, 0, len(array.data))
    strides = row_major(array.shape[::-1])[::-1] if array.fortran else None
    stored = TensorInfo(name, dtype, array.shape, span, 0, strides, array.dtype.order)
    # The bytes stand inside the pickle, which has been read anyway.
    tensor = view_bytes(bytearray(array.data), 0, stored)
    return TensorInfo(name, dtype, array.shape, InMemory(tensor))
