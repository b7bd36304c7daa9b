"""Results beside a shortcut A that is no isometry, a projection of the checkpoint's say: what norms give.

Weyl's inequality holds for any A: R2, and the forms of R3 and R4 that rest on norms, with |ρ|‖A‖ for |ρ|, and
with |ρ|σmin(A) for it where |ρ| bounds from below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import TOLERANCE, Array, judged, kappa_check, silent, tightest, worst
from specinspect.spectra.quantities import LayerQuantities


class Weights(Protocol):
    """What layers and blocks have in common."""

    @property
    def rho(self) -> float:
        """Weight of the skip."""

    @property
    def beta(self) -> float:
        """Weight of the branch."""

    @property
    def multiplicity(self) -> NDArray[np.int64]:
        """(blocks,): how often each counts."""


def layer_checks(q: LayerQuantities) -> tuple[BoundCheck, ...]:
    """Return the verdicts on ρA+βW and ρA+β·D·W of a layer beside a projection; none for any other layer."""
    p = q.projection
    if p is None:
        return ()
    found = list(beside_any("skip", q, p.skip, q.weight, p.extremes, name="W"))
    groups: dict[str, list[BoundCheck]] = {}
    for pattern, values in zip(q.patterns, p.skip_chain, strict=True):
        for check in beside_any("skip_chain", q, values, pattern.chain, p.extremes, name="DW"):
            groups.setdefault(check.id, []).append(check)
    return (*found, *(weakest(group, len(q.patterns)) for group in groups.values()))


def weakest(checks: Sequence[BoundCheck], patterns: int) -> BoundCheck:
    """Return the check that holds for all patterns: of bounds on extremes and κ the one that says least."""
    if len(checks) < patterns:  # needs every τ
        return replace(checks[0], why=f"{checks[0].why} (the first of {patterns} sampled patterns)")
    decided = [check for check in checks if check.verdict == "holds" and check.bound is not None]
    first = checks[0]
    if len(decided) < len(checks) or not first.id.startswith(("r3.", "r4.", "r63")):
        return worst(checks, "sampled patterns")
    lower = first.id.startswith("r3.lower")
    chosen = min(decided, key=lambda check: (check.bound or 0.0) * (1 if lower else -1))
    if len(checks) == 1:
        return chosen
    return replace(chosen, why=f"{chosen.why} (weakest of {len(checks)} sampled patterns)")


@dataclass(frozen=True, slots=True)
class _Norms:
    """What any shortcut leaves, in units of the larger of |ρ|‖A‖ and |β|‖M‖."""

    n: Array
    """(1, all) σ(N), descending."""
    s: Array
    """(1, all) |β|σ(M)."""
    high: float
    """|ρ|‖A‖."""
    low: float
    """|ρ|σmin(A)."""
    unit: float

    @staticmethod
    def of(q: Weights, skip: Array, branch: Array, extremes: tuple[float, float]) -> _Norms:
        """Bring a map into its units."""
        n, s = (
            np.sort(np.repeat(values, q.multiplicity, 0), axis=None)[::-1][None] for values in (skip, branch)
        )
        low, high = (abs(q.rho) * value for value in extremes)
        unit = max(high, abs(q.beta) * float(s.max())) or 1.0
        return _Norms(n / unit, abs(q.beta) * s / unit, high / unit, low / unit, unit)

    @property
    def tolerance(self) -> float:
        """Of squares."""
        return TOLERANCE * (self.high**2 + float(self.s.max()) ** 2)


def beside_any(
    of: str, q: Weights, skip: Array, branch: Array, extremes: tuple[float, float], *, name: str
) -> Iterator[BoundCheck]:
    """Yield what Weyl's inequality gives of N = ρA+βM beside any A, and why the rest does not apply.

    Args:
        of: the map.
        q: ρ, β and how often each block counts.
        skip: (blocks, k) σ(N).
        branch: (blocks, k) σ(M).
        extremes: smallest and largest of the k singular values of A, over all blocks.
        name: of M, as it is shown.
    """
    x, (a_low, a_high) = _Norms.of(q, skip, branch, extremes), extremes
    norm = (f"|ρ|‖A‖ stands for |ρ|, ‖A‖ = {a_high:.6g}: A is no isometry",)
    both = (*norm, f"|ρ|σmin(A) stands for |ρ| in lower bounds, σmin(A) = {a_low:.6g}")
    top, bottom = float(x.n.max()), float(x.n.min())
    s1, sn = float(x.s.max()), float(x.s.min())
    room, unit = x.tolerance, x.unit
    sides = np.maximum(x.s - x.high, 0.0) ** 2, (x.s + x.high) ** 2
    yield tightest("r2", of, x.n, *sides, tolerance=room, unit=unit, assumptions=norm)
    upper = judged(
        "r3.upper.simple", of, top, x.high + s1, upper=True, tolerance=room, what="σmax", unit=unit
    )
    yield replace(upper, assumptions=norm)
    short = f"needs |β|σmax({name}) < |ρ|σmin(A): {s1 * unit:.4g} is not below {x.low * unit:.4g}"
    small = f"needs |β|σmin({name}) > |ρ|‖A‖: {sn * unit:.4g} is not above {x.high * unit:.4g}"
    best = max(x.low - s1, sn - x.high)
    for form, lower, known, why in (
        ("simple", x.low - s1, both[1:], short),
        ("weyl", sn - x.high, norm, small),
        ("best", best, both, f"{short}; {small}"),
    ):
        id_ = f"r3.lower.{form}"
        if lower > 0:
            found = judged(id_, of, bottom, lower, upper=False, tolerance=room, what="σmin", unit=unit)
            yield replace(found, assumptions=known)
        else:
            yield silent(id_, of, "vacuous", why, bottom * unit, known)
    for form, lower, why in (("simple", x.low - s1, short), ("best", best, f"{short}; {small}")):
        found = kappa_check(f"r4.{form}", of, (top, bottom), (x.high + s1, lower), room, why)
        yield replace(found, assumptions=both)
    why = f"the shortcut is no isometry: its singular values run from {a_low:.4g} to {a_high:.4g}"
    for id_ in _NEED_ISOMETRY:
        yield silent(id_, of, "not_applicable", why)


_NEED_ISOMETRY = (
    "r1pp",
    "r1p",
    "r5",
    "r3.upper.sharp",
    *(f"r3.lower.{name}" for name in ("sharp", "drop", "nr")),
    *(f"r4.{name}" for name in ("sharp", "drop", "mixed", "nr")),
)
