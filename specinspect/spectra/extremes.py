"""The largest and smallest singular value of ρA+βM at many β at once, without a full eigenvalue problem each.

One Lanczos process per β works on (ρA+βM)ᴴ(ρA+βM); all of them together need two products of M with a slim
matrix per step. Where that does not reach the small end, the inverse is used: an LU factorisation of the
square ρI+βM (never of its Gram matrix, so no digits are squared away), a Cholesky factorisation of the Gram
matrix otherwise.

A Lanczos process can settle on the wrong one of two nearly equal values, since its start may happen to be
almost orthogonal to the right vector. So every process runs twice from independent random starts, and a value
counts only where both agree to seven digits and both residuals are small; everything else goes to the full
solver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.spectra.family import Family
from specinspect.spectra.solve import EPS, SIX_DIGITS, SVD_MARGIN

Array = NDArray[np.float64]
Apply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Vectors as rows, (c, n), and the index of each one's problem → each operator times its vector."""

AGREE = 2e-7
"""Relative difference of two processes' eigenvalues (of σ²) that is still called agreement."""
SETTLED = 5e-7
"""Largest residual, relative to the eigenvalue: small enough to see a second one that is 1e-6 away."""
HOPELESS = 1e-3
"""The small end is left to the inverse if two processes still differ by this when the large end is there."""
FORWARD_STEPS, INVERSE_STEPS = 130, 60
NEXT_CHECK = 1.15
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Extremes:
    """Of ρA+βM for each β: arrays of one length."""

    high: Array
    low: Array
    floor: Array
    """Absolute error to expect of `low`."""


def skip_extremes(
    m: torch.Tensor,
    shortcut: torch.Tensor | None,
    rho: float,
    betas: Sequence[float],
    family: Callable[[], Family],
) -> Extremes:
    """Return σ_max and σ_min of ρA+βM for every β.

    Args:
        m: (m, n), m >= n, finite, float64 or complex128.
        shortcut: A of that shape; None for the (rectangular) identity.
        rho: not zero.
        betas: any order.
        family: gives M with its shared products, for the β that need the full solver.

    Errors: six digits of both where σ_min/σ_max ≥ 1e-6.
    """
    n = m.shape[1]
    unit = np.maximum(np.abs(betas), abs(rho))
    weights = rho / unit, np.asarray(betas) / unit
    rhos, scaled = (torch.from_numpy(w).to(m.device, m.dtype) for w in weights)

    conjugate = m.conj().resolve_conj()

    def apply(x: torch.Tensor, problem: torch.Tensor) -> torch.Tensor:
        r, b = rhos[problem, None], scaled[problem, None]
        y = (x @ m.mT) * b  # rows: both products then read M along its own rows
        if shortcut is None:
            y[:, :n] += r * x
            return (y @ conjugate) * b + r * y[:, :n]
        y += r * (x @ shortcut.mT)
        return (y @ conjugate) * b + r * (y @ shortcut.conj())

    low2, high2 = extreme_eigenvalues(apply, len(betas), m, FORWARD_STEPS)
    high, low = np.sqrt(high2), np.sqrt(np.maximum(low2, 0))
    floor = _gram_floor(n, high, low)
    for i in np.flatnonzero(np.isnan(high) | ~(floor <= SIX_DIGITS / 2 * low)):
        solved = None
        if not np.isnan(high[i]):
            if m.shape[0] == n and shortcut is None:
                solved = _by_lu(m, float(weights[0][i]), float(weights[1][i]), high[i])
            else:
                solved = _by_cholesky(m, shortcut, float(weights[0][i]), float(weights[1][i]), high[i])
        if solved is not None:
            low[i], floor[i] = solved
        else:
            solution = family().skip(float(weights[0][i]), float(weights[1][i]))
            values = solution.values[0]
            high[i], low[i], floor[i] = float(values[0]), float(values[-1]), float(solution.floor[0])
    return Extremes(high * unit, low * unit, floor * unit)


