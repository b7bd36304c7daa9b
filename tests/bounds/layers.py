"""Layers as plain numpy arrays, with everything that bounds rest on taken from dense decompositions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from specinspect.spectra.quantities import Entries, LayerQuantities, PatternQuantities

Array = NDArray[np.float64]


def sigma(matrix: Array) -> Array:
    """Return the singular values, descending."""
    return np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)


def entries_of(w: Array) -> Entries:
    """Return the moments of the entries, by definition."""
    centred = w - w.mean()
    second = float((centred**2).mean())
    third, fourth = float((centred**3).mean()), float((centred**4).mean())
    return Entries(
        shape=(w.shape[0], w.shape[1]),
        largest=float(np.abs(w).max()),
        mean=float(w.mean()),
        standard_deviation=float(np.sqrt((w**2).mean())),
        skewness=third / second**1.5 if second else 0.0,
        excess_kurtosis=fourth / second**2 - 3 if second else 0.0,
        row_norms=np.linalg.norm(w, axis=1),
        column_norms=np.linalg.norm(w, axis=0),
    )


def eigenvalues_of_symmetric_part(w: Array) -> Array:
    """Return τ: of WAᵀ + AWᵀ or AᵀW + WᵀA, A the rectangular identity, descending."""
    m, n = w.shape
    identity = np.eye(m, n)
    product = identity.T @ w if m >= n else w @ identity.T
    return np.asarray(np.linalg.eigvalsh(product + product.T)[::-1], dtype=np.float64)


def layer_of(
    w: Array,
    *,
    rho: float = 1.0,
    beta: float = 1.0,
    diagonals: Sequence[Array] = (),
    activation: str = "identity",
) -> LayerQuantities:
    """Return the quantities of one dense layer with a (rectangular) identity beside it."""
    m, n = w.shape
    identity = np.eye(m, n)
    patterns = []
    for d in diagonals:
        dw = d[:, None] * w
        tau = eigenvalues_of_symmetric_part(dw)
        patterns.append(
            PatternQuantities(
                diagonal=d,
                chain=sigma(dw)[None],
                skip_chain=sigma(rho * identity + beta * dw)[None],
                tau=np.array([[tau[-1], tau[0]]]),
            )
        )
    return LayerQuantities(
        kind="linear",
        shape=(m, n),
        rho=rho,
        beta=beta,
        shortcut="identity" if m == n else "rectangular-identity",
        weight=sigma(w)[None],
        multiplicity=np.ones(1, dtype=np.int64),
        skip=sigma(rho * identity + beta * w)[None],
        tau=eigenvalues_of_symmetric_part(w)[None],
        floor=1e-14 * float(np.linalg.norm(w)),
        entries=entries_of(w),
        patterns=tuple(patterns),
        activation=activation,
    )


def adversarial(n: int, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Yield square matrices of every family that has ever broken a bound."""
    g = rng.standard_normal((n, n))
    q = np.linalg.qr(g)[0]
    yield "gaussian", g / np.sqrt(n)
    yield "uniform", rng.uniform(-1, 1, (n, n)) / np.sqrt(n)
    yield "all-equal", np.full((n, n), rng.uniform(-2, 2))
    yield "rank one", np.outer(rng.standard_normal(n), rng.standard_normal(n))
    yield "skew", g - g.T
    yield "orthogonal", q
    yield "symmetric", g + g.T
    yield "normal", q @ np.diag(rng.standard_normal(n)) @ q.T
    yield "nilpotent", np.triu(g, 1)
    yield "ill-conditioned", q @ np.diag(np.logspace(0, -8, n)) @ np.linalg.qr(rng.standard_normal((n, n)))[0]
    yield "negative τ", -np.eye(n) + 0.1 * g
    yield "zero", np.zeros((n, n))
    yield "minus identity", -np.eye(n)


def relu_patterns(n: int, count: int, rng: np.random.Generator, slope: float = 0.0) -> list[Array]:
    """Return diagonals of ones and slopes."""
    return [np.where(rng.random(n) < rng.random(), 1.0, slope) for _ in range(count)]
