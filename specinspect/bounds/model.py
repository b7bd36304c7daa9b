"""A theorem applied to a layer: its verdict, and what would follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "violated", "vacuous", "not_applicable"]


@dataclass(frozen=True, slots=True)
class BoundCheck:
    """One result of MATH.md on one map of one layer, block or network."""

    id: str
    """A key of the catalogue, such as 'r4.sharp'."""
    of: str
    """The map it speaks of: weight, chain, skip, skip_chain."""
    verdict: Verdict
    value: float | None
    """What was computed; None where the result does not apply."""
    bound: float | None
    """What the theorem allows; None where it is infinite or does not apply."""
    slack: float | None
    """Relative distance to the bound, (bound - value)/|bound| for an upper and (value - bound)/|bound| for a
    lower one: 0 is tight."""
    probability: float | None
    """With which it holds, 1 - δ; None for deterministic results."""
    why: str
    """The verdict in one sentence, with the numbers that decided it."""
    assumptions: tuple[str, ...] = ()
    """What was tested or taken for granted to apply it here."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A consequence of a bound for one layer: what would make it hold, or hold better."""

    bound: str
    """Id of the bound it follows from."""
    quantity: str
    """What it is a value of, in a word: 'beta', 'scale', 'largest_entry', 'shrink_factor', 'zeroed_rows'."""
    value: float
    sentence: str
