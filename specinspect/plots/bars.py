"""Histograms of singular values on a logarithmic axis, with logarithmic heights: a lone σ stays visible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from specinspect.plots.axis import LogAxis, Tick
from specinspect.plots.canvas import Canvas, Sketch, spelled
from specinspect.plots.frame import DASHES, Entry, legend_rows, line_entry, write_legend, write_ticks_below
from specinspect.plots.series import Line, Series
from specinspect.report.text import BARS

TICK_ROOM = 9
"""Cells between tick labels."""
LONGEST_NAME = 8
"""Characters of a name that is written at the left; a longer one is in the legend alone."""
INLINE = 6
"""Height up to which tick labels stand on the axis itself."""


def log_histogram(
    series: Series, width: int, height: int, *, lines: Sequence[Line] = (), plain: bool = False
) -> Canvas:
    """Draw one spectrum as bars.

    Args:
        series: the singular values; exact zeros are counted beside the axis.
        width: cells per row.
        height: rows.
        lines: floors, bulk edges and bounds, as dashed lines; those that are off the axis are in the legend.
        plain: ASCII only.
    """
    return _histogram((series,), width, height, lines, plain)


def mirror_histogram(
    up: Series, down: Series, width: int, height: int, *, lines: Sequence[Line] = (), plain: bool = False
) -> Canvas:
    """Draw two spectra on one axis, the first upwards, the second downwards; arguments as `log_histogram`.

    Each half has its own scale: the largest count is written at its far end.
    """
    return _histogram((up, down), width, height, lines, plain)


def heights(counts: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """Return bar heights in eighths of a row: log(1 + count), and at least one where anything is."""
    if not counts.any():
        return np.zeros(len(counts), dtype=np.int64)
    share = np.log1p(counts) / math.log1p(float(counts.max()))
    return np.where(counts > 0, np.maximum(1, np.round(share * rows * 8)), 0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Lane:
    """Where one half of the picture goes."""

    series: Series
    first: int
    rows: int
    upwards: bool

    @property
    def near(self) -> int:
        """The row beside the axis."""
        return self.first + self.rows - 1 if self.upwards else self.first

    @property
    def far(self) -> int:
        """The row away from it."""
        return self.first if self.upwards else self.first + self.rows - 1


def _histogram(
    series: Sequence[Series], width: int, height: int, lines: Sequence[Line], plain: bool
) -> Canvas:
    series = [replace(one, name=spelled(one.name, plain=plain)) for one in series]
    sketch = Sketch(width, height)
    gutter = _gutter(series, width)
    cells = max(width - gutter - 2, 1)
    ends = [value for one in series for value in one.range()]
    axis = LogAxis.over(ends, cells, within=[line.value for line in lines])
    entries = _legend(series, lines, axis)
    most = max(len(series) if height > INLINE else 1, height // 5)
    legend = legend_rows(entries, width, most if height > 2 else 0, plain=plain)
    write_legend(sketch, legend)
    inline = height <= INLINE
    rows = height - len(legend) - 1 - (0 if inline else 1)
    lanes = _lanes(series, len(legend), rows)
    at = len(legend) + (lanes[0].rows if lanes else 0)
    if axis is None:
        known = any(one.values is not None or one.histogram is not None for one in series)
        text = "no positive singular values" if known else "nothing could be computed"
        sketch.write(gutter + 2, at, text, "label")
    else:
        for lane in lanes:
            _draw_lane(sketch, lane, axis, gutter + 1, lines)
    for lane in lanes:
        _write_gutter(sketch, lane, axis, gutter)
    if axis is not None:
        ticks = axis.ticks(TICK_ROOM, plain=plain)
        _write_axis(sketch, ticks, at, gutter, cells, inline)
        if not inline:
            write_ticks_below(sketch, ticks, gutter + 1, height - 1, width)
    return sketch.done(plain=plain)


def _lanes(series: Sequence[Series], first: int, rows: int) -> list[_Lane]:
    if len(series) == 1:
        return [_Lane(series[0], first, max(rows, 0), upwards=True)]
    upper = max((rows + 1) // 2, 0)
    return [
        _Lane(series[0], first, upper, upwards=True),
        _Lane(series[1], first + upper + 1, max(rows - upper, 0), upwards=False),
    ]


def _legend(series: Sequence[Series], lines: Sequence[Line], axis: LogAxis | None) -> list[Entry]:
    marks = ("■",) if len(series) == 1 else ("▲", "▼")
    entries: list[Entry] = []
    for mark, one in zip(marks, series, strict=True):
        zeros = f"  zeros {one.zeros:,}" if one.zeros else ""
        lost = f"  NaN or infinite {one.unusable:,}" if one.unusable else ""
        entries.append(((f"{mark} ", one.style), (one.name, one.style), (f"  {one.legend}{zeros}{lost}", "")))
    return [*entries, *(line_entry(line, axis) for line in lines if line.value >= 0)]


def _gutter(series: Sequence[Series], width: int) -> int:
    """Return the width of the labels at the left."""
    longest = max((len(_zeros(one)) for one in series), default=0)
    names = [len(one.name) for one in series if len(one.name) <= LONGEST_NAME]
    wanted = max(5, longest, *names)
    return wanted + 1 if wanted + 1 <= width // 4 else min(longest + 1 if longest else 4, max(width // 4, 0))


def _zeros(series: Series) -> str:
    """Return '30×0' for thirty singular values that are exactly zero."""
    count = series.zeros
    if not count:
        return ""
    return f"{count}×0" if count < 100_000 else f"{count:.0e}×0".replace("e+0", "e")


def _write_gutter(sketch: Sketch, lane: _Lane, axis: LogAxis | None, gutter: int) -> None:
    """Write the largest count at the far end (≈ from bins), the name in the middle, zeros at the axis."""
    counts = np.zeros(1) if axis is None else lane.series.counts(axis)
    texts: dict[int, tuple[str, str]] = {}
    if lane.rows >= 3:
        texts[lane.first + lane.rows // 2] = (lane.series.name, lane.series.style)
    if lane.rows >= 2 and counts.max() > 0:
        peak = float(counts.max())
        about = "" if lane.series.values is not None else "≈"
        count = f"{max(round(peak), 1):d}" if peak < 1e4 else f"{peak:.0e}".replace("e+0", "e")
        texts[lane.far] = (f"{about}{count}", "label")
    if lane.rows >= 1 and lane.series.zeros:
        texts[lane.near] = (_zeros(lane.series), lane.series.style)
    for row in range(lane.first, lane.first + lane.rows):
        text, style = texts.get(row, ("", ""))
        if len(text) <= gutter:
            sketch.write(gutter - len(text), row, text, style)
        sketch.put(gutter, row, "│", "axis")


def _draw_lane(sketch: Sketch, lane: _Lane, axis: LogAxis, left: int, lines: Sequence[Line]) -> None:
    for line in lines:
        cell = axis.cell(line.value)
        if cell is not None:
            for row in range(lane.first, lane.first + lane.rows):
                sketch.put(left + cell, row, DASHES.get(line.style, "┊"), line.style)
    for cell, height in enumerate(heights(lane.series.counts(axis), lane.rows).tolist()):
        for distance in range(lane.rows):
            eighths = min(8, height - 8 * distance)
            if eighths <= 0:
                break
            row = lane.near - distance if lane.upwards else lane.near + distance
            char = BARS[eighths - 1] if lane.upwards else _hanging(eighths)
            sketch.put(left + cell, row, char, lane.series.style)


def _hanging(eighths: int) -> str:
    """Return the piece of a bar that hangs from above: fonts have it in three lengths."""
    if eighths <= 2:
        return "▔"
    return "▀" if eighths <= 6 else "█"


def _write_axis(
    sketch: Sketch, ticks: Sequence[Tick], row: int, gutter: int, cells: int, inline: bool
) -> None:
    sketch.put(gutter, row, "├", "axis")
    for cell in range(cells):
        sketch.put(gutter + 1 + cell, row, "─", "axis")
    end = -1
    for tick in ticks:
        size = len(tick.label)
        if tick.cell <= end:
            continue
        sketch.put(gutter + 1 + tick.cell, row, "┼", "axis")
        if not inline:
            continue
        if tick.cell + 1 + size <= cells:
            sketch.write(gutter + 2 + tick.cell, row, tick.label, "label")
            end = tick.cell + size
        elif tick.cell - size > end:
            sketch.write(gutter + 1 + tick.cell - size, row, tick.label, "label")
