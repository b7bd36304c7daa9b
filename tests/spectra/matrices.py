"""Matrices whose singular values are known, because they were built from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def orthonormal(rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Return (rows, columns) with orthonormal columns."""
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def with_spectrum(values: Array, rows: int, columns: int, seed: int = 0) -> Array:
    """Return U·diag(values)·Vᵀ, (rows, columns), with random U and V."""
    rng = np.random.default_rng(seed)
    k = len(values)
    return (orthonormal(rows, k, rng) * values) @ orthonormal(columns, k, rng).T
