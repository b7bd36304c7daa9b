"""Results on a skip connection, N = ρA + βM (MATH A): checks, and the formulas themselves.

A is the identity or another isometry; then H = AᴴM + MᴴA stands for M + Mᴴ everywhere (MATH R1'').
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import (
    TOLERANCE,
    Array,
    identity,
    judged,
    kappa_check,
    silent,
    tightest,
    worst,
)
from specinspect.spectra.quantities import LayerQuantities

UPPER = ("sharp", "simple")
LOWER = ("sharp", "drop", "nr", "simple", "weyl", "best")
FORMS: Mapping[str, tuple[str, str]] = {
    "sharp": ("sharp", "sharp"),
    "drop": ("sharp", "drop"),
    "mixed": ("simple", "drop"),
    "simple": ("simple", "simple"),
    "nr": ("sharp", "nr"),
    "best": ("sharp", "best"),
}
"""R4: name → which upper bound of σ_1 over which lower bound of σ_n (MATH R4)."""


# The formulas


def sigma_max_upper(
    rho: ArrayLike, beta: ArrayLike, s1: ArrayLike, tau_min: ArrayLike, tau_max: ArrayLike
) -> dict[str, Array]:
    """Return the upper bounds of σ_1(ρI+βM) by name (MATH R3): 'sharp' and 'simple'.

    Args:
        rho: weight of the skip, any sign. All arguments broadcast.
        beta: weight of the branch, any sign.
        s1: σ_1(M).
        tau_min: smallest eigenvalue of M + Mᵀ.
        tau_max: largest.
    """
    r, a, low, high, unit = _units(rho, beta, s1, tau_min, tau_max)
    sharp = np.sqrt(np.maximum(r**2 + a**2 + np.maximum(low, high), 0.0) + _ROUNDING)
    return {"sharp": sharp * unit, "simple": (r + a) * unit}


def sigma_min_lower(
    rho: ArrayLike,
    beta: ArrayLike,
    s1: ArrayLike,
    sn: ArrayLike,
    tau_min: ArrayLike,
    tau_max: ArrayLike,
) -> dict[str, Array]:
    """Return the lower bounds of σ_n(ρI+βM) by name (MATH R3), zero where vacuous.

    'nr' rests on the numerical range: ‖Nx‖ >= xᵀNx. It needs ρ ≠ 0. 'best' is the largest of all.

    Args:
        rho: weight of the skip, any sign. All arguments broadcast.
        beta: weight of the branch, any sign.
        s1: σ_1(M).
        sn: σ_n(M).
        tau_min: smallest eigenvalue of M + Mᵀ.
        tau_max: largest.
    """
    r, a, low, high, unit = _units(rho, beta, s1, tau_min, tau_max)
    an = np.abs(beta) / unit * np.asarray(sn, dtype=np.float64)
    m = np.minimum(low, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        nr = np.where(r > 0, r + m / (2 * r), 0.0)
    linear = {"nr": nr, "simple": r - a, "weyl": an - r}
    found = {
        "sharp": np.sqrt(_positive(r**2 + an**2 + m)),
        "drop": np.sqrt(_positive(r**2 + m)),
        **{name: _positive(values) for name, values in linear.items()},
    }
    found["best"] = np.maximum.reduce(np.broadcast_arrays(*found.values()))
    return {name: values * unit for name, values in found.items()}


def guaranteed_kappa(
    rho: ArrayLike,
    betas: ArrayLike,
    s1: ArrayLike,
    sn: ArrayLike,
    tau_min: ArrayLike,
    tau_max: ArrayLike,
) -> Array:
    """Return what κ(ρI+βM) is at most for every β (MATH R4, best); infinite where no bound applies.

    Arguments as for `sigma_min_lower`; they broadcast against `betas`.
    """
    upper = sigma_max_upper(rho, betas, s1, tau_min, tau_max)["sharp"]
    lower = sigma_min_lower(rho, betas, s1, sn, tau_min, tau_max)["best"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lower > 0, upper / lower, np.inf)


_STRIPE = 1 << 16
"""Sums of two values that are formed at once."""
_ROUNDING = 1e-13
"""Of sums of terms up to 1: bounds stay on their side of it."""


def _positive(values: Array) -> Array:
    """Return zero for what is not positive beyond rounding."""
    return np.where(values > 10 * _ROUNDING, values, 0.0)


def _units(
    rho: ArrayLike, beta: ArrayLike, s1: ArrayLike, tau_min: ArrayLike, tau_max: ArrayLike
) -> tuple[Array, Array, Array, Array, Array]:
    """Return |ρ|, |β|s_1 and ρβτ in units of the larger term, so that squares stay within float64."""
    r, b = np.asarray(rho, dtype=np.float64), np.asarray(beta, dtype=np.float64)
    unit = np.maximum(np.abs(r), np.abs(b) * np.asarray(s1, dtype=np.float64))
    unit = np.where(unit > 0, unit, 1.0)
    r, b = r / unit, b / unit
    low, high = (r * (b * np.asarray(tau, dtype=np.float64)) for tau in (tau_min, tau_max))
    return np.abs(r), np.abs(b) * np.asarray(s1, dtype=np.float64), low, high, unit


def refined_growth(squares: Array, shift: Array) -> tuple[Array, Array]:
    """Return lower and upper bounds of σ_k(N)² - ρ² from Weyl's inequalities for every pair (MATH R1').

    Args:
        squares: (blocks, k) β²s_i², descending.
        shift: (blocks, k) eigenvalues of ρβ(M+Mᵀ), descending.
    """
    k = squares.shape[1]
    upper = np.full(squares.shape, np.inf)
    lower = np.full(squares.shape, -np.inf)
    # Row i of `above` is b moved i places to the right: σ_k² <= s_i² + b_j stands in column k = i+j-1;
    # row i of `below` is b moved n-i places to the left, for σ_k² >= s_i² + b_j with k = i+j-n.
    above, below = (
        sliding_window_view(np.pad(shift, ((0, 0), pad), constant_values=fill), k, axis=1)[:, ::-1]
        for pad, fill in (((k - 1, 0), np.inf), ((0, k - 1), -np.inf))
    )
    rows = max(1, _STRIPE // max(squares.size, 1))
    for start in range(0, k, rows):
        part = slice(start, start + rows)
        np.minimum(upper, (squares[:, part, None] + above[:, part]).min(1), out=upper)
        np.maximum(lower, (squares[:, part, None] + below[:, part]).max(1), out=lower)
    return lower, upper


# The checks


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One map N = ρA + βM with what is known of M, in units of the larger of ρ and β·s_1."""

    of: str
    unit: float
    rho: float
    """|ρ|."""
    n: Array
    """(blocks, k) σ(N)."""
    s: Array
    """(blocks, k) |β|·σ(M)."""
    shift: Array | None
    """(blocks, k) or (blocks, 2): eigenvalues of ρβH, descending; None where unknown."""
    multiplicity: NDArray[np.int64]
    tau: tuple[float, float]
    """τmin and τmax of H itself, in no units; NaN where unknown."""
    top: float
    """σ_1(M), in no units."""

    @property
    def tolerance(self) -> float:
        """Of squares."""
        return TOLERANCE * (self.rho**2 + float(self.s.max()) ** 2)

    @staticmethod
    def of_values(of: str, q: LayerQuantities, n: Array, s: Array, tau: Array | None) -> Branch:
        """Bring a map into its units."""
        unit = max(abs(q.rho), abs(q.beta) * float(s.max())) or 1.0
        r = q.rho / unit
        shift = None if tau is None else r * (q.beta * tau / unit)  # β over a tiny unit may leave float64
        if shift is not None and (q.rho < 0) != (q.beta < 0):
            shift = shift[:, ::-1]
        ends = (np.nan, np.nan) if tau is None else (float(tau.min()), float(tau.max()))
        return Branch(
            of, unit, abs(r), n / unit, abs(q.beta) * s / unit, shift, q.multiplicity, ends, float(s.max())
        )


