"""Entries on disk: bytes under a name, checked when they are read, bounded in size.

    DIRECTORY/CACHEDIR.TAG
    DIRECTORY/results/HH/HEAD-CONTENT       one entry; HH are the first two digits of HEAD

HEAD says what was asked, CONTENT of which bytes (see `keys`), so that a question nobody asked before is known
without reading a byte of the tensors it is about.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"specinspect result 1\n"
"""Start of every entry; another number for another format."""
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of specinspect: may be deleted at any time.\n"
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}")
_PART = ".part-"
_ABANDONED = 3600.0
"""Seconds after which a file that was never finished is taken for that of a killed process."""
_LEAST = 0.8
"""Down to which share of the limit room is made, so that it is not made for every entry."""
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""No link is followed, and opening a pipe does not wait for its writer."""


@dataclass(frozen=True, slots=True)
class Name:
    """Of an entry: what was asked, and of which bytes. 32 hexadecimal digits each."""

    head: str
    content: str

    def __str__(self) -> str:
        """Return the file's name."""
        return f"{self.head}-{self.content}"


@dataclass(frozen=True, slots=True)
class Contents:
    """How much is in the cache."""

    entries: int
    bytes: int
    """On disk, in whole blocks."""


class Store:
    """A directory of entries. Any number of processes and threads may use it at the same time.

    Args:
        root: the directory; made when the first entry is saved.
        limit: bytes on disk of all entries together. Exceeded, until it is next looked at, by at most an
            eighth of it per process that is writing.
    """

    def __init__(self, root: str, limit: int) -> None:
        self.root = root
        self.limit = limit
        self._results = os.path.join(root, "results")  # noqa: PTH118 - paths of the hot loop are strings
        self._lock = threading.Lock()
        self._unseen: int | None = None
        """Bytes written since the directory was last measured; None before the first time."""

    def __reduce__(self) -> tuple[type[Store], tuple[str, int]]:
        """Travel to another process as what it was made from."""
        return (Store, (self.root, self.limit))

    def asked_before(self, head: str) -> bool:
        """Say whether there is an entry for this request, whatever the bytes."""
        try:
            return any(name.startswith(head) for name in os.listdir(self._folder(head)))  # noqa: PTH208
        except OSError:
            return False

    def load(self, name: Name) -> bytes | None:
        """Return an entry, None if there is none or not exactly what was saved."""
        path = os.path.join(self._folder(name.head), str(name))  # noqa: PTH118
        try:
            if os.path.islink(self._results) or os.path.islink(self._folder(name.head)):  # noqa: PTH114
                return None
            with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_size > self.limit:
                    return None
                data = file.read()
            with contextlib.suppress(OSError):  # a read-only cache is still of use
                os.utime(path)  # used just now
        except OSError:
            return None
        body = _opened(data, name)
        if body is None:
            with contextlib.suppress(OSError):
                Path(path).unlink()
        return body

    def save(self, name: Name, body: bytes) -> None:
        """Keep an entry: whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        data = _sealed(body, name)
        if len(data) > self.limit // 8:
            return
        folder = self._folder(name.head)
        with contextlib.suppress(FileNotFoundError):  # cleared by another process at this very moment
            self._make(folder)
            handle, part = tempfile.mkstemp(dir=folder, prefix=_PART)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(part, os.path.join(folder, str(name)))  # noqa: PTH105, PTH118
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(part).unlink()
                raise
            self._bound(_occupied(len(data)))

    def contents(self) -> Contents:
        """Count the entries and their bytes."""
        sizes = [_occupied(about.st_size) for path, about in self._files() if not _is_part(path)]
        return Contents(len(sizes), sum(sizes))

    def clear(self) -> Contents:
        """Remove every entry, and nothing that is not one. Returns what was removed.

        Raises:
            OSError: an entry cannot be removed.
        """
        count = size = 0
        for path, about in self._files():
            Path(path).unlink(missing_ok=True)
            if not _is_part(path):
                count, size = count + 1, size + _occupied(about.st_size)
        return Contents(count, size)

    def check(self) -> None:
        """Refuse a directory to which others may write: what they put there would be believed.

        Raises:
            OSError: says why.
        """
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(self.root)  # noqa: PTH116
            if not stat.S_ISDIR(about.st_mode):
                raise NotADirectoryError(None, "it is no directory")
            if hasattr(os, "geteuid") and about.st_uid != os.geteuid():
                raise PermissionError(None, "it belongs to another user")
            if os.name == "posix" and about.st_mode & 0o022:
                raise PermissionError(None, "others may write to it (chmod go-w)")

    def _folder(self, head: str) -> str:
        return os.path.join(self._results, head[:2])  # noqa: PTH118

    def _make(self, folder: str) -> None:
        if os.path.isdir(folder) and not os.path.islink(folder) and not os.path.islink(self._results):  # noqa: PTH112, PTH114
            return
        Path(self.root).mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), open(Path(self.root, "CACHEDIR.TAG"), "x") as file:  # noqa: PTH123
            file.write(_TAG)
        for path in (self._results, folder):
            if os.path.islink(path):  # noqa: PTH114
                raise OSError(None, "a link lies in it")
            Path(path).mkdir(mode=0o700, exist_ok=True)

    def _bound(self, written: int) -> None:
        """Make room: measured at the first entry of a process and after every eighth of the limit."""
        with self._lock:
            if self._unseen is not None and self._unseen + written < self.limit // 8:
                self._unseen += written
                return
            self._unseen = 0
            entries = []
            for path, about in self._files():
                if not _is_part(path):
                    entries.append((about.st_mtime_ns, path, _occupied(about.st_size)))
                elif time.time() - about.st_mtime > _ABANDONED:
                    with contextlib.suppress(OSError):
                        Path(path).unlink()
            total = sum(size for _, _, size in entries)
            if total <= self.limit:
                return
            for _, path, size in sorted(entries):
                if total <= _LEAST * self.limit:
                    break
                with contextlib.suppress(OSError):  # another process was faster
                    Path(path).unlink()
                total -= size

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield our own files, finished or not; links are neither followed nor named."""
        if os.path.islink(self._results):  # noqa: PTH114
            return
        with contextlib.suppress(FileNotFoundError), os.scandir(self._results) as folders:
            for folder in folders:
                if not re.fullmatch("[0-9a-f]{2}", folder.name) or not folder.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(folder.path) as files:
                    for file in files:
                        ours = _NAME.fullmatch(file.name) or file.name.startswith(_PART)
                        if ours and file.is_file(follow_symlinks=False):
                            with contextlib.suppress(FileNotFoundError):
                                yield file.path, file.stat(follow_symlinks=False)


def _occupied(size: int) -> int:
    """Return what a file of this size takes of the disk, in blocks of 4 KiB."""
    return -(-size // 4096) * 4096


def _is_part(path: str) -> bool:
    return os.path.basename(path).startswith(_PART)  # noqa: PTH119


def _sealed(body: bytes, name: Name) -> bytes:
    return MAGIC + _digest(body, name) + b"\n" + body


def _opened(data: bytes, name: Name) -> bytes | None:
    """Return what was sealed under this name, None if it is anything else."""
    start = len(MAGIC) + 65
    body = data[start:]
    return body if data[:start] == MAGIC + _digest(body, name) + b"\n" else None


def _digest(body: bytes, name: Name) -> bytes:
    return hashlib.sha256(f"{name}\n".encode() + body).hexdigest().encode("ascii")
