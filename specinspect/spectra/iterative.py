"""The extreme singular values of an operator that can only be applied: thick-restart Lanczos on MᵀM.

Both ends of the spectrum come out of one Krylov space (Wu and Simon 2000). The large end settles in a few
dozen products; the small end only where σ_min is not too far below the rest of the spectrum, as it is beside
a skip. Squaring costs half of the digits: below about 1e-7·σ_max nothing is resolved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from specinspect.maps.operator import Operator
from specinspect.spectra.solve import EPS

PRODUCTS = 600
"""Products with MᵀM after which the small end is given up."""
BASIS = 120
BASIS_BYTES = 256 << 20
TIGHT = 1e-6
"""Residual of σ_min, relative to it, at which the iteration stops."""
RESOLVED = 1e-3
"""Residual of σ_min, relative to it, up to which it is called resolved at the end."""
TOP = 1e-7
"""The same for σ_max, whose error is about the square of it."""
_CHECK = 12


@dataclass(frozen=True, slots=True)
class Extremes:
    """The largest and the smallest singular value, and how far to trust them."""

    sigma_max: float
    residual_max: float
    """‖Mᵀu - σv‖ for the unit pair found: some singular value lies within it of sigma_max."""
    sigma_min: float | None
    """None where out of reach."""
    residual_min: float
    """The same at the small end, whether resolved or not."""
    sigma_min_upper: float
    """‖Mv‖ at the best unit v found: σ_min is not larger, whatever the residual says."""
    products: int
    """With MᵀM (or MMᵀ)."""
    reason: str = ""
    """Why there is no sigma_min."""


def extremes(
    operator: Operator,
    *,
    live: tuple[torch.Tensor, torch.Tensor] | None = None,
    products: int = PRODUCTS,
    seed: int = 0,
) -> Extremes:
    """Return σ_max and, as far as it can be reached, σ_min of an operator.

    Args:
        operator: real, with entries whose squares are representable.
        live: (rows,) and (columns,) of bool, the ones that are not zero; σ_min is then the smallest of
            min(live rows, live columns) singular values. At least one of each.
        products: budget.
        seed: of the start vector; the same seed gives the same result.
    """
    rows, columns = operator.shape
    if live is None:
        live = (
            torch.ones(rows, dtype=torch.bool, device=operator.device),
            torch.ones(columns, dtype=torch.bool, device=operator.device),
        )
    tall = int(live[0].sum()) >= int(live[1].sum())
    there, back = (operator.matvec, operator.adjoint) if tall else (operator.adjoint, operator.matvec)
    space = live[1] if tall else live[0]

    def square(v: torch.Tensor) -> torch.Tensor:
        return back(there(v[None]))[0]

    low, high, used = _ritz_vectors(square, space, products, seed)
    top, residual_max = _pair(there, back, high)
    bottom, residual_min = _pair(there, back, low)
    reason = ""
    if not residual_min <= RESOLVED * bottom:
        reason = (
            f"σmin is at most {bottom:.1e}: out of reach of {used} products"
            if used >= products
            else f"σmin is at most {bottom:.1e}: squaring resolves nothing below about 1e-7·σmax"
        )
    return Extremes(top, residual_max, None if reason else bottom, residual_min, bottom, used, reason)


def _pair(
    there: Callable[[torch.Tensor], torch.Tensor],
    back: Callable[[torch.Tensor], torch.Tensor],
    v: torch.Tensor,
) -> tuple[float, float]:
    """Return σ = ‖Mv‖ of a unit vector and ‖Mᵀu - σv‖ for u = Mv/σ."""
    image = there(v[None])[0]
    sigma = float(torch.linalg.vector_norm(image))
    if sigma == 0:
        return 0.0, 0.0
    return sigma, float(torch.linalg.vector_norm(back(image[None] / sigma)[0] - sigma * v))


def _ritz_vectors(
    square: Callable[[torch.Tensor], torch.Tensor], space: torch.Tensor, products: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return unit vectors for the smallest and the largest eigenvalue, and how many products it took.

    Args:
        square: a positive semidefinite operator on (n,).
        space: (n,) bool: the coordinates that it acts on.
        products: at most so many.
        seed: of the start.
    """
    n, size = len(space), int(space.sum())
    generator = torch.Generator().manual_seed(seed)

    def fresh() -> torch.Tensor:
        return torch.randn(n, generator=generator, dtype=torch.float64).to(space.device) * space

    limit = min(size, max(24, min(BASIS, BASIS_BYTES // (8 * n))))
    basis = torch.zeros(limit + 1, n, dtype=torch.float64, device=space.device)
    projected = torch.zeros(limit, limit, dtype=torch.float64)
    start = fresh()
    basis[0] = start / torch.linalg.vector_norm(start)
    filled = used = 0
    while True:
        w = square(basis[filled])
        used += 1
        # Against the whole basis, twice: what Lanczos' three terms leave out is rounding, and it grows.
        known = basis[: filled + 1]
        along = known @ w
        w = w - along @ known
        again = known @ w
        w = w - again @ known
        projected[: filled + 1, filled] = projected[filled, : filled + 1] = (along + again).cpu()
        beside = float(torch.linalg.vector_norm(w))
        filled += 1
        done = filled == size or used >= products
        if not done:
            if beside <= 8 * EPS * float(projected.diagonal()[:filled].max()):
                # The space is invariant: go on from a new vector, which nothing couples to it.
                w, beside = fresh(), 0.0
                for _ in range(2):
                    w = w - (basis[:filled] @ w) @ basis[:filled]
            basis[filled] = w / torch.linalg.vector_norm(w)
        if not (done or filled == limit or used % _CHECK == 0):
            continue
        values, vectors = torch.linalg.eigh(projected[:filled, :filled])
        residuals = beside * vectors[-1].abs()
        if done or (beside and _settled(values, residuals)):
            ends = vectors[:, [0, -1]].T.to(basis) @ basis[:filled]
            ends = ends / torch.linalg.vector_norm(ends, dim=1, keepdim=True)
            return ends[0], ends[1], used
        if filled == limit:
            filled = _restart(basis, projected, values, vectors)


def _settled(values: torch.Tensor, residuals: torch.Tensor) -> bool:
    """Say whether both ends are accurate enough, or the small one as accurate as rounding lets it be."""
    low, high = float(values[0]), float(values[-1])
    rounding = len(values) * EPS * high
    small = float(residuals[0]) <= max(TIGHT * low, rounding)
    return small and float(residuals[-1]) <= max(TOP * high, rounding)


def _restart(
    basis: torch.Tensor, projected: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor
) -> int:
    """Keep the Ritz vectors near both ends and the direction that comes next; return how many are kept."""
    limit = len(values)
    low, high = int(0.4 * limit), max(1, limit // 20)
    kept = torch.cat([torch.arange(low), torch.arange(limit - high, limit)])
    basis[: low + high] = vectors[:, kept].T.to(basis) @ basis[:limit]
    basis[low + high] = basis[limit]
    projected.zero_()
    projected.diagonal()[: low + high] = values[kept]
    return low + high