def branches(q: LayerQuantities) -> tuple[tuple[Branch, ...], ...]:
    """Return the skip map, and ρA + β·D·W of every pattern, as far as the layer has them."""
    found: list[tuple[Branch, ...]] = []
    if q.skip is not None:
        found.append((Branch.of_values("skip", q, q.skip, q.weight, q.tau),))
    ordered = [None if p.tau is None else p.tau[:, ::-1] for p in q.patterns]
    patterns = tuple(
        Branch.of_values("skip_chain", q, p.skip_chain, p.chain, tau)
        for p, tau in zip(q.patterns, ordered, strict=True)
        if p.skip_chain is not None
    )
    return (*found, patterns) if patterns else tuple(found)


def checks(q: LayerQuantities) -> tuple[BoundCheck, ...]:
    """Return the verdicts of R1 to R5b on the maps with a skip; none where the layer has no such map."""
    square = q.shape[0] == q.shape[1]
    found: list[BoundCheck] = []
    for group in branches(q):
        found.append(worst(_weyl(b) for b in group))
        with_tau = [b for b in group if b.shift is not None]
        if q.tau is None:
            of, why = group[0].of, "the shortcut is no isometry: it adds channels"
            ids = ["r1" if square else "r1pp", *(["r1p", "r5"] if of == "skip" else [])]
            ids += [f"r3.{name}" for name in _CANDIDATES] + [f"r4.{name}" for name in FORMS]
            found += [silent(name, of, "not_applicable", why) for name in ids]
            continue
        for branch in with_tau:
            found += _named(_with_tau(branch, q, square=square), branch, len(group))
    return tuple(found)


