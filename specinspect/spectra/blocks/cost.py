"""What a block takes, and the grid that bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from specinspect.layers.blocks import Apply, Block, Repeat, total_stride
from specinspect.layers.model import Layer
from specinspect.maps.blocks import block_grid
from specinspect.spectra.blocks.pixel import DENSE_COLUMNS

MOST_OPERATIONS = 1e12
"""Beyond this a block gets a smaller grid."""


def affordable_grid(block: Block, layers: Mapping[str, Layer], grid: int, patterns: int) -> int:
    """Return the side of the grid, halved until the work is bounded."""
    while grid > 1 and block_operations(block, layers, grid, patterns) > MOST_OPERATIONS:
        smaller = grid // 2
        if block_grid(block, layers, smaller) == block_grid(block, layers, grid):
            break
        grid = smaller
    return grid


def exact_cost(block: Block, layers: Mapping[str, Layer], grid: int, patterns: int) -> tuple[int, float]:
    """Estimate the bytes and operations of a block with zeros around its grid, or a diagonal per pixel.

    Written out, J and its shortcut are matrices over all pixels; iterated, only vectors are held.
    """
    chosen = [layers[name] for name in block.layers]
    sides = block_grid(block, layers, grid)
    stride = total_stride(block.factors, layers) or (1,) * len(sides)
    columns = chosen[0].matrix_shape[1] * prod(sides)
    rows = chosen[-1].matrix_shape[0] * prod(sides) // prod(stride)
    n, m = min(rows, columns), max(rows, columns)
    if columns > DENSE_COLUMNS:
        products = 1e3 * 8.0 * prod(sides) * sum(prod(layer.shape) for layer in chosen)
        return 8 * 128 * m, 2 * patterns * products
    return 8 * 8 * m * n, patterns * (6.0 * m * n * n + 14.0 * n**3)


def affordable_patterns(block: Block, layers: Mapping[str, Layer], grid: int, patterns: int) -> int:
    """Return how many activation patterns bound the work, where a grid that holds the kernels does not."""
    if not block_grid(block, layers, grid):
        return patterns
    most = MOST_OPERATIONS / max(block_operations(block, layers, grid, 1), 1.0)
    return max(1, min(patterns, int(most)))


def block_operations(block: Block, layers: Mapping[str, Layer], grid: int, patterns: int) -> float:
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
