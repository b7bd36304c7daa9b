"""A zero-padded convolution written out as a matrix, straight from its taps."""

from __future__ import annotations

from itertools import product
from math import prod

import torch

from specinspect.maps.operator import ConvolutionOperator


def written_out(operator: ConvolutionOperator) -> torch.Tensor:
    """Return the matrix (rows, columns) of an ungrouped convolution with zeros around its grid.

    Each pair of places is joined by at most one tap, so that every entry is written once: many times faster
    than the convolution of the identity (`operator.dense`).

    Raises:
        ValueError: it has groups, or its grid is periodic.
    """
    if operator.boundary != "zeros" or len(operator.kernel) != 1:
        raise ValueError("expected one group with zeros around its grid: take groups one by one")
    kernel = operator.kernel[0]
    out, inn, *sizes = kernel.shape
    fine, coarse = operator.grid, operator.coarse
    matrix = kernel.new_zeros(out, *coarse, inn, *fine)
    whole = slice(None)
    taps = kernel.reshape(out, inn, -1).unbind(2)
    for weights, tap in zip(taps, product(*(range(size) for size in sizes)), strict=True):
        joined = [
            _joined(t * d - low, s, n, m)
            for t, d, low, s, n, m in zip(
                tap, operator.dilation, operator.low, operator.stride, fine, coarse, strict=True
            )
        ]
        here = torch.meshgrid(*(pair[0] for pair in joined), indexing="ij")
        there = torch.meshgrid(*(pair[1] for pair in joined), indexing="ij")
        # Indices on axes that are apart: the places come first, then the two channels.
        index: tuple[slice | torch.Tensor, ...] = (whole, *here, whole, *there)
        matrix[index] = weights
    matrix = matrix.reshape(out * prod(coarse), inn * prod(fine))
    return matrix.T if operator.transposed else matrix


def _joined(offset: int, stride: int, fine: int, coarse: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which places of the coarse axis a tap reads for, and which of the fine axis it reads there."""
    places = torch.arange(coarse)
    read = places * stride + offset
    inside = (read >= 0) & (read < fine)
    return places[inside], read[inside]
