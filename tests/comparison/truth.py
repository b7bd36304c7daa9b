"""Dense truth, and matrices whose spectra and singular vectors are known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.comparison.model import LayerComparison
from specinspect.comparison.run import compare

Matrix = NDArray[np.float64]


def pair(a: Any, b: Any, **settings: Any) -> LayerComparison:
    """Compare two weights that are called layer.weight."""
    found = compare({"layer.weight": _tensor(a)}, {"layer.weight": _tensor(b)}, device="cpu", **settings)
    assert len(found.layers) == 1
    return found.layers[0]


def compared(a: Mapping[str, Any], b: Mapping[str, Any], **settings: Any) -> Any:
    """Compare two state dicts of arrays or tensors."""
    one, other = ({name: _tensor(value) for name, value in state.items()} for state in (a, b))
    return compare(one, other, device="cpu", **settings)


def _tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(value))


def orthogonal(n: int, seed: int) -> Matrix:
    """Return an n × n orthogonal matrix."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return q


def build(m: int, n: int, values: Any, u: Matrix, v: Matrix) -> Matrix:
    """Return U·diag(values)·Vᵀ, m × n."""
    s = np.zeros((m, n))
    s[range(len(values)), range(len(values))] = values
    return u @ s @ v.T


def circular(kernel: Matrix, grid: tuple[int, ...], stride: int = 1) -> Matrix:
    """Return the matrix of a periodic convolution, written out place by place."""
    out, inn = kernel.shape[:2]
    coarse = tuple(n // stride for n in grid)
    matrix = np.zeros((out, *coarse, inn, *grid))
    for place in itertools.product(*map(range, coarse)):
        for tap in itertools.product(*map(range, kernel.shape[2:])):
            where = tuple((stride * p + t) % n for p, t, n in zip(place, tap, grid, strict=True))
            here: Any = (slice(None), *place, slice(None), *where)
            there: Any = (slice(None), slice(None), *tap)
            matrix[here] += kernel[there]
    return matrix.reshape(out * prod(coarse), inn * prod(grid))
