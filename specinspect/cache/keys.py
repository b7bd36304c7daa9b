"""What a result depends on, as short hexadecimal digests.

Bytes are hashed with SHA-256: with the instructions that processors have for it, 1.7 GB/s a thread were
measured (BLAKE2b 1.2), against 0.06 GB/s for the weight spectra of the same bytes alone, which is the least
that is computed of them. It lets go of Python's lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from specinspect._version import __version__
from specinspect.checkpoint.raw import stored_bytes
from specinspect.checkpoint.read import row_major
from specinspect.checkpoint.tensors import InMemory, TensorInfo
from specinspect.settings import Settings

DIGITS = 32
"""Of a digest: 128 bits."""
_SETTLED = 2_000_000_000
"""Nanoseconds after which a file's time stamps tell a further change apart, on every file system."""
_WITHOUT_EFFECT = frozenset(
    {
        *("layers", "exclude", "key", "blocks", "compose"),  # which results, not what is in them
        *("activation", "rules", "model", "model_args"),  # part of each layer's facts
        *("inputs", "device"),  # their content and what was chosen are keys of their own
        *("jobs", "cache"),
    }
)
"""Settings that change no result. A setting that is added is taken to have an effect until it is listed."""
_CONVOLUTIONS = frozenset({"grid", "conv_operator", "conv_pattern"})
"""Settings that only matter to convolutions."""
_FRONT_ENDS = frozenset({"cli", "tui", "plots", "gate", "comparison", "testing"})
"""Rooms that compute no result."""


def deciding(settings: Settings, *, convolution: bool) -> tuple[tuple[str, object], ...]:
    """Return the settings that decide the numbers of a result, convolutions in it or none."""
    return tuple((name, getattr(settings, name)) for name in _names(convolution))


@cache
def _names(convolution: bool) -> tuple[str, ...]:
    without = _WITHOUT_EFFECT if convolution else _WITHOUT_EFFECT | _CONVOLUTIONS
    return tuple(item.name for item in fields(Settings) if item.name not in without)


def digest(value: object) -> str:
    """Return a digest of plain data: None, numbers, text, sequences, mappings with text keys, dataclasses.

    Different values have different digests; a list and a tuple of the same items are the same value. By way
    of JSON, whose encoder in C is ten times faster here than one in Python.

    Raises:
        TypeError: something else.
    """
    return hashlib.sha256(_canonical(value)).hexdigest()[:DIGITS]


def _canonical(value: object) -> bytes:
    """Return text that reads differently for any two values; floats and text are exact in it."""
    return json.dumps(value, default=_dataclass, separators=(",", ":")).encode("ascii")


def _dataclass(value: object) -> dict[str, list[object]]:
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"a {type(value).__name__} cannot be part of a key")
    signature, names = _signature(type(value))
    return {signature: [getattr(value, name) for name in names]}


@cache
def _signature(cls: type) -> tuple[str, tuple[str, ...]]:
    """Return a name for a class that no key of a mapping has, and its fields."""
    names = tuple(item.name for item in fields(cls))
    return f"\0{cls.__qualname__}({','.join(names)})", names


@cache
def program() -> str:
    """Return a digest of everything that turns tensors into results: this package's sources, torch, numpy.

    The sources are read (1 MB in 6 ms) rather than dated, so that neither a checkout that is being worked on
    nor a patched installation is ever served what older code computed, and a reinstallation loses nothing.
    """
    from importlib.metadata import version

    root = Path(__file__).parents[1]
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if inside.parts[0] not in _FRONT_ENDS:
            total.update(b"%s\0" % inside.as_posix().encode() + path.read_bytes() + b"\0")
    return digest([__version__, total.hexdigest(), *(version(name) for name in ("torch", "numpy", "scipy"))])


class Digests:
    """Digests of tensors' bytes; within one run those of an unchanged file are not computed again.

    A file's state is its device, inode, size and times of change. It is relied upon only within one process,
    and only once the last change lies far enough back for a further one to show.
    """

    def __init__(self) -> None:
        self._known: dict[object, tuple[object, str]] = {}
        self._locks: dict[object, threading.Lock] = {}

    def __reduce__(self) -> tuple[type[Digests], tuple[()]]:
        """Start anew in another process."""
        return (Digests, ())

    def of(self, info: TensorInfo) -> str:
        """Return the digest of a tensor's bytes, and of how they are laid out.

        Raises:
            CheckpointError: they cannot be read.
            OSError: the file is gone.
        """
        if isinstance(info.storage, InMemory):  # may be changed in place at any time
            order = "<" if sys.byteorder == "little" else ">"
            return _hashed((info.dtype, info.shape, None, order), stored_bytes(info))
        strides = None if info.strides == row_major(info.shape) else info.strides
        layout = (info.dtype, info.shape, strides, info.byteorder)
        key = (info.storage, info.offset, *layout)
        with self._locks.setdefault(key, threading.Lock()):
            before = _state(info.storage.path)
            state, known = self._known.get(key, (None, ""))
            if state == before:
                return known
            found = _hashed(layout, stored_bytes(info))
            if max(before[-2:]) < time.time_ns() - _SETTLED:
                self._known[key] = (before, found)
            return found


def _hashed(layout: tuple[Any, ...], pieces: Iterable[memoryview]) -> str:
    total = hashlib.sha256(_canonical(layout))
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


def _state(path: str) -> tuple[int, ...]:
    about = os.stat(path)  # noqa: PTH116
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
