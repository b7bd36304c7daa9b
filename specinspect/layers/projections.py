"""The checkpoint's own shortcut beside a layer: a projection A, often 1×1 with batch normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from specinspect.architecture.model import ResidualBlock
from specinspect.errors import SettingsError
from specinspect.layers.model import PROJECTIONS, Layer, Skip
from specinspect.layers.names import join, split_name
from specinspect.layers.rules import Rule, last_rule


def with_projections(
    layers: Sequence[Layer], rules: Sequence[Rule], blocks: Iterable[ResidualBlock]
) -> tuple[Layer, ...]:
    """Return the layers, with A where a rule names it and where the network itself has it around the layer.

    Args:
        layers: with all their other facts.
        rules: `skip` and `shortcut` of the last ones that match.
        blocks: of a traced model.

    Raises:
        SettingsError: a rule asks for a shortcut that is not there or does not fit the layer.
    """
    by_name = {layer.name: layer for layer in layers}
    around, beside = _traced(blocks)
    result = []
    for layer in layers:
        skip = _ruled(layer, rules, by_name, {**beside, **around})
        if skip is None and layer.name in around and layer.skip.source != "config":
            found = by_name.get(around[layer.name])
            if found is not None and not _misfit(layer, found):
                skip = Skip("projection", "model", _bare(found))
        result.append(replace(layer, skip=skip) if skip is not None else layer)
    return tuple(result)


def _ruled(
    layer: Layer, rules: Sequence[Rule], by_name: Mapping[str, Layer], beside: Mapping[str, str]
) -> Skip | None:
    asking = last_rule(layer, rules, "skip")
    naming = last_rule(layer, rules, "shortcut")
    wanted = asking.skip if asking is not None else None
    if asking is not None and wanted is not None and wanted not in PROJECTIONS:
        if naming is asking:
            raise SettingsError(
                f"rule {asking.glob!r}: skip {wanted!r} takes no shortcut, got {naming.shortcut!r}",
                f"with a shortcut the skip is {' or '.join(PROJECTIONS)}",
            )
        if naming is None or rules.index(asking) > rules.index(naming):
            return None
        wanted = None
    rule = naming or asking
    if rule is None or (naming is None and wanted is None):
        return None
    where = f"rule {rule.glob!r}: "
    name = naming.shortcut if naming is not None else beside.get(layer.name)
    if name is None:
        raise SettingsError(
            f"{where}skip {wanted!r}: no shortcut of its own is known beside layer {layer.name!r}",
            'name its layer with shortcut = "…", or give --model',
        )
    if name.startswith("."):  # beside the layer, in the same module
        name = join(split_name(layer.name)[0], name[1:])
    found = by_name.get(name)
    if found is None:
        close = get_close_matches(name, by_name, n=1)
        hint = (
            f"did you mean {close[0]!r}?"
            if close
            else "a name that begins with a dot is one beside the layer"
        )
        raise SettingsError(f"{where}shortcut {name!r} is no layer of the checkpoint", hint)
    misfit = _misfit(layer, found)
    if misfit:
        raise SettingsError(
            f"{where}shortcut {name!r} does not fit layer {layer.name!r}: {misfit}", "narrow the glob"
        )
    return Skip("projection" if wanted is None else wanted, "config", _bare(found))


def _bare(layer: Layer) -> Layer:
    """Leave out what matters only to the layer itself: its own skip, above all."""
    return replace(layer, skip=Skip("none", "assumed"), assumptions=())


def _misfit(layer: Layer, shortcut: Layer) -> str:
    """Return why A + W makes no sense, '' where it does."""
    if shortcut.name == layer.name:
        return "it is the layer itself"
    for one in (layer, shortcut):
        plain = one.conv is None or (one.conv.groups.value == 1 and not one.conv.transposed)
        if one.kind in {"embedding", "lora", "recurrent"} or not plain:
            return f"{one.name!r} is {one.kind}{'' if plain else ', grouped or transposed'}"
    if (layer.conv is None) != (shortcut.conv is None):
        return f"{layer.kind} beside {shortcut.kind}"
    if layer.matrix_shape != shortcut.matrix_shape:
        own, other = ("×".join(map(str, one.matrix_shape)) for one in (layer, shortcut))
        return f"{own} beside {other}"
    if layer.conv is not None and shortcut.conv is not None:
        own_stride, other_stride = layer.conv.stride.value, shortcut.conv.stride.value
        if own_stride != other_stride:
            return f"stride {own_stride} beside {other_stride}"
    return ""


def _traced(blocks: Iterable[ResidualBlock]) -> tuple[dict[str, str], dict[str, str]]:
    """Return layer → shortcut's layer: for those alone on a branch, and for all others on one."""
    around: dict[str, str] = {}
    beside: dict[str, str] = {}
    for block in blocks:
        steps = [step for step in block.shortcut if step.kind != "norm"]
        if len(steps) != 1 or steps[0].kind != "layer" or len(block.shortcut) > 2:
            continue
        layers = [step.path for step in block.branch if step.kind == "layer"]
        plain = all(step.kind in {"layer", "norm", "activation"} for step in block.branch)
        target = around if len(layers) == 1 and plain and block.scale == 1.0 else beside
        for path in layers:
            target.setdefault(path, steps[0].path)
    return around, beside
