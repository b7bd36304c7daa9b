"""Tensors that no layer's weight is made of: what each is, and whether a choice of layers takes it along."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from specinspect.checkpoint.entries import COUNTED
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.discover import Discovery
from specinspect.layers.model import Layer
from specinspect.layers.names import matches, split_name

_INFINITE = re.compile(r"mask|^(?:min|max)_vals?$")
"""Leaves that hold infinities on purpose: masks, and the empty ranges of torch.ao's observers."""


@dataclass(frozen=True, slots=True)
class Outside:
    """A floating-point or complex tensor that is in no layer."""

    info: TensorInfo
    what: str
    """The reason it is no layer: 'bias of fc1', 'running statistics of batch normalisation bn'."""
    infinite: bool
    """Whether infinite entries are what it is for."""
    variance: bool
    """Whether no entry may be negative: the running variance of a batch normalisation."""


def outside(
    layers: Sequence[Layer],
    chosen: Discovery,
    tensors: Mapping[str, TensorInfo],
    include: Sequence[str],
    exclude: Sequence[str],
) -> Iterator[Outside]:
    """Yield the tensors with entries that can be NaN and that are in no layer, in checkpoint order.

    What is tied comes only once.

    A bias, a normalisation and whatever else stands beside a weight go with its layer. What belongs to no
    layer goes by its own name or its module's, under the globs that the layers were chosen by.

    Args:
        layers: all of the checkpoint.
        chosen: the layers that are asked for.
        tensors: the checkpoint's.
        include: globs of layers; all if empty.
        exclude: globs of layers that are left out.
    """
    weights = {name for layer in layers for name in layer.parameters}
    names = {layer.name for layer in chosen.layers}
    owners = _owners(layers)
    reasons = {item.name: item.reason for item in chosen.skipped}
    seen = {tensors[name].identity for name in weights if name in tensors}
    for name, info in tensors.items():
        if name in weights or info.dtype not in COUNTED or not info.size or info.identity in seen:
            continue
        module, leaf = split_name(name)
        if owned := owners.get(name) or owners.get(f"{module}."):
            wanted = not names.isdisjoint(owned)
        else:
            both = (name, module)
            wanted = not include or any(matches(one, include) for one in both)
            wanted = wanted and not any(matches(one, exclude) for one in both)
        if not wanted:
            continue
        seen.add(info.identity)
        what = reasons.get(name, "")
        infinite = "mask" in what or _INFINITE.search(leaf.lower()) is not None
        yield Outside(info, what, infinite, leaf == "running_var")


def _owners(layers: Sequence[Layer]) -> dict[str, set[str]]:
    """Return whose a tensor is, by its name, and by its module's name with a dot behind it."""
    owners: dict[str, set[str]] = {}
    for layer in layers:
        keys = [f"{layer.name}.", layer.bias, layer.activation.parameter]
        keys += [f"{layer.normalization.name}."] if layer.normalization is not None else []
        for key in keys:
            if key is not None:
                owners.setdefault(key, set()).add(layer.name)
    return owners
