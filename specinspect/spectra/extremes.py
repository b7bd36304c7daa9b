"""The largest and smallest singular value of ρA+βM at many β at once, without a full eigenvalue problem each.

One Lanczos process per β works on (ρA+βM)ᴴ(ρA+βM); all of them together need two products of M with a slim
matrix per step. Where that does not reach the small end, the inverse is used: the triangular factor of the
square ρI+βH, H the Hessenberg form of M, which all β share (never a Gram matrix, so no digits are squared
away); a Cholesky factorisation of the Gram matrix otherwise.

A value counts only where its residual is 5e-9 of the eigenvalue (of σ²) and rounding costs less than its
sixth digit; everything else goes to the full solver. That is no proof: of two values a relative g apart the
wrong one is taken where the random start holds 5e-9/g times less of the right one and the Krylov space, which
favours the right one the more the larger g is, has not made up for it. Where σ_min/σ_max is smallest along
the curve, Cholesky factorisations prove that no singular value lies outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.spectra.family import Family
from specinspect.spectra.hessenberg import PARTS, ShiftedHessenberg, hessenberg
from specinspect.spectra.solve import EPS, SIX_DIGITS, SVD_MARGIN

Array = NDArray[np.float64]
Apply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Vectors as rows, (c, n), and the index of each one's problem → each operator times its vector."""

SETTLED = 5e-9
"""Largest residual, relative to the eigenvalue."""
HOPELESS = 0.01
"""The small end is left to the inverse if its residual is still this much when the large end is there."""
FORWARD_STEPS, INVERSE_STEPS = 150, 100
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
        matrix = _sum(m, shortcut, *at) if reduced is None else reduced.sum(*at)
        if not nothing_outside(matrix, low[worst], high[worst], below=None if reduced is None else 1):
            solve_fully(worst)
    return Extremes(high * unit, low * unit, floor * unit)


def nothing_outside(matrix: torch.Tensor, low: float, high: float, below: int | None = None) -> bool:
    """Return whether Cholesky proves all singular values to lie in [low, high], but for a part in a million.

    A Hermitian matrix has a Cholesky factor if and only if it is positive definite (Sylvester): asked of
    NᴴN - low²(1 - 2e-6)I and high²(1 + 2e-6)I - NᴴN. True as well where squaring costs the digits of `low`
    that would be needed: nothing can be said then.

    Args:
        matrix: N.
        low: the smallest singular value, to be proved.
        high: the largest.
        below: number of its diagonals below the main one that are not zero, where that is known.
    """
    rows, n = matrix.shape
    if sqrt(n) * EPS * high**2 > 2 * SIX_DIGITS * low**2:
        return True
    gram = matrix.new_zeros(n, n)
    step = -(-n // PARTS)
    for start in range(0, n, step):  # strip by strip: Cholesky reads the lower triangle alone
        end = start + step
        used = rows if below is None else min(end + below, rows)
        torch.mm(matrix[:used, start:].mH, matrix[:used, start:end], out=gram[start:, start:end])
    slack = 4 * SIX_DIGITS
    gram.diagonal().sub_(low**2 * (1 - slack))
    if int(torch.linalg.cholesky_ex(gram).info):
        return False
    gram.neg_().diagonal().add_(high**2 * (1 + slack) - low**2 * (1 - slack))
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

    Lanczos without reorthogonalisation, from which extreme values do not suffer, with a random start each.

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
    diagonal, beside = np.zeros((steps, problems)), np.zeros((steps, problems))
    alive = np.arange(problems)
    v = fresh(problems)
    before, off = torch.zeros_like(v), torch.zeros(problems, dtype=torch.float64, device=like.device)
    check = steps // 10
    owner = torch.from_numpy(alive).to(like.device)
    scale = np.zeros(problems)
    for step in range(steps):
        w = apply(v, owner)
        on = torch.linalg.vecdot(v, w).real
        w.addcmul_(v, on[:, None], value=-1).addcmul_(before, off[:, None], value=-1)
        off = torch.linalg.vector_norm(w, dim=1)
        alphas, betas = on.cpu().numpy(), off.cpu().numpy()
        diagonal[step, alive] = alphas
        scale = np.maximum(scale, np.abs(alphas))
        broken = betas <= 8 * EPS * scale
        if broken.any():  # the space is invariant: go on from a new vector
            lost = torch.from_numpy(broken).to(like.device)
            w[lost] = fresh(int(broken.sum()))
            off = off.masked_fill(lost, 0.0)
            w /= off.masked_fill(lost, 1.0)[:, None]
        else:
            w /= off[:, None]
        beside[step, alive] = off.cpu().numpy()
        before, v = v, w
        if not np.isfinite(alphas).all():
            break
        if step + 1 not in {check, steps}:
            continue
        check = int(check * NEXT_CHECK) + 1
        done = slice(step + 1)
        going = np.array([_go_on(diagonal[done, i], beside[done, i], int(i), found, low_end) for i in alive])
        if not going.any():
            break
        if not going.all():
            alive, scale = alive[going], scale[going]
            kept = torch.from_numpy(np.flatnonzero(going)).to(like.device)
            v, before, off, owner = v[kept], before[kept], off[kept], owner[kept]
    return found[-1], found[1]


def _go_on(diagonal: Array, beside: Array, i: int, found: dict[int, Array], low_end: bool) -> bool:
    """Enter what has settled for operator i, and say whether more steps may help."""
    if np.isnan(found[1][i]):
        value, residual = _ritz(diagonal, beside, 1)
        if residual > SETTLED * abs(value):
            return True
        found[1][i] = value
    if not low_end:
        return False
    value, residual = _ritz(diagonal, beside, -1)
    if residual > SETTLED * abs(value):
        return residual <= HOPELESS * abs(value)
    found[-1][i] = value
    return False


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
