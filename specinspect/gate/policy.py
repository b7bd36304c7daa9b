"""From limits, selections and a baseline to the rules that run, and to what they need computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import isfinite
from typing import Any

from specinspect.errors import SettingsError
from specinspect.gate.baseline import Baseline
from specinspect.gate.catalogue import RULES
from specinspect.gate.rules import Need, Rule
from specinspect.layers.names import matches

_LEAST: Mapping[str, float] = {
    "max_kappa": 1.0,
    "max_chain_kappa": 1.0,
    "max_skip_kappa": 1.0,
    "max_guaranteed_kappa": 1.0,
    "max_sigma": 0.0,
    "min_stable_rank": 0.0,
    "max_kappa_growth": 0.0,
    "max_sigma_growth": 0.0,
    "max_rank_loss": 0.0,
}
"""Threshold → the least value that makes sense for it."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the user asks of the gate; everything may be left out."""

    max_kappa: float | None = None
    """On κ(W)."""
    max_chain_kappa: float | None = None
    """On κ(D·W), at the worst sampled pattern."""
    max_skip_kappa: float | None = None
    """On κ(ρI + βW)."""
    max_guaranteed_kappa: float | None = None
    """On the best bound of MATH R4 on κ(ρI + βW)."""
    max_sigma: float | None = None
    """On σmax(W)."""
    min_stable_rank: float | None = None
    max_kappa_growth: float | None = None
    """On κ(W) over that of the baseline."""
    max_sigma_growth: float | None = None
    max_rank_loss: float | None = None
    """On the lost share of the baseline's rank."""
    allow_nonfinite: bool = False
    """Leave layers with NaN or infinite weights out instead of failing."""
    select: Sequence[str] = ()
    """Codes, their beginnings, or names of rules to run instead of the default ones; limits add theirs."""
    ignore: Sequence[str] = ()
    """The same, not to run."""
    baseline: Baseline | None = None
    per_layer: Sequence[tuple[str, Mapping[str, float]]] = ()
    """(glob, threshold → limit): for the layers that match; the last match counts, before all others."""

    def __post_init__(self) -> None:
        """Refuse limits that make no sense.

        Raises:
            SettingsError: names the limit.
        """
        for name in _LEAST:
            _check_limit(name, getattr(self, name), "--" + name.replace("_", "-"))
        for glob, limits in self.per_layer:
            for name, value in limits.items():
                _check_limit(name, value, f"rules.{glob!r}: {name.replace('_', '-')}")


def _check_limit(name: str, value: object, shown: str) -> None:
    if value is None:
        return
    least = _LEAST[name]
    if not isinstance(value, float | int) or isinstance(value, bool) or not isfinite(value) or value < least:
        raise SettingsError(f"{shown}: expected a finite number of at least {least:g}, got {value!r}")


@dataclass(frozen=True, slots=True)
class Active:
    """A rule that runs."""

    rule: Rule
    severity: str
    asked: bool
    """By a limit, a selection or a baseline: what it needs is computed. The others take what is there."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What has to be computed, in terms of Settings."""

    quantities: str
    """'none', 'entries', 'sigma_max' or 'spectrum'."""
    maps: tuple[str, ...]
    bounds: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that run, with their limits."""

    thresholds: Thresholds
    rules: tuple[Active, ...]
    """In the order of the catalogue."""

    def limit(self, rule: Rule, layer: str) -> float | None:
        """Return the limit of a rule for one layer; None where there is none."""
        if rule.threshold is None:
            return None
        for glob, limits in reversed(self.thresholds.per_layer):
            if rule.threshold in limits and matches(layer, (glob,)):
                return limits[rule.threshold]
        own: float | None = getattr(self.thresholds, rule.threshold)
        return own if own is not None else rule.limit

    def effort(self) -> Effort:
        """Return the least computation that the rules asked for can do with.

        Nothing asked for: all singular values of the weights, so that the default rules see everything that
        they look at.
        """
        asked = [active.rule for active in self.rules if active.asked]
        needs = {rule.need for rule in asked} or {Need.SPECTRUM}
        if Need.BOUNDS in needs:
            return Effort("spectrum", ("weight", "chain", "skip", "skip_chain"), bounds=True)
        extra = {Need.CHAIN: "chain", Need.SKIP: "skip"}
        maps = ("weight", *(name for need, name in extra.items() if need in needs))
        level = min(max(needs), Need.SPECTRUM)
        names = {
            Need.HEADERS: "none",
            Need.ENTRIES: "entries",
            Need.SIGMA_MAX: "sigma_max",
            Need.SPECTRUM: "spectrum",
        }
        return Effort(names[level], maps)


def make_policy(thresholds: Thresholds) -> Policy:
    """Return the rules that run.

    A limit asks for its rule, a baseline for all that compare with it, `select` for what it names; `select`
    also takes the place of the default rules. `ignore` has the last word.

    Raises:
        SettingsError: an unknown rule, one that needs a limit or a baseline that is not given, or none left.
    """
    selected = {rule.code for key in thresholds.select for rule in RULES.find(key)}
    ignored = {rule.code for key in thresholds.ignore for rule in RULES.find(key)}
    for key in thresholds.select:
        if key in RULES and not _possible(RULES[key], thresholds):
            raise _impossible(RULES[key])
    for name in ("max_kappa_growth", "max_sigma_growth", "max_rank_loss"):
        if getattr(thresholds, name) is not None and thresholds.baseline is None:
            option = "--" + name.replace("_", "-")
            raise SettingsError(f"{option}: expected a baseline beside it", "give --baseline REPORT.json")
    active = []
    for rule in RULES.values():
        limited = rule.threshold is not None and _limited(rule.threshold, thresholds)
        asked = rule.code in selected or limited or (rule.baseline and thresholds.baseline is not None)
        runs = asked or (rule.default and not thresholds.select)
        excused = rule.code == "SI301" and thresholds.allow_nonfinite
        if runs and rule.code not in ignored and not excused and _possible(rule, thresholds):
            active.append(Active(rule, "error" if rule.code in selected else rule.severity, asked))
    if not active:
        raise SettingsError("no rule is left to check", "give a limit such as --max-kappa, or ignore less")
    return Policy(thresholds, tuple(active))


def _limited(name: str, thresholds: Thresholds) -> bool:
    return getattr(thresholds, name) is not None or any(name in own for _, own in thresholds.per_layer)


def _possible(rule: Rule, thresholds: Thresholds) -> bool:
    if rule.baseline:
        return thresholds.baseline is not None
    return rule.threshold is None or _limited(rule.threshold, thresholds)


def _impossible(rule: Rule) -> SettingsError:
    what = "a baseline" if rule.baseline else "a limit"
    option = "--baseline REPORT.json" if rule.baseline else f"{rule.option} X"
    return SettingsError(f"rule {rule.code} ({rule.name}): expected {what} beside it", f"give {option}")


def thresholds_of(values: Mapping[str, Any]) -> Thresholds:
    """Build Thresholds from keywords.

    Raises:
        SettingsError: an unknown name; suggests one.
    """
    known = [item.name for item in fields(Thresholds)]
    for name in values:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise SettingsError(f"unknown threshold {name!r}", hint)
    return Thresholds(**values)