_CANDIDATES = (*(f"upper.{name}" for name in UPPER), *(f"lower.{name}" for name in LOWER))


def _named(results: Iterator[BoundCheck], branch: Branch, patterns: int) -> Iterator[BoundCheck]:
    """Say of which pattern a result speaks, where τ is known of one of several."""
    for check in results:
        if branch.of == "skip_chain" and patterns > 1:
            yield replace(check, why=f"{check.why} (of {patterns} patterns, the one of median activity)")
        else:
            yield check


def _with_tau(branch: Branch, q: LayerQuantities, *, square: bool) -> Iterator[BoundCheck]:
    known = () if square else ("A is an isometry: H = AᵀM+MᵀA (AMᵀ+MAᵀ) stands for M+Mᵀ",)
    yield _growth("r1" if square else "r1pp", branch, known)
    if branch.shift is not None and branch.shift.shape == branch.s.shape and branch.of == "skip":
        # Where only the ends of τ are known these say nothing.
        yield _refined(branch, known)
        yield _energy(branch, known)
    yield from (replace(c, assumptions=known) for c in _extremes(branch, q))
    if square:
        yield _singular(branch, q)
    if q.kind.startswith("conv"):
        yield _per_frequency(branch)


def _global(branch: Branch) -> tuple[Array, Array]:
    """Return σ(N) and |β|σ(M) of the whole operator, (1, all), descending."""
    if len(branch.n) == 1:
        return branch.n, branch.s
    times = branch.multiplicity
    n, s = (np.sort(np.repeat(values, times, 0), axis=None)[::-1] for values in (branch.n, branch.s))
    return n[None], s[None]


def _weyl(branch: Branch) -> BoundCheck:
    """R2: |σ_i(N) - |β|s_i| <= |ρ|, for any shortcut with ‖A‖ <= 1."""
    n, s = _global(branch)
    lower = np.maximum(s - branch.rho, 0.0) ** 2
    return tightest(
        "r2", branch.of, n, lower, (s + branch.rho) ** 2, tolerance=branch.tolerance, unit=branch.unit
    )


