"""Opening files that may be anything: missing, forbidden, a directory, a pipe, truncated."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError


def stat_path(path: str) -> os.stat_result:
    """Return what a path is.

    Raises:
        CheckpointError: it does not exist or may not be looked at.
    """
    try:
        return os.stat(path)  # noqa: PTH116 - os.stat takes the string that messages show
    except FileNotFoundError:
        raise CheckpointError(
            f"expected a checkpoint file or directory, found nothing at {quote(path)}",
            "check the path; models on a hub have to be downloaded first",
        ) from None
    except (OSError, ValueError) as error:
        raise _os_error(path, error) from None


@contextmanager
def open_regular(path: str) -> Iterator[IO[bytes]]:
    """Open a regular file unbuffered for reading; never block on a pipe or a device.

    Raises:
        CheckpointError: it is no regular file, or reading it fails.
    """
    if not stat.S_ISREG(stat_path(path).st_mode):
        raise CheckpointError(
            f"expected a regular file, found a {_kind(stat_path(path).st_mode)} at {quote(path)}",
            "give the path of a checkpoint file or of a directory that holds one",
        )
    try:
        with Path(path).open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise _os_error(path, error) from None


def file_size(file: IO[bytes]) -> int:
    """Return the size that the open file has now."""
    return os.fstat(file.fileno()).st_size


def read_exactly(file: IO[bytes], offset: int, count: int, what: str) -> bytes:
    """Return `count` bytes at `offset`; the size is checked first, so a forged count allocates nothing.

    Raises:
        CheckpointError: the file ends before.
    """
    size = file_size(file)
    if offset < 0 or count < 0 or offset + count > size:
        raise CheckpointError(
            f"{quote(file.name)}: expected {what} at bytes {offset} to {offset + count}, "
            f"found a file of {size} bytes",
            "the file is truncated or damaged: fetch it again",
        )
    file.seek(offset)
    parts = []
    while count:
        part = file.read(count)
        if not part:
            raise CheckpointError(f"{quote(file.name)} became shorter while it was read", "try again")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def damaged(path: str, expected: str, found: str) -> CheckpointError:
    """Return the error for bytes that are not what their format asks for."""
    return CheckpointError(
        f"{quote(path)}: expected {expected}, found {found}",
        "the file is damaged or truncated: fetch or save it again",
    )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "named pipe",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _os_error(path: str, error: OSError | ValueError) -> CheckpointError:
    if isinstance(error, PermissionError):
        return CheckpointError(
            f"expected a readable file, found no permission to read {quote(path)}", "chmod +r"
        )
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return CheckpointError(f"cannot read {quote(path)}: {reason}", "check the path and the disk")
