"""For people and logs: the findings of each checkpoint under its rules, then the verdict in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap

from specinspect.gate.formats.words import count_of, grouped, layers_text, marker, not_applied, sentence
from specinspect.gate.verdict import Case, Checked, Verdict
from specinspect.report.text import layer_name, visible

WIDTH = 100
ALIKE, SHOWN = 5, 3
"""Layers of one rule and one message that are told one by one, and how many are named of more."""
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
        rows = list(_rows(found))
        lengths = [len(name) for name, _, _ in rows]
        width = max((length for length in lengths if length <= LONGEST_NAME), default=8)
        for name, message, alike in rows:
            told = wrap(message, max(WIDTH - width - 6, 40), break_long_words=False) or [""]
            if len(name) > width:
                lines.append(f"    {name}")
                name = ""  # noqa: PLW2901
            lines.append(f"    {name:<{width}}  {told[0]}")
            lines += [f"    {'':<{width}}  {line}" for line in told[1:]]
            lines += [f"      {line}" for line in alike]
    return [*lines, ""] if len(lines) > 1 else lines


def _rows(cases: Sequence[Case]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, message, and the first names of those alike where too many layers share one message."""
    told = [(layer_name(case.layer), visible(case.finding.message)) for case in cases if case.finding]
    groups: dict[str, list[str]] = {}
    for name, message in told:
        groups.setdefault(message, []).append(name)
    for name, message in told:
        names = groups.get(message, [])  # gone once it was told as one
        if 0 < len(names) <= ALIKE:
            yield name, message, []
        elif names:
            more = f"… and {len(names) - SHOWN:,} more (the other formats name all)"
            yield count_of(len(groups.pop(message)), "layer"), message, [*names[:SHOWN], more]
