"""What a rule of the gate is, and how rules are named, selected and ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from typing import Literal

from specinspect.errors import SettingsError

Severity = Literal["error", "warning"]


class Need(IntEnum):
    """What a rule has to know of a layer, from what is nearly free to what is dear."""

    HEADERS = 0
    """Names and shapes."""
    ENTRIES = 1
    """One pass over the stored entries."""
    SIGMA_MAX = 2
    """The largest singular value alone."""
    SPECTRUM = 3
    """All singular values of W."""
    SKIP = 4
    """Those of ρI + βW too."""
    CHAIN = 5
    """Those of D·W too, at sampled patterns."""
    BOUNDS = 6
    """Every map, and the bounds that rest on them."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it looks at, and what to do about it."""

    code: str
    """'SI101': stable."""
    name: str
    """'max-kappa': stable, and the name of the option where the rule takes a limit."""
    summary: str
    """What makes it a finding, in a few words."""
    explanation: str
    """What the value means, and the outcome for values that are no numbers."""
    fix: str
    need: Need
    severity: Severity = "error"
    """Errors fail the check, warnings do not; a warning named in `select` is an error."""
    default: bool = False
    """Runs without being asked for, where what it needs was computed."""
    threshold: str | None = None
    """Key of the limit, such as 'max_kappa'; None where the rule takes none."""
    limit: float | None = None
    """Default of that limit."""
    baseline: bool = False
    """Compares with a baseline, and runs where there is one."""

    @property
    def option(self) -> str:
        """What to give on the command line to ask for it."""
        if self.threshold is not None:
            return "--" + self.threshold.replace("_", "-")
        return f"--select {self.code}"


class Catalogue(Mapping[str, Rule]):
    """Rules by code, in order; a name or a code in any case finds one too."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = {rule.code: rule for rule in rules}
        self._names = {rule.name: rule for rule in rules}

    def __getitem__(self, key: str) -> Rule:
        """Return the rule of a code or a name."""
        rule = self._rules.get(key.upper()) or self._names.get(key.lower().replace("_", "-"))
        if rule is None:
            raise KeyError(key)
        return rule

    def __iter__(self) -> Iterator[str]:
        """Iterate over the codes."""
        return iter(self._rules)

    def __len__(self) -> int:
        """Return how many rules there are."""
        return len(self._rules)

    def find(self, key: str) -> tuple[Rule, ...]:
        """Return the rules of a code, a name, the beginning of codes (SI1), or all of them (ALL).

        Raises:
            SettingsError: there is none; suggests one.
        """
        if key in self:
            return (self[key],)
        prefix = key.upper()
        if prefix == "ALL":
            return tuple(self._rules.values())
        if len(prefix) >= 2:
            found = tuple(rule for code, rule in self._rules.items() if code.startswith(prefix))
            if found:
                return found
        close = get_close_matches(key.upper(), self._rules, n=1, cutoff=0.6)
        close = get_close_matches(key.lower(), self._names, n=1) or close
        raise SettingsError(
            f"unknown rule {key!r}",
            f"did you mean {close[0]!r}?" if close else "specinspect explain lists them all",
        )
