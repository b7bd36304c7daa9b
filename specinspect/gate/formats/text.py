"""For people and logs: the findings of each checkpoint under its rules, then the verdict in one line."""

from __future__ import annotations

from itertools import groupby
from textwrap import wrap

from specinspect.gate.formats.words import grouped, layers_text, marker, not_applied, sentence
from specinspect.gate.verdict import Checked, Verdict
from specinspect.report.text import layer_name, visible

WIDTH = 100
LONGEST_NAME = 40
"""Beside its message; longer ones stand on a line of their own."""


def render(verdict: Verdict) -> str:
    """Return the verdict as plain text, without colour; the last line is the verdict in one."""
    parts = [line for checked in verdict.checkpoints for line in _checkpoint(checked)]
    parts += [f"note: {note}" for note in not_applied(verdict)]
    return "\n".join([*parts, sentence(verdict)]) + "\n"


def _checkpoint(checked: Checked) -> list[str]:
    lines = [f"{visible(checked.path)} · {layers_text(checked)}"]
    if checked.error is not None:
        return [f"{visible(checked.path)} · not checked", f"  {visible(checked.error)}", ""]
    for rule, cases in groupby(grouped(checked), key=lambda case: case.rule):
        found = list(cases)
        lines.append("")
        lines.append(f"  {marker(found)} {rule.code} {rule.name}: {rule.summary}")
        lengths = [len(layer_name(case.layer)) for case in found]
        width = max((length for length in lengths if length <= LONGEST_NAME), default=8)
        for case in found:
            assert case.finding is not None
            name, message = layer_name(case.layer), visible(case.finding.message)
            rows = wrap(message, max(WIDTH - width - 6, 40), break_long_words=False) or [""]
            if len(name) > width:
                lines.append(f"    {name}")
                name = ""
            lines.append(f"    {name:<{width}}  {rows[0]}")
            lines += [f"    {'':<{width}}  {row}" for row in rows[1:]]
    return [*lines, ""] if len(lines) > 1 else lines
