"""Results on a skip beside independent random weights (MATH R21 to R25)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from specinspect.bounds import random_matrix as rm
from specinspect.bounds.entries import isometric, kappa
from specinspect.bounds.judge import Claim, absent, judge
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.random_layer import Fresh, pattern_range
from specinspect.spectra.quantities import LayerQuantities

_SKIP_IDS = ("r21.gauss", "r21.tw", "r22.121", "r22.122", "r22.nr", "r23", "r24")


@dataclass(frozen=True, slots=True)
class Scaled:
    """T and S of I + (β/ρ)·W, at a third of δ each (τ two-sided: two thirds)."""

    tau: float
    sigma: float

    @property
    def kappa(self) -> float:
        """What κ is at most (MATH R21)."""
        return float(rm.kappa_skip(self.tau, self.sigma))


def guaranteed(shape: tuple[int, int], c: float, delta: float, low: float, high: float) -> Scaled:
    """Return R21 'gauss' where low = high = 1, else 'alld': T and S of I + D·W with probability 1 - δ.

    Args:
        shape: (m, n); beside a rectangular identity τ is that of the square part.
        c: s·√min(m, n).
        delta: of the three events together.
        low: smallest entry of D.
        high: largest.
    """
    n, third = min(shape), delta / 3
    if low == high == 1:
        tau = float(rm.tau_gaussian(n, c, third))
    else:
        tau = float(rm.tau_all_patterns(n, c, third, low, high))
    size = max(abs(low), abs(high))
    return Scaled(tau, size * float(rm.largest(*shape, c / sqrt(n), third)))


def expected(shape: tuple[int, int], c: float, delta: float) -> Scaled:
    """Return R21 'tw', asymptotic, for D = I."""
    n, third = min(shape), delta / 3
    sigma = float(rm.johnstone(*shape, c / sqrt(n), third))
    return Scaled(float(rm.tau_tracy_widom(n, c, third)), sigma)


def skip_checks(q: LayerQuantities, fresh: Fresh) -> Iterator[BoundCheck]:
    """R21 to R24 on the maps with a skip, in units of ρ."""
    if q.skip is None:
        return
    if q.rho == 0 or not isometric(q):
        why = "there is no skip: ρ is 0" if q.rho == 0 else "the shortcut is no isometry: it adds channels"
        yield from (absent(name, "skip", why) for name in _SKIP_IDS)
        return
    c = abs(q.beta / q.rho) * fresh.c
    conv, square = q.kind.startswith("conv"), q.shape[0] == q.shape[1]
    found = kappa(q.skip)
    known = (*fresh.assumptions, f"c = {c:.3g} of (β/ρ)W")
    if conv:
        why = "proven for dense matrices, not for convolutions"
        yield from (absent(name, "skip", why) for name in ("r21.gauss", "r21.tw"))
    else:
        yield from _with_probability(q, fresh, c, known)
    limits = {"r22.121": rm.limit_121, "r22.122": rm.limit_122, "r22.nr": rm.limit_nr, "r23": rm.limit_kappa}
    for name, limit in limits.items():
        if not square:
            yield absent(name, "skip", "speaks of square layers")
        else:
            bound = float(limit(c))
            yield judge(
                Claim(name, "skip", "κ", found, bound, asymptotic=True, doubt=fresh.doubt, assumptions=known),
                vacuous=f"needs c < {_LARGEST[name]:.4g}: it is {c:.3g}",
            )
    if conv or not square:
        yield absent("r24", "skip", "speaks of square dense layers")
        return
    yield _beside_plain(q, fresh, c, known)


def _beside_plain(q: LayerQuantities, fresh: Fresh, c: float, known: tuple[str, ...]) -> BoundCheck:
    """R24: κ(skip) against this layer's own κ(W), so that there is no reference of a fresh layer."""
    if fresh.gaussian_doubt:
        return absent("r24", "skip", fresh.gaussian_doubt, known)
    bound = guaranteed(q.shape, c, fresh.delta, 1.0, 1.0).kappa
    if bound == inf or q.skip is None:
        return absent("r24", "skip", f"r21.gauss guarantees nothing at c = {c:.3g}", known)
    plain = float(rm.edelman(fresh.n, bound))
    return judge(
        Claim(
            "r24", "skip", "κ(skip)", kappa(q.skip), kappa(q.weight),
            probability=max(1 - fresh.delta - plain, 0.0), asymptotic=True,
            assumptions=(*known, "the bound is κ(W): a skip beats the plain layer, in probability only"),
        )
    )  # fmt: skip


