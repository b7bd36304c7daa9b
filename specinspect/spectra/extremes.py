"""The largest and smallest singular value of ρA+βM at many β at once, without a full eigenvalue problem each.

One Lanczos process per β works on (ρA+βM)ᴴ(ρA+βM); all of them together need two products of M with a slim
matrix per step. Where that does not reach the small end, the inverse is used: the triangular factor of the
square ρI+βH, H the Hessenberg form of M, which all β share (never a Gram matrix, so no digits are squared
away); a Cholesky factorisation of the Gram matrix otherwise.

A Lanczos process can settle on the wrong one of two nearly equal values, since its start may happen to be
almost orthogonal to the right vector. So every process runs twice from independent random starts, and a value
counts only where both agree to seven digits and both residuals are small; everything else goes to the full
solver. That is no proof: a Ritz value bounds σ_min from above only. Where σ_min/σ_max is smallest along the
curve, a Cholesky factorisation proves that nothing lies below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.spectra.family import Family
from specinspect.spectra.hessenberg import ShiftedHessenberg, hessenberg
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
NEXT_CHECK = 1.07
HESSENBERG_MARGIN = 2 * SVD_MARGIN
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
    reduced = ShiftedHessenberg(hessenberg(m)) if m.shape[0] == n and shortcut is None else None
    conjugate = m.conj().resolve_conj()

    def apply(x: torch.Tensor, problem: torch.Tensor) -> torch.Tensor:
        r, b = rhos[problem, None], scaled[problem, None]
        if reduced is not None:
            y = reduced.times(x).mul_(b).addcmul_(x, r)
            return reduced.adjoint_times(y).mul_(b).addcmul_(y, r)
        y = (x @ m.mT) * b  # rows: both products then read M along its own rows
        if shortcut is None:
            y[:, :n] += r * x
            return (y @ conjugate) * b + r * y[:, :n]
        y += r * (x @ shortcut.mT)
        return (y @ conjugate) * b + r * (y @ shortcut.conj())

    low2, high2 = extreme_eigenvalues(apply, len(betas), m, FORWARD_STEPS)
    high, low = np.sqrt(high2), np.sqrt(np.maximum(low2, 0))
    floor = _gram_floor(n, high, low)
    iterated = np.ones(len(betas), bool)

    def solve_fully(i: int) -> None:
        solution = family().skip(float(weights[0][i]), float(weights[1][i]))
        values = solution.values[0]
        high[i], low[i], floor[i] = float(values[0]), float(values[-1]), float(solution.floor[0])
        iterated[i] = False

    for i in np.flatnonzero(np.isnan(high) | ~(floor <= SIX_DIGITS / 2 * low)):
        at = float(weights[0][i]), float(weights[1][i])
        solved = None
        if not np.isnan(high[i]):
            if reduced is not None:
                solved = _by_triangle(reduced.triangular_factor(*at), high[i])
            else:
                solved = _by_cholesky(m, shortcut, *at, high[i])
        if solved is not None:
            low[i], floor[i] = solved
        else:
            solve_fully(int(i))
    if iterated.any():
        worst = int(np.flatnonzero(iterated)[(low[iterated] / high[iterated]).argmin()])
        at = float(weights[0][worst]), float(weights[1][worst])
        if not nothing_below(_sum(m, shortcut, *at), low[worst], high[worst]):
            solve_fully(worst)
    return Extremes(high * unit, low * unit, floor * unit)


def nothing_below(matrix: torch.Tensor, low: float, high: float) -> bool:
    """Return whether Cholesky proves that no singular value lies more than a part in a million below `low`.

    NᴴN - low²(1 - 4·5e-7)I has a Cholesky factor if and only if it is positive definite (Sylvester). True as
    well where squaring costs the digits that would be needed: nothing can be said then.
    """
    if sqrt(matrix.shape[1]) * EPS * high**2 > 2 * SIX_DIGITS * low**2:
        return True
    n = matrix.shape[1]
    gram = matrix.new_zeros(n, n)
    step = -(-n // 8)
    for start in range(0, n, step):  # strip by strip: Cholesky reads the lower triangle alone
        torch.mm(
            matrix[:, start:].mH, matrix[:, start : start + step], out=gram[start:, start : start + step]
        )
    gram.diagonal().sub_(low**2 * (1 - 4 * SIX_DIGITS))
    return not int(torch.linalg.cholesky_ex(gram).info)


def _sum(m: torch.Tensor, shortcut: torch.Tensor | None, rho: float, beta: float) -> torch.Tensor:
    """Return ρA+βM."""
    matrix = beta * m
    if shortcut is None:
        matrix.diagonal().add_(rho)
    else:
        matrix.add_(shortcut, alpha=rho)
    return matrix


def _gram_floor(n: int, high: Array, low: Array) -> Array:
    """Return the error of σ_min as the root of an eigenvalue of a Gram matrix."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sqrt(n) * EPS * high**2 / (2 * low)


