"""What a block takes, and the grid that bounds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import prod

from specinspect.layers.blocks import (
    Activate,
    Apply,
    Block,
    Factor,
    Gate,
    Normalize,
    Repeat,
    total_stride,
)
from specinspect.layers.model import Layer
from specinspect.maps.blocks import Grid, block_grid
from specinspect.spectra.blocks.pixel import DENSE_COLUMNS

MOST_OPERATIONS = 3e11
"""Beyond this, some ten seconds, a block gets a smaller grid, or fewer patterns."""


def affordable_grid(block: Block, layers: Mapping[str, Layer], grid: int, patterns: int) -> int:
    """Return the side of the grid, halved until the work is bounded."""
    while grid > 1 and block_operations(block, layers, grid, patterns) > MOST_OPERATIONS:
        smaller = grid // 2
        if block_grid(block, layers, smaller) == block_grid(block, layers, grid):
            break
        grid = smaller
    return grid


def own_sides(
    block: Block,
    layers: Mapping[str, Layer],
    given: Sequence[int] | None,
    patterns: int,
    *,
    zeros: bool,
    per_pixel: bool,
) -> tuple[int, ...] | None:
    """Return the sides of the images given for a block's first layer if it is measured on those, else None.

    With zeros around them any sides will do, up to DENSE_COLUMNS where one diagonal per channel is wanted;
    periodic ones must be a multiple of the strides, hold the kernels and be affordable.

    Args:
        block: to be measured.
        layers: name → layer.
        given: shape of what comes into the first layer, None without.
        patterns: how many inputs are taken.
        zeros: whether there are zeros around the grid.
        per_pixel: whether every pixel has a diagonal of its own.
    """
    first = layers[block.layers[0]]
    if given is None or first.conv is None or len(given) != 2 + len(first.conv.kernel):
        return None
    sides, channels = tuple(given[2:]), first.matrix_shape[1]
    lead = takewhile(lambda factor: not isinstance(factor, Apply | Gate), block.factors)
    if given[1] != channels or not min(given) or any(_varies(factor) for factor in lead):
        return None
    if zeros:
        return sides if per_pixel or channels * prod(sides) <= DENSE_COLUMNS else None
    fits = block_grid(block, layers, sides) == sides
    return sides if fits and block_operations(block, layers, sides, patterns) <= MOST_OPERATIONS else None


def _varies(factor: Factor) -> bool:
    """Say whether a factor without a layer has a derivative that depends on the input."""
    normalises = isinstance(factor, Normalize) and factor.norm.kind != "batch_norm" and not factor.gain_only
    return normalises or isinstance(factor, Activate)


def exact_cost(block: Block, layers: Mapping[str, Layer], grid: Grid, patterns: int) -> tuple[int, float]:
    """Estimate the bytes and operations of a block with zeros around its grid, or a diagonal per pixel.

    Written out, J and its shortcut are matrices over all pixels; iterated, only vectors are held.
    """
    chosen = [layers[name] for name in block.layers]
    sides = grid if isinstance(grid, tuple) else block_grid(block, layers, grid)
    stride = total_stride(block.factors, layers) or (1,) * len(sides)
    columns = chosen[0].matrix_shape[1] * prod(sides)
    rows = chosen[-1].matrix_shape[0] * prod(sides) // prod(stride)
    n, m = min(rows, columns), max(rows, columns)
    if columns > DENSE_COLUMNS:
        products = 1e3 * 8.0 * prod(sides) * sum(prod(layer.shape) for layer in chosen)
        return 8 * 128 * m, 2 * patterns * products
    return 8 * 8 * m * n, patterns * (6.0 * m * n * n + 14.0 * n**3)


def affordable_patterns(block: Block, layers: Mapping[str, Layer], grid: Grid, patterns: int) -> int:
    """Return how many activation patterns bound the work, where a grid that holds the kernels does not."""
    if not block_grid(block, layers, grid):
        return patterns
    most = MOST_OPERATIONS / max(block_operations(block, layers, grid, 1), 1.0)
    return max(1, min(patterns, int(most)))


def block_operations(block: Block, layers: Mapping[str, Layer], grid: Grid, patterns: int) -> float:
    """Estimate the floating-point operations that a block takes."""
    chosen = [layers[name] for name in block.layers]
    inputs, outputs = chosen[0].matrix_shape[1], chosen[-1].matrix_shape[0]
    sides = block_grid(block, layers, grid)
    ratio = 1
    for layer in chosen:
        ratio *= prod(layer.conv.stride.value) if layer.conv is not None else 1
    ratio = max(
        ratio, *(f.stride ** len(sides) for f in block.factors if isinstance(f, Apply) and f.stride), 1
    )
    frequencies_ = max(1, prod(sides) // ratio // 2) if sides else 1
    width = min(outputs, inputs * ratio)
    narrow = min([width, *(layer.matrix_shape[0] for layer in chosen)])
    skip = min(2 * narrow, width) if block.shortcut.kind == "identity" else width
    solve = narrow**3 + (skip**3 if block.shortcut.kind != "none" else 0)
    multiply = ratio * sum(prod(layer.matrix_shape) for layer in chosen) * min(inputs, narrow)
    each = (40 if sides else 10) * solve + (8 if sides else 2) * multiply
    varies = any(not isinstance(f, Apply | Repeat) for f in block.factors)
    return float(each) * frequencies_ * (patterns if varies else 1)
