"""What is said of one theorem, wherever it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strength = Literal["deterministic", "probabilistic", "asymptotic", "exact", "proxy"]
"""'exact': an identity; 'asymptotic': no guarantee at finite size; 'proxy': a formula that is no bound."""


@dataclass(frozen=True, slots=True)
class Result:
    """A theorem in words: the only place where its text lives."""

    id: str
    """'r4.sharp'."""
    title: str
    """A few words."""
    statement: str
    """The inequality, with every symbol named."""
    assumptions: tuple[str, ...]
    """What must hold; each is tested, or said to be taken for granted."""
    vacuous: str
    """When it applies and says nothing; empty where that cannot be."""
    strength: Strength
    source: str
    """Paper, theorem, equation; 'ours' where it is in no paper."""
    corrected: str = ""
    """What the source has otherwise, or lacks."""
