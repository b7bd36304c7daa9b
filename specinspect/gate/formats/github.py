"""For GitHub Actions: one workflow command per finding, which the pull request shows as an annotation.

In a message %, CR and LF are written as %25, %0D and %0A, in properties : and , as %3A and %2C too (GitHub's
"Workflow commands"). GitHub shows ten errors and ten warnings of a step; the log holds all of them.
"""

from __future__ import annotations

from specinspect.gate.formats.words import grouped, not_applied, sentence
from specinspect.gate.verdict import Checked, Verdict
from specinspect.report.text import layer_name, visible


def render(verdict: Verdict) -> str:
    """Return the workflow commands, errors first, and the verdict as the last line."""
    lines = [line for checked in verdict.checkpoints for line in _checkpoint(checked)]
    lines += [f"::notice title=specinspect::{_data(note)}" for note in not_applied(verdict)]
    return "\n".join([*lines, sentence(verdict)]) + "\n"


def _checkpoint(checked: Checked) -> list[str]:
    file = _property(checked.path)
    if checked.error is not None:
        return [f"::error file={file},title=specinspect::{_data(checked.error)}"]
    lines = []
    for case in grouped(checked):
        assert case.finding is not None
        command = "error" if case.outcome == "failed" else "warning"
        title = _property(f"{case.rule.code} {case.rule.name}")
        text = _data(f"{layer_name(case.layer)}: {case.finding.message}")
        lines.append(f"::{command} file={file},title={title}::{text}")
    return lines


def _data(text: str) -> str:
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
