"""What a rule answers: a problem, or why it has nothing to say; None is a pass."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 1e-6
"""Relative: values are known to six digits, so one this close to its limit passes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding in the making."""

    message: str
    value: float | None = None
    """None where it is no number: infinite, unresolved."""
    limit: float | None = None
    """Where it is not the rule's."""
    doubt: bool = False
    """Nothing is known to be wrong, but neither that it is right: a warning whatever the rule's severity."""
    unknown: bool = False
    """What the rule is about could not be had: an error whatever the rule's severity."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The rule does not apply here."""

    why: str


NOT_COMPUTED = Skip("what it needs was not computed")


def exceeds(value: float, limit: float) -> bool:
    """Say whether a value is above its limit by more than rounding explains."""
    return value > limit + TOLERANCE * abs(limit)


def limit_text(limit: float) -> str:
    """Return 'limit 1e4', with as many digits as it was given with (up to six)."""
    if limit == 0 or 1e-3 <= limit < 1e4:
        return f"limit {limit:.6g}"
    mantissa, _, exponent = f"{limit:.5e}".partition("e")
    return f"limit {mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
