"""Walking along a branch: the factors that are collected, and the widths that must fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import (
    Activate,
    Apply,
    Block,
    Factor,
    Gate,
    Heads,
    Normalize,
    Repeat,
    total_stride,
)
from specinspect.layers.model import Activation, Layer, Normalization
from specinspect.layers.names import listed


class NotUnderstoodError(Exception):
    """A step that has no place in a block; says why."""

    def __init__(self, why: str, *, tell: bool = False) -> None:
        """Say why; `tell` where names alone promised a block, so that a user should hear of it."""
        super().__init__(why)
        self.tell = tell


@dataclass
class Walk:
    """Factors as they are collected, and how wide the data is between them."""

    known: Known
    factors: list[Factor]
    assumptions: list[str]
    inputs: int | None = None
    width: int | None = None
    axes: int = 0
    """Spatial axes of the convolutions so far."""
    kind: Literal["", "attention-vo", "gated-mlp"] = ""

    def reach(self, width: int, what: str) -> None:
        """Take in something that reads `width` channels."""
        if self.width is not None and self.width != width:
            raise NotUnderstoodError(f"{what} reads {width} channels, {self.width} come in")
        if self.inputs is None:
            self.inputs = width
        self.width = width

    def layer(self, layer: Layer, rows: tuple[int, int] | None = None, stride: int | None = None) -> Apply:
        """Take in a layer."""
        self.check(layer)
        outputs, inputs = layer.matrix_shape
        self.reach(inputs, layer.name)
        if layer.conv is not None:
            self.axes = len(layer.conv.kernel)
        self.width = outputs if rows is None else rows[1] - rows[0]
        return Apply(layer.name, rows, stride)

    def check(self, layer: Layer) -> None:
        """Refuse what has no map here."""
        if layer.kind in {"lora", "embedding"}:
            raise NotUnderstoodError(f"{layer.name} is a layer of kind {layer.kind}")
        if layer.conv is None:
            return
        if layer.conv.transposed:
            raise NotUnderstoodError(f"{layer.name} is a transposed convolution")
        if self.axes and len(layer.conv.kernel) != self.axes:
            raise NotUnderstoodError(
                f"{layer.name} has {len(layer.conv.kernel)} spatial axes, not {self.axes}"
            )

    def norm(self, norm: Normalization | None, path: str, *, first: bool) -> None:
        """Take in a normalisation, its gain alone where nothing came before it."""
        if norm is None:
            raise NotUnderstoodError(f"{path} is no batch, layer or RMS normalisation")
        gain = self.known.gain(path)
        if gain is not None:
            if len(gain.shape) != 1:
                raise NotUnderstoodError(f"{path} normalises over several axes")
            self.reach(gain.shape[0], path)
        batch = norm.kind == "batch_norm"
        self.factors.append(Normalize(norm, first and not batch, self.known.offset(norm)))
        if first and not batch:
            self.assumptions.append(
                f"gain of {path} folded into the input: the Jacobian of the normalisation itself is left out"
            )

    def activate(self, applied: Activation) -> None:
        """Take in an activation."""
        if applied.name != "identity":
            self.factors.append(Activate(applied))


ATTENTION = "attention weights left out: values to output at one token, as under uniform attention"


def spread_heads(walk: Walk, heads: Heads | None) -> None:
    """Let every key-value head serve its queries."""
    if heads is not None and heads.key_values < heads.count:
        walk.factors.append(Repeat(heads.count // heads.key_values, heads.size))
        walk.width = heads.count * heads.size


def gated_factor(walk: Walk, gate: Layer, up: Layer, activation: Activation) -> Gate:
    """Return the gate of two layers of equal shape."""
    if gate.matrix_shape != up.matrix_shape or gate.conv is not None or up.conv is not None:
        raise NotUnderstoodError(f"{gate.name} and {up.name} are no matrices of equal shape")
    applied = walk.layer(gate)
    return Gate(applied, Apply(up.name), activation)


def check_spatial(known: Known, block: Block) -> None:
    """Refuse branches that leave another grid than their shortcut."""
    strides = [total_stride(factors, known.by_name) for factors in (block.factors, block.shortcut.factors)]
    sides = {stride for stride in strides if stride} or {()}
    ones = all(set(stride) <= {1} for stride in sides)
    if len(sides) > 1 and not ones:
        raise NotUnderstoodError("branch and shortcut have different strides")
    if not strides[1] and not ones:
        raise NotUnderstoodError("a strided branch beside an identity")


def assumed(known: Known, factors: Sequence[Factor], block: str, more: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences about a block that its names told, and the activations inside it."""
    sentences = [f"{block} taken from the names of its layers"]
    names = [
        f.activation.name
        for f in factors
        if isinstance(f, Activate | Gate) and f.activation.source == "assumed"
    ]
    if names:
        sentences.append(
            f"{listed(list(dict.fromkeys(names)))} inside it assumed: activations are not stored"
        )
    return (*sentences, *more)


def check_square(walk: Walk) -> None:
    """Refuse a branch that changes the number of channels."""
    if walk.inputs != walk.width:
        raise NotUnderstoodError(f"{walk.inputs} channels come in, {walk.width} go out")
