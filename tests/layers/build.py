"""Checkpoints made of nothing but headers, and weights rebuilt from recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from specinspect.checkpoint.model import Checkpoint, ModuleFacts
from specinspect.checkpoint.tensors import InMemory, TensorInfo
from specinspect.layers import Discovery, Layer, discover
from specinspect.layers.model import Stored

Header = tuple[int, ...] | tuple[str, tuple[int, ...]]

DTYPES = {torch.float32: "f32", torch.int64: "i64", torch.bool: "bool", torch.uint8: "u8"}


def checkpoint(
    tensors: Mapping[str, Header],
    config: Mapping[str, Any] | None = None,
    modules: Mapping[str, ModuleFacts] | None = None,
) -> Checkpoint:
    """A shape alone is float32; every tensor has bytes of its own."""
    infos = {}
    for name, header in tensors.items():
        dtype, shape = _split(header)
        infos[name] = TensorInfo(name, dtype, shape, InMemory(object()))  # type: ignore[arg-type]
    return Checkpoint("x", "memory", (), 0, infos, config=config or {}, modules=modules or {})


def _split(header: Header) -> tuple[str, tuple[int, ...]]:
    if len(header) == 2 and isinstance(header[0], str) and isinstance(header[1], tuple):
        return header[0], header[1]
    return "f32", tuple(n for n in header if isinstance(n, int))


def find(
    tensors: Mapping[str, Header],
    config: Mapping[str, Any] | None = None,
    modules: Mapping[str, ModuleFacts] | None = None,
) -> Discovery:
    source = checkpoint(tensors, config, modules)
    found = discover(source)
    check_invariant(source, found)
    return found


def headers(module: torch.nn.Module) -> dict[str, Header]:
    return {name: (DTYPES[t.dtype], tuple(t.shape)) for name, t in module.state_dict().items()}


def by_name(found: Discovery) -> dict[str, Layer]:
    return {layer.name: layer for layer in found.layers}


def reasons(found: Discovery) -> dict[str, str]:
    return {skip.name: skip.reason for skip in found.skipped}


def check_invariant(source: Checkpoint, found: Discovery) -> None:
    """Every tensor is in layers or in skipped, never in both; names are unique; the order is the file's."""
    used = {name for layer in found.layers for name in layer.parameters}
    skipped = [skip.name for skip in found.skipped]
    assert len(set(skipped)) == len(skipped)
    assert used.isdisjoint(skipped)
    assert used | set(skipped) == set(source.tensors)
    assert all(skip.reason for skip in found.skipped)
    names = [layer.name for layer in found.layers]
    assert len(set(names)) == len(names)
    order = list(source.tensors)
    first = [min(order.index(p) for p in layer.parameters) for layer in found.layers]
    assert first == sorted(first)


def weight(layer: Layer, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Rebuild a stored weight as its recipe says."""
    assert isinstance(layer.weight, Stored)
    matrix = state[layer.weight.tensor]
    if layer.weight.transpose:
        matrix = matrix.transpose(0, 1)
    if layer.weight.rows is not None:
        matrix = torch.cat([matrix[start:stop] for start, stop in layer.weight.rows])
    assert tuple(matrix.shape) == layer.matrix_shape
    return matrix


def sequence(prefix: str, names: Iterable[tuple[str, Header]]) -> dict[str, Header]:
    return {f"{prefix}{name}": header for name, header in names}


def batch_norm(path: str, channels: int) -> dict[str, Header]:
    vector: Header = ("f32", (channels,))
    leaves = ("weight", "bias", "running_mean", "running_var")
    norm: dict[str, Header] = {f"{path}.{leaf}": vector for leaf in leaves}
    norm[f"{path}.num_batches_tracked"] = ("i64", ())
    return norm
