"""Results on an activation pattern, D·W and what a skip makes of it (MATH B)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import (
    SMALLEST_RATIO,
    TOLERANCE,
    Array,
    identity,
    judged,
    kappa_check,
    silent,
    tightest,
    worst,
)
from specinspect.spectra.quantities import LayerQuantities, PatternQuantities

# The formulas


def interlacing(values: Array, diagonal: ArrayLike, groups: int = 1) -> tuple[Array, Array]:
    """Return lower and upper bounds of σ_i(DM), of the shape of `values` (MATH R7).

    For every t, σ_i(DM) >= t·s_{i+r}, where r entries of D are below t in size; tried are the smallest, the
    smallest non-zero and the largest of them, which for entries 1 and η is all there is.

    Args:
        values: (blocks, k) s_i(M), descending.
        diagonal: (out,) D.
        groups: of a convolution: a block has the rows of one of them, whose number of small entries is taken
            as the largest of any group.
    """
    d = np.abs(np.asarray(diagonal, dtype=np.float64))
    parts = d.reshape(groups, -1)
    lower = np.zeros_like(values)
    for t in {float(d.min()), float(d[d > 0].min(initial=np.inf)), float(d.max())} - {np.inf}:
        r = int((parts < t).sum(1).max())
        kept = max(values.shape[1] - r, 0)
        lower[:, :kept] = np.maximum(lower[:, :kept], t * values[:, r : r + kept])
    return lower, float(d.max()) * values


def energy_lost(diagonal: ArrayLike, row_norms: ArrayLike) -> float:
    """Return Σ(1-d_j²)‖row j‖²: what D takes of ‖M‖_F², exactly (MATH R8)."""
    d, rows = np.asarray(diagonal, dtype=np.float64), np.asarray(row_norms, dtype=np.float64)
    return float((1 - d**2) @ rows**2)


def movement(diagonal: ArrayLike, row_norms: ArrayLike) -> float:
    """Return an upper bound of Σ(σ_i(M) - σ_i(DM))² (MATH R6, R8)."""
    d, rows = np.asarray(diagonal, dtype=np.float64), np.asarray(row_norms, dtype=np.float64)
    distance = float((1 - d) ** 2 @ rows**2)
    return min(distance, energy_lost(d, rows)) if np.abs(d).max() <= 1 else distance


# The checks


def checks(q: LayerQuantities) -> tuple[BoundCheck, ...]:
    """Return the verdicts of R6 to R9; those on D·W only where D is not the identity."""
    found: list[BoundCheck] = []
    if q.patterns:
        results = (_near, _interlaced, _energy, _conditioned)
        found += [worst(check(q, p) for p in q.patterns) for check in results]
    if q.skip is not None:
        found.append(_near_skip(q, q.skip))
        beside = [(p, p.skip_chain) for p in q.patterns if p.skip_chain is not None]
        if beside:
            found.append(worst(_near_skip_chain(q, q.skip, p, values) for p, values in beside))
    return tuple(found)


def _places(q: LayerQuantities, p: PatternQuantities) -> float:
    """Return how often a row of the matrix of entries occurs in the map: places of the output's grid."""
    return float(q.multiplicity.sum()) * q.shape[0] / len(p.diagonal)


def _unit(q: LayerQuantities, p: PatternQuantities) -> float:
    return float(q.weight.max()) * max(1.0, float(np.abs(p.diagonal).max())) or 1.0


def _distance(a: Array, b: Array, times: NDArray[np.int64], unit: float) -> float:
    """Return √Σ(a_i - b_i)² in units."""
    return float(np.sqrt((((a - b) / unit) ** 2).sum(1) @ times))


def _count(q: LayerQuantities) -> float:
    return float(q.multiplicity.sum()) * q.weight.shape[1]


_UNREAD = "the entries of the weight were not read"


def _near(q: LayerQuantities, p: PatternQuantities) -> BoundCheck:
    """R6 for W and D·W."""
    if q.entries is None:
        return silent("r6", "chain", "not_applicable", _UNREAD)
    unit = _unit(q, p)
    rows = q.entries.row_norms / unit
    return judged(
        "r6",
        "chain",
        _distance(q.weight, p.chain, q.multiplicity, unit),
        float(np.sqrt(_places(q, p) * ((1 - p.diagonal) ** 2 @ rows**2))),
        upper=True,
        tolerance=TOLERANCE * _count(q),
        what="√Σ(σ_i(W)-σ_i(DW))²",
        unit=unit,
    )


