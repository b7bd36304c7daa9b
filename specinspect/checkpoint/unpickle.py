"""An unpickler that executes nothing and imports nothing.

It is the pure-Python unpickler of the standard library with every opcode replaced that could call
something, set an attribute, hash a foreign object or allocate what a length field claims. Globals become
`Global` records; calls go through a table of functions of this module. The C unpickler is no base for this:
it allocates its memo by the largest index that a file names, and its opcodes cannot be replaced.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from specinspect.checkpoint.dtypes import QUANTISED_STORAGES, TORCH, TORCH_STORAGES
from specinspect.checkpoint.inert import (
    ArrayRef,
    Global,
    NumpyDtype,
    StandIn,
    StorageRef,
    TensorRef,
    Unreadable,
)
from specinspect.checkpoint.tensors import ITEMSIZE
from specinspect.checkpoint.text import quote
from specinspect.errors import CheckpointError

_PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections"}
_RESULT = Global("", "result of a call")
_HARMLESS = frozenset(
    {"bool", "bytearray", "bytes", "complex", "float", "int", "object", "range", "slice", "str", "type"}
)


# Any: type stubs do not show what the base class keeps (stack, memo, dispatch).
_Base: Any = pickle._Unpickler


class _Stop(Exception):  # noqa: N818 - not an error
    def __init__(self, value: Any) -> None:
        self.value = value


class InertUnpickler(_Base):  # type: ignore[misc]
    """Reads one pickle after the other from a buffer as plain data, `StandIn`s and tensor descriptions.

    Args:
        data: the bytes; a read-only mapping of the file will do.
    """

    def __init__(self, data: io.BytesIO | Any) -> None:
        """Prepare to read from the current position of `data`."""
        super().__init__(data, encoding="utf-8")
        self._data = data
        self.placeholders: dict[str, None] = {}
        self.storages: dict[str, int] = {}
        """Name of each storage → bytes per element."""
        self._spent = 0

    # -- what the base class calls

    def find_class(self, module: str, name: str) -> Any:
        """Return a record of the name; nothing is looked up."""
        module = _PYTHON2_MODULES.get(module, module)
        found = Global(module, name)
        if not _is_known(found):
            self.placeholders[f"{module}.{name}"] = None
        return found

    def persistent_load(self, pid: Any) -> Any:
        """Return the description of a storage."""
        if not isinstance(pid, tuple) or len(pid) < 2:
            return _fail("a storage reference that is no tuple")
        kind, *rest = pid
        if isinstance(kind, bytes):
            kind = kind.decode("ascii")
        if kind == "module":  # legacy files wrap module classes together with their source
            return rest[0]
        if kind != "storage" or len(rest) < 4:
            return _fail("an unknown kind of reference")
        storage = _storage(*rest[:5])
        self.storages.setdefault(storage.key, storage.itemsize)
        return storage

    def spend(self, count: int) -> None:
        """Bound copying: repeating a reference to one long list must not fill the memory."""
        self._spent += count
        if self._spent > 4 * self._data.tell() + 1000:
            _fail("a pickle that copies the same data again and again")

    def call(self, function: Any, args: Any) -> Any:
        """Do what REDUCE and its kin ask for, as far as it is known to be harmless."""
        if type(args) is not tuple:
            return _fail("arguments that are no tuple")
        if type(function) is not Global:
            return StandIn(_RESULT, args)
        handler = _HANDLERS.get((function.module, function.name))
        if handler is not None:
            return handler(self, *args)
        if function.module in {"torch", "torch.cuda"} and function.name in TORCH_STORAGES:
            return Unreadable("a bare storage, not a tensor")
        return StandIn(function, args)

    # -- opcodes that could act

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.stack.append(self.call(klass, tuple(args)))

    def get_extension(self, code: int) -> None:
        """Refuse copyreg extensions: they live in a process, not in a file."""
        _fail(f"extension code {code}")

    def _decode_string(self, value: bytes) -> str | bytes:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

    def _reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def _newobj_ex(self) -> None:
        self.stack.pop()
        self._reduce()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, StandIn):
            target.state = state
        elif isinstance(target, ArrayRef):
            _fill_array(target, state)
        elif isinstance(target, NumpyDtype) and isinstance(state, tuple) and len(state) > 1:
            target.order = ">" if state[1] == ">" else "<"
        # Attributes of anything else (OrderedDict's _metadata) are not needed; classes must not be changed.

    def _append(self) -> None:
        value = self.stack.pop()
        _list_of(self.stack[-1]).append(value)

    def _appends(self) -> None:
        values = self.pop_mark()
        _list_of(self.stack[-1]).extend(values)

    def _empty_set(self) -> None:
        self.stack.append([])  # as a list: members need no hash

    def _frozenset(self) -> None:
        values = self.pop_mark()
        self.stack.append(tuple(values))

    def _setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        _dict_of(self.stack[-1])[_key(key)] = value

    def _setitems(self) -> None:
        values = self.pop_mark()
        _set_pairs(_dict_of(self.stack[-1]), values)

    def _dict(self) -> None:
        values = self.pop_mark()
        target: dict[Any, Any] = {}
        _set_pairs(target, values)
        self.stack.append(target)

    def _bytearray8(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        data = self.read(length)  # the base class allocates first and reads then
        if len(data) != length:
            _fail("a byte array longer than the file")
        self.stack.append(data)

    def _put(self) -> None:
        index = int(self.readline()[:-1])
        if not 0 <= index < 2**32:  # unbounded integers can be made to collide in a dict
            _fail("a memo index that is too large")
        self.memo[index] = self.stack[-1]

    def _stop(self) -> None:
        raise _Stop(self.stack.pop())

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **_Base.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _newobj_ex,
        pickle.BUILD[0]: _build,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.EMPTY_SET[0]: _empty_set,
        pickle.ADDITEMS[0]: _appends,
        pickle.FROZENSET[0]: _frozenset,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: _setitems,
        pickle.DICT[0]: _dict,
        pickle.BYTEARRAY8[0]: _bytearray8,
        pickle.PUT[0]: _put,
        pickle.STOP[0]: _stop,
    }

    def load(self) -> Any:
        """Return the next pickle of the stream.

        Raises:
            CheckpointError: damaged.
        """
        try:
            super().load()
        except _Stop as stop:
            return stop.value
        except CheckpointError:
            raise
        except Exception as error:  # a mangled stream makes the opcodes raise nearly anything
            found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            _fail(quote(found))
        return _fail("no end")


def unpickle(path: str, data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Return what a pickle describes, and the names of the foreign objects in it.

    Raises:
        CheckpointError: damaged.
    """
    unpickler = InertUnpickler(io.BytesIO(data))
    with naming(path):
        value = unpickler.load()
    return value, tuple(unpickler.placeholders)


