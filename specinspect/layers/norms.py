"""Normalisations: which modules are one, and which layer one follows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from specinspect.layers.context import Context
from specinspect.layers.model import Layer, Normalization
from specinspect.layers.names import is_norm, join, numbered, split_name

Kind = Literal["batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm"]

WORDS: Mapping[Kind, str] = {
    "batch_norm": "batch normalisation",
    "layer_norm": "layer normalisation",
    "group_norm": "group normalisation",
    "rms_norm": "RMS normalisation",
    "instance_norm": "instance normalisation",
}

EPSILONS: Mapping[str, float] = {"f64": 2.0**-52, "f32": 2.0**-23, "bf16": 2.0**-7, "f16": 2.0**-10}
"""What torch's RMSNorm adds where it is told no ε: the spacing of its dtype at 1."""

_TYPES: tuple[tuple[str, Kind], ...] = (
    ("BatchNorm", "batch_norm"),
    ("LayerNorm", "layer_norm"),
    ("GroupNorm", "group_norm"),
    ("RMSNorm", "rms_norm"),
    ("InstanceNorm", "instance_norm"),
)
_LAYER_WORD = re.compile(r"(.*?)(?:conv[123]d|conv|linear|fc|lin)(.*)", re.DOTALL)
_NORM_WORDS = ("bn", "norm", "gn", "ln")


@dataclass(frozen=True, slots=True)
class Norm:
    """A normalisation module."""

    path: str
    kind: Kind
    length: int


def find_norms(context: Context) -> Mapping[str, Norm]:
    """Return every normalisation with a gain or running statistics, by module path."""
    norms = {}
    for path in context.module_paths:
        vector = next(
            (
                info
                for leaf in ("running_mean", "weight", "gamma", "scale")
                if (info := context.sibling(path, leaf)) and len(info.shape) == 1 and info.size
            ),
            None,
        )
        kind = _kind(context, path) if vector else None
        if vector and kind:
            norms[path] = Norm(path, kind, vector.shape[0])
    return norms


def kind_of_type(type_name: str) -> Kind | None:
    """Return which normalisation a module's class is, None where its name does not tell."""
    return next((kind for part, kind in _TYPES if part in type_name), None)


def _kind(context: Context, path: str) -> Kind | None:
    type_name = context.type_of(path)
    if known := kind_of_type(type_name):
        return known
    if type_name and not type_name.endswith("Norm"):
        return None
    if context.sibling(path, "running_mean") and context.sibling(path, "running_var"):
        return "batch_norm"
    last = split_name(path)[1].lower()
    if not is_norm(path):
        # A list member with a gain and a shift of equal length: some normalisation, most often this one.
        gain, shift = context.sibling(path, "weight"), context.sibling(path, "bias")
        both = gain and shift and gain.shape == shift.shape and gain.size > 1
        return "layer_norm" if last.isdigit() and both else None
    if "gn" in last or "group" in last:
        return "group_norm"
    if "bn" in last or "batch" in last:
        return "batch_norm"
    if "rms" in last or not (context.sibling(path, "bias") or context.sibling(path, "beta")):
        return "rms_norm"
    return "layer_norm"


def attach_norms(context: Context, layers: tuple[Layer, ...], norms: Mapping[str, Norm]) -> tuple[Layer, ...]:
    """Give every layer the normalisation that follows it, each normalisation to one layer at most.

    Name pairs such as conv1 and bn1 are believed only where none of them contradicts the channel counts:
    in networks that normalise first (pre-activation, DenseNet) bn1 comes before conv1. There only those that
    the channel counts prove.
    """
    if not norms:
        return layers
    candidates = [layer for layer in layers if _may_have_norm(layer)]
    trusted = all(
        norm.length == layer.matrix_shape[0] for layer in candidates for norm in _by_word(layer.name, norms)
    )
    taken: set[str] = set()
    attached = {}
    for layer in candidates:
        for norm in _following(context, layer, norms, trusted):
            if norm.length == layer.matrix_shape[0] and norm.path not in taken:
                taken.add(norm.path)
                attached[layer.name] = Normalization(norm.kind, norm.path, "assumed")
                break
    return tuple(
        replace(layer, normalization=attached[layer.name]) if layer.name in attached else layer
        for layer in layers
    )


def _may_have_norm(layer: Layer) -> bool:
    return layer.kind == "linear" or (layer.conv is not None and layer.kind != "lora")


def _following(context: Context, layer: Layer, norms: Mapping[str, Norm], trusted: bool) -> Iterator[Norm]:
    """Yield the normalisations that may follow a layer, the surest first."""
    path = layer.name
    parent, last = split_name(path)
    step = numbered(last)
    if step and not step[0] and (after := norms.get(join(parent, str(step[1] + 1)))):
        yield after
    if not context.alphabetical:
        after = norms.get(context.next_module.get(path, ""))
        if after and after.kind == "batch_norm" and split_name(after.path)[0] == parent:
            yield after
    if last == "dense" and (after := norms.get(join(parent, "LayerNorm"))):
        yield after
    outputs, inputs = layer.matrix_shape
    # What is as long as the outputs and not as the inputs comes after, whatever the others do.
    yield from (norm for norm in _by_word(path, norms) if trusted or norm.length == outputs != inputs)
    if trusted and last.isdigit() and _is_last(context, parent, int(last)):
        # conv1.6 → bn1 (ResNet-D's stem)
        yield from (norm for norm in _by_word(parent, norms) if norm.kind == "batch_norm")


def _is_last(context: Context, parent: str, place: int) -> bool:
    """Say whether no tensors follow in a list, allowing for three members without any."""
    after = (join(parent, str(number)) for number in range(place + 1, place + 5))
    return not any(context.sibling(path, "weight") for path in after)


def _by_word(path: str, norms: Mapping[str, Norm]) -> Iterator[Norm]:
    """Yield normalisations whose name differs from the layer's in one word: conv1 → bn1, conv → norm."""
    parent, last = split_name(path)
    match = _LAYER_WORD.fullmatch(last)
    words = [f"{match[1]}{word}{match[2]}" for word in _NORM_WORDS] if match else []
    words += ["normalization"] if last == "convolution" else []  # transformers' ResNet
    words += [f"{last}_bn", f"{last}_norm", f"bn_{last}", f"norm_{last}"]
    for word in words:
        if norm := norms.get(join(parent, word)):
            yield norm
