"""What stands around every picture: the legend above, tick labels below or at the left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from specinspect.plots.axis import LogAxis, Tick
from specinspect.plots.canvas import Sketch, spelled
from specinspect.plots.series import Line
from specinspect.report.text import number

DASHES = {"floor": "┊", "bulk": "╎", "bound": "┆", "cursor": "│"}
"""Style of a line → its character: which line it is can be told without colours."""

Entry = tuple[tuple[str, str], ...]
"""One entry of a legend: (text, style) one after the other."""


def legend_rows(
    entries: Sequence[Entry], width: int, most: int, *, plain: bool
) -> list[list[tuple[str, str]]]:
    """Return the rows of a legend: entries side by side where they fit, and at most so many rows.

    Entries that find no room are counted in the last row.
    """
    rows: list[list[tuple[str, str]]] = []
    used = 0
    for place, entry in enumerate(entries):
        parts = [(spelled(text, plain=plain), style) for text, style in entry]
        length = sum(len(text) for text, _ in parts)
        if rows and used + 3 + length <= width:
            rows[-1] += [("   ", ""), *parts]
            used += 3 + length
        elif len(rows) < most:
            rows.append(parts)
            used = length
        else:
            left = f" +{len(entries) - place}"
            if rows and used + len(left) <= width:
                rows[-1].append((left, "label"))
            break
    return rows


def write_legend(sketch: Sketch, rows: Iterable[Sequence[tuple[str, str]]], top: int = 0) -> None:
    """Write the rows of a legend from a row downwards."""
    for down, row in enumerate(rows):
        column = 0
        for text, style in row:
            sketch.write(column, top + down, text, style)
            column += len(text)


def line_entry(line: Line, axis: LogAxis | None) -> Entry:
    """Return the legend entry of a line; one that is off the axis says on which side."""
    mark = DASHES.get(line.style, "┊")
    if axis is not None and axis.cell(line.value) is None:
        below = line.value == 0 or (line.value < math.inf and axis.place(math.log10(line.value)) < 0)
        mark = "◂" if below else "▸"
    return ((mark, line.style), (f" {line.label} {number(line.value)}", "label"))


def write_ticks_below(sketch: Sketch, ticks: Sequence[Tick], left: int, row: int, right: int) -> None:
    """Write tick labels centred under their cells; one that would overlap another is left out."""
    for tick in ticks:
        at = min(max(left + tick.cell - len(tick.label) // 2, left), right - len(tick.label))
        if sketch.free(at, row, len(tick.label)):
            sketch.write(at, row, tick.label, "label")
