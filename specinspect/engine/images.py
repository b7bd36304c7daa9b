"""What a convolution is measured on: the sides of its images, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from specinspect.layers.model import Layer
from specinspect.maps import ConvolutionMap, asked_side, grid_sides
from specinspect.maps.extent import keeps_size
from specinspect.settings import Settings

if TYPE_CHECKING:
    from specinspect.spectra.model import Spectrum


def on_own_sides(layer: Layer, linear: ConvolutionMap) -> ConvolutionMap:
    """Return the layer's map on images of the sides that are given for it, which no stride need divide."""
    return linear if layer.sides is None else replace(linear, grid=layer.sides)


def grid_assumptions(layer: Layer, settings: Settings) -> tuple[str, ...]:
    """Say on which grid a convolution is measured, and why on that one."""
    sides = layer.sides or grid_sides(layer, settings.grid)
    if sides is None or layer.conv is None:
        return ()
    text, asked = "×".join(map(str, sides)), asked_side(layer, settings.grid)
    padded = settings.conv_operator == "padded"
    lead = f"{text} grid with zeros around it" if padded else f"periodic {text} grid"
    mode = layer.conv.padding_mode
    other = (f"padded by {mode} in the network, by zeros here",) if padded and mode != "zeros" else ()
    if layer.sides is not None:
        return (f"{lead}: the sides of the images given", *other)
    if any(n != asked for n in sides):
        return (f"{lead} instead of side {asked}, to hold the kernel and divide by the stride", *other)
    if layer.grid is not None:
        return (f"{lead}, as a rule says", *other)
    return (f"{lead}: the input size is not stored in the checkpoint", *other)


def misaligned(layer: Layer, linear: ConvolutionMap) -> tuple[str, ...]:
    """Say so where the network's own outputs do not lie beside its inputs, as those of the skip map do."""
    known = layer.conv is not None and layer.conv.padding is not None and not layer.conv.transposed
    if layer.conv is None or not known or keeps_size(layer.conv, linear.grid):
        return ()
    zeros = "×".join(map(str, linear.padding))
    return (
        f"with a padding of {zeros} it does not keep the size of images: the skip map joins their corners",
    )


def no_skip(layer: Layer, linear: ConvolutionMap) -> tuple[str, ...]:
    """Say why a zero-padded convolution has no skip map."""
    from specinspect.maps.operator import ConvolutionOperator, shortcut_beside

    transposed = layer.conv is not None and layer.conv.transposed
    operator = ConvolutionOperator.of(linear, transposed=transposed)
    if shortcut_beside(operator, layer.skip.kind) is not None:
        return ("no skip map: its groups have other numbers of inputs than of outputs",)
    into, out = ("×".join(map(str, shape[1:])) for shape in (operator.inputs, operator.outputs))
    return (f"no skip map: with its own zeros {into} places become {out}, beside which no identity fits",)


def out_of_reach(maps: Mapping[str, Spectrum]) -> tuple[str, ...]:
    """Say of which maps the smallest singular value could not be had."""
    from specinspect.spectra.padded import ITERATIVE

    names = [
        name if found.patterns else f"{name} (at most {found.computation_floor:.1e})"
        for name, found in maps.items()
        if found.sigma_min is None and found.method.endswith(ITERATIVE)
    ]
    if not names:
        return ()
    of = ", ".join(names)
    return (f"smallest singular value of {of} out of reach of the iterative solver: no condition number",)
