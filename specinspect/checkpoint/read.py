"""One tensor's bytes: mapped where they lie uncompressed, inflated or copied where they do not."""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING

from specinspect.checkpoint.dtypes import TO_TORCH
from specinspect.checkpoint.files import damaged, file_size, open_regular, read_exactly
from specinspect.checkpoint.tensors import ITEMSIZE, FileSpan, InMemory, TensorInfo, ZipMember
from specinspect.checkpoint.text import quote

if TYPE_CHECKING:
    import torch

    Buffer = bytearray | mmap.mmap


def read_tensor(info: TensorInfo) -> torch.Tensor:
    """Return a tensor on the CPU in its stored dtype, shape and strides.

    The bytes are mapped copy-on-write: nothing is read before it is used; the mapping goes with the tensor.

    Raises:
        CheckpointError: the file is gone, became shorter, or does not hold what its header said.
    """
    if isinstance(info.storage, InMemory):
        return info.storage.tensor.detach().cpu()
    if info.size == 0:
        return _empty(info)
    first, nbytes = byte_range(info)
    if isinstance(info.storage, FileSpan):
        buffer, start = _map(info.storage.path, info.storage.offset + first, nbytes)
    else:
        buffer, start = inflated(info.storage, first)
    return view_bytes(buffer, start, info)


def view_bytes(buffer: Buffer, start: int, info: TensorInfo) -> torch.Tensor:
    """Return the tensor whose first element lies at byte `start` of a writable buffer.

    The caller has checked that the buffer holds the whole view.
    """
    import torch

    if info.size == 0:
        return _empty(info)
    itemsize = ITEMSIZE[info.dtype]
    count = extent(info)
    if start % itemsize:
        # Legacy files put storages anywhere; torch's kernels want aligned data.
        with memoryview(buffer) as view:
            buffer, start = bytearray(view[start : start + count * itemsize]), 0
    data = torch.frombuffer(buffer, dtype=torch.uint8, count=count * itemsize, offset=start)
    if (info.byteorder == ">") != (sys.byteorder == "big"):
        word = itemsize // 2 if info.dtype in {"c64", "c128"} else itemsize
        data = data.view(-1, word).flip(1).view(-1)
    typed = data.view(getattr(torch, TO_TORCH[info.dtype]))
    return typed.as_strided(info.shape, row_major(info.shape) if info.strides is None else info.strides)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a contiguous tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def extent(info: TensorInfo) -> int:
    """Return how many elements lie between a view's first and last one, both included."""
    if info.strides is None or info.size == 0:
        return info.size
    return 1 + sum((size - 1) * step for size, step in zip(info.shape, info.strides, strict=True))


def byte_range(info: TensorInfo) -> tuple[int, int]:
    """Return where a view lies in its storage: first byte, and how many.

    Raises:
        CheckpointError: not within the storage.
    """
    assert not isinstance(info.storage, InMemory)
    itemsize = ITEMSIZE[info.dtype]
    first, nbytes = info.offset * itemsize, extent(info) * itemsize
    if first < 0 or first + nbytes > info.storage.nbytes:
        raise damaged(
            info.storage.path,
            f"tensor {quote(info.name)} within the {info.storage.nbytes} bytes of its storage",
            f"a view of bytes {first} to {first + nbytes}",
        )
    return first, nbytes


def _map(path: str, offset: int, nbytes: int) -> tuple[Buffer, int]:
    with open_regular(path) as file:
        # A mapping that reaches beyond the end of the file kills the process when it is touched.
        size = file_size(file)
        if offset + nbytes > size:
            raise damaged(path, f"tensor data up to byte {offset + nbytes}", f"a file of {size} bytes")
        start = offset % mmap.ALLOCATIONGRANULARITY
        begin = offset - start
        try:
            return mmap.mmap(file.fileno(), start + nbytes, access=mmap.ACCESS_COPY, offset=begin), start
        except OSError:
            # No more file descriptors (each mapping holds one), or a file system that cannot map.
            return bytearray(read_exactly(file, offset, nbytes, "tensor data")), 0


def inflated(member: ZipMember, first: int) -> tuple[Buffer, int]:
    """Return a deflated member's bytes, and where the byte `first` of its data lies in them."""
    from specinspect.checkpoint.archive import inflate_member

    return inflate_member(member), member.skip + first


def _empty(info: TensorInfo) -> torch.Tensor:
    import torch

    return torch.empty(info.shape, dtype=getattr(torch, TO_TORCH[info.dtype]))