_LARGEST = {"r22.121": 1 / sqrt(8), "r22.122": 1 / sqrt(8), "r22.nr": 1 / sqrt(2), "r23": 1.0}


def _with_probability(
    q: LayerQuantities, fresh: Fresh, c: float, known: tuple[str, ...]
) -> Iterator[BoundCheck]:
    found = kappa(q.skip) if q.skip is not None else inf
    sure = 1 - fresh.delta
    gauss, tw = guaranteed(q.shape, c, fresh.delta, 1.0, 1.0), expected(q.shape, c, fresh.delta)
    yield judge(
        Claim(
            "r21.gauss", "skip", "κ", found, gauss.kappa,
            probability=sure, doubt=fresh.gaussian_doubt, assumptions=known,
        ),
        vacuous=f"needs T < 2: it is {gauss.tau:.3g} at c = {c:.3g}",
    )  # fmt: skip
    chains = [p.skip_chain for p in q.patterns if p.skip_chain is not None]
    if chains:
        low, high, doubt = pattern_range(q)
        every = guaranteed(q.shape, c, fresh.delta, low, high)
        yield judge(
            Claim(
                "r21.alld", "skip_chain", "κ", max(map(kappa, chains)), every.kappa,
                probability=sure, doubt=fresh.gaussian_doubt or doubt,
                assumptions=(*known, f"all D with entries in [{low:.4g}, {high:.4g}] at once"),
            ),
            vacuous=f"needs T < 2: it is {every.tau:.3g} at c = {c:.3g}",
        )  # fmt: skip
    yield judge(
        Claim(
            "r21.tw", "skip", "κ", found, tw.kappa,
            probability=sure, asymptotic=True, doubt=fresh.doubt, assumptions=known,
        ),
        vacuous=f"needs T < 2: it is {tw.tau:.3g} at c = {c:.3g}",
    )  # fmt: skip


def pattern_gap(q: LayerQuantities, diagonal: rm.Array) -> float:
    """Return ‖(ρA+βW) - (ρA+βDW)‖_F = |β|·√(Σ_j (1-d_j)²‖w_j‖²), of a dense layer (MATH R25's sure step)."""
    if q.entries is None:
        raise AssertionError("only called with entries")
    rows = np.abs(1 - diagonal) * q.entries.row_norms
    largest = float(rows.max()) or 1.0  # squares may leave float64
    return abs(q.beta) * largest * float(np.sqrt(((rows / largest) ** 2).sum()))


def two_pattern_checks(q: LayerQuantities) -> Iterator[BoundCheck]:
    """R25's sure step on ρA+βDW: no singular value falls by more than the Frobenius norm of what D takes."""
    patterns = [p for p in q.patterns if p.skip_chain is not None]
    if not patterns or q.skip is None:
        return
    if q.kind.startswith("conv"):
        yield absent("r25", "skip_chain", "sums over the rows of a dense matrix")
        return
    bottom = float(q.skip.min())
    claims = [
        Claim(
            "r25", "skip_chain", "σmin", float(p.skip_chain.min()), bottom - pattern_gap(q, p.diagonal),
            lower=True, tolerance=q.floor + 1e-9 * float(q.skip.max()),
            assumptions=("σmin(ρI+βW) less the Frobenius norm of the rows that D takes away",),
        )
        for p in patterns if p.skip_chain is not None
    ]  # fmt: skip
    claim = min(claims, key=lambda c: c.value - c.bound)
    yield judge(
        claim, vacuous=f"D takes away {bottom - claim.bound:.3g} (Frobenius), σmin(skip) is {bottom:.3g}"
    )
