"""Pictures of one row: how much of a bound is used up, how far a run has come."""

from __future__ import annotations

import math

from specinspect.plots.canvas import Canvas, Sketch
from specinspect.report.text import BARS

_LYING = "▏▎▍▌▋▊▉█"


def slack_bar(slack: float | None, width: int, *, plain: bool = False) -> Canvas:
    """Draw how tight a bound is: full at slack 0, empty from slack 1 on, with '!' at its end if exceeded.

    Args:
        slack: relative distance to the bound (`BoundCheck.slack`), negative where it is violated; None or NaN
            is blank.
        width: cells.
        plain: ASCII only.
    """
    sketch = Sketch(width, 1)
    if slack is None or math.isnan(slack):
        return sketch.done(plain=plain)
    share = min(max(1.0 - slack, 0.0), 1.0)
    style = "bad" if slack < 0 else "warning" if slack < 0.1 else "good"
    _fill(sketch, share, style)
    if slack < 0:
        sketch.put(width - 1, 0, "!", style)
    return sketch.done(plain=plain)


def progress_bar(fraction: float, width: int, *, plain: bool = False) -> Canvas:
    """Draw how much is done, from 0 to 1; it looks full only when all is."""
    sketch = Sketch(width, 1)
    share = 0.0 if math.isnan(fraction) else min(max(fraction, 0.0), 1.0)
    full = sketch.width if share >= 1 else min(math.floor(share * sketch.width), max(sketch.width - 1, 0))
    sketch.write(0, 0, "▓" * full, "good")
    sketch.write(full, 0, "░" * (sketch.width - full), "axis")
    return sketch.done(plain=plain)


def _fill(sketch: Sketch, share: float, style: str) -> None:
    """Fill from the left in eighths of a cell; a positive share is never nothing."""
    eighths = round(share * sketch.width * len(BARS))
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, len(BARS))
    for column in range(sketch.width):
        if column < full:
            sketch.put(column, 0, "█", style)
        elif column == full and rest:
            sketch.put(column, 0, _LYING[rest - 1], style)
        else:
            sketch.put(column, 0, "·", "axis")
