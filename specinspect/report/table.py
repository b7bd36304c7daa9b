"""The report as a table in the terminal."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from specinspect.report import bound_rows, kappas, words
from specinspect.report.block_rows import block_lines
from specinspect.report.columns import GAP, Column, fit, width_of, wrapped
from specinspect.report.kappas import severity
from specinspect.report.text import (
    BARS,
    ascii_only,
    kappa,
    kappa_bound,
    layer_name,
    middle,
    number,
    rank,
    shape,
    sparkline,
    spectrum_bars,
    visible,
)

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult

    from specinspect.report.model import LayerResult, Report
    from specinspect.spectra.model import Spectrum

PIPE_WIDTH = 100
MERGE_ABOVE = 100
"""Layers; a longer report shows repeated blocks merged."""
LISTED = 12
"""Findings, notes, assumptions and reasons listed under the table; what is left out is counted."""
NAME_SHARE = 0.3
"""Of the width: names keep that much, columns go first."""
FIRST_TO_GO = (
    "dtype", "stable_rank", "sigma_min", "rank", "picture", "sigma_max", "shape", "proven", "skip",
    "chain", "at",
)  # fmt: skip
"""Columns in the order in which they are given up."""


def render(
    report: Report, *, width: int | None = None, merge: bool | None = None, bounds: bool = False
) -> RenderableType:
    """Return the table as something that a rich Console prints.

    Args:
        report: what to show.
        width: columns to use at most; None uses the console's.
        merge: show layers that repeat in numbered blocks as one row; None does so above MERGE_ABOVE layers.
        bounds: also show every bound with its verdicts, and the advice.

    Returns:
        A renderable. In a console whose encoding is not UTF-8 it is pure ASCII.
    """
    return _ReportTable(report, width, len(report.layers) > MERGE_ABOVE if merge is None else merge, bounds)


def print_table(
    report: Report, file: IO[str] | None = None, *, merge: bool | None = None, bounds: bool = False
) -> None:
    """Print the table to a stream (stdout by default).

    A stream that is not a terminal gets no colour and PIPE_WIDTH columns, unless COLUMNS says otherwise.
    """
    stream = sys.stdout if file is None else file
    given = os.environ.get("COLUMNS", "").isdigit()
    width = None if given or stream.isatty() else PIPE_WIDTH
    console = Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
    console.print(render(report, merge=merge, bounds=bounds))


class _Place(NamedTuple):
    """Where a layer stands: its group, its name within the group, and its block in a numbered series."""

    group: str
    leaf: str
    series: str = ""
    block: str = ""


@dataclass
class _Row:
    group: str
    leaf: str
    results: list[LayerResult]
    blocks: list[str] = field(default_factory=list)

    @property
    def worst(self) -> int:
        return max(range(len(self.results)), key=lambda index: _weight_kappa(self.results[index])[1:])

    @property
    def spectrum(self) -> Spectrum:
        """Of the row's worst layer."""
        return self.results[self.worst].maps["weight"]

    @property
    def merged(self) -> bool:
        return len(self.results) > 1

    @property
    def label(self) -> str:
        """Its name within its group, with what was merged into it."""
        if self.merged:
            return f"{layer_name(self.leaf)} ×{len(self.results)}"
        lone = self.group.endswith("*") and self.blocks[0]
        name = layer_name(self.leaf)
        return f"{name} (block {self.blocks[0]})" if lone else name


def _weight_kappa(result: LayerResult) -> kappas.Shown:
    """Return κ(W) as shown."""
    return kappas.shown(result, "weight")


def _style(level: int) -> str:
    return {-1: "dim", 0: "", 1: "magenta"}.get(level, "bold red")


def _place(name: str) -> _Place:
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdigit():
            before = ".".join(parts[:index])
            return _Place(".".join(parts[: index + 1]), ".".join(parts[index + 1 :]), before, part)
    return _Place(".".join(parts[:-1]), parts[-1])


