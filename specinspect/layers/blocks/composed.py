"""Chains of layers that the user names by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import prod

from specinspect.errors import LayerError
from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import Block, Pool, Scale, Shortcut, total_stride
from specinspect.layers.blocks.walk import NotUnderstoodError, Walk
from specinspect.layers.model import Layer
from specinspect.layers.names import listed


def compose(text: str, layers: Sequence[Layer]) -> Block:
    """Make a block of layers that a user names, joined by ':' and applied from left to right.

    Each layer brings the batch norm and the activation that follow it. The shortcut is the isometry that
    fits the shapes.

    Raises:
        LayerError: an unknown layer, or shapes that do not chain.
    """
    names = [name.strip() for name in text.split(":")]
    if len(names) < 2 or not all(names):
        raise LayerError(
            f"--compose: expected layer names joined by ':', got {text!r}", "for example fc1:fc2"
        )
    known = Known(tuple(layers), None, {}, {})
    chain = [_layer_called(name, known) for name in names]
    walk = Walk(known, [], [])
    left_out = []
    for before, layer in zip((None, *chain[:-1]), chain, strict=True):
        if before is not None and before.matrix_shape[0] != layer.matrix_shape[1]:
            raise LayerError(
                f"--compose {text!r}: expected a layer that reads the {before.matrix_shape[0]} outputs of "
                f"{before.name}, got {layer.name}, which reads {layer.matrix_shape[1]}",
                "name the layers in the order in which data meets them",
            )
        try:
            walk.factors.append(walk.layer(layer))
        except NotUnderstoodError as error:
            raise LayerError(
                f"--compose {text!r}: expected linear layers and convolutions, but {error}"
            ) from None
        norm = layer.normalization
        if norm is not None and norm.kind == "batch_norm":
            walk.norm(norm, norm.name, first=False)
        elif norm is not None:
            left_out.append(norm.name)
        walk.activate(layer.activation)
    notes = []
    if left_out:
        notes.append(f"{listed(left_out)} left out: such a normalisation depends on the input")
    names_assumed = [layer.name for layer in chain if layer.activation.source == "assumed"]
    if names_assumed:
        notes.append(f"activation after {listed(names_assumed)} assumed")
    dense = [layer.name for layer in chain if layer.conv is None]
    if walk.axes and dense:
        notes.append(f"{listed(dense)} applied at each pixel")
    return Block(
        text, "composed", tuple(walk.factors), _isometry(walk, known.by_name), "config", tuple(notes)
    )


def _layer_called(name: str, known: Known) -> Layer:
    layer = known.by_name.get(name)
    if layer is None:
        close = get_close_matches(name, known.by_name, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "names are those of `report`"
        raise LayerError(f"--compose: expected the name of a layer, got {name!r}", hint)
    return layer


def _isometry(walk: Walk, layers: Mapping[str, Layer]) -> Shortcut:
    """Return the isometry that fits a branch (MATH R33); none where channels change beside a stride."""
    square = walk.inputs == walk.width
    stride = total_stride(walk.factors, layers)
    if prod(stride) > 1:
        if not square:
            return Shortcut("none", "assumed")
        return Shortcut("average-pool", "assumed", (Pool(stride), Scale(prod(stride) ** 0.5)))
    return Shortcut("identity" if square else "rectangular-identity", "assumed")
