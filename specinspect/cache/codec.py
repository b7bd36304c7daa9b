"""Dataclasses to JSON and back, exactly, driven by their type hints.

A field that is added to a dataclass is kept without a change here, as long as its type is made of: bool, int,
float, str, None, Literal, unions, tuples, lists, mappings with string keys, numpy arrays of float64 or int64,
and dataclasses of these. Floats keep every bit (`repr` gives the shortest text that reads back as the same
number; arrays are kept as bytes).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints


class MismatchError(TypeError):
    """A value is not of the type that its hint says."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one type are written as JSON and read back."""

    shape: str
    """The type as text, with every field of every dataclass in it."""
    fits: Callable[[Any], bool]
    """Whether a value looks like one of this type, from the outside; tells the members of a union apart."""
    encode: Callable[[Any], Any]
    """Raises MismatchError."""
    decode: Callable[..., Any]
    """Takes the data, and of a dataclass the fields that were not written. Raises an exception of any type
    where the data is not what `encode` makes."""


@cache
def codec(hint: Any, given: tuple[str, ...] = ()) -> Codec:
    """Return the codec of a type.

    Args:
        hint: a type, as an annotation says it.
        given: fields of the dataclass `hint` that are not written: whoever reads has them.

    Raises:
        MismatchError: the type is made of something that is not supported.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, _Array):
        return _array(hint.dtype)
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass(hint, given)
    if hint in _SCALARS:
        return _scalar((hint,))
    if origin is Literal:
        return _literal(arguments)
    if origin in {Union, UnionType}:
        return _union(arguments)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _fixed(arguments)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(arguments)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return _items(list if origin is list else tuple, arguments[0])
    raise MismatchError(f"results of type {hint!r} cannot be kept")


# Scalars

_SCALARS: Mapping[Any, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (float, int),  # a whole number may stand for a float, and is written as it is
    str: (str,),
    NoneType: (NoneType,),
}


def _scalar(hints: Sequence[Any]) -> Codec:
    kinds = frozenset(kind for hint in hints for kind in _SCALARS[hint])

    def fits(value: Any) -> bool:
        return type(value) in kinds

    def encode(value: Any) -> Any:
        if type(value) in kinds:
            return value
        if float in kinds and isinstance(value, float):  # numpy's float64
            return float(value)
        raise MismatchError(f"expected {shape}, got {value!r}")

    def decode(data: Any) -> Any:
        if type(data) not in kinds:
            raise MismatchError(f"expected {shape}, got {data!r}")
        return data

    shape = "|".join(hint.__name__ for hint in hints)
    return Codec(shape, fits, encode, decode)


def _literal(values: Sequence[Any]) -> Codec:
    def check(value: Any) -> Any:
        if type(value) is not str or value not in values:
            raise MismatchError(f"expected one of {values!r}, got {value!r}")
        return value

    return Codec(f"Literal{list(values)!r}", lambda value: value in values, check, check)


def _union(hints: Sequence[Any]) -> Codec:
    """Scalars stand for themselves; of several other types the number says which."""
    if all(hint in _SCALARS for hint in hints):
        return _scalar(hints)
    members = [codec(hint) for hint in hints]

    def encode(value: Any) -> Any:
        if value is None and NoneType in hints:
            return None
        for number, member in enumerate(members):
            if member.fits(value):
                return [number, member.encode(value)]
        raise MismatchError(f"expected {shape}, got {value!r}")

    def decode(data: Any) -> Any:
        if data is None and NoneType in hints:
            return None
        number, inner = data
        if type(number) is not int or not 0 <= number < len(members):
            raise MismatchError(f"expected the number of a member of {shape}, got {number!r}")
        return members[number].decode(inner)

    shape = "|".join(member.shape for member in members)
    return Codec(shape, lambda value: any(member.fits(value) for member in members), encode, decode)


# Containers


def _items(kind: type[list[Any]] | type[tuple[Any, ...]], hint: Any) -> Codec:
    item = codec(hint)

    def encode(value: Any) -> list[Any]:
        if type(value) is not kind:
            raise MismatchError(f"expected {shape}, got {value!r}")
        return [item.encode(entry) for entry in value]

    def decode(data: Any) -> Any:
        return kind([item.decode(entry) for entry in _listed(data)])

    shape = f"{kind.__name__}[{item.shape}]"
    return Codec(shape, lambda value: type(value) is kind, encode, decode)


def _fixed(hints: Sequence[Any]) -> Codec:
    items = [codec(hint) for hint in hints]

    def encode(value: Any) -> list[Any]:
        if type(value) is not tuple:
            raise MismatchError(f"expected {shape}, got {value!r}")
        return [item.encode(entry) for item, entry in zip(items, value, strict=True)]

    def decode(data: Any) -> Any:
        return tuple(item.decode(entry) for item, entry in zip(items, _listed(data), strict=True))

    shape = f"tuple[{','.join(item.shape for item in items)}]"
    return Codec(shape, lambda value: type(value) is tuple, encode, decode)


def _mapping(hints: Sequence[Any]) -> Codec:
    if hints[0] is not str:
        raise MismatchError(f"mappings with keys of type {hints[0]!r} cannot be kept")
    item = codec(hints[1])

    def encode(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(type(key) is str for key in value):
            raise MismatchError(f"expected {shape}, got {value!r}")
        return {key: item.encode(entry) for key, entry in value.items()}

    def decode(data: Any) -> Any:
        if type(data) is not dict:
            raise MismatchError(f"expected an object, got {data!r}")
        return {key: item.decode(entry) for key, entry in data.items()}

    shape = f"mapping[{item.shape}]"
    return Codec(shape, lambda value: isinstance(value, Mapping), encode, decode)


def _dataclass(cls: type, given: tuple[str, ...]) -> Codec:
    hints = get_type_hints(cls, localns={"np": _Numpy, "NDArray": _Array})
    names = [item.name for item in fields(cls) if item.init and item.name not in given]
    members = [(name, codec(hints[name])) for name in names]

    def encode(value: Any) -> list[Any]:
        if type(value) is not cls:
            raise MismatchError(f"expected {cls.__name__}, got {value!r}")
        return [member.encode(getattr(value, name)) for name, member in members]

    def decode(data: Any, **others: Any) -> Any:
        pairs = zip(members, _listed(data), strict=True)
        return cls(**others, **{name: member.decode(entry) for (name, member), entry in pairs})

    shape = f"{cls.__name__}({','.join(f'{name}:{member.shape}' for name, member in members)})"
    return Codec(shape, lambda value: type(value) is cls, encode, decode)


def _listed(data: Any) -> list[Any]:
    if type(data) is not list:
        raise MismatchError(f"expected a list, got {data!r}")
    return data


# Arrays


class _Array:
    """Stands for NDArray in hints, so that reading an entry without arrays needs no numpy."""

    dtype: ClassVar[str] = ""

    def __class_getitem__(cls, dtype: str) -> type[_Array]:
        return type(f"Array_{dtype}", (_Array,), {"dtype": dtype})


class _Numpy:
    """Stands for numpy in hints."""

    float64 = "<f8"
    int64 = "<i8"


def _array(dtype: str) -> Codec:
    def fits(value: Any) -> bool:
        return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"

    def encode(value: Any) -> list[Any]:
        if not fits(value) or value.dtype.kind + str(value.dtype.itemsize) != dtype[1:]:
            raise MismatchError(f"expected an array of {dtype}, got {value!r}")
        return [list(value.shape), base64.b64encode(value.astype(dtype).tobytes()).decode("ascii")]

    def decode(data: Any) -> Any:
        import numpy as np

        shape, text = data
        if not all(type(side) is int and side >= 0 for side in shape):
            raise MismatchError(f"expected the sides of an array, got {shape!r}")
        flat = np.frombuffer(base64.b64decode(text, validate=True), dtype)
        return flat.reshape(shape).astype(dtype[1:])  # a copy, that may be written to

    return Codec(f"array[{dtype}]", fits, encode, decode)
