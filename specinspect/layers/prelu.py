"""Slopes of PReLU that a checkpoint stores, and the layers that they follow."""

from __future__ import annotations

import re
from collections.abc import Mapping

from specinspect.checkpoint.tensors import FLOAT_DTYPES, TensorInfo
from specinspect.layers.context import Context
from specinspect.layers.model import Layer
from specinspect.layers.names import join, numbered, split_name

_NAME = re.compile(r"(?:.*_)?(?:p_?relu|act|activation|relu|non_?lin(?:earity)?)[0-9_]*")


def find_prelus(context: Context, layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Return layer name → tensor of slopes, by equal numbers (conv1, prelu1), else by the file's order."""
    slopes = {
        split_name(name)[0]: info for name, info in context.tensors.items() if _is_prelu(context, name, info)
    }
    by_number = {(split_name(path)[0], _number(path)): path for path in slopes if _number(path)}
    candidates = [layer for layer in layers if layer.kind == "linear" or layer.conv is not None]
    found: dict[str, str] = {}
    free = set(slopes)
    for layer in candidates:
        key = (split_name(layer.name)[0], _number(layer.name))
        path = by_number.get(key) if layer.kind != "lora" and key[1] else None
        if path in free and _fits(slopes[path], layer):
            found[layer.name] = slopes[path].name
            free.discard(path)
    for layer in candidates:
        info = _next_in_list(context, layer)
        sure = info is not None and (info.size == 1 or layer.conv is not None)
        if info is not None and sure and layer.name not in found and _fits(info, layer):
            found[layer.name] = info.name
    for layer in candidates if not context.alphabetical else ():
        path = context.next_module.get(layer.name)
        if layer.normalization is not None and path == layer.normalization.name:
            path = context.next_module.get(path)
        if layer.name not in found and path in free and _fits(slopes[path], layer):
            found[layer.name] = slopes[path].name
            free.discard(path)
    return found


def perhaps_prelus(context: Context, layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Return layer → what may be the slopes of a PReLU behind it, or the gain of a normalisation as well.

    That is a vector alone that has the next place in a list behind a matrix.
    """
    found = {}
    for layer in layers:
        info = _next_in_list(context, layer) if layer.kind == "linear" else None
        unclear = info is not None and info.size > 1 and not context.type_of(split_name(info.name)[0])
        if info is not None and unclear and _fits(info, layer):
            found[layer.name] = info.name
    return found


def _is_prelu(context: Context, name: str, info: TensorInfo) -> bool:
    module, leaf = split_name(name)
    if leaf != "weight" or len(info.shape) != 1 or not info.size or info.dtype not in FLOAT_DTYPES:
        return False
    known = context.type_of(module)
    if known:
        return known == "PReLU"
    named = _NAME.fullmatch(split_name(module)[1].lower()) is not None
    return named and context.sibling(module, "bias") is None


def _next_in_list(context: Context, layer: Layer) -> TensorInfo | None:
    """Return the weight that has the next place in a bare list and stands alone: conv, norm, *prelu*.

    Behind a matrix a gain without a shift looks the same: only a single number is a slope there for sure.
    """
    parent, last = split_name(layer.name)
    if not last.isdigit():
        return None
    place = int(last) + 1
    norm = layer.normalization
    if norm is not None and norm.name == join(parent, str(place)):
        place += 1
    module = join(parent, str(place))
    info = context.sibling(module, "weight")
    alone = info is not None and [leaf for leaf in _LEAVES if context.sibling(module, leaf)] == ["weight"]
    if info is None or not alone or len(info.shape) != 1 or info.dtype not in FLOAT_DTYPES:
        return None
    if context.type_of(module) not in {"", "PReLU"}:
        return None
    return info


_LEAVES = ("weight", "bias", "running_mean", "running_var", "weight_g", "weight_scale")


def _number(path: str) -> str:
    # In a list numbers are places: the member behind has the next one.
    last = split_name(path)[1]
    found = numbered(last)
    return str(found[1]) if found and found[0] and not found[0].endswith("_") else ""


def _fits(info: TensorInfo, layer: Layer) -> bool:
    return info.size in {1, layer.matrix_shape[0]}
