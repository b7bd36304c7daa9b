"""What would make a bound hold, or meet a target: computed for each layer, a consequence of one bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import inf, isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from specinspect.bounds import random_matrix as rm
from specinspect.bounds.entries import entry_norm, isometric, kappa
from specinspect.bounds.model import Advice
from specinspect.bounds.random_layer import pattern_range
from specinspect.bounds.random_skip import guaranteed
from specinspect.bounds.skip import sigma_max_upper, sigma_min_lower
from specinspect.spectra.quantities import LayerQuantities

Array = NDArray[np.float64]

_POINTS = 257
"""Of the grid on which the first β above the target is looked for."""
_FARTHEST = 1e3
"""Largest |β|·σmax/|ρ| that is looked at: beyond, the skip is a thousandth of the branch."""


@np.errstate(over="ignore", invalid="ignore")  # what is beyond float64 comes to nothing
def advise(q: LayerQuantities, target_kappa: float = 10.0, *, delta: float = 0.01) -> tuple[Advice, ...]:
    """Return what follows for a layer.

    Args:
        q: the layer.
        target_kappa: κ(ρI + βW) that is wanted, above 1.
        delta: failure probability for fresh weights.
    """
    if not float(q.weight.max(initial=0.0)) > 0:
        return ()
    found: list[Advice] = []
    if q.skip is not None and q.rho != 0 and isometric(q):
        found += _branch(q, target_kappa)
        found += _norms(q, target_kappa)
        if not q.kind.startswith("conv"):
            found += _fresh(q, target_kappa, delta)
            found += _rows(q, target_kappa)
    return (*found, *_chain_rows(q))


# The largest β


def guaranteed_kappas(q: LayerQuantities, betas: Array) -> Array:
    """Return what κ(ρA + βW) is at most, for every β: the best of R3, over all Fourier blocks (MATH R4, R63).

    Args:
        q: a layer beside an isometry, with its τ.
        betas: (count,) of either sign.

    Returns:
        (count,), infinite where nothing is guaranteed.
    """
    if q.tau is None:
        return np.full(len(betas), inf)
    # Scalars per block against β along the second axis.
    top, bottom = q.weight.max(1)[:, None], q.weight.min(1)[:, None]
    low, high = q.tau.min(1)[:, None], q.tau.max(1)[:, None]
    upper = np.minimum.reduce(list(sigma_max_upper(q.rho, betas[None], top, low, high).values())).max(0)
    lower = sigma_min_lower(q.rho, betas[None], top, bottom, low, high)["best"].min(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(lower > 0, upper / lower, inf))


def largest_beta(q: LayerQuantities, target_kappa: float) -> float:
    """Return the β farthest from 0 up to which κ(ρA + βW) is guaranteed to meet the target, all the way.

    It has the sign of the layer's β. Found on a grid, then between its points to the last digits of float64;
    infinite where none on the grid (up to a branch a thousand times the skip) leaves the target.
    """
    sign = -1.0 if q.beta < 0 else 1.0

    def within(betas: Array) -> NDArray[np.bool_]:
        return np.asarray(guaranteed_kappas(q, sign * betas) <= target_kappa)

    unit = abs(q.rho) / float(q.weight.max())
    betas = np.concatenate([[0.0], np.geomspace(1e-6, _FARTHEST, _POINTS) * unit])
    outside = np.flatnonzero(~within(betas))
    if not len(outside):
        return sign * inf
    first = int(outside[0])
    if first == 0:
        return 0.0
    parts = 1024 if len(q.weight) == 1 else 64
    return sign * _largest(within, float(betas[first - 1]), float(betas[first]), parts)


def _largest(holds: Callable[[Array], NDArray[np.bool_]], low: float, high: float, parts: int = 64) -> float:
    """Return the largest float up to which something holds, between one where it does and one where not.

    Bisection, by many parts at a time: one vectorised call costs little more than one number.
    """
    while True:
        inner = np.linspace(low, high, parts + 1)
        inner = inner[(inner > low) & (inner < high)]
        if not len(inner):
            return low
        outside = np.flatnonzero(~holds(inner))
        first = int(outside[0]) if len(outside) else len(inner)
        ends = np.concatenate([[low], inner, [high]])
        low, high = float(ends[first]), float(ends[first + 1])


def _branch(q: LayerQuantities, target: float) -> Iterator[Advice]:
    if q.tau is None:
        return
    beta = largest_beta(q, target)
    reach = f"up to β = {beta:.4g}; β is {q.beta:.4g}"
    if not isfinite(beta):
        reach = f"for every β up to {_FARTHEST:g}·ρ/σmax"
    yield Advice("r4.best", "beta", beta, f"κ(skip) <= {target:g} is guaranteed {reach}{_where(q)}")


def _where(q: LayerQuantities) -> str:
    return " (on its periodic grid)" if q.kind.startswith("conv") else ""


# Norms


def _norms(q: LayerQuantities, target: float) -> Iterator[Advice]:
    """R4.simple and R11: |β|·norm <= |ρ|(κ-1)/(κ+1)."""
    allowed = abs(q.rho) * (target - 1) / (target + 1)
    beta = abs(q.beta)
    if beta == 0:
        return
    top = beta * float(q.weight.max())
    if top > allowed:
        yield Advice(
            "r4.simple",
            "shrink_factor",
            allowed / top,
            f"κ(skip) <= {target:g} is guaranteed once W has shrunk to {allowed / top:.3g}{_where(q)}",
        )
    norm = entry_norm(q)
    if norm is None or q.entries is None or not norm > 0:
        return
    if beta * norm > allowed:
        factor = allowed / (beta * norm)
        yield Advice(
            "r11",
            "largest_entry",
            factor * q.entries.largest,
            f"κ(skip) <= {target:g} is guaranteed for any weights within ±{factor * q.entries.largest:.3g} "
            f"(these: ±{q.entries.largest:.3g})",
        )
        yield Advice(
            "r11",
            "shrink_factor",
            factor,
            f"κ(skip) <= {target:g} follows from the largest entry alone once W has shrunk to {factor:.3g}",
        )


# Fresh weights of this shape


def guaranteed_scale(
    shape: tuple[int, int], target_kappa: float, delta: float, low: float = 1.0, high: float = 1.0
) -> float:
    """Return the largest c at which R21 guarantees κ(I+DW) <= target with probability 1 - δ.

    T and S of R21 are multiples t and s of c: √(1+S²+T) = κ(1-T/2) is quadratic in it.

    Args:
        shape: (m, n).
        target_kappa: above 1.
        delta: of this layer.
        low: smallest entry of D; low = high = 1 takes 'gauss', anything else 'alld'.
        high: largest.
    """
    unit = guaranteed(shape, 1.0, delta, low, high)
    square, t = min(target_kappa, 1e100) ** 2, unit.tau
    root = sqrt(t**2 * (1 + 3 * square) + 4 * unit.sigma**2 * (square - 1))
    return 2 * (square - 1) / (t * (1 + square) + root)


@lru_cache(maxsize=16)
def expected_scale(target_kappa: float) -> float:
    """Return the c at which κ(I+W) of wide square layers tends to the target (MATH R23)."""
    return _largest(lambda c: rm.limit_kappa(c) <= target_kappa, 0.0, 1.0)


def _fresh(q: LayerQuantities, target: float, delta: float) -> Iterator[Advice]:
    """R21 and R23: the scale c = std·√n of fresh Gaussian weights."""
    if q.beta == 0:
        return
    n, gain = min(q.shape), abs(q.rho / q.beta)
    low, high, doubt = pattern_range(q)
    cases = [("r21.gauss", "", guaranteed_scale(q.shape, target, delta))]
    if q.patterns and not doubt:
        every = guaranteed_scale(q.shape, target, delta, low, high)
        cases.append(("r21.alld", " under every activation pattern", every))
    for name, where, scale in cases:
        c = scale * gain
        yield Advice(
            name,
            "scale",
            c,
            f"fresh Gaussian weights of std {c / sqrt(n):.3g} (c = {c:.3g}) have κ(skip) <= {target:g}"
            f"{where} with probability {1 - delta:.6g}",
        )
    if q.shape[0] == q.shape[1]:
        c = expected_scale(target) * gain
        yield Advice(
            "r23",
            "scale",
            c,
            f"fresh weights of std {c / sqrt(n):.3g} (c = {c:.3g}) have κ(skip) near {target:g}",
        )


# Rows that ReLU zeroes


def _of_relu(q: LayerQuantities) -> bool:
    """Say whether D has zeros and ones alone: no slope, no normalisation."""
    return bool(q.patterns) and all(bool(np.isin(p.diagonal, (0.0, 1.0)).all()) for p in q.patterns)


def _rows(q: LayerQuantities, target: float) -> Iterator[Advice]:
    """R25's sure step: the worst r rows, those of largest norm, may go."""
    if q.entries is None or q.skip is None or not _of_relu(q):
        return
    norms = np.sort(q.entries.row_norms)[::-1]
    taken = abs(q.beta) * np.sqrt(np.concatenate([[0.0], np.cumsum(norms**2)]))
    left = float(q.skip.min()) - taken
    top = abs(q.rho) + abs(q.beta) * float(q.weight.max())
    rows = int((left * target >= top).sum()) - 1
    if rows > 0:
        yield Advice(
            "r25",
            "zeroed_rows",
            float(rows),
            f"ReLU may zero any {rows} of {len(norms)} rows and κ(ρI+βDW) stays at most {target:g}",
        )


def _chain_rows(q: LayerQuantities) -> Iterator[Advice]:
    """R9 and R7 on D·W with a D of zeros and ones."""
    m, n = q.shape
    if q.kind.startswith("conv") or not _of_relu(q):
        return
    values = q.weight[0]
    if 1 < m <= n and isfinite(kappa(q.weight)) and values[-1] > q.floor:
        yield Advice(
            "r9",
            "zeroed_rows",
            float(m - 1),
            f"ReLU may zero any {m - 1} of {m} rows: κ of the rest of W stays at most {kappa(q.weight):.4g}",
        )
    rows = int((values >= values[0] / 2).sum()) - 1
    if rows > 0:
        yield Advice(
            "r7",
            "zeroed_rows",
            float(rows),
            f"ReLU may zero any {rows} of {m} rows and σmax(DW) stays at least half of σmax(W)",
        )
