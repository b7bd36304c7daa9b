"""Moments of a weight's entries, which the bounds on bounded and on random entries rest on (MATH C, E)."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch

from specinspect.maps.model import ConvolutionMap, DenseMap
from specinspect.spectra.quantities import Entries
from specinspect.spectra.summary import harmless_scale

BLOCK = 1 << 17
"""Entries that are taken to float64 at a time."""


def entries(linear: DenseMap | ConvolutionMap) -> Entries:
    """Return the moments of the entries of a finite weight, read once in blocks of rows.

    Skewness and excess kurtosis are zero where all entries are equal.
    """
    if isinstance(linear, ConvolutionMap):
        groups, out, inn = linear.kernel.shape[:3]
        matrix = linear.kernel.reshape(groups * out, inn * linear.kernel[0, 0, 0].numel())
    else:
        matrix = linear.matrix
    rows, columns = matrix.shape
    low, high = (matrix if matrix.dtype.itemsize > 1 else matrix.float()).aminmax()  # makes no copy
    largest = max(-float(low), float(high))
    scale = harmless_scale(largest)
    count = rows * columns
    sums = np.zeros(4)
    row_squares, column_squares = [], torch.zeros(columns, dtype=torch.float64)
    # Written over block after block: fresh memory would take longer than all of the arithmetic.
    step = min(rows, max(1, BLOCK // columns))
    values, squared = (torch.empty(step, columns, dtype=torch.float64) for _ in range(2))
    ones = torch.ones(max(step, columns), dtype=torch.float64)
    for start in range(0, rows, step):
        part = matrix[start : start + step]
        block = values[: len(part)].copy_(part)
        if scale != 1.0:
            block.mul_(scale)
        squares = torch.mul(block, block, out=squared[: len(part)])
        # Products with ones: quicker than sums along an axis.
        row_squares.append(squares.mv(ones[:columns]))
        column_squares.addmv_(squares.T, ones[: len(part)])
        flat, flat2 = block.view(-1), squares.view(-1)
        sums += [float(flat.sum()), float(row_squares[-1].sum()), float(flat2 @ flat), float(flat2 @ flat2)]
    mean, second, third, fourth = sums / count
    variance = second - mean**2
    skewness = kurtosis = 0.0
    if variance > 1e-12 * second:
        skewness = (third - 3 * mean * second + 2 * mean**3) / variance**1.5
        central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        kurtosis = central / variance**2 - 3
    return Entries(
        shape=(rows, columns),
        largest=largest,
        mean=float(mean) / scale,
        standard_deviation=sqrt(second) / scale,
        skewness=float(skewness),
        excess_kurtosis=float(kurtosis),
        row_norms=torch.cat(row_squares).sqrt().numpy() / scale,
        column_norms=column_squares.sqrt().numpy() / scale,
        taps=linear.kernel[0, 0, 0].numel() if isinstance(linear, ConvolutionMap) else None,
    )
