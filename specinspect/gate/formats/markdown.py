"""For a job summary or a comment: a heading that is the verdict, and a table of findings per checkpoint."""

from __future__ import annotations

from specinspect.gate.formats.words import grouped, layers_text, not_applied, sentence
from specinspect.gate.verdict import Checked, Verdict
from specinspect.report.markdown import escape as _escape
from specinspect.report.text import layer_name, visible

_SIGN = {"passed": "✅", "failed": "❌", "error": "⚠️"}
MOST_ROWS = 500
"""Of one checkpoint's table: GitHub takes no more than 1 MB of summary."""


def render(verdict: Verdict) -> str:
    """Return the verdict as GitHub-flavoured markdown."""
    lines = [f"### {_SIGN[verdict.outcome]} specinspect check: {escape(sentence(verdict))}", ""]
    for checked in verdict.checkpoints:
        lines += _checkpoint(checked)
    for note in not_applied(verdict):
        lines += [f"- {escape(note)}"]
    return "\n".join(lines).rstrip("\n") + "\n"


def _checkpoint(checked: Checked) -> list[str]:
    title = f"**{escape(checked.path)}**"
    if checked.error is not None:
        return [f"{title}: not checked. {escape(checked.error)}", ""]
    found = grouped(checked)
    if not found:
        return [f"{title}: {layers_text(checked)}, nothing found", ""]
    rows = []
    for case in found[:MOST_ROWS]:
        assert case.finding is not None
        cells = (
            "error" if case.outcome == "failed" else "warning",
            f"{case.rule.code} {case.rule.name}",
            escape(layer_name(case.layer)),
            escape(case.finding.message),
        )
        rows.append(f"| {' | '.join(cells)} |")
    left = [f"… and {len(found) - MOST_ROWS:,} more.", ""] if len(found) > MOST_ROWS else []
    head = ["|  | rule | layer | finding |", "| --- | --- | --- | --- |"]
    return [f"{title}: {layers_text(checked)}", "", *head, *rows, "", *left]


def escape(text: str) -> str:
    """Return untrusted text with nothing in it that markdown or HTML would read."""
    return _escape(visible(text))
