"""Results on a block, N = ρA + βJ: those of a layer beside a skip, with J for W (MATH A, R63).

J is the Jacobian at sampled inputs: every result is tested at each, and the one with the least room is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from specinspect.bounds import skip
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import TOLERANCE, Array, judged, kappa_check, silent, tightest, worst
from specinspect.spectra.model import BlockSpectra
from specinspect.spectra.quantities import BlockPattern, BlockQuantities, LayerQuantities

GUARANTEES = ("r4.best", "r63", "r4.simple")
"""Ids of the bounds on κ(ρA + βJ)."""


def check_block(spectra: BlockSpectra, quantities: BlockQuantities | None) -> tuple[BoundCheck, ...]:
    """Return the verdict of every result that says something of a block beside its shortcut.

    Args:
        spectra: what is shown of it.
        quantities: what the results rest on; None where not all singular values were computed.
    """
    if spectra.skip is None or spectra.skip.nonfinite:
        return ()
    if quantities is None:
        why = "only the extreme singular values of so large a block are computed"
        return (silent("r4.best", "skip", "not_applicable", why),)
    with np.errstate(over="ignore", invalid="ignore"):  # a bound beyond float64 says nothing
        return checks(quantities)


def checks(q: BlockQuantities) -> tuple[BoundCheck, ...]:
    """Return the verdicts of R1 to R5b and R63 on ρA + βJ, each of the pattern with the least room.

    Beside a shortcut A that is no multiple of an isometry only norms are left: R2 and the simple forms of R3
    and R4, with |ρ|‖A‖ or |ρ|σmin(A) for |ρ|.
    """
    groups: dict[str, list[BoundCheck]] = {}
    for pattern in q.patterns:
        found = _beside_any(q, pattern) if pattern.tau is None else _beside_isometry(q, pattern)
        for check in found:
            groups.setdefault(check.id, []).append(check)
    return tuple(_weakest(group, len(q.patterns)) for group in groups.values())


def _weakest(checks: Sequence[BoundCheck], patterns: int) -> BoundCheck:
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


def _beside_isometry(q: BlockQuantities, pattern: BlockPattern) -> Iterator[BoundCheck]:
    """Yield what holds for a layer: ρA is ρc times the isometry A/c."""
    c = q.shortcut[1]
    layer = LayerQuantities(
        kind="conv" if q.periodic else "linear",
        shape=q.shape,
        rho=q.rho * c,
        beta=q.beta,
        shortcut="identity" if q.identity else "average-pool",
        weight=pattern.chain,
        multiplicity=q.multiplicity,
        skip=pattern.skip,
        tau=pattern.tau,
        floor=0.0,
        entries=None,
        patterns=(),
        activation="",
    )
    known = () if abs(c - 1) <= 1e-9 else (f"A is {c:.6g} times an isometry: ρ·{c:.6g} stands for ρ",)
    for check in skip.checks(layer):
        if not q.identity and check.id == "r5b":
            continue
        id_ = "r1pp" if check.id == "r1" and not q.identity else check.id
        yield replace(check, id=id_, assumptions=(*check.assumptions, *known))


@dataclass(frozen=True, slots=True)
class _Norms:
    """What any shortcut leaves, in units of the larger of |ρ|‖A‖ and |β|‖J‖."""

    n: Array
    """(1, all) σ(N), descending."""
    s: Array
    """(1, all) |β|σ(J)."""
    high: float
    """|ρ|‖A‖."""
    low: float
    """|ρ|σmin(A)."""
    unit: float

    @property
    def tolerance(self) -> float:
        """Of squares."""
        return TOLERANCE * (self.high**2 + float(self.s.max()) ** 2)


def _norms(q: BlockQuantities, pattern: BlockPattern) -> _Norms:
    n, s = (
        np.sort(np.repeat(values, q.multiplicity, 0), axis=None)[::-1][None]
        for values in (pattern.skip, pattern.chain)
    )
    low, high = (abs(q.rho) * value for value in q.shortcut)
    unit = max(high, abs(q.beta) * float(s.max())) or 1.0
    return _Norms(n / unit, abs(q.beta) / unit * s, high / unit, low / unit, unit)


def _beside_any(q: BlockQuantities, pattern: BlockPattern) -> Iterator[BoundCheck]:
    """Yield what Weyl's inequality gives beside any A, and why the rest does not apply."""
    x, (a_low, a_high) = _norms(q, pattern), q.shortcut
    norm = (f"|ρ|‖A‖ stands for |ρ|, ‖A‖ = {a_high:.6g}: A is no isometry",)
    both = (*norm, f"|ρ|σmin(A) stands for |ρ| in lower bounds, σmin(A) = {a_low:.6g}")
    top, bottom = float(x.n.max()), float(x.n.min())
    s1, sn = float(x.s.max()), float(x.s.min())
    room, unit = x.tolerance, x.unit
    yield tightest(
        "r2",
        "skip",
        x.n,
        np.maximum(x.s - x.high, 0.0) ** 2,
        (x.s + x.high) ** 2,
        tolerance=room,
        unit=unit,
        assumptions=norm,
    )
    upper = x.high + s1
    yield judged(
        "r3.upper.simple",
        "skip",
        top,
        upper,
        upper=True,
        tolerance=room,
        what="σmax",
        unit=unit,
        assumptions=norm,
    )
    short = f"needs |β|σmax(J) < |ρ|σmin(A): {s1 * unit:.4g} is not below {x.low * unit:.4g}"
    for id_, bound, known, why in (
        ("r3.lower.simple", x.low - s1, both[1:], short),
        (
            "r3.lower.weyl",
            sn - x.high,
            norm,
            f"needs |β|σmin(J) > |ρ|‖A‖: {sn * unit:.4g} is not above {x.high * unit:.4g}",
        ),
    ):
        if bound > 0:
            yield judged(
                id_,
                "skip",
                bottom,
                bound,
                upper=False,
                tolerance=room,
                what="σmin",
                unit=unit,
                assumptions=known,
            )
        else:
            yield silent(id_, "skip", "vacuous", why, bottom * unit, known)
    simple = kappa_check("r4.simple", "skip", (top, bottom), (upper, x.low - s1), room, short)
    yield replace(simple, assumptions=both)
    why = f"the shortcut is no isometry: its singular values run from {a_low:.4g} to {a_high:.4g}"
    for id_ in _NEED_ISOMETRY:
        yield silent(id_, "skip", "not_applicable", why)


_NEED_ISOMETRY = (
    "r1pp",
    "r1p",
    "r5",
    "r3.upper.sharp",
    *(f"r3.lower.{name}" for name in ("sharp", "drop", "nr", "best")),
    *(f"r4.{name}" for name in ("sharp", "drop", "mixed", "nr", "best")),
)
