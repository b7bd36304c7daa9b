"""Sentences and orders that several formats share."""

from __future__ import annotations

from collections.abc import Sequence

from specinspect.gate.verdict import Case, Checked, Verdict


def count_of(number: int, what: str) -> str:
    """Return '1 layer', '2 layers'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def layers_text(checked: Checked) -> str:
    """Return how many layers were looked at."""
    if checked.looked_at < checked.layers:
        return f"{checked.looked_at:,} of {count_of(checked.layers, 'layer')} looked at"
    return count_of(checked.layers, "layer")


def grouped(checked: Checked) -> list[Case]:
    """Return the cases with findings: errors before warnings, then by rule, then as in the checkpoint."""
    found = [case for case in checked.cases if case.finding is not None]
    failing = {case.rule.code for case in found if case.outcome == "failed"}
    return sorted(found, key=lambda case: (case.rule.code not in failing, case.rule.code))


def marker(cases: Sequence[Case]) -> str:
    """Return 'error' or 'warning' for the findings of one rule."""
    return "error" if any(case.outcome == "failed" for case in cases) else "warning"


def not_applied(verdict: Verdict) -> list[str]:
    """Say which limits and selected rules found no layer that they could be applied to."""
    cases = [case for checked in verdict.checkpoints for case in checked.cases]
    notes = []
    for rule in verdict.rules:
        mine = [case for case in cases if case.rule is rule]
        if rule.threshold is not None and mine and all(case.outcome == "skipped" for case in mine):
            reasons = list(dict.fromkeys(case.why for case in mine))
            notes.append(f"{rule.code} {rule.name} was applied to no layer: {'; '.join(reasons)}")
    return notes


def _rules_applied(verdict: Verdict) -> int:
    """Return how many rules had something to look at."""
    cases = (case for checked in verdict.checkpoints for case in checked.cases)
    return len({case.rule.code for case in cases if case.outcome != "skipped"})


def sentence(verdict: Verdict) -> str:
    """Return the verdict in one line."""
    unread = sum(checked.error is not None for checked in verdict.checkpoints)
    files = len(verdict.checkpoints)
    layers = sum(checked.looked_at for checked in verdict.checkpoints)
    read = files - unread
    where = count_of(layers, "layer") + (f" of {count_of(read, 'checkpoint')}" if files > 1 else "")
    errors, warnings = verdict.count("failed"), verdict.count("warned")
    findings = count_of(errors, "error") + (f", {count_of(warnings, 'warning')}" if warnings else "")
    if not errors:
        findings = count_of(warnings, "warning") if warnings else "nothing found"
    text = {"passed": "passed", "failed": "failed", "error": "could not check everything"}[verdict.outcome]
    parts = [findings, f"in {where} with {count_of(_rules_applied(verdict), 'rule')}"]
    if unread:
        parts.insert(0, f"{unread:,} of {count_of(files, 'checkpoint')} not checked,")
    line = f"{text}: {' '.join(parts)}"
    if verdict.stopped:
        line += "; stopped at the first failure"
    if verdict.outcome == "failed" and verdict.exit_zero:
        line += "; exit code 0 as asked"
    return line
