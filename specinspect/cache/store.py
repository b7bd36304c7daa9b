"""Entries on disk: bytes under a name, checked when they are read, bounded in size.

    DIRECTORY/CACHEDIR.TAG
    DIRECTORY/results/HH/HEAD-CONTENT       one entry; HH are the first two digits of HEAD

HEAD says what was asked, CONTENT of which bytes (see `keys`), so that a question nobody asked before is known
without reading a byte of the tensors it is about.

Entries that are saved together share one file, which has a name (a hard link) for each of them: making a file
costs ten times as much as giving it a name. A file is its MAGIC, a line for each entry, and their bodies.
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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAGIC = b"specinspect result 2\n"
"""Start of every entry; another number for another format."""
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of specinspect: may be deleted at any time.\n"
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}")
_LINE = re.compile(rb"[0-9a-f]{32}-[0-9a-f]{32} ([0-9]{12}) ([0-9]{12}) ([0-9a-f]{64})\n")
"""Name, offset in the file, length, and the digest of name and body."""
_LINE_LENGTH = 65 + 1 + 12 + 1 + 12 + 1 + 64 + 1
TOGETHER = 64
"""Entries that share a file at most."""
_HEAD = 1 << 14
"""Bytes that hold the lines of so many entries."""
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
        path = self._path(name)
        try:
            if os.path.islink(self._results) or os.path.islink(self._folder(name.head)):  # noqa: PTH114
                return None
            with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_size > self.limit:
                    return None
                body = _opened(file, about.st_size, name)
            with contextlib.suppress(OSError):  # a read-only cache is still of use
                os.utime(path)  # used just now
        except OSError:
            return None
        if body is None:
            with contextlib.suppress(OSError):
                Path(path).unlink()
        return body

    def save(self, name: Name, body: bytes) -> None:
        """Keep an entry: whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        self.save_all([(name, body)])

    def save_all(self, entries: Sequence[tuple[Name, bytes]]) -> None:
        """Keep entries, each whole or not at all.

        Raises:
            OSError: they cannot be written.
        """
        together: list[tuple[Name, bytes]] = []
        held = 0
        for name, body in entries:
            if len(body) + len(MAGIC) + _LINE_LENGTH > self.limit // 8:
                continue
            if len(together) == TOGETHER or held + len(body) + _HEAD > self.limit // 8:
                self._save_file(together)
                together, held = [], 0
            together.append((name, body))
            held += len(body)
        self._save_file(together)

    def _save_file(self, entries: Sequence[tuple[Name, bytes]]) -> None:
        """Write one file and give it the names of its entries."""
        if not entries:
            return
        data, folder = _sealed(entries), self._folder(entries[0][0].head)
        with contextlib.suppress(FileNotFoundError):  # cleared by another process at this very moment
            self._make(folder)
            handle, part = tempfile.mkstemp(dir=folder, prefix=_PART)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                linked = self._link(part, [name for name, _ in entries[1:]])
                os.replace(part, self._path(entries[0][0]))  # noqa: PTH105
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(part).unlink()
                raise
            self._bound(_occupied(len(data)))
            for entry in entries[1 + linked :]:  # a file system without hard links
                self._save_file([entry])

    def _link(self, part: str, names: Sequence[Name]) -> int:
        """Give a file further names; return how many of them, from the first on, could be given."""
        for number, name in enumerate(names):
            self._make(self._folder(name.head))
            path = self._path(name)
            try:
                try:
                    os.link(part, path, follow_symlinks=False)
                except FileExistsError:
                    Path(path).unlink()
                    os.link(part, path, follow_symlinks=False)
            except FileNotFoundError:
                raise
            except (OSError, NotImplementedError):
                return number
        return len(names)

    def contents(self) -> Contents:
        """Count the entries and their bytes."""
        found = [(path, about) for path, about in self._files() if not _is_part(path)]
        return Contents(len(found), _bytes(about for _, about in found))

    def clear(self) -> Contents:
        """Remove every entry, and nothing that is not one. Returns what was removed.

        Raises:
            OSError: an entry cannot be removed.
        """
        found = list(self._files())
        for path, _ in found:
            Path(path).unlink(missing_ok=True)
        entries = [about for path, about in found if not _is_part(path)]
        return Contents(len(entries), _bytes(entries))

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

    def _path(self, name: Name) -> str:
        return os.path.join(self._folder(name.head), str(name))  # noqa: PTH118

    def _make(self, folder: str) -> None:
        for path in (self._results, folder):
            if os.path.islink(path):  # noqa: PTH114
                raise OSError(None, "a link lies in it")
            if os.path.isdir(path):  # noqa: PTH112
                continue
            if path == self._results:
                Path(self.root).mkdir(mode=0o700, parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError), open(Path(self.root, "CACHEDIR.TAG"), "x") as file:  # noqa: PTH123
                    file.write(_TAG)
            Path(path).mkdir(mode=0o700, exist_ok=True)

    def _bound(self, written: int) -> None:
        """Make room: measured at the first entry of a process and after every eighth of the limit."""
        with self._lock:
            if self._unseen is not None and self._unseen + written < self.limit // 8:
                self._unseen += written
                return
            self._unseen = 0
            files: dict[tuple[int, int], list[str]] = {}
            sizes: dict[tuple[int, int], tuple[int, int]] = {}
            """When it was last used, and how much it takes."""
            for path, about in self._files():
                if not _is_part(path):
                    files.setdefault((about.st_dev, about.st_ino), []).append(path)
                    sizes[about.st_dev, about.st_ino] = (about.st_mtime_ns, _occupied(about.st_size))
                elif time.time() - about.st_mtime > _ABANDONED:
                    with contextlib.suppress(OSError):
                        Path(path).unlink()
            total = sum(size for _, size in sizes.values())
            if total <= self.limit:
                return
            for key in sorted(sizes, key=lambda key: (sizes[key][0], files[key])):
                if total <= _LEAST * self.limit:
                    break
                for path in files[key]:
                    with contextlib.suppress(OSError):  # another process was faster
                        Path(path).unlink()
                total -= sizes[key][1]

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


def _bytes(files: Iterable[os.stat_result]) -> int:
    """Return what files take of the disk, each once however many names it has."""
    return sum({(about.st_dev, about.st_ino): _occupied(about.st_size) for about in files}.values())


def _sealed(entries: Sequence[tuple[Name, bytes]]) -> bytes:
    """Return the file of some entries."""
    lines, at = [MAGIC], len(MAGIC) + _LINE_LENGTH * len(entries)
    for name, body in entries:
        lines.append(b"%s %012d %012d %s\n" % (str(name).encode(), at, len(body), _digest(body, name)))
        at += len(body)
    return b"".join([*lines, *(body for _, body in entries)])


def _opened(file: IO[bytes], size: int, name: Name) -> bytes | None:
    """Return what was sealed under this name, None if it is anything else."""
    head = file.read(_HEAD)
    start = head.find(b"\n" + str(name).encode()) + 1
    line = _LINE.match(head, start) if start and head.startswith(MAGIC) else None
    if line is None:
        return None
    at, length = int(line[1]), int(line[2])
    if at + length > size:
        return None
    body = head[at : at + length]
    if len(body) < length:
        file.seek(at)
        body = file.read(length)
    return body if line[3] == _digest(body, name) else None


def _digest(body: bytes, name: Name) -> bytes:
    return hashlib.sha256(f"{name}\n".encode() + body).hexdigest().encode("ascii")
