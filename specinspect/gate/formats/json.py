"""For programs: one JSON object, without NaN or infinity (`gate/schema.json` describes it)."""

from __future__ import annotations

import json
from typing import Any

from specinspect.gate.formats.words import not_applied, sentence
from specinspect.gate.verdict import Checked, Verdict, count
from specinspect.report.plain import plain

SCHEMA_VERSION = "1"


def render(verdict: Verdict) -> str:
    """Return the verdict as one JSON object in ASCII."""
    return json.dumps(to_dict(verdict), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """Return the JSON object as plain Python data."""
    return {
        "schema_version": SCHEMA_VERSION,
        "specinspect_version": verdict.version,
        "verdict": verdict.outcome,
        "exit_code": verdict.exit_code,
        "message": sentence(verdict),
        "notes": not_applied(verdict),
        "stopped_at_first_failure": verdict.stopped,
        "rules": [{"rule": rule.code, "name": rule.name, "summary": rule.summary} for rule in verdict.rules],
        "checkpoints": [_checkpoint(checked) for checked in verdict.checkpoints],
        "summary": {
            "checkpoints": len(verdict.checkpoints),
            "layers": sum(checked.looked_at for checked in verdict.checkpoints),
            **_counts(verdict.checkpoints),
        },
    }


def _checkpoint(checked: Checked) -> dict[str, Any]:
    outcome = "error" if checked.error is not None else "failed" if checked.failed else "passed"
    findings = [case for case in checked.cases if case.finding is not None]
    return {
        "path": checked.path,
        "verdict": outcome,
        "error": checked.error,
        "layers": checked.layers,
        "looked_at": checked.looked_at,
        "seconds": plain(checked.seconds),
        "findings": [
            {
                "rule": case.rule.code,
                "name": case.rule.name,
                "severity": case.finding.severity,
                "layer": case.finding.layer,
                "message": case.finding.message,
                "value": plain(case.finding.value),
                "limit": plain(case.finding.limit),
            }
            for case in findings
            if case.finding is not None
        ],
        "cases": _counts([checked]),
    }


def _counts(checkpoints: list[Checked] | tuple[Checked, ...]) -> dict[str, int]:
    return {
        "passed": count(checkpoints, "passed"),
        "failed": count(checkpoints, "failed"),
        "warned": count(checkpoints, "warned"),
        "skipped": count(checkpoints, "skipped"),
    }
