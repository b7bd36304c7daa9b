"""Curves: κ along β, and a number through the depth of a network."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from specinspect.plots.axis import LinearAxis, Tick
from specinspect.plots.braille import Dots, spans
from specinspect.plots.canvas import Canvas
from specinspect.plots.frame import DASHES, Entry
from specinspect.plots.raster import Raster, stroke_entry
from specinspect.plots.series import Line

BEYOND = 2.0
"""Decades above a curve that its guaranteed bound may take of the axis."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve over evenly spaced or given places."""

    name: str
    style: str
    values: tuple[float | None, ...]
    """Infinite ones are marked at the top; None and NaN are gaps, marked at the bottom."""
    legend: str = ""


def kappa_curve(
    beta: Sequence[float],
    curves: Sequence[Curve],
    width: int,
    height: int,
    *,
    cursor: float | None = None,
    plain: bool = False,
) -> Canvas:
    """Draw κ along β, with what theory guarantees of it beside it.

    Args:
        beta: ascending, finite; one place per value of every curve.
        curves: the first is what was computed; the others may run off the top by two decades at most.
        width: cells per row.
        height: rows.
        cursor: today's β, a line from top to bottom.
        plain: ASCII only.
    """
    frame = _kappa_frame(curves, width, height, cursor, plain)
    if frame.axis is None or not beta:
        return frame.empty("κ is infinite or not resolved everywhere" if beta else "no curve yet")
    across = LinearAxis(float(beta[0]), float(beta[-1]), frame.columns)
    fine = LinearAxis(float(beta[0]), float(beta[-1]), frame.columns * 2)
    if cursor is not None and (cell := across.cell(cursor)) is not None:
        for row in range(frame.rows):
            frame.sketch.put(frame.left + cell, frame.top + row, DASHES["cursor"], "cursor")
    dots = Dots(frame.columns, frame.rows)
    for owner, curve in enumerate(curves):
        spans_ = _spans(beta, [_log(value) for value in curve.values], fine, dots.width)
        dots.curve([frame.dots(span) for span in spans_], owner, dashed=owner > 0)
        if owner == 0:
            for x, span in enumerate(spans_):
                if span is None:
                    frame.sketch.put(frame.left + x // 2, frame.top, "!", "bad")
    dots.onto(frame.sketch, frame.left, frame.top, [curve.style for curve in curves], plain=plain)
    frame.finish(*across.ticks(9), title="β")
    return frame.sketch.done(plain=plain)


def beta_at(
    beta: Sequence[float], curves: Sequence[Curve], width: int, height: int, column: int
) -> float | None:
    """Return the β at a column of `kappa_curve` (of the same arguments); None beside the picture."""
    frame = _kappa_frame(curves, width, height, None, plain=False)
    if frame.axis is None or not beta or not 0 <= column - frame.left < frame.columns:
        return None
    return LinearAxis(float(beta[0]), float(beta[-1]), frame.columns).value(column - frame.left)


def _kappa_frame(
    curves: Sequence[Curve], width: int, height: int, cursor: float | None, plain: bool
) -> Raster:
    known = [v for v in curves[0].values if v is not None and 0 < v < math.inf] if curves else []
    others = [v for curve in curves[1:] for v in curve.values if v is not None and 0 < v < math.inf]
    top = max(known, default=min(others, default=0.0))
    limit = 10.0 ** min(math.log10(top) + BEYOND, 308.0) if top > 0 else 0.0
    ends = [*known, *(v for v in others if v <= limit)]
    entries: list[Entry | Line] = [
        stroke_entry(place, curve.name, curve.style, f"  {curve.legend}" if curve.legend else "", plain=plain)
        for place, curve in enumerate(curves)
    ]
    if cursor is not None:
        entries.append(((DASHES["cursor"], "cursor"), (f" β = {cursor:.4g}", "")))
    missing = bool(curves) and any(v is None or not 0 < v < math.inf for v in curves[0].values)
    if missing:
        entries.append((("!", "bad"), (" infinite or not resolved", "label")))
    return Raster.of(width, height, ends, (), entries, plain)


def _spans(
    beta: Sequence[float], logs: Sequence[float | None], fine: LinearAxis, width: int
) -> list[tuple[float, float] | None]:
    """Return what a curve covers in each column of dots: the line at its middle, and the peaks in it.

    So none is lost where points are closer than dots. A column with a gap in it is a gap.
    """
    found: list[tuple[float, float] | None] = []
    for x in range(width):
        value = _along(beta, logs, fine.value(x))
        found.append(None if value is None else (value, value))
    for i, log in enumerate(logs):
        column = fine.cell(beta[i])
        if column is None or (known := found[column]) is None:
            continue
        beside = [value for value in (*logs[max(i - 1, 0) : i], *logs[i + 1 : i + 2]) if value is not None]
        if log is None:
            found[column] = None
        elif all(log > value for value in beside) or all(log < value for value in beside):
            found[column] = min(known[0], log), max(known[1], log)
    return found


def _along(beta: Sequence[float], logs: Sequence[float | None], at: float) -> float | None:
    """Return the straight line between the neighbours of a β; a gap reaches half-way to its own."""
    after = min(bisect_left(beta, at), len(beta) - 1)
    before = max(after - 1, 0)
    width = beta[after] - beta[before]
    share = (at - beta[before]) / width if width > 0 else 0.0
    low, high = logs[before], logs[after]
    if low is None or high is None:
        return low if share < 0.5 else high
    return low * (1 - share) + high * share


def depth_plot(
    curves: Sequence[Curve], width: int, height: int, *, what: str = "κ", plain: bool = False
) -> Canvas:
    """Draw one number per layer from the first to the last; many layers share a column, the worst is kept.

    Args:
        curves: all with one value per layer. Infinite ones are marked ∞ at the top, NaN (failed, not finite)
            × at the bottom; None (does not apply, not computed yet) is a gap.
        width: cells per row.
        height: rows.
        what: name of the number.
        plain: ASCII only.
    """
    ends = [v for curve in curves for v in curve.values if v is not None and 0 < v < math.inf]
    entries: list[Entry | Line] = [
        stroke_entry(place, curve.name, curve.style, f"  {curve.legend}" if curve.legend else "", plain=plain)
        for place, curve in enumerate(curves)
    ]
    values = [v for curve in curves for v in curve.values if v is not None]
    if any(v == math.inf for v in values):
        entries.append((("^" if plain else "∞", "bad"), (" infinite", "label")))
    if any(math.isnan(v) for v in values):
        entries.append((("x", "bad"), (" not finite", "label")))
    frame = Raster.of(width, height, ends, (), entries, plain)
    count = max((len(curve.values) for curve in curves), default=0)
    if frame.axis is None:
        frame.marks([curve.values for curve in curves])
        return frame.empty("no layer yet" if not values else f"{what} is finite in no layer")
    dots = Dots(frame.columns, frame.rows)
    for owner, curve in enumerate(curves):
        heights = spans([_log(v) for v in curve.values], dots.width)
        kept = heights if count <= dots.width else [None if s is None else (s[1], s[1]) for s in heights]
        dots.curve([frame.dots(span) for span in kept], owner, dashed=owner > 0)
    dots.onto(frame.sketch, frame.left, frame.top, [curve.style for curve in curves], plain=plain)
    frame.marks([curve.values for curve in curves])
    last = [Tick(frame.columns - 1, f"{count:,}")] if count > 1 else []
    binned = f", {math.ceil(count / dots.width)} in a dot, the worst shown" if count > dots.width else ""
    frame.finish(Tick(0, "1"), *last, title=f"layer{binned}")
    return frame.sketch.done(plain=plain)


def _log(value: float | None) -> float | None:
    return math.log10(value) if value is not None and 0 < value < math.inf else None
