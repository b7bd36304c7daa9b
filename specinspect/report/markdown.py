"""The report as GitHub-flavoured Markdown: for a pull request, an issue, a model card."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from specinspect.report import kappas, words
from specinspect.report.text import kappa, layer_name, number, rank, shape, visible

if TYPE_CHECKING:
    from specinspect.report.model import Report

_MARKUP = re.compile(r"([\\`*_{}\[\]|~$])")
_AT_START = re.compile(r"^(\d*)([-+=.)])")
_LINK = re.compile(r"(@|#|:(?=//)|www(?=\.))", re.IGNORECASE)


def to_markdown(report: Report) -> str:
    """Return a heading, the findings, one table row per layer, and what the numbers rest on."""
    worst = report.summary.worst_condition_number
    parts = [f"### {escape(words.headline(report))}", ""]
    parts += [
        f"- **{finding.severity}:** {escape(words.finding_line(finding))}"
        for finding in words.findings_in_order(report)
    ]
    if report.findings:
        parts.append("")
    maps = kappas.present(report)
    more = [kappas.HEADERS[name] for name in maps]
    headers = ("layer", "shape", "dtype", "σmax", "σmin", "κ(W)", *more, "stable rank", "rank", "")
    rule = [":--"] * 3 + ["--:"] * (len(headers) - 4) + [":--"]
    parts += ["| " + " | ".join(headers).rstrip() + " |", "| " + " | ".join(rule) + " |"]
    for result in report.layers:
        spectrum = result.maps.get("weight")
        if spectrum is None:
            continue
        layer = result.layer
        is_worst = worst is not None and worst.map == "weight" and worst.layer == layer.name
        flag = "◀ worst" if is_worst else "; ".join(escape(visible(note)) for note in result.notes)
        cells = (
            code(layer_name(layer.name)),
            shape(layer.shape),
            layer.dtype,
            number(spectrum.sigma_max),
            number(spectrum.sigma_min),
            html.escape(kappa(spectrum)),
            *(html.escape(kappas.shown(result, name).text).replace("*", r"\*") for name in maps),
            number(spectrum.stable_rank),
            rank(spectrum),
            flag,
        )
        parts.append("| " + " | ".join(cells) + " |")
    parts += ["", f"**{escape(words.coverage(report))}**", ""]
    parts += [f"- {escape(sentence)}" for sentence in words.conventions(report)]
    parts += _section("Assumed", words.assumed(report))
    parts += _section("Skipped", words.skipped(report))
    foreign = words.placeholders(report)
    parts += _section("Not loaded", [foreign] if foreign else [])
    return "\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return one line of text that Markdown shows as it is: no markup, tag, cell, link, mention or issue."""
    escaped = _AT_START.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", html.escape(text, quote=False)))
    # GitHub looks for mentions and links after backslashes are gone, but not across a comment.
    return _LINK.sub(r"\1<!-- -->", escaped)


def code(text: str) -> str:
    """Return a code span for a table cell."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", r"\|")


def _section(title: str, sentences: list[str]) -> list[str]:
    return ["", f"{title}:", "", *(f"- {escape(sentence)}" for sentence in sentences)] if sentences else []
