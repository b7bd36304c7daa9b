"""The report as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from specinspect.report import kappas, words
from specinspect.report.text import kappa, layer_name, number, rank, shape, visible

if TYPE_CHECKING:
    from specinspect.report.model import LayerResult, Report
    from specinspect.spectra.model import Histogram

_STYLE = """
:root { color-scheme: light dark; --fg: #1b1f24; --bg: #fff; --dim: #59636e; --line: #d1d9e0; --bar: #2f6f9f;
  --bad: #b3261e; --head: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6edf3; --bg: #0d1117; --dim: #9198a1; --line: #3d444d;
  --bar: #6cb6ff; --bad: #ff7b72; --head: #151b23; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; margin-bottom: 0; }
h2 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
p { margin: .2rem 0; color: var(--dim); }
.wide { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--head); position: sticky; top: 0; }
td:first-child { font-family: ui-monospace, monospace; white-space: normal; overflow-wrap: anywhere;
  min-width: 20rem; }
td:last-child { white-space: normal; min-width: 8rem; }
.n { text-align: right; }
.dim { color: var(--dim); }
.bad { color: var(--bad); font-weight: 600; }
svg { display: block; fill: var(--bar); }
ul { margin: .2rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
"""
_HEADERS = (
    ("layer", ""),
    ("kind", ""),
    ("shape", ""),
    ("dtype", ""),
    ("σmax", "n"),
    ("σmin", "n"),
    ("κ(W)", "n"),
    *((header, "n") for header in kappas.HEADERS.values()),
    ("stable rank", "n"),
    ("rank", "n"),
    ("spectrum", ""),
    ("notes", ""),
)
_BAR, _HEIGHT = 4, 20
_PAGE = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
)


def to_html(report: Report) -> str:
    """Return a whole page; light or dark as the reader's system is."""
    path = visible(report.checkpoint.path)
    maps = kappas.present(report)
    absent = {header for name, header in kappas.HEADERS.items() if name not in maps}
    head = "".join(
        f'<th scope="col"{_class(css)}>{escape(text)}</th>' for text, css in _HEADERS if text not in absent
    )
    body = [
        f"<h1>{escape(path)}</h1>",
        f"<p>{escape(words.headline(report).removeprefix(path + ' · '))}</p>",
        f"<p>{escape(words.coverage(report))} · specinspect {escape(report.version)}</p>",
        _findings(report),
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>',
        *(_row(report, result, maps) for result in report.layers if "weight" in result.maps),
        "</tbody></table></div>",
        _list(
            "Numbers",
            [
                *words.conventions(report),
                "spectrum: counts of σ on a log axis from each layer's smallest (left) to its largest, "
                "log heights.",
            ],
        ),
        _list("Assumed", words.assumed(report)),
        _list("Skipped", words.skipped(report)),
        _list("Not loaded", [foreign] if (foreign := words.placeholders(report)) else []),
    ]
    return _PAGE.format(
        title=escape(f"{path} - specinspect"), style=_STYLE, body="\n".join(filter(None, body))
    )


def _class(css: str) -> str:
    return f' class="{css}"' if css else ""


def _findings(report: Report) -> str:
    items = "".join(
        f'<li><span class="bad">{escape(finding.severity)}:</span> {escape(words.finding_line(finding))}</li>'
        for finding in words.findings_in_order(report)
    )
    return f"<h2>Findings</h2>\n<ul>{items}</ul>" if items else ""


def _row(report: Report, result: LayerResult, maps: Sequence[str]) -> str:
    layer, spectrum = result.layer, result.maps["weight"]
    worst = report.summary.worst_condition_number
    is_worst = worst is not None and worst.map == "weight" and worst.layer == layer.name
    bad = is_worst or kappas.shown(result, "weight").level >= 2
    notes = [*(["◀ worst"] if is_worst else []), *(visible(note) for note in result.notes)]
    cells = (
        (escape(layer_name(layer.name)), ""),
        (escape(visible(layer.kind)), ""),
        (shape(layer.shape), ""),
        (escape(layer.dtype), ""),
        (number(spectrum.sigma_max), "n"),
        (number(spectrum.sigma_min), "n"),
        (escape(kappa(spectrum)), "n bad" if bad else "n"),
        *((escape(cell.text), _css(cell)) for cell in (kappas.shown(result, name) for name in maps)),
        (number(spectrum.stable_rank), "n"),
        (rank(spectrum), "n"),
        (_svg(spectrum.histogram), ""),
        (escape("; ".join(notes)), ""),
    )
    return "<tr>" + "".join(f"<td{_class(css)}>{text}</td>" for text, css in cells) + "</tr>"


def _css(cell: kappas.Shown) -> str:
    return "n bad" if cell.level >= 2 else "n dim" if cell.level < 0 else "n"


def _svg(histogram: Histogram | None) -> str:
    """Return the histogram as one path; any bin that is not empty is at least two pixels high."""
    if histogram is None or not any(histogram.counts):
        return ""
    top = math.log1p(max(histogram.counts))
    path = "".join(
        f"M{_BAR * index} {_HEIGHT}v-{max(round(_HEIGHT * math.log1p(count) / top), 2)}h{_BAR - 1}V{_HEIGHT}z"
        for index, count in enumerate(histogram.counts)
        if count
    )
    width = _BAR * len(histogram.counts)
    low, high = number(histogram.edges[0]), number(histogram.edges[-1])
    return (
        f'<svg width="{width}" height="{_HEIGHT}" role="img" aria-label="spectrum from {low} to {high}">'
        f'<title>σ from {low} to {high}</title><path d="{path}"/></svg>'
    )


def _list(title: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>{title}</h2>\n<ul>{items}</ul>" if items else ""