def _gram_floor(n: int, high: Array, low: Array) -> Array:
    """Return the error of σ_min as the root of an eigenvalue of a Gram matrix."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sqrt(n) * EPS * high**2 / (2 * low)


def _by_lu(m: torch.Tensor, rho: float, beta: float, high: float) -> tuple[float, float] | None:
    """Return σ_min of the square ρI+βM and its error through (NᴴN)⁻¹, None where that does not settle."""
    n = m.shape[1]
    matrix = beta * m
    matrix.diagonal().add_(rho)
    # The transposed one has the same singular values and lies in memory as LAPACK wants it.
    lu, pivots, info = torch.linalg.lu_factor_ex(matrix.mT)
    if int(info):
        return None

    def apply(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        half = torch.linalg.lu_solve(lu, pivots, x.mT, adjoint=True)
        return torch.linalg.lu_solve(lu, pivots, half).mT

    inverse = extreme_eigenvalues(apply, 1, m, INVERSE_STEPS, low_end=False)[1][0]
    if not 0 < inverse < np.inf:
        return None
    low, floor = 1 / sqrt(inverse), SVD_MARGIN * EPS * n**0.25 * high
    return (low, floor) if floor <= SIX_DIGITS * low else None


def _by_cholesky(
    m: torch.Tensor, shortcut: torch.Tensor | None, rho: float, beta: float, high: float
) -> tuple[float, float] | None:
    """Return σ_min of N = ρA+βM and its error through NᴴN, None where that is not accurate enough."""
    matrix = beta * m
    if shortcut is None:
        matrix.diagonal().add_(rho)
    else:
        matrix.add_(shortcut, alpha=rho)
    factor, info = torch.linalg.cholesky_ex(matrix.mH @ matrix)
    if int(info):
        return None

    def apply(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.cholesky_solve(x.mT, factor).mT

    inverse = extreme_eigenvalues(apply, 1, factor, INVERSE_STEPS, low_end=False)[1][0]
    if not 0 < inverse < np.inf:
        return None
    low = np.array(1 / sqrt(inverse))
    floor = float(_gram_floor(len(factor), np.array(high), low))
    return (float(low), floor) if floor <= SIX_DIGITS * float(low) else None


def extreme_eigenvalues(
    apply: Apply, problems: int, like: torch.Tensor, steps: int, *, low_end: bool = True
) -> tuple[Array, Array]:
    """Return the smallest and the largest eigenvalue of positive semidefinite operators, NaN where unsettled.

    Lanczos without reorthogonalisation (extreme values do not suffer from it), two runs per operator.

    Args:
        apply: the operators.
        problems: how many.
        like: (…, n): dtype and device of the vectors, and their length.
        steps: after which to give up.
        low_end: also wait for the smallest.
    """
    n = like.shape[-1]
    generator = torch.Generator().manual_seed(SEED)

    def fresh(count: int) -> torch.Tensor:
        vectors = torch.randn(count, n, generator=generator, dtype=like.dtype).to(like.device)
        return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)

    found = {-1: np.full(problems, np.nan), 1: np.full(problems, np.nan)}
    diagonal, beside = np.zeros((steps, 2, problems)), np.zeros((steps, 2, problems))
    alive = np.arange(problems)
    v = fresh(2 * problems)
    before, off = torch.zeros_like(v), torch.zeros(2 * problems, dtype=torch.float64, device=like.device)
    check = steps // 10
    for step in range(steps):
        owner = torch.from_numpy(np.tile(alive, 2)).to(like.device)
        w = apply(v, owner)
        on = (v.conj() * w).sum(1).real
        w = w - v * on[:, None] - before * off[:, None]
        off = torch.linalg.vector_norm(w, dim=1)
        diagonal[step][:, alive] = on.cpu().numpy().reshape(2, -1)
        scale = np.abs(diagonal[: step + 1]).max(0)[:, alive].reshape(-1)
        broken = off <= 8 * EPS * torch.from_numpy(scale).to(off.device)
        if bool(broken.any()):  # the space is invariant: go on from a new vector
            w[broken] = fresh(int(broken.sum()))
            off = off.masked_fill(broken, 0.0)
        beside[step][:, alive] = off.cpu().numpy().reshape(2, -1)
        before, v = v, w / torch.where(broken, 1.0, off)[:, None]
        if not np.isfinite(diagonal[step]).all():
            break
        if step + 1 not in {check, steps}:
            continue
        check = int(check * NEXT_CHECK) + 1
        going = np.array(
            [_go_on(diagonal[: step + 1], beside[: step + 1], int(i), found, low_end) for i in alive]
        )
        if not going.any():
            break
        kept = torch.from_numpy(np.flatnonzero(np.tile(going, 2))).to(like.device)
        v, before, off, alive = v[kept], before[kept], off[kept], alive[going]
    return found[-1], found[1]


def _go_on(diagonal: Array, beside: Array, i: int, found: dict[int, Array], low_end: bool) -> bool:
    """Enter what has settled for operator i, and say whether more steps may help."""
    runs = [(diagonal[:, run, i], beside[:, run, i]) for run in (0, 1)]
    if np.isnan(found[1][i]):
        found[1][i], _ = _settled(runs, 1)
    if not low_end:
        return bool(np.isnan(found[1][i]))
    found[-1][i], difference = _settled(runs, -1)
    if np.isnan(found[1][i]):
        found[-1][i] = np.nan
        return True
    return bool(np.isnan(found[-1][i])) and difference <= HOPELESS


def _settled(runs: Sequence[tuple[Array, Array]], end: int) -> tuple[float, float]:
    """Return the better of two runs' Ritz values at one end, or NaN, and by how much they differ."""
    from scipy.linalg import eigh_tridiagonal

    values, good = [], True
    for diagonal, beside in runs:
        index = 0 if end < 0 else len(diagonal) - 1
        value, vector = eigh_tridiagonal(diagonal, beside[:-1], select="i", select_range=(index, index))
        residual = float(beside[-1] * abs(vector[-1, 0]))
        values.append(float(value[0]))
        good = good and residual <= SETTLED * abs(values[-1])
    best = max(values) if end > 0 else min(values)
    difference = abs(values[0] - values[1]) / abs(best) if best else float("inf")
    return (best if good and difference <= AGREE else float("nan")), difference
