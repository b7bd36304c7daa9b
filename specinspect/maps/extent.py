"""How large a zero-padded convolution is as a matrix; from its facts alone, without torch."""

from __future__ import annotations

from math import prod

from specinspect.layers.model import ConvGeometry, Layer
from specinspect.maps.build import grid_sides, high_padding, low_padding

DENSE_SIDE = 4096
"""The smaller side, of one group, up to which an operator is written out and solved in full."""
DENSE_ENTRIES = 2 * DENSE_SIDE**2


def padded_shape(layer: Layer, side: int) -> tuple[int, int] | None:
    """Return (rows, columns) of one group of a convolution with zeros around its grid, None for other layers.

    Args:
        layer: whose grid is that of its finer side.
        side: of the grid, where no rule gives the layer another one.

    Raises:
        ResourceError: the grid is too fine.
    """
    conv, fine = layer.conv, layer.sides or grid_sides(layer, side)
    if conv is None or fine is None:
        return None
    coarse = prod(max(places, 0) for places in _places(conv, fine))
    out, inn = (channels // conv.groups.value for channels in layer.matrix_shape)
    places = (prod(fine), coarse) if conv.transposed else (coarse, prod(fine))
    return out * places[0], inn * places[1]


def is_written_out(rows: int, columns: int) -> bool:
    """Say whether an operator of this size is written out; of larger ones the extremes are iterated."""
    return min(rows, columns) <= DENSE_SIDE and rows * columns <= DENSE_ENTRIES


def keeps_size(conv: ConvGeometry, sides: tuple[int, ...]) -> bool:
    """Say whether a convolution with its own zeros has one output for each stride of its input."""
    each = [n // s for n, s in zip(sides, conv.stride.value, strict=True)]
    return each == _places(conv, sides)


def _places(conv: ConvGeometry, sides: tuple[int, ...]) -> list[int]:
    """Return how many outputs there are along each axis, by torch's formula."""
    zeros = [low + high for low, high in zip(low_padding(conv), high_padding(conv), strict=True)]
    axes = zip(sides, zeros, conv.kernel, conv.dilation.value, conv.stride.value, strict=True)
    return [(n + added - d * (k - 1) - 1) // s + 1 for n, added, k, d, s in axes]
