"""What an unpickled file is made of here: descriptions, never the real objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that a pickle names. It is never looked up."""

    module: str
    name: str


class StandIn:
    """An object whose class is not loaded: takes any arguments and any state, and keeps them as data."""

    __slots__ = ("args", "entries", "items", "state", "type")

    def __init__(self, type_: Global, args: tuple[Any, ...] = ()) -> None:
        """Remember the class and the arguments."""
        self.type = type_
        self.args = args
        self.state: Any = None
        self.entries: dict[Any, Any] = {}
        self.items: list[Any] = []

    @property
    def fields(self) -> Mapping[Any, Any]:
        """The object's attributes, as far as its state is a dict (or a dict beside slots)."""
        if isinstance(self.state, dict):
            return self.state
        if isinstance(self.state, tuple) and self.state and isinstance(self.state[0], dict):
            return self.state[0]
        return {}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A run of elements that lies somewhere in the file."""

    key: str
    dtype: str
    """Short name, or '' for a quantised storage."""
    itemsize: int
    numel: int
    location: str
    start: int = 0
    """First element within the storage called `key` (legacy views)."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A strided view of a storage; counts in elements of `dtype`."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class ArrayRef:
    """A numpy array whose bytes lie in the pickle itself."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        """Start empty: the state follows."""
        self.dtype: NumpyDtype | None = None
        self.shape: tuple[int, ...] = ()
        self.fortran = False
        self.data = b""


class NumpyDtype:
    """A numpy dtype: kind, size and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, order: str = "<") -> None:
        """Remember the code, such as 'f4'."""
        self.code = code
        self.order = order


class Unreadable:
    """A tensor that is there but cannot be read, and why."""

    __slots__ = ("dtype", "reason", "shape")

    def __init__(self, reason: str) -> None:
        """Remember the reason."""
        self.reason = reason
        self.dtype = ""
        self.shape: tuple[int, ...] = ()


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor or array: described, or held in memory."""
    kind = type(value)
    return hasattr(kind, "shape") and hasattr(kind, "dtype")


def children(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield what an object holds, as (key, value)."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, StandIn):
        yield from value.fields.items()
        yield from value.entries.items()
        yield from enumerate(value.items)


def is_container(value: object) -> bool:
    """Whether `children` may yield anything."""
    return isinstance(value, Mapping | list | tuple | StandIn)


def count_tensors(root: object) -> int:
    """Return how many different tensors an object holds, however deep or cyclic it is."""
    stack, seen, count = [root], {id(root)}, 0
    while stack:
        value = stack.pop()
        if is_tensor(value):
            count += 1
            continue
        for _, child in children(value):
            if (is_tensor(child) or is_container(child)) and id(child) not in seen:
                seen.add(id(child))
                stack.append(child)
    return count
