"""What the user says about layers: globs with facts, the last matching rule first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isfinite
from typing import Literal, get_args

from specinspect.errors import SettingsError
from specinspect.layers.context import Context
from specinspect.layers.conv import padding_sides, with_geometry
from specinspect.layers.model import PROJECTIONS, Activation, ConvGeometry, Fact, Layer, Skip
from specinspect.layers.names import dimensions, matches
from specinspect.layers.vocabulary import SLOPES, parse_activation

SkipKind = Literal[
    "identity", "rectangular-identity", "average-pool", "projection", "projection-plus-identity", "none"
]
SKIPS: tuple[str, ...] = get_args(SkipKind)


@dataclass(frozen=True, slots=True)
class Rule:
    """Facts for the layers that a glob matches; None leaves a fact alone."""

    glob: str
    activation: str | None = None
    """'relu', 'leaky_relu:0.1'."""
    slope: float | None = None
    """Of the activation, where it takes one."""
    skip: SkipKind | None = None
    shortcut: str | None = None
    """The layer that is A; from a dot on, one beside the layer."""
    stride: int | tuple[int, ...] | None = None
    padding: int | str | tuple[int, ...] | None = None
    """A number, one per axis, 'same' or 'valid'; of a transposed convolution as torch counts it."""
    dilation: int | tuple[int, ...] | None = None
    groups: int | None = None
    grid: int | None = None
    """Side of the periodic grid; nothing to a layer that is no convolution."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense for any layer.

        Raises:
            SettingsError: names the rule and the field.
        """
        if self.activation is not None:
            parse_activation(self.activation, f"rule {self.glob!r}")
        if self.slope is not None and (isinstance(self.slope, bool) or not isfinite(self.slope)):
            raise self._error("slope", "a finite number", self.slope)
        if self.slope is not None and self.activation is not None:
            name, colon, _ = self.activation.partition(":")
            if colon:
                raise SettingsError(f"rule {self.glob!r}: the slope is given twice", f"write {name}")
            _slope_of(Activation(parse_activation(name)[0], "config"), self)
        if self.skip is not None and self.skip not in SKIPS:
            close = get_close_matches(str(self.skip), SKIPS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise SettingsError(
                f"rule {self.glob!r}: unknown skip {self.skip!r}", f"{hint}known are {', '.join(SKIPS)}"
            )
        for name, value in (("groups", self.groups), ("grid", self.grid)):
            if value is not None and not _at_least(value, 1):
                raise self._error(name, "a whole number of at least 1", value)
        for name, sizes in (("stride", self.stride), ("dilation", self.dilation)):
            if sizes is not None and not _all_at_least(sizes, 1):
                raise self._error(name, "whole numbers of at least 1", sizes)
        named = self.padding is None or self.padding in ("same", "valid")
        if not named and not _all_at_least(self.padding, 0):
            raise self._error("padding", "whole numbers of at least 0, 'same' or 'valid'", self.padding)

    def _error(self, name: str, expected: str, value: object) -> SettingsError:
        return SettingsError(f"rule {self.glob!r}: {name}: expected {expected}, got {value!r}")


def unmatched_rules(layers: Sequence[Layer], rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return one warning for each rule that changes nothing, given all layers of the checkpoint."""
    warnings = []
    for rule in rules:
        hits = [layer for layer in layers if matches(layer.name, (rule.glob,))]
        if not hits:
            close = get_close_matches(rule.glob.strip("*"), [layer.name for layer in layers], n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            warnings.append(f"rule {rule.glob!r} matches none of {len(layers)} layers{hint}")
        elif rule.grid is not None and not any(layer.conv for layer in hits):
            warnings.append(f"rule {rule.glob!r} sets a grid but matches no convolution")
    return tuple(warnings)


def last_rule(layer: Layer, rules: Sequence[Rule], field: str) -> Rule | None:
    """Return the last rule that matches the layer and says something about the field."""
    for rule in reversed(rules):
        if getattr(rule, field) is not None and matches(layer.name, (rule.glob,)):
            return rule
    return None


def ruled_activation(layer: Layer, rules: Sequence[Rule]) -> Activation | None:
    """Return the activation that a rule gives a layer, None where none does."""
    rule = last_rule(layer, rules, "activation")
    if rule is None or rule.activation is None:
        return None
    name, slope = parse_activation(rule.activation)
    return Activation(name, "config", slope)


def ruled_slope(layer: Layer, rules: Sequence[Rule], activation: Activation) -> Activation:
    """Return the activation with the slope that a rule gives it.

    Raises:
        SettingsError: it takes none.
    """
    rule = last_rule(layer, rules, "slope")
    return activation if rule is None else _slope_of(activation, rule, layer.name)


def _slope_of(activation: Activation, rule: Rule, layer: str = "") -> Activation:
    if activation.name not in SLOPES:
        of = f" of layer {layer!r}" if layer else ""
        raise SettingsError(
            f"rule {rule.glob!r}: slope: activation {activation.name!r}{of} takes none",
            f"give one that does: {', '.join(sorted(SLOPES))}",
        )
    return replace(activation, slope=rule.slope, parameter=None)


def ruled_skip(layer: Layer, rules: Sequence[Rule]) -> Skip | None:
    """Return the shortcut that a rule gives a layer, None where none does.

    Raises:
        SettingsError: that shortcut does not fit the layer's shape.
    """
    rule = last_rule(layer, rules, "skip")
    if rule is None or rule.skip is None or rule.skip in PROJECTIONS:
        return None
    strided = layer.conv is not None and max(layer.conv.stride.value) > 1
    outputs, inputs = layer.matrix_shape
    what = f"{layer.kind} {outputs}×{inputs}"
    reason = ""
    if rule.skip == "none":
        pass
    elif layer.kind == "embedding" or (strided and layer.conv is not None and layer.conv.transposed):
        reason = "has no skip map"
    elif rule.skip == "average-pool":
        reason = "" if strided else "has no stride"
    elif strided:
        reason = "has a stride"
    elif rule.skip == "identity" and inputs != outputs:
        reason = "is not square"
    if reason:
        raise SettingsError(
            f"rule {rule.glob!r}: skip {rule.skip!r} does not fit layer {layer.name!r}: {what} {reason}",
            "narrow the glob",
        )
    return Skip(rule.skip, "config")


def ruled_geometry(context: Context, layer: Layer, rules: Sequence[Rule]) -> Layer:
    """Return the layer with the stride, dilation, padding, groups and grid that rules give it.

    Raises:
        SettingsError: a rule about a layer that is no convolution, or that does not fit its shape.
    """
    found = {name: rule for name in _GEOMETRY if (rule := last_rule(layer, rules, name))}
    conv = layer.conv
    if not found:
        return layer
    if conv is None:
        wrong = next((name for name in found if name != "grid"), None)
        if wrong is None:
            return layer
        raise SettingsError(
            f"rule {found[wrong].glob!r}: {wrong} set for layer {layer.name!r}, which is {layer.kind}",
            "narrow the glob to convolutions",
        )
    axes = len(conv.kernel)
    for name in ("stride", "dilation"):
        if name in found:
            value = getattr(found[name], name)
            sides = (value,) * axes if isinstance(value, int) else value
            if len(sides) != axes:
                raise _length(found[name], name, layer, axes, value)
            fact = Fact(tuple(sides), "config")
            conv = replace(conv, stride=fact) if name == "stride" else replace(conv, dilation=fact)
    if "padding" in found:
        value = found["padding"].padding
        low = padding_sides(value, conv.kernel, conv.dilation.value)
        if low is None:
            raise _length(found["padding"], "padding", layer, axes, value)
        conv = replace(conv, padding=Fact(low, "config"), uneven=value == "same")
    result = layer
    if "groups" in found:
        conv, result = _regroup(context, layer, conv, found["groups"])
    grid = found["grid"].grid if "grid" in found else layer.grid
    return replace(with_geometry(result, conv), grid=grid)


_GEOMETRY = ("stride", "dilation", "padding", "groups", "grid")


def _regroup(context: Context, layer: Layer, conv: ConvGeometry, rule: Rule) -> tuple[ConvGeometry, Layer]:
    groups = rule.groups or 1
    first, second = layer.shape[:2]
    if first % groups:
        raise SettingsError(
            f"rule {rule.glob!r}: groups {groups} do not divide the {first} channels of layer "
            f"{layer.name!r} ({dimensions(layer.shape)})"
        )
    if not conv.transposed or second * groups == layer.matrix_shape[0]:
        return replace(conv, groups=Fact(groups, "config")), layer
    # The number of outputs of a transposed convolution depends on its groups: what stands beside it must fit.
    outputs = second * groups
    bias = context.sibling(layer.name, "bias")
    if bias is not None and bias.shape != (outputs,):
        raise SettingsError(
            f"rule {rule.glob!r}: groups {groups} give layer {layer.name!r} {outputs} outputs, "
            f"its bias has {bias.size}"
        )
    fixed = replace(layer, bias=bias.name if bias else None, normalization=None)
    return replace(conv, groups=Fact(groups, "config")), fixed


def _length(rule: Rule, name: str, layer: Layer, axes: int, value: object) -> SettingsError:
    return SettingsError(
        f"rule {rule.glob!r}: {name}: expected one number or {axes} for layer {layer.name!r} "
        f"({layer.kind}), got {value!r}"
    )


def _at_least(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _all_at_least(value: object, least: int) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return bool(values) and all(_at_least(item, least) for item in values)