def _by_triangle(r: torch.Tensor, high: float) -> tuple[float, float] | None:
    """Return σ_min of a triangular R and its error through (RᴴR)⁻¹, None where that does not settle."""
    n = len(r)
    if not bool(r.diagonal().abs().min() > 0):
        return None
    adjoint = r.mH.resolve_conj()

    def apply(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        half = torch.linalg.solve_triangular(adjoint, x.mT, upper=False)
        return torch.linalg.solve_triangular(r, half, upper=True).mT

    inverse = extreme_eigenvalues(apply, 1, r, INVERSE_STEPS, low_end=False)[1][0]
    if not 0 < inverse < np.inf:
        return None
    low, floor = 1 / sqrt(inverse), HESSENBERG_MARGIN * EPS * n**0.25 * high
    return (low, floor) if floor <= SIX_DIGITS * low else None


def _by_cholesky(
    m: torch.Tensor, shortcut: torch.Tensor | None, rho: float, beta: float, high: float
) -> tuple[float, float] | None:
    """Return σ_min of N = ρA+βM and its error through NᴴN, None where that is not accurate enough."""
    matrix = _sum(m, shortcut, rho, beta)
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
    owner = torch.from_numpy(np.tile(alive, 2)).to(like.device)
    scale = np.zeros(2 * problems)
    for step in range(steps):
        w = apply(v, owner)
        on = torch.linalg.vecdot(v, w).real
        w.addcmul_(v, on[:, None], value=-1).addcmul_(before, off[:, None], value=-1)
        off = torch.linalg.vector_norm(w, dim=1)
        alphas, betas = on.cpu().numpy(), off.cpu().numpy()
        diagonal[step][:, alive] = alphas.reshape(2, -1)
        scale = np.maximum(scale, np.abs(alphas))
        broken = betas <= 8 * EPS * scale
        if broken.any():  # the space is invariant: go on from a new vector
            lost = torch.from_numpy(broken).to(like.device)
            w[lost] = fresh(int(broken.sum()))
            off = off.masked_fill(lost, 0.0)
            w /= off.masked_fill(lost, 1.0)[:, None]
        else:
            w /= off[:, None]
        beside[step][:, alive] = off.cpu().numpy().reshape(2, -1)
        before, v = v, w
        if not np.isfinite(alphas).all():
            break
        if step + 1 not in {check, steps}:
            continue
        check = int(check * NEXT_CHECK) + 1
        going = np.array(
            [_go_on(diagonal[: step + 1], beside[: step + 1], int(i), found, low_end) for i in alive]
        )
        if not going.any():
            break
        if not going.all():
            of_both = np.tile(going, 2)
            alive, scale = alive[going], scale[of_both]
            kept = torch.from_numpy(np.flatnonzero(of_both)).to(like.device)
            v, before, off, owner = v[kept], before[kept], off[kept], owner[kept]
    return found[-1], found[1]


def _go_on(diagonal: Array, beside: Array, i: int, found: dict[int, Array], low_end: bool) -> bool:
    """Enter what has settled for operator i, and say whether more steps may help."""
    runs = [(diagonal[:, run, i], beside[:, run, i]) for run in (0, 1)]
    if np.isnan(found[1][i]):
        found[1][i], _ = _settled(runs, 1)
    if np.isnan(found[1][i]):
        return True
    if not low_end:
        return False
    found[-1][i], difference = _settled(runs, -1)
    return bool(np.isnan(found[-1][i])) and difference <= HOPELESS


def _settled(runs: Sequence[tuple[Array, Array]], end: int) -> tuple[float, float]:
    """Return the better of two runs' Ritz values at one end, or NaN, and by how much they differ."""
    values, good = [], True
    for diagonal, beside in runs:
        value, residual = _ritz(diagonal, beside, end)
        values.append(value)
        good = good and residual <= SETTLED * abs(value)
        if not good and end > 0:  # no need to look at the other one
            return float("nan"), float("inf")
    best = max(values) if end > 0 else min(values)
    difference = abs(values[0] - values[1]) / abs(best) if best else float("inf")
    return (best if good and difference <= AGREE else float("nan")), difference


def _ritz(diagonal: Array, beside: Array, end: int) -> tuple[float, float]:
    """Return the Ritz value at one end of a Lanczos process, and the norm of its residual."""
    from scipy.linalg import eigh_tridiagonal, lapack

    if len(diagonal) == 1:
        return float(diagonal[0]), float(beside[0])
    index = 0 if end < 0 else len(diagonal) - 1
    # What eigh_tridiagonal(…, select="i") calls, without its checks, which take twice as long.
    found, values, block, split, info = lapack.dstebz(
        diagonal, beside[:-1], 2, 0.0, 0.0, index + 1, index + 1, 0.0, "E"
    )
    if info or found != 1:
        values, vector = eigh_tridiagonal(diagonal, beside[:-1], select="i", select_range=(index, index))
    else:
        vector, info = lapack.dstein(diagonal, beside[:-1], values[:1], block, split)
    return float(values[0]), float(beside[-1] * abs(vector[-1, 0]))