def _rows(report: Report, *, merge: bool) -> list[_Row]:
    rows: dict[object, _Row] = {}
    for number_, result in enumerate(report.layers):
        if "weight" not in result.maps:
            continue
        layer = result.layer
        place = _place(layer.name)
        alike = (place.series, place.leaf, layer.kind, layer.shape, layer.dtype)
        key: object = alike if merge and place.block else number_
        if key not in rows:
            group = f"{place.series}.*".lstrip(".") if merge and place.block else place.group
            rows[key] = _Row(group, place.leaf, [])
        rows[key].results.append(result)
        rows[key].blocks.append(place.block)
    if not merge:
        return list(rows.values())
    # Blocks that differ (every second one a mixture of experts, say) interleave: bring a series together.
    first: dict[str, int] = {}
    order = []
    for position, row in enumerate(rows.values()):
        order.append(first.setdefault(row.group, position) if row.blocks[0] else position)
    return [row for _, row in sorted(zip(order, rows.values(), strict=True), key=lambda pair: pair[0])]


def _extreme(values: Iterable[float | None], pick: Callable[[list[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return pick(known) if known else None


def _share(result: LayerResult) -> float:
    spectrum = result.maps["weight"]
    return math.inf if spectrum.numerical_rank is None else spectrum.numerical_rank / max(spectrum.count, 1)


_INFINITE = 99.0


def _log_kappa(spectrum: Spectrum) -> float | None:
    if severity(spectrum)[0] == 3:
        return None
    if spectrum.condition_number_status == "infinite":
        return _INFINITE
    return math.log10(max(spectrum.condition_number or kappa_bound(spectrum) or 1.0, 1.01))


def _block_scale(rows: Sequence[_Row]) -> tuple[float, float]:
    """Return the smallest and largest log10 κ of all merged rows, which share one scale."""
    values = [_log_kappa(result.maps["weight"]) for row in rows if row.merged for result in row.results]
    known = [value for value in values if value is not None and value < _INFINITE]
    return min(known, default=0.0), max(known, default=0.0)


def _by_block(row: _Row, cells: int, scale: tuple[float, float], *, plain: bool) -> str:
    values = [_log_kappa(result.maps["weight"]) for result in row.results]
    cells = min(cells, len(values))
    edges = [len(values) * index // cells for index in range(cells + 1)]
    worst = [_extreme(values[low:high], max) for low, high in pairwise(edges)]
    return sparkline(worst, *scale, plain=plain)


@dataclass(frozen=True)
class _ReportTable:
    report: Report
    width: int | None
    merge: bool
    bounds: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = options.ascii_only
        width = min(options.max_width, self.width or options.max_width)
        say = ascii_only if plain else str
        rows = _rows(self.report, merge=self.merge)
        merged = any(row.merged for row in rows)
        yield from wrapped(console, width, Text(), Text(say(words.headline(self.report)), "bold"))
        for mark, sentence in self._findings():
            yield from wrapped(console, width, mark, Text(say(sentence)))
        yield Text("")
        columns = self._columns(rows, merged=merged, plain=plain, cells=12 if width >= 110 else 8)
        lines = _tree(rows)
        natural = max((cell_len(say(name)) for name, _ in lines), default=0)
        dropped = fit(columns, width, min(natural, max(int(NAME_SHARE * width), 16)), FIRST_TO_GO)
        yield from self._body(rows, lines, columns, width, plain=plain)
        yield Text("")
        if self.report.blocks:
            yield from self._blocks(width, plain=plain)
        if self.bounds:
            yield from self._bounds(width, plain=plain)
        for label, sentence in self._caption(rows, dropped, merged=merged):
            yield from wrapped(console, width, Text(f"{label:<8}", "bold"), Text(say(sentence)))
        yield from wrapped(console, width, Text(), Text(say(words.coverage(self.report)), "bold"))

    def _findings(self) -> Iterator[tuple[Text, str]]:
        found = words.findings_in_order(self.report)
        for finding in found[:LISTED]:
            style = "bold red" if finding.severity == "error" else "bold"
            yield Text(f"{finding.severity + ':':<9}", style), words.finding_line(finding)
        if len(found) > LISTED:
            left = words.plural(len(found) - LISTED, "more finding")
            yield Text(" " * 9), f"{left} (all are in --format json)"

    def _body(
        self,
        rows: Sequence[_Row],
        lines: Sequence[tuple[str, int | None]],
        columns: dict[str, Column],
        width: int,
        *,
        plain: bool,
    ) -> RenderResult:
        say = ascii_only if plain else str
        ellipsis = "..." if plain else "…"
        natural = max((cell_len(say(name)) for name, _ in lines), default=0)
        widths = {key: width_of(column) for key, column in columns.items()}
        room = width - sum(widths.values()) - GAP * len(widths)
        name_width = max(min(max(natural, len("layer")), room), 1)

        def line(name: str, cells: dict[str, str], name_style: str, styles: dict[str, str]) -> Text:
            shown = middle(say(name), name_width, ellipsis)
            text = Text(no_wrap=True, overflow="crop", end="")
            text.append(shown, name_style)
            pad = name_width - cell_len(shown)
            for key, cell in cells.items():
                blank = widths[key] - cell_len(cell)
                right = columns[key].right
                text.append(" " * (pad + GAP + (blank if right else 0)))
                text.append(cell, styles.get(key, columns[key].style))
                pad = 0 if right else blank
            text.rstrip()
            text.append("\n")
            return text

        headers = {key: column.header.rpartition("\n") for key, column in columns.items()}
        if any(upper for upper, _, _ in headers.values()):
            upper_cells = {key: upper for key, (upper, _, _) in headers.items()}
            yield line("", upper_cells, "bold", dict.fromkeys(columns, "bold"))
        lower_cells = {key: lower for key, (_, _, lower) in headers.items()}
        yield line("layer", lower_cells, "bold", dict.fromkeys(columns, "bold"))
        total = name_width + sum(widths.values()) + GAP * len(widths)
        yield Text(("-" if plain else "─") * min(total, width), style="dim", no_wrap=True)
        for name, index in lines:
            if index is None:
                yield line(name, {}, "bold", {})
                continue
            level = _weight_kappa(rows[index].results[rows[index].worst]).level
            strong = "bold red" if level >= 2 or columns["flag"].cells[index] else ""
            styles = {"kappa": strong or _style(level), "flag": "bold red"}
            for key in kappas.HEADERS:
                styles[key] = _style(kappas.worst(rows[index].results, key).level)
            yield line(name, {key: column.cells[index] for key, column in columns.items()}, "", styles)

    def _columns(self, rows: Sequence[_Row], *, merged: bool, plain: bool, cells: int) -> dict[str, Column]:
        say = ascii_only if plain else str

        def column(
            header: str, cell: Callable[[_Row], str], *, right: bool = True, style: str = ""
        ) -> Column:
            return Column(say(header), [say(cell(row)) for row in rows], right, style)

        def spectra(row: _Row) -> list[Spectrum]:
            return [result.maps["weight"] for result in row.results]

        def picture(row: _Row) -> str:
            if merged:
                return _by_block(row, 24 if cells > 8 else 10, scale, plain=plain) if row.merged else ""
            return spectrum_bars(row.spectrum, cells, plain=plain)

        def kappa_of(name: str) -> Callable[[_Row], str]:
            texts = [kappas.worst(row.results, name).text for row in rows]
            hang = " " if any(text.endswith(kappas.PARTIAL) for text in texts) else ""

            def cell(row: _Row) -> str:  # the mark hangs, so that digits stand under digits
                text = kappas.worst(row.results, name).text
                return text if text.endswith(kappas.PARTIAL) else text + hang

            return cell

        scale = _block_scale(rows)
        columns = {
            "shape": column("shape", lambda row: shape(row.results[0].layer.shape), right=False),
            "dtype": column("dtype", lambda row: row.results[0].layer.dtype, right=False, style="dim"),
            "sigma_max": column(
                "σmax", lambda row: number(_extreme((s.sigma_max for s in spectra(row)), max))
            ),
            "sigma_min": column(
                "σmin", lambda row: number(_extreme((s.sigma_min for s in spectra(row)), min))
            ),
            "kappa": column("κ(W)", lambda row: kappa(row.spectrum)),
            "at": column("at", lambda row: row.blocks[row.worst] if row.merged else ""),
            **{name: column(header, kappa_of(name)) for name, header in kappas.HEADERS.items()},
            "proven": column("proven\n≤", lambda row: bound_rows.guaranteed(row.results)),
            "stable_rank": column(
                "stable\nrank", lambda row: number(_extreme((s.stable_rank for s in spectra(row)), min))
            ),
            "rank": column("rank", lambda row: rank(min(row.results, key=_share).maps["weight"])),
            "picture": column(
                "κ by block" if merged else "spectrum", picture, right=False, style="cyan"
            ),
            "flag": column("", self._flag, right=False),
        }  # fmt: skip
        for name in set(kappas.HEADERS) - set(kappas.present(self.report)):
            del columns[name]
        if not bound_rows.some_guarantee(self.report.layers):
            del columns["proven"]
        if not merged:
            del columns["at"]
        if len(set(columns["dtype"].cells)) == 1:
            del columns["dtype"]
        return columns

    def _flag(self, row: _Row) -> str:
        names = {result.layer.name for result in row.results}
        worst = self.report.summary.worst_condition_number
        if worst is not None and worst.map == "weight" and worst.layer in names:
            return "◀ worst"
        return "!" if any(finding.layer in names for finding in self.report.findings) else ""

    def _blocks(self, width: int, *, plain: bool) -> RenderResult:
        for text in block_lines(self.report.blocks, width, plain=plain, ellipsis="..." if plain else "…"):
            yield Text(ascii_only(text.plain), style=text.style, no_wrap=True) if plain else text
        yield Text("")

    def _bounds(self, width: int, *, plain: bool) -> RenderResult:
        ellipsis = "..." if plain else "…"
        lines = bound_rows.bound_lines(
            self.report.layers,
            width,
            blocks=self.report.blocks,
            network=self.report.network,
            plain=plain,
            ellipsis=ellipsis,
        )
        for text in lines:
            yield Text(ascii_only(text.plain), style=text.style, no_wrap=True) if plain else text
        yield Text("")

    def _caption(
        self, rows: Sequence[_Row], dropped: Mapping[str, str], *, merged: bool
    ) -> Iterator[tuple[str, str]]:
        foreign = words.placeholders(self.report)
        sections = {
            "numbers": self._legend(rows, dropped, merged=merged),
            "advice": bound_rows.advice_lines(self.report.layers) if self.bounds else [],
            "notes": words.notes(self.report),
            "assumed": words.assumed(self.report),
            "skipped": words.skipped(self.report),
            "objects": [foreign] if foreign else [],
        }
        for label, sentences in sections.items():
            left = len(sentences) - LISTED
            more = [f"and {left} more (all are in --format json)"] if left > 0 else []
            for index, sentence in enumerate([*sentences[:LISTED], *more]):
                yield label if index == 0 else "", sentence

    def _legend(self, rows: Sequence[_Row], dropped: Mapping[str, str], *, merged: bool) -> list[str]:
        sentences = words.conventions(self.report, dropped)
        if merged:
            low, high = _block_scale(rows)
            sentences.append(
                f"{len(self.report.layers)} layers in {len(rows)} rows: layers that repeat in numbered "
                "blocks are merged. σmax is the largest of a row; σmin, stable rank and rank are the "
                "smallest; each κ is the worst. at: the block of the worst κ(W). κ by block: log κ(W) from "
                f"first to last, {BARS[0]} is {number(10**low, 2)} and {BARS[-1]} is {number(10**high, 2)}. "
                "--layers GLOB shows a few in full; the other formats have every layer."
            )
        elif "picture" not in dropped:
            sentences.append(
                "spectrum: how many σ, on a log axis from each layer's smallest (left) to its largest; "
                "log heights."
            )
        dtypes = {result.layer.dtype for result in self.report.layers}
        flags = {self._flag(row) for row in rows}
        marks = {
            f"all weights are {next(iter(dtypes), '')}.": len(dtypes) == 1,
            "◀ worst: the largest resolved κ(W).": "◀ worst" in flags,
            "!: see the findings.": "!" in flags,
        }
        if any(marks.values()):
            sentences.append(" ".join(text for text, applies in marks.items() if applies))
        if dropped:
            sentences.append(f"no room at this width for: {', '.join(dropped.values())}.")
        return sentences


def _tree(rows: Sequence[_Row]) -> list[tuple[str, int | None]]:
    """Return (what stands in the name column, row) with a header line where several rows share a group."""
    lines: list[tuple[str, int | None]] = []
    start = 0
    while start < len(rows):
        group = rows[start].group
        end = start + 1
        while end < len(rows) and rows[end].group == group:
            end += 1
        header = bool(group) and end - start > 1
        if header:
            lines.append((visible(group), None))
        for index in range(start, end):
            before = "  " if header else f"{visible(group)}." if group else ""
            lines.append((before + rows[index].label, index))
        start = end
    return lines