def _growth(id_: str, branch: Branch, known: tuple[str, ...]) -> BoundCheck:
    """R1, R1'': β²s_i² + min ρβτ + ρ² <= σ_i(N)² <= β²s_i² + max ρβτ + ρ²."""
    n, s = _global(branch)
    low, high = _shift_ends(branch)
    base = s**2 + branch.rho**2
    return tightest(
        id_,
        branch.of,
        n,
        base + low,
        base + high,
        tolerance=branch.tolerance,
        unit=branch.unit,
        assumptions=known,
    )


def _refined(branch: Branch, known: tuple[str, ...]) -> BoundCheck:
    """R1' on every Fourier block, which has its own τ."""
    if branch.shift is None:
        raise AssertionError("only called with τ")
    lower, upper = refined_growth(branch.s**2, branch.shift)
    base = branch.rho**2
    return tightest(
        "r1p",
        branch.of,
        branch.n,
        lower + base,
        upper + base,
        tolerance=branch.tolerance,
        unit=branch.unit,
        assumptions=known,
    )


def _energy(branch: Branch, known: tuple[str, ...]) -> BoundCheck:
    """R5, summed over i and integrated: Σσ_i(N)² = β²Σs_i² + ρβΣτ_i + ρ²k."""
    if branch.shift is None:
        raise AssertionError("only called with τ")
    times = branch.multiplicity
    value = float((branch.n**2).sum(1) @ times)
    expected = float((branch.s**2 + branch.shift + branch.rho**2).sum(1) @ times)
    count = float(times.sum()) * branch.n.shape[1]
    return identity(
        "r5",
        branch.of,
        float(np.sqrt(value)),
        float(np.sqrt(max(expected, 0.0))),
        tolerance=branch.tolerance * count,
        what="‖N‖_F",
        unit=branch.unit,
        assumptions=known,
    )


def _shift_ends(branch: Branch) -> tuple[float, float]:
    if branch.shift is None:
        raise AssertionError("only called with τ")
    return float(branch.shift.min()), float(branch.shift.max())


def _extremes(branch: Branch, q: LayerQuantities) -> Iterator[BoundCheck]:
    """R3, every candidate, and R4, every form, of the whole operator."""
    low, high = _shift_ends(branch)
    s1, sn = float(branch.s.max()), float(branch.s.min())
    top, bottom = float(branch.n.max()), float(branch.n.min())
    r = branch.rho
    # The formulas for ρ·β > 0, in units: ρβτ stands for τ where ρ = 0 or 1.
    tau_min, tau_max = (low / r, high / r) if r else (0.0, 0.0)
    upper = {k: float(v) for k, v in sigma_max_upper(r, 1.0, s1, tau_min, tau_max).items()}
    lower = {k: float(v) for k, v in sigma_min_lower(r, 1.0, s1, sn, tau_min, tau_max).items()}
    why = _reasons(branch, q)
    for name, bound in upper.items():
        yield judged(
            f"r3.upper.{name}",
            branch.of,
            top,
            bound,
            upper=True,
            tolerance=branch.tolerance,
            what="σmax",
            unit=branch.unit,
        )
    for name, bound in lower.items():
        id_ = f"r3.lower.{name}"
        if name == "nr" and r == 0:
            yield silent(id_, branch.of, "not_applicable", "needs ρ ≠ 0")
        elif bound <= 0:
            yield silent(id_, branch.of, "vacuous", why[name], bottom * branch.unit)
        else:
            yield judged(
                id_,
                branch.of,
                bottom,
                bound,
                upper=False,
                tolerance=branch.tolerance,
                what="σmin",
                unit=branch.unit,
            )
    for name, (numerator, denominator) in FORMS.items():
        id_ = f"r4.{name}"
        if name == "nr" and r == 0:
            yield silent(id_, branch.of, "not_applicable", "needs ρ ≠ 0")
        else:
            yield kappa_check(
                id_,
                branch.of,
                (top, bottom),
                (upper[numerator], lower[denominator]),
                branch.tolerance,
                why[denominator],
            )