class naming:  # noqa: N801 - reads as a statement
    """Put the path in front of errors that are raised where it is not known."""

    def __init__(self, path: str) -> None:
        """Remember the path."""
        self.path = path

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Rename the error."""
        if isinstance(error, _PickleError):
            raise CheckpointError(f"{quote(self.path)}: {error.message}", error.hint) from None


class _PickleError(CheckpointError):
    pass


def _fail(found: str) -> Any:
    raise _PickleError(
        f"expected a sound pickle, found {found}", "the file is damaged or truncated: fetch or save it again"
    )


def _key(key: Any) -> Any:
    """Return a key that is safe to hash: deep tuples overflow the C stack, long integers can collide."""
    if key is None or type(key) in {str, bytes, bool, float} or (type(key) is int and key.bit_length() <= 64):
        return key
    return StandIn(Global("", "key"))


def _list_of(target: Any) -> list[Any]:
    if isinstance(target, StandIn):
        return target.items
    return target if type(target) is list else _fail("an append to something that is no list")


def _dict_of(target: Any) -> dict[Any, Any]:
    if isinstance(target, StandIn):
        return target.entries
    return target if type(target) is dict else _fail("an item set on something that is no dict")


def _set_pairs(target: dict[Any, Any], values: list[Any]) -> None:
    if len(values) % 2:
        _fail("a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[_key(key)] = value


# -- what the known globals do; extra arguments are newer torch versions' business


def _storage(kind: Any, key: Any, location: Any, numel: Any, view: Any = None) -> StorageRef:
    if not isinstance(kind, Global) or type(numel) is not int or numel < 0:
        return _fail("a malformed storage reference")
    if not isinstance(key, str | int | bytes):
        return _fail("a storage without a name")
    dtype = TORCH_STORAGES.get(kind.name, "")
    itemsize = ITEMSIZE[dtype] if dtype else QUANTISED_STORAGES.get(kind.name, 0)
    if not itemsize:
        return _fail(f"storage class {quote(kind.name)}")
    start = 0
    if view is not None:
        if (
            not isinstance(view, tuple)
            or len(view) != 3
            or not all(type(n) is int and n >= 0 for n in view[1:])
        ):
            return _fail("a malformed storage view")
        start = view[1]
        if start + view[2] > numel:
            return _fail("a storage view that leaves its storage")
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
    # Only text: str() of a tuple that refers to itself many times over grows without bound.
    return StorageRef(name, dtype, itemsize, numel, location if isinstance(location, str) else "", start)


def _tensor(
    _: InertUnpickler, storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any
) -> TensorRef | Unreadable:
    return _view(storage, offset, shape, strides, None)


def _tensor_v3(
    _: InertUnpickler,
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_r: Any,
) -> TensorRef | Unreadable:
    return _view(storage, offset, shape, strides, dtype)


def _view(storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any) -> TensorRef | Unreadable:
    if not isinstance(storage, StorageRef):
        return _fail("a tensor without a storage")
    if storage.location == "meta":
        return Unreadable("saved from the meta device: the file holds no values")
    name = storage.dtype
    if dtype is not None:
        if not isinstance(dtype, Global):
            return _fail("a tensor with a malformed dtype")
        name = TORCH.get(dtype.name, "")
        if not name:
            return Unreadable(f"stored as torch.{dtype.name}, a dtype that is not read here")
    if not name:
        return Unreadable("a quantised tensor: packed integers, not weights")
    sizes, steps = _ints(shape), _ints(strides)
    if type(offset) is not int or len(sizes) != len(steps):
        return _fail("a tensor whose shape, strides and offset do not fit together")
    return TensorRef(storage, name, offset, sizes, steps)


def _ints(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(n) is int and 0 <= n < 2**63 for n in value):
        return _fail("a shape or strides that are no integers")
    if len(value) > 64:
        return _fail("a tensor of more than 64 dimensions")
    return tuple(value)


def _first(_: InertUnpickler, value: Any, *_rest: Any) -> Any:
    return value


def _from_type(unpickler: InertUnpickler, function: Any, _kind: Any, args: Any, *_rest: Any) -> Any:
    return unpickler.call(function, args)


def _unreadable(reason: str) -> Callable[..., Unreadable]:
    return lambda *_: Unreadable(reason)


def _list(unpickler: InertUnpickler, values: Any = (), *_rest: Any) -> list[Any]:
    if not isinstance(values, list | tuple | dict):
        return []
    unpickler.spend(len(values))
    return list(values)


def _ordered_dict(unpickler: InertUnpickler, values: Any = (), *_rest: Any) -> dict[Any, Any]:
    if isinstance(values, dict):
        unpickler.spend(len(values))
        return dict(values)
    result: dict[Any, Any] = {}
    for pair in _list(unpickler, values):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            return _fail("a dict entry that is no pair")
        result[_key(pair[0])] = pair[1]
    return result


def _default_dict(unpickler: InertUnpickler, _factory: Any = None, *rest: Any) -> dict[Any, Any]:
    return _ordered_dict(unpickler, *rest)


def _new_object(unpickler: InertUnpickler, kind: Any, *args: Any) -> Any:
    return unpickler.call(kind, args)


def _reconstructor(_: InertUnpickler, kind: Any, *_rest: Any) -> Any:
    return StandIn(kind if isinstance(kind, Global) else _RESULT)


def _encode(unpickler: InertUnpickler, text: Any, encoding: Any = "latin1", *_rest: Any) -> bytes:
    # Protocol 2 has no bytes: Python 3 writes them as text that is to be encoded.
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        return _fail("bytes in an unknown encoding")
    unpickler.spend(len(text))
    return text.encode("latin1")


def _parameter(_: InertUnpickler, data: Any = None, *_rest: Any) -> Any:
    return (
        data
        if isinstance(data, TensorRef | Unreadable | ArrayRef)
        else Unreadable("a parameter without data")
    )


def _dtype(_: InertUnpickler, code: Any, *_rest: Any) -> NumpyDtype:
    return NumpyDtype(code if isinstance(code, str) else "")


def _array(_: InertUnpickler, *_rest: Any) -> ArrayRef:
    return ArrayRef()


def _array_from_buffer(
    _: InertUnpickler, data: Any, dtype: Any, shape: Any, order: Any = "C", *_rest: Any
) -> ArrayRef:
    result = ArrayRef()
    _fill_array(result, (1, shape, dtype, order == "F", data))
    return result


def _fill_array(target: ArrayRef, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5:
        _fail("a numpy array with malformed state")
    _, shape, dtype, fortran, data = state
    if not isinstance(dtype, NumpyDtype):
        _fail("a numpy array without a dtype")
    target.shape, target.dtype, target.fortran = _ints(shape), dtype, bool(fortran)
    target.data = bytes(data) if isinstance(data, bytes | memoryview) else b""


def _nothing(*_: Any) -> None:
    return None


def _layout(_: InertUnpickler, name: Any = "", *_rest: Any) -> str:
    return str(name) if isinstance(name, str) else ""


_Handler = Callable[..., Any]
_SPARSE = "a sparse tensor: not read here"
_HANDLERS: Mapping[tuple[str, str], _Handler] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch._utils", "_rebuild_qtensor"): _unreadable("a quantised tensor: packed integers, not weights"),
    ("torch._utils", "_rebuild_sparse_tensor"): _unreadable(_SPARSE),
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _unreadable(_SPARSE),
    ("torch._utils", "_rebuild_nested_tensor"): _unreadable("a nested tensor: not read here"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _unreadable(
        "saved from the meta device: the file holds no values"
    ),
    ("torch._utils", "_rebuild_wrapper_subclass"): _unreadable("a tensor subclass without data of its own"),
    ("torch._tensor", "_rebuild_from_type"): _from_type,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.nn.parameter", "Buffer"): _parameter,
    ("torch.storage", "_load_from_bytes"): _unreadable("a tensor pickled inside bytes"),
    ("torch", "Size"): lambda unpickler, *args: tuple(_list(unpickler, *args)),
    ("torch", "device"): lambda _, *args: ":".join(str(arg) for arg in args if isinstance(arg, str | int)),
    ("torch.serialization", "_get_layout"): _layout,
    ("torch.jit._pickle", "build_intlist"): _list,
    ("torch.jit._pickle", "build_doublelist"): _list,
    ("torch.jit._pickle", "build_boollist"): _list,
    ("torch.jit._pickle", "build_tensorlist"): _list,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "UserDict"): _ordered_dict,
    ("collections", "defaultdict"): _default_dict,
    ("builtins", "dict"): _ordered_dict,
    ("builtins", "set"): _list,
    ("builtins", "frozenset"): _list,
    ("builtins", "list"): _list,
    ("builtins", "tuple"): lambda unpickler, *args: tuple(_list(unpickler, *args)),
    ("copyreg", "__newobj__"): _new_object,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    **{
        (f"numpy.{core}.{module}", name): handler
        for core in ("core", "_core")
        for module, name, handler in (
            ("multiarray", "_reconstruct", _array),
            ("multiarray", "scalar", _nothing),
            ("numeric", "_frombuffer", _array_from_buffer),
        )
    },
}


def _is_known(found: Global) -> bool:
    """Whether a global is part of how tensors and plain data are stored, not a foreign object."""
    module, name = found.module, found.name
    if (module, name) in _HANDLERS or module.startswith("__torch__"):
        return True
    if module == "builtins":
        return name in _HARMLESS
    if module == "numpy":
        return name == "ndarray"
    if module in {"torch", "torch.cuda", "torch.storage"}:
        return (
            name.endswith("Storage")
            or name in TORCH
            or name.startswith(
                ("float", "uint", "int", "quint", "qint", "complex", "per_", "strided", "bits")
            )
            or name == "Tensor"
        )
    return False
