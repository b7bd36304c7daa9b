"""A comparison as a table in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from specinspect.comparison import words
from specinspect.comparison.order import kappa_change
from specinspect.report.columns import GAP, Column, fit, width_of, wrapped
from specinspect.report.table import LISTED, PIPE_WIDTH
from specinspect.report.text import ABSENT, ascii_only, number, shape

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult

    from specinspect.comparison.model import Comparison, LayerComparison

FIRST_TO_GO = (
    "shape", "sigma_max", "delta_kappa", "update_rank", "distance", "rank", "overlap", "delta_sigma_max",
)  # fmt: skip
"""Columns in the order in which they are given up."""
NAME_SHARE = 0.45
"""Of the width: names keep that much, columns go first."""


def render(comparison: Comparison, *, top: int | None = None, width: int | None = None) -> RenderableType:
    """Return the table as something that a rich Console prints.

    Args:
        comparison: what to show.
        top: only so many layers, those that moved most.
        width: columns to use at most; None uses the console's.

    Returns:
        A renderable. In a console whose encoding is not UTF-8 it is pure ASCII.
    """
    return _Table(comparison, top, width)


def print_table(comparison: Comparison, file: IO[str] | None = None, *, top: int | None = None) -> None:
    """Print the table to a stream (stdout by default).

    A stream that is not a terminal gets no colour and PIPE_WIDTH columns, unless COLUMNS says otherwise.
    """
    stream = sys.stdout if file is None else file
    given = os.environ.get("COLUMNS", "").isdigit()
    width = None if given or stream.isatty() else PIPE_WIDTH
    console = Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
    console.print(render(comparison, top=top))


@dataclass(frozen=True)
class _Table:
    comparison: Comparison
    top: int | None
    width: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = options.ascii_only
        say = ascii_only if plain else str
        width = min(options.max_width, self.width or options.max_width)

        def sentence(label: str, text: str, style: str = "") -> Iterator[Text]:
            yield from wrapped(console, width, Text(label, "bold"), Text(say(text), style))

        yield from sentence("A  ", words.headline(self.comparison.a))
        yield from sentence("B  ", words.headline(self.comparison.b))
        yield from sentence("", words.verdict(self.comparison), "bold")
        said = words.remarks(self.comparison)
        for loud, text in said[:LISTED]:
            mark = Text("! ", "bold red") if loud else Text("· " if not plain else "- ")
            yield from wrapped(console, width, mark, Text(say(text)))
        if len(said) > LISTED:
            yield from sentence("  ", f"and {len(said) - LISTED} more remarks (all are in --format json)")
        yield Text("")
        moved = [layer for layer in self.comparison.layers if not layer.identical]
        shown = moved[: self.top]
        hidden: dict[str, str] = {}
        if shown:
            columns = _columns(shown, say)
            names = [say(words.full_name(layer)) for layer in shown]
            natural = max(map(cell_len, (*names, "layer")))
            hidden = fit(columns, width, min(natural, max(int(NAME_SHARE * width), 16)), FIRST_TO_GO)
            yield from _body(shown, names, columns, width, plain=plain)
            for text in self._folded(len(moved) - len(shown)):
                yield from sentence("", text, "dim")
            yield Text("")
        legend = words.legend(self.comparison, hidden) if shown else []
        if hidden:
            legend.append(f"no room at this width for: {', '.join(hidden.values())}.")
        for title, lines in {"numbers": legend, **words.sections(self.comparison)}.items():
            more = len(lines) - LISTED
            listed = [*lines[:LISTED], *([f"and {more} more (all are in --format json)"] if more > 0 else [])]
            for index, line in enumerate(listed):
                yield from sentence(f"{title if index == 0 else '':<10}", line)
        yield from sentence("", f"compared in {number(self.comparison.summary.seconds)} s", "bold")

    def _folded(self, less: int) -> Iterator[str]:
        """Yield what stands for the layers that have no row."""
        if less:
            yield f"and {less} more that moved less (all are in --format json)"
        if self.comparison.summary.identical:
            yield f"and {self.comparison.summary.identical} identical (all are in --format json)"


def _columns(layers: Sequence[LayerComparison], say: Callable[[str], str]) -> dict[str, Column]:
    def column(
        header: str, cell: Callable[[LayerComparison], str], *, right: bool = True, style: str = ""
    ) -> Column:
        return Column(say(header), [say(cell(layer)) for layer in layers], right, style)

    def kappas(name: str) -> dict[str, Column]:
        head = words.KAPPAS[name]
        return {
            f"{name}_a": column(f"{head}\nA", lambda layer: words.kappa_pair(layer, name)[0]),
            f"{name}_b": column(f"{head}\nB", lambda layer: words.kappa_pair(layer, name)[1]),
        }

    more = [name for name in words.KAPPAS if name != "weight" and any(name in la.a.maps for la in layers)]
    columns = {
        "shape": column("shape", lambda layer: shape(layer.a.layer.shape), right=False),
        "change": column("‖B-A‖", words.change),
        "update_rank": column("update\nrank", lambda layer: number(layer.difference.stable_rank)),
        "distance": column("distance", words.distance),
        "overlap": column("overlap", words.overlap),
        **kappas("weight"),
        "delta_kappa": column("Δκ(W)", words.kappa_delta),
        "sigma_max": column("σmax\nA", lambda layer: number(layer.a.maps["weight"].sigma_max)),
        "delta_sigma_max": column("Δσmax", words.sigma_delta),
        "rank": column("Δrank", words.rank_delta),
        **{key: found for name in more for key, found in kappas(name).items()},
        "flag": column("", lambda layer: "!" if words.alarming(layer) else "", right=False),
    }
    return {key: found for key, found in columns.items() if key == "flag" or set(found.cells) - {say(ABSENT)}}


def _body(
    layers: Sequence[LayerComparison],
    names: Sequence[str],
    columns: dict[str, Column],
    width: int,
    *,
    plain: bool,
) -> Iterator[Text]:
    widths = {key: width_of(column) for key, column in columns.items()}
    room = width - sum(widths.values()) - GAP * len(widths)
    name_width = max(min(max(map(cell_len, (*names, "layer"))), room), 1)

    def line(name: str, cells: dict[str, str], styles: dict[str, str], style: str = "") -> Text:
        shown = words.shorten(name, name_width, "..." if plain else "…")
        text = Text(no_wrap=True, overflow="crop", end="")
        text.append(shown, style)
        pad = name_width - cell_len(shown)
        for key, cell in cells.items():
            blank = widths[key] - cell_len(cell)
            right = columns[key].right
            text.append(" " * (pad + GAP + (blank if right else 0)))
            text.append(cell, styles.get(key, style))
            pad = 0 if right else blank
        text.rstrip()
        text.append("\n")
        return text

    headers = {key: column.header.rpartition("\n") for key, column in columns.items()}
    bold = dict.fromkeys(columns, "bold")
    yield line("", {key: upper for key, (upper, _, _) in headers.items()}, bold)
    yield line("layer", {key: lower for key, (_, _, lower) in headers.items()}, bold, "bold")
    total = name_width + sum(widths.values()) + GAP * len(widths)
    yield Text(("-" if plain else "─") * min(total, width), style="dim", no_wrap=True)
    for index, (name, layer) in enumerate(zip(names, layers, strict=True)):
        loud = "bold red" if words.alarming(layer) else ""
        status = kappa_change(layer.a.maps["weight"], layer.b.maps["weight"]).status
        styles = {"weight_b": loud or ("magenta" if status.startswith("became") else ""), "flag": "bold red"}
        cells = {key: column.cells[index] for key, column in columns.items()}
        yield line(name, cells, styles)
