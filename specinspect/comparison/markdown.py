"""A comparison as GitHub-flavoured Markdown: short, for a comment on a pull request."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from specinspect.comparison import words
from specinspect.report.markdown import code, escape
from specinspect.report.text import visible
from specinspect.report.words import plural

if TYPE_CHECKING:
    from specinspect.comparison.model import Comparison, LayerComparison

TOP = 10
"""Layers that are not folded away."""
FOLDED = 200
"""Layers that are folded away, at most: GitHub refuses long comments."""


def to_markdown(comparison: Comparison, *, top: int | None = None) -> str:
    """Return a heading, a summary line, the layers that moved most, and the rest folded.

    Args:
        comparison: what to render.
        top: layers in sight, TOP by default.
    """
    moved = [layer for layer in comparison.layers if not layer.identical]
    first = moved[: TOP if top is None else top]
    rest = moved[len(first) :]
    parts = [f"### {escape(_title(comparison))}", "", f"**{escape(words.verdict(comparison))}**", ""]
    parts += [*_rows(first, comparison), ""] if first else []
    folded = (
        f"{plural(len(rest), 'more layer')} and what the numbers mean" if rest else "what the numbers mean"
    )
    parts += ["<details>", f"<summary>{folded if moved else 'the two files'}</summary>", ""]
    if rest:
        parts += [*_rows(rest[:FOLDED], comparison), "", *_left(rest, "layer")]
    same = [layer for layer in comparison.layers if layer.identical]
    if same and moved:
        names = ", ".join(code(words.full_name(layer)) for layer in same[:FOLDED])
        parts += [f"{len(same)} identical: {names}", "", *_left(same, "layer")]
    for title, lines in words.sections(comparison).items():
        parts += [f"{title}:", "", *_listed(lines[:FOLDED]), "", *_left(lines, "line")]
    if moved:
        parts += ["numbers:", "", *_listed(words.legend(comparison, hidden=["update_rank"])), ""]
    files = (("A", comparison.a), ("B", comparison.b))
    parts += ["files:", "", *_listed([f"{side}: {words.headline(file)}" for side, file in files])]
    parts += ["", "</details>"]
    return "\n".join(parts) + "\n"


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"- {escape(line)}" for line in lines]


def _left(items: Sequence[object], noun: str) -> list[str]:
    """Return what stands for those that are left out."""
    left = len(items) - FOLDED
    return [f"and {plural(left, f'more {noun}')} (all are in the JSON)", ""] if left > 0 else []


def _title(comparison: Comparison) -> str:
    names = [checkpoint.path.rstrip("/").rpartition("/")[2] for checkpoint in (comparison.a, comparison.b)]
    if names[0] == names[1]:
        names = [comparison.a.path, comparison.b.path]
    return " → ".join(map(visible, names))


def _rows(layers: Sequence[LayerComparison], comparison: Comparison) -> list[str]:
    maps = [
        name
        for name in words.KAPPAS
        if name == "weight" or any(name in layer.a.maps for layer in comparison.layers)
    ]
    headers = (
        "layer",
        "‖B-A‖",
        "distance",
        "overlap",
        *(words.KAPPAS[m] for m in maps),
        "Δσmax",
        "Δrank",
        "",
    )
    lines = [
        "| " + " | ".join(headers).rstrip() + " |",
        "| " + " | ".join([":--", *["--:"] * (len(headers) - 2), ":--"]) + " |",
    ]
    for layer in layers:
        cells = (
            code(words.full_name(layer)),
            words.change(layer),
            words.distance(layer),
            words.overlap(layer),
            *(_kappas(layer, name) for name in maps),
            words.sigma_delta(layer),
            words.rank_delta(layer),
            escape(words.remark(layer)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _kappas(layer: LayerComparison, name: str) -> str:
    before, after = words.kappa_pair(layer, name)
    return html.escape(f"{before} → {after}").replace("*", r"\*")
