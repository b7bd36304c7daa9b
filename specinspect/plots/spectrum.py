"""The sorted spectrum as a curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from specinspect.plots.axis import Tick
from specinspect.plots.braille import Dots
from specinspect.plots.canvas import Canvas
from specinspect.plots.frame import Entry
from specinspect.plots.raster import Raster, stroke_entry
from specinspect.plots.series import Line, Series


def sorted_spectrum(
    series: Sequence[Series], width: int, height: int, *, lines: Sequence[Line] = (), plain: bool = False
) -> Canvas:
    """Draw singular values from the largest to the smallest, each spectrum over the whole width.

    Args:
        series: one or two; exact zeros leave their share of the width empty but for a row of '0'.
        width: cells per row.
        height: rows.
        lines: values to draw across.
        plain: ASCII only.
    """
    ends = [value for one in series for value in one.range()]
    frame = Raster.of(
        width, height, ends, [line.value for line in lines], _legend(series, lines, plain), plain
    )
    if frame.axis is None:
        known = any(one.values is not None or one.histogram is not None for one in series)
        return frame.empty("no positive singular values" if known else "nothing could be computed")
    frame.across(lines)
    dots = Dots(frame.columns, frame.rows)
    bottom: list[tuple[int, str]] = []
    for owner, one in enumerate(series):
        logs = one.descending()
        total = one.zeros + _positive(one)
        drawn = max(1, round(dots.width * _positive(one) / total)) if total else 0
        heights = _spans(logs, min(drawn, dots.width))
        dots.curve([frame.dots(span) for span in heights], owner, dashed=owner > 0)
        if one.zeros:
            first = math.ceil(drawn / 2)
            bottom += [(cell, one.style) for cell in range(min(first, frame.columns - 1), frame.columns)]
    dots.onto(frame.sketch, frame.left, frame.top, [one.style for one in series], plain=plain)
    for cell, style in bottom:
        if frame.sketch.free(frame.left + cell, frame.bottom, 0):
            frame.sketch.put(frame.left + cell, frame.bottom, "0", style)
    counts = sorted({_positive(one) + one.zeros for one in series})
    frame.finish(
        Tick(0, "1"),
        Tick(frame.columns - 1, f"{counts[-1]:,}" if len(counts) == 1 else "all"),
        title="σ by rank",
    )
    return frame.sketch.done(plain=plain)


def _spans(logs: NDArray[np.float64], width: int) -> list[tuple[float, float] | None]:
    """Return the smallest and largest of descending values in each of so many columns."""
    if not len(logs):
        return [None] * width
    first = np.arange(width) * len(logs) // width
    last = np.maximum(np.append(first[1:], len(logs)) - 1, first)
    return list(zip(logs[last].tolist(), logs[first].tolist(), strict=True))


def _positive(series: Series) -> int:
    if series.values is not None:
        return len(series.positive)
    return 0 if series.histogram is None else sum(series.histogram.counts)


def _legend(series: Sequence[Series], lines: Sequence[Line], plain: bool) -> list[Entry | Line]:
    entries: list[Entry | Line] = []
    for place, one in enumerate(series):
        made_up = " (from bins)" if one.values is None and one.histogram is not None else ""
        zeros = f"  zeros {one.zeros:,}" if one.zeros else ""
        entries.append(stroke_entry(place, one.name, one.style, f"{made_up}{zeros}", plain=plain))
    return [*entries, *lines]
