"""What stands around curves: a legend, a vertical logarithmic axis, and labels below."""

from __future__ import annotations

import math
from collections.abc import Sequence

from specinspect.plots.axis import LogAxis, Tick
from specinspect.plots.braille import DOWN, MARKS
from specinspect.plots.canvas import Canvas, Sketch, spelled
from specinspect.plots.frame import Entry, legend_rows, line_entry, write_legend, write_ticks_below
from specinspect.plots.series import Line

STROKES = ("⣀⣀", "⣀ ")
"""How a solid and a dashed curve look in a legend."""


def stroke_entry(place: int, name: str, style: str, text: str, *, plain: bool) -> Entry:
    """Return the legend entry of a curve, with a piece of it."""
    stroke = MARKS[place % len(MARKS)] * 2 if plain else STROKES[min(place, 1)]
    return ((stroke, style), (f" {name}", style), (text, ""))


class Raster:
    """Legend, vertical logarithmic axis and horizontal labels around a raster of dots."""

    def __init__(
        self, sketch: Sketch, axis: LogAxis | None, left: int, top: int, rows: int, plain: bool
    ) -> None:
        self.sketch, self.axis, self.plain = sketch, axis, plain
        self.left, self.top, self.rows = left, top, rows
        self.columns = max(sketch.width - left - 1, 1)
        self.bottom = top + rows - 1

    @classmethod
    def of(
        cls,
        width: int,
        height: int,
        ends: Sequence[float],
        within: Sequence[float],
        entries: Sequence[Entry | Line],
        plain: bool,
    ) -> Raster:
        """Write the legend and the vertical axis."""
        sketch = Sketch(width, height)
        scale = LogAxis.over(ends, 1, within=within)
        texts = [line_entry(e, scale) if isinstance(e, Line) else e for e in entries]
        rows = legend_rows(texts, width, max(1, height // 6) if height > 2 else 0, plain=plain)
        write_legend(sketch, rows)
        room = max(height - len(rows) - (2 if height > 4 else 0), 1)
        axis = LogAxis(scale.low, scale.high, room * DOWN) if scale is not None else None
        ticks = axis.ticks(DOWN * (2 if room > 6 else 1), plain=plain) if axis is not None else ()
        left = min(max((len(tick.label) for tick in ticks), default=0) + 1, max(width // 2, 1))
        frame = cls(sketch, axis, left, len(rows), room, plain)
        for row in range(room):
            sketch.put(left - 1, len(rows) + row, "│", "axis")
        for tick in ticks:
            row = frame.bottom - tick.cell // DOWN
            if len(tick.label) < left:
                sketch.write(left - 1 - len(tick.label), row, tick.label, "label")
                sketch.put(left - 1, row, "┤", "axis")
        return frame

    def dots(self, span: tuple[float, float] | None) -> tuple[int, int] | None:
        """Return the dots of a span of decimal logarithms; None where it is above the picture."""
        if span is None or self.axis is None or span[0] > self.axis.high:
            return None
        return self.axis.place(span[0]), min(self.axis.place(span[1]), self.axis.cells - 1)

    def across(self, lines: Sequence[Line]) -> None:
        """Draw lines at values of the vertical axis."""
        for line in lines:
            cell = self.axis.cell(line.value) if self.axis is not None else None
            if cell is not None:
                for column in range(0, self.columns, 2):
                    self.sketch.put(self.left + column, self.bottom - cell // DOWN, "─", line.style)

    def marks(self, curves: Sequence[Sequence[float | None]]) -> None:
        """Mark infinite values at the top and those that are no number at the bottom."""
        for values in curves:
            for place, value in enumerate(values):
                if value is None or math.isfinite(value):
                    continue
                column = self.left + place * max(self.columns - 1, 0) // max(len(values) - 1, 1)
                lost = math.isnan(value)
                self.sketch.put(column, self.bottom if lost else self.top, "x" if lost else "∞", "bad")

    def finish(self, *ticks: Tick, title: str = "") -> None:
        """Write the horizontal axis."""
        if self.bottom + 2 >= self.sketch.height:
            return
        row, title = self.bottom + 1, spelled(title, plain=self.plain)
        self.sketch.write(self.left - 1, row, "└" + "─" * self.columns, "axis")
        for tick in ticks:
            self.sketch.put(self.left + tick.cell, row, "┼", "axis")
        write_ticks_below(self.sketch, ticks, self.left, row + 1, self.left + self.columns)
        middle = self.left + (self.columns - len(title)) // 2
        for at in (middle, *range(self.left, self.left + self.columns)):
            if self.sketch.free(at, row + 1, len(title)):
                self.sketch.write(at, row + 1, title, "label")
                break

    def empty(self, text: str) -> Canvas:
        """Return the picture with a sentence instead of curves."""
        self.sketch.write(self.left + 1, self.top + self.rows // 2, text, "label")
        return self.sketch.done(plain=self.plain)
