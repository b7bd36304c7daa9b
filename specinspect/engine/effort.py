"""What is said of a run that takes long: before it begins, or once that shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from specinspect.errors import ResourceError
from specinspect.layers.blocks import Block
from specinspect.layers.model import Layer
from specinspect.maps import grid_sides
from specinspect.maps.extent import DENSE_SIDE, is_written_out, padded_shape
from specinspect.schedule import cost
from specinspect.settings import Settings

LARGE = 2048
"""Columns from which an operator that is written out takes seconds for each of its maps."""
LONG = 5e11
"""Floating-point operations, by `schedule.cost`, from which a run is called long: about half a minute."""


def long_work(layers: Sequence[Layer], blocks: Sequence[Block], settings: Settings) -> tuple[str, ...]:
    """Return a sentence where large convolutions with zeros around them are written out, () elsewhere.

    Args:
        layers: that are measured.
        blocks: that are measured.
        settings: of the run.
    """
    if settings.conv_operator != "padded":
        return ()
    large = [layer for layer in layers if _large(layer, settings.grid)]
    by_name = {layer.name: layer for layer in layers}
    whole = [b for b in blocks if b.layers[0] in by_name and _wide(by_name[b.layers[0]], settings.grid)]
    if not whole and sum(cost(layer, settings).operations for layer in large) < LONG:
        return ()
    counted = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((len(large), "layer"), (len(whole), "block"))
        if count
    ]
    given = any(layer.sides is not None for layer in large)
    smaller = "smaller images in --inputs are" if given else "a smaller --grid is"
    are = "are dense matrices" if len(large) + len(whole) > 1 else "is a dense matrix"
    return (
        f"--conv-operator padded: {' and '.join(counted)} {are} of {LARGE:,} to {DENSE_SIDE:,} columns, "
        f"which takes minutes; {smaller} quicker, and so are fewer --layers or --patterns",
    )


def quicker(layers: Sequence[Layer], settings: Settings) -> str:
    """Return what would make a run quicker and by how much, estimated; '' where nothing much would.

    Args:
        layers: that are measured.
        settings: of the run.
    """

    def work(chosen: Settings) -> float:
        return sum(cost(layer, chosen).operations for layer in layers)

    patterns, grid = max(1, settings.patterns // 4), max(1, settings.grid // 2)
    ways = {
        "--maps weight": replace(settings, maps=("weight",)),
        f"--patterns {patterns}": replace(settings, patterns=patterns),
        f"--grid {grid}": replace(settings, grid=grid),
    }
    asked = work(settings)
    ratios = {name: asked / max(1.0, work(other)) for name, other in ways.items()}
    worth = [f"{name} is some {ratio:.0f} times quicker" for name, ratio in ratios.items() if ratio >= 2]
    return ", ".join(worth)


def _large(layer: Layer, side: int) -> bool:
    try:
        shape = padded_shape(layer, side)
    except ResourceError:  # said by name where the layer is computed
        return False
    return shape is not None and min(shape) >= LARGE and is_written_out(*shape)


def _wide(first: Layer, side: int) -> bool:
    """Say whether a block that begins with this layer is large and yet written out, by its columns."""
    try:
        sides = grid_sides(first, side)
    except ResourceError:
        return False
    return sides is not None and LARGE <= first.matrix_shape[1] * prod(sides) <= DENSE_SIDE
