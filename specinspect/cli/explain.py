"""`specinspect explain`: what a bound or a rule means."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from specinspect.errors import SettingsError

if TYPE_CHECKING:
    from specinspect.bounds.catalogue import Result
    from specinspect.gate.rules import Rule

WIDEST = 96
LABEL = 13
"""Columns of the labels in front of the paragraphs."""
_PRODUCT = re.compile("(?<=[α-ω])(?=[α-ωA-Z])")
"""Between the factors of βW, which would run together when spelled out."""


def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Of a bound (r4.sharp, or r4 for all its forms) or a rule (SI101); without one, the list.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print what a bound or a rule means, its assumptions and its source; with no ID, the list."""
    page = _Page(
        min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST),
        plain=not (sys.stdout.encoding or "").lower().startswith("utf"),
    )
    lines = _everything(page) if name is None else _about(name, page)
    sys.stdout.write("\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class _Page:
    """How wide the text may be, and whether it has to be ASCII."""

    width: int
    plain: bool

    def wrapped(self, text: str, first: str = "", rest: str = "") -> list[str]:
        """Return the lines of a text, the first behind `first` and the others behind `rest`."""
        from specinspect.report.text import ascii_only

        if self.plain:
            hats = _PRODUCT.sub(" ", text).replace("Â", "A^").replace("\u0302", "^")
            text = ascii_only(hats)
        return textwrap.wrap(
            text, self.width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )


def _everything(page: _Page) -> Iterator[str]:
    """Yield one line per bound and per rule."""
    from specinspect.bounds.catalogue import CATALOGUE
    from specinspect.gate.catalogue import RULES

    yield from page.wrapped("Bounds: what theory guarantees of a layer (specinspect report --bounds)")
    yield ""
    rows = [(result.id, result.strength, result.title) for result in CATALOGUE.values()]
    yield from _columns(rows, page)
    yield ""
    yield from page.wrapped("Rules: what specinspect check looks at")
    yield ""
    yield from _columns([(rule.code, rule.name, rule.summary) for rule in RULES.values()], page)
    yield ""
    yield from page.wrapped("specinspect explain ID prints one in full.")


def _columns(rows: Sequence[tuple[str, str, str]], page: _Page) -> Iterator[str]:
    first, second = (max(len(row[i]) for row in rows) for i in range(2))
    for name, kind, text in rows:
        before = f"  {name:<{first}}  {kind:<{second}}  "
        yield from page.wrapped(text, before, " " * len(before))


def _about(name: str, page: _Page) -> Iterator[str]:
    """Yield the text of the bounds and rules that a name stands for.

    Raises:
        SettingsError: nothing has that name.
    """
    from specinspect.bounds.catalogue import CATALOGUE
    from specinspect.gate.catalogue import RULES

    wanted = name.strip().lower()
    found = [r for r in CATALOGUE.values() if wanted in {r.id, r.id.partition(".")[0]}]
    rule = RULES.get(name.strip())
    if not found and rule is None:
        known = {each.lower(): each for each in (*CATALOGUE, *RULES, *(r.name for r in RULES.values()))}
        close = get_close_matches(wanted, known, n=1)
        hint = f"did you mean {known[close[0]]}?" if close else "specinspect explain lists them all"
        raise SettingsError(f"explain: no bound and no rule is called {name!r}", hint)
    for number, result in enumerate(found):
        if number:
            yield ""
        yield from _bound(result, page)
    if rule is not None:
        yield from _rule(rule, page)


_STRENGTHS = {
    "deterministic": "deterministic: a violation would be an error of this program or lost precision",
    "exact": "an identity",
    "probabilistic": "holds with probability 1 - δ",
    "asymptotic": "asymptotic: a prediction for large n, no guarantee at finite n",
    "proxy": "a proxy: this formula is no bound",
}


def _bound(result: Result, page: _Page) -> Iterator[str]:
    yield from page.wrapped(f"{result.id} · {result.title}")
    yield from _paragraph("", result.statement, page)
    for number, sentence in enumerate(result.assumptions):
        yield from _paragraph("" if number else "assumes", sentence, page)
    yield from _paragraph("vacuous", result.vacuous, page)
    yield from _paragraph("strength", _STRENGTHS[result.strength], page)
    yield from _paragraph("source", result.source, page)
    yield from _paragraph("corrected", result.corrected, page)


def _rule(rule: Rule, page: _Page) -> Iterator[str]:
    yield from page.wrapped(f"{rule.code} · {rule.name}")
    yield from _paragraph("", rule.summary, page)
    yield from _paragraph("means", rule.explanation, page)
    yield from _paragraph("to fix", rule.fix, page)
    yield from _paragraph("severity", rule.severity, page)
    yield from _paragraph("ask for it", rule.option, page)


def _paragraph(label: str, text: str, page: _Page) -> Iterator[str]:
    """Yield a text that hangs behind its label; nothing where there is none."""
    before = f"  {label:<{LABEL - 2}}"
    yield from page.wrapped(text, before, " " * LABEL)
