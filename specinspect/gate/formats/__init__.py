"""How a verdict is written: one file per format, each a pure function from a Verdict to text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from specinspect.gate.formats.github import render as github
from specinspect.gate.formats.json import render as json
from specinspect.gate.formats.junit import render as junit
from specinspect.gate.formats.markdown import render as markdown
from specinspect.gate.formats.sarif import render as sarif
from specinspect.gate.formats.text import render as text
from specinspect.gate.verdict import Verdict

FORMATS: Mapping[str, Callable[[Verdict], str]] = {
    "text": text,
    "json": json,
    "github": github,
    "junit": junit,
    "sarif": sarif,
    "markdown": markdown,
}
"""Name → renderer; the text ends in a newline."""
