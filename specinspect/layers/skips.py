"""Which shortcut a skip map has: an isometry that follows from the layer's shapes (MATH R33)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from specinspect.architecture.model import ResidualBlock
from specinspect.layers.model import Layer, Skip

Kind = Literal["identity", "rectangular-identity", "average-pool", "none"]


def skip_of(layer: Layer, alone: frozenset[str]) -> Skip:
    """Return the shortcut that fits a layer.

    Args:
        layer: with its geometry.
        alone: paths of the layers that the network itself has a skip around; for all others the map asks
            what one would do, which is no guess about the network.
    """
    kind = _kind(layer)
    return Skip(kind, "model" if kind != "none" and layer.name in alone else "assumed")


def _kind(layer: Layer) -> Kind:
    outputs, inputs = layer.matrix_shape
    square = outputs == inputs
    if layer.kind == "linear":
        return "identity" if square else "rectangular-identity"
    if layer.kind == "recurrent":
        # From one state to the next; the input's part has no skip to speak of.
        recurrent = any("_hh" in name.rpartition(".")[2] for name in layer.parameters)
        return "identity" if recurrent and square else "none"
    conv = layer.conv
    if conv is None or layer.kind == "lora":
        return "none"
    strided = max(conv.stride.value) > 1
    if (conv.transposed and strided) or (conv.groups.value > 1 and not square):
        return "none"
    if strided:
        return "average-pool"
    return "identity" if square else "rectangular-identity"


def layers_alone(blocks: Iterable[ResidualBlock]) -> frozenset[str]:
    """Return the layers that are alone on the branch of a residual block, norms and activations aside."""
    found = set()
    for block in blocks:
        layers = [step.path for step in block.branch if step.kind == "layer"]
        plain = all(step.kind in {"layer", "norm", "activation"} for step in block.branch)
        direct = all(step.kind == "pool" for step in block.shortcut)
        if len(layers) == 1 and plain and direct:
            found.add(layers[0])
    return frozenset(found)
