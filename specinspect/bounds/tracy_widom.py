"""The Tracy-Widom law of order 1: how far an extreme eigenvalue strays from the edge (MATH R16, R20)."""

from __future__ import annotations

from functools import lru_cache
from math import exp, expm1, log

import numpy as np
from numpy.typing import NDArray

_NODES = 64
_LENGTH = 18.0
"""Ai(x) < 1e-23 beyond: the half-line of the determinant is cut there."""
_LOWEST, _HIGHEST = -8.0, 100.0
_SMALLEST_TAIL = 1e-280


def tail(s: float) -> float:
    """Return P(TW1 > s) = 1 - F1(s), with F1(s) = det(I - Ai(x + y + s)) on the half-line.

    The determinant is taken by Gauss-Legendre quadrature (Bornemann 2010), through eigenvalues, so that small
    tails keep their digits.
    """
    from scipy.special import airy

    points, weights = _quadrature()
    root = np.sqrt(weights)
    # Beyond its turning point Ai(x + s) lives on x < -s + 8: the nodes cover that for s >= -8.
    kernel = np.zeros((_NODES, _NODES))
    row, column = np.tril_indices(_NODES)  # all that eigvalsh reads, and airy takes nearly all of the time
    kernel[row, column] = root[row] * airy(points[row] + points[column] + s)[0] * root[column]
    values = np.linalg.eigvalsh(kernel)
    return float(-expm1(np.log1p(-np.minimum(values, 1 - 1e-16)).sum()))


@lru_cache(maxsize=64)
def upper_quantile(delta: float) -> float:
    """Return q with P(TW1 > q) = δ: q_{1-δ} of MATH §E, to about nine digits.

    Args:
        delta: in (0, 1); below 1e-280 it counts as that.
    """
    target = log(max(delta, _SMALLEST_TAIL))
    low, high = _LOWEST, _HIGHEST
    above, below = _excess(low, target), _excess(high, target)
    if above <= 0:
        return low
    # The Illinois form of false position: scipy.optimize would take longer to load than this to run.
    last = 0
    while high - low > 1e-10:
        s = (low * below - high * above) / (below - above)
        found = _excess(s, target)
        if abs(found) < 1e-11:
            return s
        if found > 0:
            low, above, below = s, found, below / 2 if last > 0 else below
        else:
            high, below, above = s, found, above / 2 if last < 0 else above
        last = 1 if found > 0 else -1
    return (low + high) / 2


def _excess(s: float, target: float) -> float:
    """Return log P(TW1 > s) - target; it falls nearly like s^1.5."""
    return log(max(tail(s), exp(-700))) - target


@lru_cache(maxsize=1)
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1) * _LENGTH / 2, weights * _LENGTH / 2
