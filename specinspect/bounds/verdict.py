"""From a computed value and a bound to a verdict (MATH §0), shared by the deterministic results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from specinspect.bounds.model import BoundCheck, Verdict

TOLERANCE = 1e-9
"""Of squares, relative to the square of what was added up (MATH §0)."""
SMALLEST_RATIO = 1e-6
"""σ_n/σ_1 from which on κ is compared; below, σ_1 and σ_n² are (MATH §0)."""
KAPPA_TOLERANCE = 4e-6
"""Of κ², relative: two singular values with six digits each."""

Array = NDArray[np.float64]


def judged(
    id_: str,
    of: str,
    value: float,
    bound: float,
    *,
    upper: bool,
    tolerance: float,
    what: str,
    unit: float = 1.0,
    assumptions: tuple[str, ...] = (),
) -> BoundCheck:
    """Compare two non-negative numbers by their squares.

    Args:
        id_: of the result.
        of: the map.
        value: what was computed.
        bound: what it is at most (`upper`) or at least.
        upper: which.
        tolerance: of the squares, absolute.
        what: the value's name, for the sentence.
        unit: what both numbers are multiples of.
        assumptions: what was tested or taken for granted.
    """
    excess = value**2 - bound**2 if upper else bound**2 - value**2
    holds = excess <= tolerance  # NaN does not hold
    return BoundCheck(
        id_,
        of,
        "holds" if holds else "violated",
        value * unit,
        bound * unit,
        slack(value, bound, upper=upper, holds=holds),
        None,
        sentence(what, value * unit, bound * unit, upper=upper, holds=holds),
        assumptions,
    )


def slack(value: float, bound: float, *, upper: bool, holds: bool) -> float | None:
    """Return the relative distance to the bound; rounding does not make it negative where the bound holds."""
    if bound == 0:
        return None
    distance = (bound - value if upper else value - bound) / abs(bound)
    return max(distance, 0.0) if holds else distance


def sentence(what: str, value: float, bound: float, *, upper: bool, holds: bool) -> str:
    """Say how a value and its bound compare."""
    if holds:
        return f"{what} is {value:.4g}, {'at most' if upper else 'at least'} {bound:.4g}"
    relation = "above" if upper else "below"
    return f"{what} is {value:.6g}, {relation} {bound:.6g}: precision was lost, or this program errs"


def identity(
    id_: str,
    of: str,
    value: float,
    expected: float,
    *,
    tolerance: float,
    what: str,
    unit: float = 1.0,
    assumptions: tuple[str, ...] = (),
) -> BoundCheck:
    """Compare two numbers that must be equal; the tolerance is absolute, of their squares."""
    holds = abs(value**2 - expected**2) <= tolerance
    difference = abs(value - expected) / expected if expected else abs(value)
    text = f"{what} is {value * unit:.6g}, {'equal to' if holds else 'not'} {expected * unit:.6g}"
    return BoundCheck(
        id_,
        of,
        "holds" if holds else "violated",
        value * unit,
        expected * unit,
        0.0 if holds else -difference,
        None,
        text if holds else f"{text}: precision was lost, or this program errs",
        assumptions,
    )


def silent(
    id_: str,
    of: str,
    verdict: Verdict,
    why: str,
    value: float | None = None,
    assumptions: tuple[str, ...] = (),
) -> BoundCheck:
    """Return a result that bounds nothing here: 'vacuous' or 'not_applicable'."""
    return BoundCheck(id_, of, verdict, value, None, None, None, why, assumptions)


def tightest(
    id_: str,
    of: str,
    values: Array,
    lower: Array | None,
    upper: Array | None,
    *,
    tolerance: float,
    unit: float,
    what: str = "σ",
    assumptions: tuple[str, ...] = (),
) -> BoundCheck:
    """Compare many values with their bounds, and report the one with the least room.

    Args:
        id_: of the result.
        of: the map.
        values: (blocks, k), not negative.
        lower: squares of lower bounds of that shape, vacuous where not positive; None for none.
        upper: squares of upper bounds; None for none.
        tolerance: of the squares, absolute.
        unit: what all are multiples of.
        what: name of a value, without its index.
        assumptions: what was tested or taken for granted.
    """
    squares = values**2
    room = []
    if upper is not None:
        room.append((True, upper - squares, upper))
    if lower is not None:
        room.append((False, np.where(lower > 0, squares - lower, np.inf), lower))
    # NaN counts as no room at all.
    room = [(is_upper, np.nan_to_num(r, nan=-np.inf, posinf=np.inf), b) for is_upper, r, b in room]
    is_upper, found, bounds = min(room, key=lambda side: float(side[1].min()))
    block, i = np.unravel_index(int(found.argmin()), found.shape)
    if found[block, i] == np.inf:
        return silent(id_, of, "vacuous", "every lower bound is zero or less", assumptions=assumptions)
    where = f"{what}{_subscript(int(i) + 1)}"
    if len(values) > 1:
        where += f" of block {int(block) + 1}"
    return judged(
        id_,
        of,
        float(values[block, i]),
        float(np.sqrt(max(bounds[block, i], 0.0))),
        upper=is_upper,
        tolerance=tolerance,
        what=where,
        unit=unit,
        assumptions=assumptions,
    )


def kappa_check(
    id_: str,
    of: str,
    found: tuple[float, float],
    bounds: tuple[float, float],
    tolerance: float,
    why_vacuous: str,
    *,
    digits: bool = False,
) -> BoundCheck:
    """Compare κ with the ratio of an upper bound of σ_1 and a lower one of σ_n (MATH §0, R4).

    Args:
        id_: of the result.
        of: the map.
        found: its σ_1 and σ_n.
        bounds: of them, in the same units.
        tolerance: of squares.
        why_vacuous: what is said where the lower bound is not positive.
        digits: the bounds are singular values with six digits, no differences that may have lost some.
    """
    (top, bottom), (upper, lower) = found, bounds
    resolved = bottom >= SMALLEST_RATIO * top and bottom > 0
    kappa = top / bottom if resolved else None
    if not lower > 0:
        return silent(id_, of, "vacuous", why_vacuous, kappa)
    bound = upper / lower
    if kappa is None:
        holds = top**2 <= upper**2 + tolerance and bottom**2 >= lower**2 - tolerance
        text = "σmin is below 1e-6·σmax: not κ, but σmax and σmin² were compared with their bounds"
        if not holds:
            text = (
                f"σmax {top:.6g} of at most {upper:.6g}, σmin {bottom:.6g} of at least {lower:.6g} (scaled)"
            )
        return BoundCheck(id_, of, "holds" if holds else "violated", None, bound, None, None, text)
    # Each square may be off by the tolerance; a ratio inherits that.
    room = 0.0 if digits else tolerance
    floor = lower**2 - room
    allowed = np.inf if floor <= 0 else (upper**2 + room) / floor * (1 + KAPPA_TOLERANCE)
    return judged(id_, of, kappa, bound, upper=True, tolerance=max(allowed - bound**2, 0.0), what="κ")


def _subscript(i: int) -> str:
    return str(i).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


_RANK: dict[Verdict, int] = {"violated": 0, "vacuous": 1, "holds": 2, "not_applicable": 3}


def worst(checks: Iterable[BoundCheck], over: str = "patterns") -> BoundCheck:
    """Return the check of one result that says least good, of those for several activation patterns.

    Violated before vacuous before the least slack: vacuous for one pattern is no guarantee for all. `over` is
    what there are several of, for the sentence.
    """
    found = list(checks)
    chosen = min(found, key=lambda c: (_RANK[c.verdict], np.inf if c.slack is None else c.slack))
    if len(found) == 1:
        return chosen
    return replace(chosen, why=f"{chosen.why} (worst of {len(found)} {over})")
