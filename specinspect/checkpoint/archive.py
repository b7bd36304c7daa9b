"""Zip archives as maps from member names to byte ranges: stored members can be memory-mapped in place."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from specinspect.checkpoint.files import damaged, file_size, open_regular, read_exactly
from specinspect.checkpoint.tensors import FileSpan, ZipMember
from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MOST_DEFLATED = 1032
"""Deflate cannot shrink further than this, so a member that declares more is forged."""
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive."""

    name: str
    offset: int | None
    """Where its bytes lie in the outer file; None when they are deflated."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """The directory of a zip file, or of a zip file stored inside another file."""

    path: str
    members: Mapping[str, Member]
    outer: FileSpan

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a member.

        Raises:
            CheckpointError: no such member, more than `limit` bytes, or damaged.
        """
        member = self.member(name)
        if member.nbytes > limit:
            raise damaged(self.path, f"at most {limit} bytes in {quote(name)}", f"{member.nbytes}")
        if member.offset is None:
            return bytes(inflate(self.outer, name, member.nbytes))
        with open_regular(self.path) as file:
            return read_exactly(file, member.offset, member.nbytes, f"archive member {quote(name)}")

    def member(self, name: str) -> Member:
        """Return what is known of a member.

        Raises:
            CheckpointError: no such member.
        """
        if name not in self.members:
            raise damaged(self.path, f"an archive member {quote(name)}", "none of that name")
        return self.members[name]

    def storage(self, name: str) -> FileSpan | ZipMember:
        """Return where the bytes of a member are to be read from."""
        member = self.member(name)
        if member.offset is not None:
            return FileSpan(self.path, member.offset, member.nbytes)
        if self.outer.offset:
            raise damaged(self.path, f"{quote(name)} stored in a nested archive", "a deflated member")
        return ZipMember(self.path, name, member.nbytes)


class _Window(io.RawIOBase):
    """A byte range of an open file as a file of its own."""

    def __init__(self, file: IO[bytes], offset: int, nbytes: int) -> None:
        self._file, self._offset, self._nbytes, self._at = file, offset, nbytes, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._nbytes)[whence]
        if at < 0:
            msg = "seek before the start"
            raise OSError(msg)
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        with memoryview(buffer) as view:
            count = min(len(view), max(0, self._nbytes - self._at))
            self._file.seek(self._offset + self._at)
            data = self._file.read(count)
            view[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_archive(path: str, inside: FileSpan | None = None) -> Archive:
    """Read the directory of a zip file and the local headers of its members.

    Args:
        path: the file.
        inside: the byte range of the archive, where it lies stored inside another file.

    Raises:
        CheckpointError: no sound zip archive.
    """
    with _zip(path, inside) as (archive, file, outer):
        members: dict[str, Member] = {}
        for info in archive.infolist():
            if not info.is_dir():
                members[info.filename] = _member(path, file, outer, info)
        return Archive(path, members, outer)


def inflate(outer: FileSpan, name: str, nbytes: int) -> bytearray:
    """Inflate one member, growing with what is really there.

    Raises:
        CheckpointError: it does not hold exactly `nbytes`, or is damaged.
    """
    data = bytearray()
    with _zip(outer.path, outer if outer.offset else None) as (archive, file, whole):
        # Checked again: the file may have changed since it was opened.
        declared = _member(outer.path, file, whole, archive.getinfo(name)).nbytes
        with archive.open(name) as member:
            while len(data) <= nbytes and (chunk := member.read(min(1 << 20, nbytes + 1 - len(data)))):
                data += chunk
    if len(data) != nbytes or declared != nbytes:
        raise damaged(outer.path, f"{nbytes} bytes in archive member {quote(name)}", f"{len(data)} or more")
    return data


def inflate_member(member: ZipMember) -> bytearray:
    """Return all bytes of a deflated member, what stands before the data included.

    Raises:
        CheckpointError: the archive is not what it was when it was opened.
    """
    return inflate(FileSpan(member.path, 0, 0), member.member, member.skip + member.nbytes)


def peek(archive: Archive, count: int) -> dict[str, bytes]:
    """Return at most the first `count` bytes of every member without inflating the rest.

    Raises:
        CheckpointError: damaged.
    """
    heads: dict[str, bytes] = {}
    with _zip(archive.path, archive.outer if archive.outer.offset else None) as (opened, file, _outer):
        for name, member in archive.members.items():
            length = min(count, member.nbytes)
            if member.offset is not None:
                heads[name] = read_exactly(file, member.offset, length, f"archive member {quote(name)}")
            else:
                with opened.open(name) as stream:
                    heads[name] = stream.read(length)
    return heads


@contextmanager
def _zip(path: str, inside: FileSpan | None) -> Iterator[tuple[zipfile.ZipFile, IO[bytes], FileSpan]]:
    with open_regular(path) as file:
        size = file_size(file)
        outer = inside or FileSpan(path, 0, size)
        if outer.offset + outer.nbytes > size:
            raise damaged(
                path, f"an archive of {outer.nbytes} bytes at {outer.offset}", f"a file of {size} bytes"
            )
        window = io.BufferedReader(_Window(file, outer.offset, outer.nbytes))
        try:
            with zipfile.ZipFile(window) as archive:
                yield archive, file, outer
        except (CheckpointError, OSError):
            raise
        except Exception as error:  # a forged directory makes zipfile raise nearly anything
            found = str(error) or type(error).__name__
            raise damaged(path, "a whole zip archive", f"{quote(found)}") from None


def _member(path: str, file: IO[bytes], outer: FileSpan, info: zipfile.ZipInfo) -> Member:
    name = info.filename
    if info.flag_bits & _ENCRYPTED:
        raise CheckpointError(
            f"{quote(path)}: archive member {quote(name)} is encrypted", "save it unencrypted"
        )
    # The central directory's name and extra lengths differ from the local ones (torch pads the local header
    # to align the data), so only the local header says where the data starts.
    at = outer.offset + info.header_offset
    local = read_exactly(file, at, _LOCAL_HEADER.size, f"the local header of {quote(name)}")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(local)
    if magic != b"PK\x03\x04":
        raise damaged(path, f"a zip header for member {quote(name)} at byte {at}", "other bytes")
    offset = at + _LOCAL_HEADER.size + name_length + extra_length
    if offset + info.compress_size > outer.offset + outer.nbytes:
        raise damaged(
            path, f"{info.compress_size} bytes for archive member {quote(name)}", "the end of the file before"
        )
    if info.compress_type == zipfile.ZIP_STORED:
        if info.file_size != info.compress_size:
            raise damaged(path, f"equal sizes for stored member {quote(name)}", "different ones")
        return Member(name, offset, info.file_size)
    if info.file_size > _MOST_DEFLATED * info.compress_size + 64:
        raise damaged(
            path,
            f"archive member {quote(name)} to inflate at most {_MOST_DEFLATED} times",
            f"{info.compress_size} bytes that claim to hold {info.file_size}",
        )
    return Member(name, None, info.file_size)