def _reasons(branch: Branch, q: LayerQuantities) -> dict[str, str]:
    """Say for every lower bound what it would need, with the number that decides."""
    rho, beta, unit = q.rho, q.beta, branch.unit
    s1, sn = float(branch.s.max()) * unit, float(branch.s.min()) * unit  # times |β|
    if rho == 0 or beta == 0:
        needs = dict.fromkeys(("drop", "nr"), "needs ρ ≠ 0")
        sharp = f"needs |β|σmin > 0: it is {sn:.4g}"
    else:
        # In terms of τ itself: of its smaller end where ρβ > 0, of its larger one otherwise.
        low, high = branch.tau
        name, relation, tau = ("τmin", ">", low) if (rho > 0) == (beta > 0) else ("τmax", "<", high)
        is_ = f"{name} is {tau:.4g}"
        ratio = rho / beta
        sharp_limit = -(ratio + sn / rho * (sn / beta))
        needs = {
            "drop": f"needs {name} {relation} {-ratio:.4g}: {is_}",
            "nr": f"needs {name} {relation} {-2 * ratio:.4g}: {is_}",
        }
        sharp = f"needs {name} {relation} {sharp_limit:.4g}: {is_}"
    return {
        **needs,
        "sharp": sharp,
        "simple": f"needs |β|σmax < |ρ|: {s1:.4g} is not below {abs(rho):.4g}",
        "weyl": f"needs |β|σmin > |ρ|: {sn:.4g} is not above {abs(rho):.4g}",
        "best": f"no lower bound of σmin is positive: the numerical range {needs['nr']}",
    }


def _singular(branch: Branch, q: LayerQuantities) -> BoundCheck:
    """R5b: N is singular only where -ρ/β is a real eigenvalue of M, thus within [τmin/2, τmax/2]."""
    bottom = float(branch.n.min())
    if q.rho == 0 or q.beta == 0:
        return silent("r5b", branch.of, "not_applicable", "needs ρ ≠ 0 and β ≠ 0")
    low, high = (tau / 2 for tau in branch.tau)
    point = -q.rho / q.beta
    inside = f"[τmin/2, τmax/2] = [{low:.4g}, {high:.4g}]"
    margin = TOLERANCE * max(abs(point), branch.top)  # τ has rounding errors in proportion to σ_1
    if low - margin <= point <= high + margin:
        why = f"-ρ/β = {point:.4g} lies in {inside}, where M may have a real eigenvalue"
        return silent("r5b", branch.of, "not_applicable", why, bottom * branch.unit)
    return BoundCheck(
        "r5b",
        branch.of,
        "holds" if bottom > 0 else "violated",
        bottom * branch.unit,
        0.0,
        None,
        None,
        f"-ρ/β = {point:.4g} lies outside of {inside}: no real eigenvalue of M, and σmin is above 0",
    )


def _per_frequency(branch: Branch) -> BoundCheck:
    """R63: R1 and R4 with every Fourier block's own τ, then the worst of all frequencies."""
    if branch.shift is None:
        raise AssertionError("only called with τ")
    r, n, s = branch.rho, branch.n, branch.s
    low, high = branch.shift.min(1), branch.shift.max(1)
    base = s**2 + r**2
    growth = tightest(
        "r63",
        branch.of,
        n,
        base + low[:, None],
        base + high[:, None],
        tolerance=branch.tolerance,
        unit=branch.unit,
    )
    if growth.verdict == "violated":
        return growth
    tau_min, tau_max = (low / r, high / r) if r else (low, high)
    uppers = sigma_max_upper(r, 1.0, s[:, 0], tau_min, tau_max)["sharp"]
    lowers = sigma_min_lower(r, 1.0, s[:, 0], s[:, -1], tau_min, tau_max)["best"]
    worst_block = int(lowers.argmin())
    needs = f"no lower bound of σmin is positive at frequency {worst_block + 1} of {len(n)}"
    return kappa_check(
        "r63",
        branch.of,
        (float(n.max()), float(n.min())),
        (float(uppers.max()), float(lowers.min())),
        branch.tolerance,
        needs,
    )
