"""From two numbers to a verdict (MATH §0)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from specinspect.bounds.model import BoundCheck

RELATIVE = 1e-9
"""What float64 may be off by, relative to the numbers compared."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An inequality about one number: value <= bound, or bound <= value."""

    id: str
    of: str
    quantity: str
    """The value in words: 'σ1(W)'."""
    value: float
    """Infinite where a singular value is zero."""
    bound: float
    lower: bool = False
    """Whether the bound is one from below."""
    tolerance: float = 0.0
    """Absolute accuracy of value and bound, beside rounding in float64."""
    probability: float | None = None
    asymptotic: bool = False
    """No guarantee at finite size: what exceeds it is never 'violated'."""
    doubt: str = ""
    """Why these weights are not the random ones that the result speaks of; its bound is then a reference."""
    assumptions: tuple[str, ...] = ()


def judge(claim: Claim, *, vacuous: str = "") -> BoundCheck:
    """Compare, and say the verdict in a sentence.

    Args:
        claim: what is compared.
        vacuous: what is said where the bound is trivial: what it would need.
    """
    value, bound = claim.value, claim.bound
    given = BoundCheck(
        id=claim.id,
        of=claim.of,
        verdict="not_applicable",
        value=value if isfinite(value) else None,
        bound=bound if isfinite(bound) else None,
        slack=_slack(claim),
        probability=claim.probability,
        why=claim.doubt,
        assumptions=claim.assumptions,
    )
    trivially = not isfinite(bound) or (claim.lower and bound <= 0)
    if claim.doubt:
        if trivially:
            return replace(given, probability=None, bound=None, slack=None)
        side = "at least" if claim.lower else "at most"
        reference = f"{claim.doubt}; a fresh Gaussian layer would have {side} {bound:.4g}"
        return replace(given, probability=None, why=reference)
    if trivially:
        trivial = "the bound is not positive" if claim.lower else "the bound is infinite"
        return replace(given, verdict="vacuous", bound=None, slack=None, why=vacuous or trivial)
    numbers = f"{claim.quantity} = {value:.4g}"
    side = "below" if claim.lower else "above"
    distance = bound - value if claim.lower else value - bound
    scale = max(abs(bound), abs(value)) if isfinite(value) else abs(bound)
    if distance <= RELATIVE * scale + claim.tolerance:
        sense = "at least" if claim.lower else "at most"
        room = None if given.slack is None else max(given.slack, 0.0)  # rounding does not make it negative
        return replace(given, verdict="holds", slack=room, why=f"{numbers} is {sense} {bound:.4g}")
    if claim.asymptotic:
        relation = "is below" if claim.lower else "exceeds"
        return replace(
            given,
            probability=None,
            why=f"{numbers} {relation} the asymptotic value {bound:.4g}: no guarantee at finite size",
        )
    chance = ""
    if claim.probability is not None:
        chance = f": fresh weights do that with probability at most {1 - claim.probability:.2g}"
    return replace(given, verdict="violated", why=f"{numbers} is {side} {bound:.4g}{chance}")


def absent(id_: str, of: str, why: str, assumptions: tuple[str, ...] = ()) -> BoundCheck:
    """Return the verdict on a result that has nothing to be compared."""
    return BoundCheck(id_, of, "not_applicable", None, None, None, None, why, assumptions)


def _slack(claim: Claim) -> float | None:
    value, bound = claim.value, claim.bound
    if not (isfinite(value) and isfinite(bound)) or bound == 0:
        return None
    return (value - bound if claim.lower else bound - value) / abs(bound)