def _near_skip(q: LayerQuantities, values: Array) -> BoundCheck:
    """R6 for βW and ρA+βW: ‖ρA‖_F² is at most ρ² times the number of singular values."""
    unit = max(abs(q.rho), abs(q.beta) * float(q.weight.max())) or 1.0
    return judged(
        "r6",
        "skip",
        _distance(values, abs(q.beta) * q.weight, q.multiplicity, unit),
        abs(q.rho) / unit * float(np.sqrt(_count(q))),
        upper=True,
        tolerance=TOLERANCE * _count(q),
        what="√Σ(σ_i(N)-|β|σ_i(W))²",
        unit=unit,
    )


def _near_skip_chain(q: LayerQuantities, skip: Array, p: PatternQuantities, values: Array) -> BoundCheck:
    """R6 for ρA+βW and ρA+β·D·W."""
    if q.entries is None:
        return silent("r6", "skip_chain", "not_applicable", _UNREAD)
    unit = max(abs(q.rho), abs(q.beta) * _unit(q, p)) or 1.0
    rows = abs(q.beta) / unit * q.entries.row_norms
    return judged(
        "r6",
        "skip_chain",
        _distance(values, skip, q.multiplicity, unit),
        float(np.sqrt(_places(q, p) * ((1 - p.diagonal) ** 2 @ rows**2))),
        upper=True,
        tolerance=TOLERANCE * _count(q),
        what="√Σ(σ_i(ρA+βW)-σ_i(ρA+βDW))²",
        unit=unit,
    )


def _interlaced(q: LayerQuantities, p: PatternQuantities) -> BoundCheck:
    """R7 on every Fourier block."""
    unit = _unit(q, p)
    lower, upper = interlacing(q.weight / unit, p.diagonal, len(p.diagonal) // q.shape[0])
    return tightest(
        "r7", "chain", p.chain / unit, lower**2, upper**2, tolerance=TOLERANCE, unit=unit, what="σ(DW)"
    )


def _energy(q: LayerQuantities, p: PatternQuantities) -> BoundCheck:
    """R8: the equality, and where that holds, the inequality."""
    if q.entries is None:
        return silent("r8", "chain", "not_applicable", _UNREAD)
    unit, places, times = _unit(q, p), _places(q, p), q.multiplicity
    rows = q.entries.row_norms / unit
    tolerance = TOLERANCE * _count(q)
    whole = float(((q.weight / unit) ** 2).sum(1) @ times)
    kept = float(((p.chain / unit) ** 2).sum(1) @ times)
    expected = whole - places * energy_lost(p.diagonal, rows)
    equality = identity(
        "r8",
        "chain",
        float(np.sqrt(kept)),
        float(np.sqrt(max(expected, 0.0))),
        tolerance=tolerance,
        what="‖DW‖_F",
        unit=unit,
    )
    if equality.verdict == "violated":
        return equality
    return judged(
        "r8",
        "chain",
        _distance(q.weight, p.chain, times, unit),
        float(np.sqrt(max(places * movement(p.diagonal, rows), 0.0))),
        upper=True,
        tolerance=tolerance,
        what="√Σ(σ_i(W)-σ_i(DW))²",
        unit=unit,
    )


def _conditioned(q: LayerQuantities, p: PatternQuantities) -> BoundCheck:
    """R9: κ over what D leaves."""
    reason = _unfit(q, p)
    if reason:
        return silent("r9", "chain", "not_applicable", reason)
    unit = _unit(q, p)
    sizes = np.abs(p.diagonal[p.diagonal != 0])
    kept = round(_places(q, p) * len(sizes))
    values = np.sort(np.repeat(p.chain, q.multiplicity, 0), axis=None)[::-1] / unit
    s1, sn = float(q.weight.max()) / unit, float(q.weight.min()) / unit
    check = kappa_check(
        "r9",
        "chain",
        (float(values[0]), float(values[kept - 1])),
        (float(sizes.max()) * s1, float(sizes.min()) * sn),
        TOLERANCE,
        "the smallest entry of D is zero within rounding",
        digits=sn >= SMALLEST_RATIO * s1,
    )
    if check.verdict == "holds" and kept < len(values) and values[kept] ** 2 > TOLERANCE:
        return judged(
            "r9", "chain", float(values[kept]), 0.0, upper=True, tolerance=0.0, what="a σ that D removes"
        )
    return check


def _unfit(q: LayerQuantities, p: PatternQuantities) -> str:
    """Return why R9 does not apply, '' where it does."""
    m, n = q.shape
    low = float(q.weight.min())
    if m > n:
        return f"needs at most as many rows as columns: a block is {m}×{n}, and D acts on the rows"
    if not low > max(q.floor, 1e-14 * float(q.weight.max())):
        return f"needs W of full rank: σmin is {low:.3g}, accurate to {q.floor:.3g}"
    if not p.diagonal.any():
        return "D is zero"
    return ""
