"""A tensor's bytes as they are stored, without torch: what identifies its content."""

from __future__ import annotations

from collections.abc import Iterator

from specinspect.checkpoint.files import open_regular, read_exactly
from specinspect.checkpoint.read import byte_range, inflated, read_tensor
from specinspect.checkpoint.tensors import FileSpan, InMemory, TensorInfo

_PIECE = 1 << 20


def stored_bytes(info: TensorInfo) -> Iterator[memoryview]:
    """Yield the bytes from a view's first to its last element, at most 1 MiB at a time.

    A piece is only valid until the next one is asked for. What lies in a file comes as it lies there
    (`info.strides` and `info.byteorder` say how to read it), what is in memory row by row. Files are read,
    not mapped, so that a large tensor does not count as memory of this process.

    Raises:
        CheckpointError: the file is gone, became shorter, or does not hold what its header said.
    """
    if info.size == 0:
        return
    if isinstance(info.storage, InMemory):
        import torch

        flat = read_tensor(info).resolve_conj().resolve_neg().contiguous().reshape(-1)
        view = memoryview(flat.view(torch.uint8).numpy().data)
        yield from (view[at : at + _PIECE] for at in range(0, len(view), _PIECE))
        return
    first, nbytes = byte_range(info)
    if not isinstance(info.storage, FileSpan):
        whole, start = inflated(info.storage, first)
        view = memoryview(whole)[start : start + nbytes]
        yield from (view[at : at + _PIECE] for at in range(0, len(view), _PIECE))
        return
    with open_regular(info.storage.path) as file:
        buffer = bytearray(min(_PIECE, nbytes))
        piece, left = memoryview(buffer), nbytes
        file.seek(info.storage.offset + first)
        while left:
            count = file.readinto(piece[:left])  # type: ignore[attr-defined]
            if not count:
                read_exactly(file, info.storage.offset + first, nbytes, "tensor data")  # says what is wrong
                return
            yield piece[:count]
            left -= count
