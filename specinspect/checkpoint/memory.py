"""Checkpoints made from what a Python program holds already: a state dict, or a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from specinspect.checkpoint.contents import Contents
from specinspect.checkpoint.dtypes import TORCH
from specinspect.checkpoint.finish import finish
from specinspect.checkpoint.model import Checkpoint, ModuleFacts
from specinspect.checkpoint.modules import plain_attributes
from specinspect.checkpoint.statedict import choose
from specinspect.checkpoint.tensors import ITEMSIZE, InMemory, TensorInfo
from specinspect.checkpoint.text import kind_of, quote
from specinspect.errors import CheckpointError

if TYPE_CHECKING:
    import torch


def from_state_dict(
    mapping: Mapping[Any, Any], name: str = "state dict", key: str | None = None
) -> Checkpoint:
    """Describe tensors, parameters or numpy arrays that are in memory; nothing is copied.

    Args:
        mapping: names to tensors, or a container that nests such a mapping as checkpoint files do.
        name: what to call it in messages and reports.
        key: which nested mapping.

    Raises:
        CheckpointError: no tensors, or several mappings and no way to choose.
    """
    if not isinstance(mapping, Mapping):
        raise CheckpointError(
            f"{quote(name)}: expected a mapping of names to tensors, found {kind_of(mapping)}",
            "pass module.state_dict()",
        )
    return _finish(name, _contents(mapping, name, key))


def from_module(module: Any) -> Checkpoint:
    """Describe a live module: its state dict, and the plain attributes of every module in it.

    Args:
        module: a torch.nn.Module (anything with `state_dict` and `named_modules`).

    Raises:
        CheckpointError: it is none, or holds no tensors.
    """
    if not callable(getattr(module, "state_dict", None)) or not callable(
        getattr(module, "named_modules", None)
    ):
        raise CheckpointError(
            f"expected a torch.nn.Module, found {kind_of(module)}",
            "pass a module, a state dict or a path",
        )
    name = type(module).__name__
    facts = {
        path: ModuleFacts(type(part).__name__, plain_attributes(vars(part)))
        for path, part in module.named_modules()
    }
    return _finish(name, replace(_contents(module.state_dict(), name, None), modules=facts))


def _contents(mapping: Mapping[Any, Any], name: str, key: str | None) -> Contents:
    chosen = choose(mapping, key, _Describer(), quote(name))
    return Contents(
        "memory", chosen.tensors, key=chosen.key, assumptions=chosen.assumptions, skipped=chosen.skipped
    )


def _finish(name: str, contents: Contents) -> Checkpoint:
    nbytes = sum(
        info.size * ITEMSIZE[info.dtype]
        for info in {info.region: info for info in contents.tensors.values()}.values()
    )
    return finish(name, (), nbytes, contents)


class _Describer:
    """Turns tensors in memory into `TensorInfo`; views of the same bytes get the same storage."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], InMemory] = {}

    def __call__(self, name: str, value: Any) -> TensorInfo | str:
        tensor = self._tensor(value)
        if isinstance(tensor, str):
            return tensor
        dtype = TORCH.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is None:
            return f"has dtype {tensor.dtype}, which is not read here"
        # state_dict() makes new tensor objects for tied weights; their address tells that they are one.
        where = (tensor.data_ptr(), str(tensor.device), dtype, tuple(tensor.shape), tensor.stride())
        storage = InMemory(tensor) if tensor.numel() == 0 else self._known.setdefault(where, InMemory(tensor))
        return TensorInfo(name, dtype, tuple(tensor.shape), storage)

    def _tensor(self, value: Any) -> torch.Tensor | str:
        import torch

        if not isinstance(value, torch.Tensor):
            import numpy as np

            array = np.asarray(value)
            if array.dtype.byteorder == ">" or not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))
            if any(step < 0 for step in array.strides) or not array.flags.writeable:
                array = array.copy()  # torch has no negative strides and warns of read-only memory
            try:
                return torch.from_numpy(array)
            except TypeError:
                return f"a numpy array of dtype {array.dtype}, which is not read here"
        if hasattr(value, "materialize"):
            return "a lazy parameter that has no shape yet"
        if value.layout != torch.strided:
            return "a sparse tensor: not read here"
        if value.is_quantized:
            return "a quantised tensor: packed integers, not weights"
        if value.is_meta:
            return "on the meta device: there are no values"
        return value.detach()
