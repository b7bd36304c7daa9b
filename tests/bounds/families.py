"""Adversarial matrices, and a layer's quantities as numpy alone has them: the truth that checks are fed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from specinspect.spectra.quantities import Entries, LayerQuantities, PatternQuantities

Array = NDArray[np.float64]
SIZES = (1, 2, 3, 5, 8, 13)
WEIGHTS = ((1.0, 1.0), (1.0, 0.1), (0.5, -2.0), (-1.0, 0.7), (1.0, 0.0), (0.0, 1.0), (3.0, 1.0))
"""(ρ, β)."""


def matrices(rows: int, columns: int, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Yield one matrix of every family, (rows, columns); square families only where that is square."""
    m, n, k = rows, columns, min(rows, columns)
    u = np.linalg.qr(rng.standard_normal((m, m)))[0][:, :k]
    v = np.linalg.qr(rng.standard_normal((n, n)))[0][:, :k]
    gauss = rng.standard_normal((m, n))
    yield "zero", np.zeros((m, n))
    yield "all equal", np.full((m, n), 0.7)
    yield "rank one", np.outer(rng.standard_normal(m), rng.standard_normal(n))
    yield "isometry", u @ v.T
    yield "ill-conditioned", (u * np.logspace(0, -14, k)) @ v.T
    yield "gaussian", gauss / np.sqrt(n)
    yield "he", gauss * np.sqrt(2 / n)
    yield "large", gauss * 40
    yield "small", gauss * 1e-5
    yield "uniform", rng.uniform(-1, 1, (m, n)) / np.sqrt(n)
    if m == n:
        yield "identity", np.eye(n)
        yield "skew", gauss - gauss.T
        yield "negative τ", -np.eye(n) - 0.1 * gauss @ gauss.T
        yield "minus identity", -np.eye(n) + 1e-9 * gauss
        yield "normal", u @ np.diag(rng.standard_normal(n)) @ u.T + 0.5 * (u @ np.roll(np.eye(n), 1, 0) @ u.T)
        yield "nilpotent", np.triu(gauss, 1)
        yield "shift", np.eye(n, k=1)


def values(matrix: Array) -> Array:
    """Return the singular values, descending."""
    return np.asarray(np.linalg.svd(matrix, compute_uv=False))


def eigenvalues(a: Array, m: Array) -> Array:
    """Return those of AᵀM + MᵀA, or of AMᵀ + MAᵀ for wide ones, descending."""
    h = a.T @ m if m.shape[0] >= m.shape[1] else a @ m.T
    return np.asarray(np.linalg.eigvalsh(h + h.T)[::-1])


def quantities(
    w: Array,
    rho: float = 1.0,
    beta: float = 1.0,
    diagonals: Array | None = None,
    *,
    kind: str = "linear",
    activation: str = "relu",
) -> LayerQuantities:
    """Return the quantities of a dense layer beside the (rectangular) identity, from dense numpy."""
    m, n = w.shape
    a = np.eye(m, n)
    patterns = []
    for d in [] if diagonals is None else diagonals:
        dw = d[:, None] * w
        tau = eigenvalues(a, dw)[[-1, 0]]
        patterns.append(PatternQuantities(d, values(dw)[None], values(rho * a + beta * dw)[None], tau[None]))
    return LayerQuantities(
        kind=kind,
        shape=(m, n),
        rho=rho,
        beta=beta,
        shortcut="identity" if m == n else "rectangular-identity",
        weight=values(w)[None],
        multiplicity=np.ones(1, dtype=np.int64),
        skip=values(rho * a + beta * w)[None],
        tau=eigenvalues(a, w)[None],
        floor=1e-14 * float(values(w)[0]),
        entries=moments(w),
        patterns=tuple(patterns),
        activation=activation,
    )


def moments(w: Array) -> Entries:
    """Return the moments of the entries."""
    flat = w.ravel()
    centred, std = flat - flat.mean(), flat.std()
    return Entries(
        shape=(w.shape[0], w.shape[1]),
        largest=float(np.abs(flat).max()),
        mean=float(flat.mean()),
        standard_deviation=float(np.sqrt(np.mean(flat**2))),
        skewness=float(np.mean(centred**3) / std**3) if std > 1e-6 else 0.0,
        excess_kurtosis=float(np.mean(centred**4) / std**4 - 3) if std > 1e-6 else 0.0,
        row_norms=np.linalg.norm(w, axis=1),
        column_norms=np.linalg.norm(w, axis=0),
    )


def layers(shapes: tuple[tuple[int, int], ...] | None = None) -> Iterator[tuple[str, Array, float, float]]:
    """Yield (family, W, ρ, β): every family at every size and pair of weights, seeded."""
    rng = np.random.default_rng(0)
    for rows, columns in shapes or tuple((n, n) for n in SIZES):
        for rho, beta in WEIGHTS:
            for name, w in matrices(rows, columns, rng):
                yield name, w, rho, beta


RECTANGULAR = ((1, 4), (5, 2), (3, 7), (9, 4), (8, 13), (13, 8))
