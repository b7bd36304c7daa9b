"""What came out of a check: one case per layer and rule, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from specinspect.gate.rules import Rule
from specinspect.report.model import Finding

Outcome = Literal["passed", "failed", "warned", "skipped"]


@dataclass(frozen=True, slots=True)
class Case:
    """One rule on one layer."""

    layer: str
    rule: Rule
    outcome: Outcome
    finding: Finding | None = None
    """Where it failed or warned."""
    why: str = ""
    """Where it was skipped."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One checkpoint."""

    path: str
    cases: tuple[Case, ...] = ()
    layers: int = 0
    """In the checkpoint, as selected; with --fail-fast perhaps more than were looked at."""
    looked_at: int = 0
    seconds: float = 0.0
    error: str | None = None
    """Why it could not be checked, in one line."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the order of the layers."""
        return tuple(case.finding for case in self.cases if case.finding is not None)

    @property
    def failed(self) -> bool:
        """Whether some rule failed."""
        return any(case.outcome == "failed" for case in self.cases)


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checkpoints of one call."""

    checkpoints: tuple[Checked, ...]
    rules: tuple[Rule, ...]
    """That ran."""
    version: str
    exit_zero: bool = False
    """Findings do not show in the exit code."""
    stopped: bool = False
    """At the first failure: there may be more."""

    @property
    def outcome(self) -> Literal["passed", "failed", "error"]:
        """The verdict; a checkpoint that could not be checked outweighs findings."""
        if any(checked.error is not None for checked in self.checkpoints):
            return "error"
        return "failed" if any(checked.failed for checked in self.checkpoints) else "passed"

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return {"passed": 0, "failed": 0 if self.exit_zero else 1, "error": 2}[self.outcome]

    def count(self, outcome: Outcome) -> int:
        """Return how many cases had an outcome."""
        return count(self.checkpoints, outcome)


def count(checkpoints: Sequence[Checked], outcome: Outcome) -> int:
    """Return how many cases of some checkpoints had an outcome."""
    return sum(case.outcome == outcome for checked in checkpoints for case in checked.cases)
