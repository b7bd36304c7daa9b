"""Reparametrised weights: weight_norm and spectral_norm, in torch's old and new spelling."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from math import prod

from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.context import Claims, Context, Remaining
from specinspect.layers.families import layer_of
from specinspect.layers.model import Layer, SpectralNorm, WeightNorm
from specinspect.layers.names import join, split_name
from specinspect.layers.weights import Weight

_PARAMETRIZED = re.compile(r"(?P<module>(?:.*\.)?)parametrizations\.(?P<leaf>[^.]+)\.(?P<part>.+)", re.DOTALL)
_OLD = re.compile(r"(?P<leaf>weight\w*?)_(?P<part>g|v|u|orig|bar|mask)")

_RECURRENT = re.compile(r"weight_(?:ih|hh|hr)(?:_|$)")


def claim_reparametrised(context: Context, remaining: Remaining) -> Claims:
    """Recompose weights from the tensors that a reparametrisation stores in their place."""
    new: dict[tuple[str, str], dict[str, TensorInfo]] = defaultdict(dict)
    old: dict[tuple[str, str], dict[str, TensorInfo]] = defaultdict(dict)
    for name, info in remaining.items():
        if match := _PARAMETRIZED.fullmatch(name):
            new[match["module"].removesuffix("."), match["leaf"]][match["part"]] = info
            continue
        module, leaf = split_name(name)
        if match := _OLD.fullmatch(leaf):
            old[module, match["leaf"]][match["part"]] = info
    layers: list[Layer] = []
    skipped: list[Skipped] = []
    for (module, leaf), parts in new.items():
        _finish(context, _recompose_new(context, module, leaf, parts), parts, layers, skipped)
    for (module, leaf), parts in old.items():
        if {"g", "v"} <= parts.keys() or {"orig", "bar"} & parts.keys():
            _finish(context, _recompose_old(context, module, leaf, parts), parts, layers, skipped)
    return Claims(tuple(layers), tuple(skipped))


def _finish(
    context: Context,
    weight: Weight | str,
    parts: dict[str, TensorInfo],
    layers: list[Layer],
    skipped: list[Skipped],
) -> None:
    made = weight if isinstance(weight, str) else layer_of(context, weight)
    if isinstance(made, Layer):
        if _RECURRENT.match(made.name.rpartition(".")[2]):
            note = "gates not separated: the weight is recomposed as a whole"
            made = replace(made, kind="recurrent", assumptions=(note,))
        layers.append(made)
    reason = made if isinstance(made, str) else f"part of the parametrisation of {made.name}"
    used = made.parameters if isinstance(made, Layer) else ()
    skipped += [Skipped(info.name, reason) for info in parts.values() if info.name not in used]


def _recompose_new(context: Context, module: str, leaf: str, parts: dict[str, TensorInfo]) -> Weight | str:
    where = join(module, f"parametrizations.{leaf}")
    first = context.type_of(f"{where}.0")
    unknown = f"parametrisation of {join(module, leaf)} that is not known"
    if f"{where}.1" in context.modules or any(part.startswith("1.") for part in parts):
        return f"several parametrisations of {join(module, leaf)}: not recomposed"
    if parts.keys() == {"original0", "original1"} and first in {"", "_WeightNorm"}:
        dim = context.attribute(f"{where}.0", "dim")
        return _weight_norm(module, leaf, parts["original0"], parts["original1"], dim) or unknown
    if {"original", "0._u", "0._v"} <= parts.keys() and first in {"", "_SpectralNorm"}:
        dim = context.attribute(f"{where}.0", "dim")
        turned = "Transpose" in context.type_of(module)
        return _spectral_norm(module, leaf, parts["original"], parts["0._u"], parts["0._v"], turned, dim) or (
            unknown
        )
    return unknown


def _recompose_old(context: Context, module: str, leaf: str, parts: dict[str, TensorInfo]) -> Weight | str:
    name = join(module, leaf)
    if "g" in parts and "v" in parts:
        made = _weight_norm(module, leaf, parts["g"], parts["v"], None)
        return made or f"weight normalisation of {name} whose shapes do not fit"
    original = parts.get("orig") or parts["bar"]
    if "mask" in parts:
        return f"pruned weight of {name}: the mask is not applied"
    if "u" in parts and "v" in parts:
        turned = "Transpose" in context.type_of(module)
        made = _spectral_norm(module, leaf, original, parts["u"], parts["v"], turned, None)
        return made or f"spectral normalisation of {name} whose shapes do not fit"
    return f"original weight of {name} without the rest of its parametrisation"


def _weight_norm(module: str, leaf: str, g: TensorInfo, v: TensorInfo, known: object) -> Weight | None:
    """Read the axis that keeps its own norm off the shape of g; None where the shapes do not fit."""
    axes = len(v.shape)
    if axes < 2:
        return None
    dim: int | None
    if g.size == 1 and (known == -1 or not g.shape):
        dim = None
    elif len(g.shape) != axes:
        return None
    else:
        wide = [axis for axis, n in enumerate(g.shape) if n != 1]
        dim = wide[0] if wide else 0
        if len(wide) > 1 or g.shape[dim] != v.shape[dim]:
            # All ones over axes longer than one: a single norm for the whole weight.
            if wide or g.size != 1:
                return None
            dim = None
    recipe = WeightNorm(g.name, v.name, dim)
    return Weight(module, leaf, v.shape, v.dtype, recipe, (g.name, v.name))


def _spectral_norm(
    module: str, leaf: str, original: TensorInfo, u: TensorInfo, v: TensorInfo, turned: bool, known: object
) -> Weight | None:
    """Find the axis whose length is u's while v has the length of the rest; None where none fits."""
    shape = original.shape
    fits = [
        axis
        for axis, n in enumerate(shape)
        if u.shape == (n,) and v.shape == (prod(shape[:axis] + shape[axis + 1 :]),)
    ]
    if len(shape) < 2 or not fits:
        return None
    wanted = known if isinstance(known, int) else (1 if turned else 0)
    dim = wanted if wanted in fits else fits[0]
    recipe = SpectralNorm(original.name, u.name, v.name, dim)
    return Weight(module, leaf, shape, original.dtype, recipe, (original.name, u.name, v.name))
