"""Results on bounded entries, |w_ij| <= c (MATH C): formulas, and the checks of a layer.

Hard bounds: they hold whatever the weights are, and say something only where entries are far below the size
that initialisations draw (c < 1/n).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from specinspect.bounds.judge import Claim, absent, judge
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import TOLERANCE, kappa_check
from specinspect.spectra.quantities import LayerQuantities

Array = NDArray[np.float64]


def largest_sigma(c: ArrayLike, rows: ArrayLike, columns: ArrayLike, factors: int = 1) -> Array:
    """Return a >= σ_1 of a matrix with |entries| <= c, or of a product of square ones (MATH R10).

    c·√(mn); (nc)^p for p factors of n×n, also with diagonals |D| <= 1 between them. Tight for equal entries.
    """
    return np.asarray((np.asarray(c, float) * np.sqrt(np.asarray(rows, float) * columns)) ** factors)


def kappa_from_norm(a: ArrayLike) -> Array:
    """Return (1+a)/(1-a), which bounds κ(I+M) where σ_1(M) <= a; inf from a = 1 on (MATH R11)."""
    a = np.asarray(a, float)
    with np.errstate(divide="ignore"):
        return np.asarray((1 + a) / np.maximum(1 - a, 0))


def kappa_relu(n: ArrayLike, c: ArrayLike, zeros: ArrayLike) -> tuple[Array, Array]:
    """Return (89) and (90) of MATH R12: bounds of κ((I+M)·D) where D has `zeros` zeros; inf where vacuous."""
    n, c, r = (np.asarray(x, float) for x in (n, c, zeros))
    lost, left = 2 * r * c * (n + 1), 1 - n * c
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(left > np.sqrt(lost), (1 + n * c) / (left - np.sqrt(lost)), inf)
        second = np.where((left > 0) & (left**2 > lost), (1 + n * c) / np.sqrt(left**2 - lost), inf)
    return first, second


def kappa_leaky(n: ArrayLike, c: ArrayLike, slope: ArrayLike, slopes: ArrayLike) -> Array:
    """Return the bound of κ((I+M)·D) where D has `slopes` entries η, the others 1 (MATH R13); inf if vacuous.

    For 0 <= η <= 1 and nc < 1.
    """
    n, c, eta, r = (np.asarray(x, float) for x in (n, c, slope, slopes))
    squared = (1 - eta**2) ** 2 * (r * (1 + 3 * c) ** 2 + 9 * c**2 * r * (r - 1)) + 18 * c**2 * (
        1 - eta
    ) ** 2 * r * (n - r)
    left = np.maximum(1 - n * c, 0) ** 2 - np.sqrt(np.maximum(squared, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(left > 0, (1 + n * c) / np.sqrt(np.maximum(left, 0)), inf))


def entry_norm(q: LayerQuantities) -> float | None:
    """Return a >= σ_1(W) from the largest entry alone; None where entries do not tell (MATH R10).

    A convolution's rows have in·taps entries of size c, its columns out·taps at most: by row and column sums
    its norm is at most c·√(out·taps·in·taps), whatever its stride.
    """
    if q.entries is None or (q.kind.startswith("conv") and q.entries.taps is None):
        return None
    taps = q.entries.taps or 1
    return float(largest_sigma(q.entries.largest, q.shape[0] * taps, q.entries.shape[1]))


def checks(q: LayerQuantities) -> tuple[BoundCheck, ...]:
    """Return the verdicts of R10 on W and of R11 to R13 on the maps with a skip."""
    norm = entry_norm(q)
    if norm is None or q.entries is None:
        return (absent("r10", "weight", "the entries of the weight are not known"),)
    top = float(q.weight.max(initial=0.0))
    found = [judge(Claim("r10", "weight", "σmax", top, norm, assumptions=(_largest(q.entries.largest),)))]
    return (*found, *_beside_skip(q, norm, q.entries.largest))


def _largest(entry: float) -> str:
    return f"every entry is within ±{entry:.4g}, the largest of W"


def _beside_skip(q: LayerQuantities, norm: float, entry: float) -> Iterator[BoundCheck]:
    if q.skip is None:
        return
    if q.rho == 0 or not isometric(q):
        why = "there is no skip: ρ is 0" if q.rho == 0 else "the shortcut is no isometry: it adds channels"
        yield from (absent(name, "skip", why) for name in ("r11", "r12.89", "r12.90", "r13"))
        return
    ratio = abs(q.beta / q.rho)
    yield _r11(q, "skip", q.skip, ratio * norm, entry)
    chains = [p.skip_chain for p in q.patterns if p.skip_chain is not None]
    if chains:
        size = max(float(np.abs(p.diagonal).max(initial=0.0)) for p in q.patterns)
        yield _r11(q, "skip_chain", max(chains, key=kappa), ratio * norm * size, entry)
    yield from _with_activation(q, ratio * entry, kappa(q.skip))


def _r11(q: LayerQuantities, of: str, values: Array, a: float, entry: float) -> BoundCheck:
    """R11, in units of ρ; κ itself only where σ_n is not within rounding (MATH §0)."""
    unit = max(abs(q.rho), float(values.max()))
    found = float(values.max()) / unit, float(values.min()) / unit
    rho = abs(q.rho) / unit
    why = f"needs nc < 1 (n times the largest entry, beside the skip): it is {a:.3g}"
    bounds = (rho * (1 + a), rho * (1 - a) if a < 1 else 0.0)
    check = kappa_check("r11", of, found, bounds, TOLERANCE * (rho * (1 + a)) ** 2, why)
    return replace(check, assumptions=(_largest(entry),))


def _with_activation(q: LayerQuantities, entry: float, found: float) -> Iterator[BoundCheck]:
    """R12 and R13 on (ρI+βW)·D. Its κ is not computed: R9 bounds it by κ(ρI+βW), over η for leaky ReLU."""
    names = ("r12.89", "r12.90", "r13")
    slope = _two_valued(q)
    why = "" if slope is not None else "needs D with entries 1 and one slope from 0 to 1"
    if q.shape[0] != q.shape[1] or q.kind.startswith("conv"):
        why = "needs a square dense W"
    if why or slope is None:
        yield from (absent(name, "skip", why) for name in names)
        return
    n, hit = q.shape[0], max(int((p.diagonal != 1).sum()) for p in q.patterns)
    needs = f"needs nc well below 1, for so many entries of D: it is {n * entry:.3g}"
    where = (_largest(entry), f"D with {hit} of {n} entries {slope:g}, the most of the sampled patterns")
    used = (*where, "the value is κ(ρI+βW), which κ((ρI+βW)D) does not exceed (R9)")
    if slope == 0:
        first, second = kappa_relu(n, entry, hit)
        for name, bound in (("r12.89", float(first)), ("r12.90", float(second))):
            claim = Claim(name, "skip", "κ", found, bound, tolerance=_lost(bound), assumptions=used)
            yield judge(claim, vacuous=needs)
        yield absent("r13", "skip", "speaks of leaky ReLU: for ReLU r12 does")
        return
    yield from (absent(name, "skip", "speaks of ReLU: for its leaky form r13 does") for name in names[:2])
    used = (*where, "the value is κ(ρI+βW)/η, which κ((ρI+βW)D) does not exceed (R9)")
    leaky = float(kappa_leaky(n, entry, slope, hit))
    claim = Claim("r13", "skip", "κ/η", found / slope, leaky, tolerance=_lost(leaky), assumptions=used)
    yield judge(claim, vacuous=needs)


def _lost(bound: float) -> float:
    """Return what rounding does to x/√y where y is a difference of numbers up to 1: 4ε/y, relative."""
    return 1e-15 * bound * bound * bound


def _two_valued(q: LayerQuantities) -> float | None:
    """Return η where every pattern has entries 1 and η in [0, 1) alone, at least one of them η."""
    values = np.unique(np.concatenate([p.diagonal for p in q.patterns])) if q.patterns else np.ones(1)
    others = values[values != 1]
    return float(others[0]) if len(others) == 1 and 0 <= others[0] < 1 else None


def isometric(q: LayerQuantities) -> bool:
    """Say whether all singular values of the shortcut A are 1."""
    return q.shortcut in {"identity", "rectangular-identity"} or (q.shortcut != "none" and q.tau is not None)


def kappa(values: Array) -> float:
    """Return σ_max/σ_min over all Fourier blocks, infinite where one is zero."""
    low = float(values.min(initial=inf))
    return float(values.max(initial=0.0)) / low if low > 0 else inf
