"""Whether two stored weights are the same, found while reading: nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from specinspect.checkpoint.model import Checkpoint
from specinspect.comparison.model import OtherTensors, Prefixes
from specinspect.layers.model import Layer

if TYPE_CHECKING:
    import torch

    Read = Callable[[str], torch.Tensor]
    Used = tuple[Collection[str], Collection[str]]


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Say whether two tensors have the same shape, dtype and bits; a NaN equals the same NaN."""
    import torch

    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    word = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.view(word), b.view(word))


def same_weight(a: Layer, b: Layer, read_a: Read, read_b: Read) -> bool:
    """Say whether two layers have the same weight: kind, geometry, dtype, and the bytes that make it."""
    if _construction(a) != _construction(b) or len(a.parameters) != len(b.parameters):
        return False
    return all(
        same_bytes(read_a(one), read_b(other)) for one, other in zip(a.parameters, b.parameters, strict=True)
    )


def same_maps(a: Layer, b: Layer, side_a: Sequence[str], side_b: Sequence[str]) -> bool:
    """Say whether two layers ask the same of their weight and of as many side tensors, read or not."""
    return _facts(a) == _facts(b) and len(side_a) == len(side_b)


def compare_others(a: Checkpoint, b: Checkpoint, used: Used, prefixes: Prefixes | None) -> OtherTensors:
    """Compare the tensors that are in no layer, byte by byte.

    Args:
        a: one checkpoint.
        b: the other.
        used: names of the tensors that are in some layer, of A and of B.
        prefixes: what the names of layers differ by; those of other tensors may do so too.
    """
    same, changed, only_a = 0, [], []
    partnered = set()
    for name in a.tensors:
        partner = _partner(name, b.tensors, prefixes)
        if partner is not None:
            partnered.add(partner)
        if partner is None and name not in used[0]:
            only_a.append(name)
        elif partner is None or (name in used[0] and partner in used[1]):
            continue  # the business of layers; a tied weight may be in a layer of one side only
        elif _same_tensor(a, name, b, partner):
            same += 1
        else:
            changed.append(name)
    only_b = [name for name in b.tensors if name not in partnered and name not in used[1]]
    return OtherTensors(same, tuple(changed), tuple(only_a), tuple(only_b))


def _partner(name: str, names: Collection[str], prefixes: Prefixes | None) -> str | None:
    if name in names:
        return name
    if prefixes is None or not name.startswith(prefixes.a):
        return None
    other = prefixes.b + name.removeprefix(prefixes.a)
    return other if other in names else None


def _same_tensor(a: Checkpoint, name: str, b: Checkpoint, partner: str) -> bool:
    one, other = a.tensors[name], b.tensors[partner]
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return same_bytes(a.read(name), b.read(partner))


def _construction(layer: Layer) -> object:
    """Return what makes a weight of its tensors, with their places instead of their names."""
    places = {name: index for index, name in enumerate(layer.parameters)}
    recipe = tuple(
        places.get(item, item) if isinstance(item, str) else item for item in astuple(layer.weight)
    )
    conv = layer.conv
    geometry = conv and (
        conv.kernel,
        conv.stride.value,
        conv.dilation.value,
        conv.groups.value,
        conv.transposed,
        conv.padding and conv.padding.value,
        layer.grid,
    )
    return layer.kind, layer.shape, layer.matrix_shape, layer.dtype, type(layer.weight), recipe, geometry


def _facts(layer: Layer) -> object:
    norm = layer.normalization
    return (
        replace(layer.activation, parameter=None),
        norm and (norm.kind, norm.eps, norm.source),
        layer.skip,
        layer.bias is None,
        layer.bias_rows,
    )
