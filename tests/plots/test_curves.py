"""Curves: dots are where the labels say, gaps stay gaps, and the worst of many layers is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.plots.braille import Dots
from specinspect.plots.canvas import Canvas, Sketch
from specinspect.plots.curves import Curve, depth_plot, kappa_curve
from specinspect.plots.series import Line, Series
from specinspect.plots.spectrum import sorted_spectrum
from tests.plots.samples import number

VALUES = st.one_of(
    st.none(),
    st.floats(5e-324, 1e308),
    st.sampled_from([math.inf, math.nan, 1.0, 1.0, 1e-300, 1e300]),
)
WIDTHS, HEIGHTS = st.integers(20, 300), st.integers(4, 80)


def ticks(picture: Canvas) -> dict[int, float]:
    """Return row → value, as the labels of the vertical axis tell."""
    return {
        row: number(line.split("┤")[0].strip()) for row, line in enumerate(picture.lines()) if "┤" in line
    }


def level(picture: Canvas, row: float) -> float:
    """Return the decimal logarithm at a row, by the labels."""
    known = sorted((r, math.log10(v)) for r, v in ticks(picture).items())
    (r0, v0), (r1, v1) = known[0], known[-1]
    return v0 + (row - r0) * (v1 - v0) / (r1 - r0)


def dots(picture: Canvas, style: str, left: int) -> dict[int, list[float]]:
    """Return column → rows (fractional) of its dots."""
    found: dict[int, list[float]] = {}
    for r, row in enumerate(picture.rows):
        for c, cell in enumerate(row):
            if c >= left and cell.style in (style, "both") and 0x2800 < ord(cell.char) < 0x2900:
                bits = ord(cell.char) - 0x2800
                for mask, down in ((0x09, 0), (0x12, 1), (0x24, 2), (0xC0, 3)):
                    if bits & mask:
                        found.setdefault(c, []).append(r + (down + 0.5) / 4 - 0.5)
    return found


def left_of(picture: Canvas) -> int:
    return next(line.index("┤") for line in picture.lines() if "┤" in line) + 1


def frame_rows(picture: Canvas) -> float:
    """Return how many decades a row spans."""
    return abs(level(picture, 1) - level(picture, 0))


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=40), st.lists(VALUES, max_size=40), WIDTHS, HEIGHTS, st.booleans())
def test_any_curve_at_any_size(
    a: list[float | None], b: list[float | None], width: int, height: int, plain: bool
) -> None:
    size = min(len(a), len(b))
    curves = [Curve("κ", "skip", tuple(a[:size])), Curve("guaranteed", "bound", tuple(b[:size]))]
    beta = [i / 7 - 1 for i in range(size)]
    numbers = np.array([v for v in a if v is not None])
    series = [Series("chain", "chain", numbers), Series("skip", "skip", numbers[:3])]
    for picture in (
        kappa_curve(beta, curves, width, height, cursor=0.3, plain=plain),
        depth_plot(curves, width, height, plain=plain),
        sorted_spectrum(series, width, height, lines=[Line(1e-9, "floor", "floor")], plain=plain),
    ):
        assert len(picture.rows) == height
        assert {len(row) for row in picture.rows} == {width}
        if plain:
            assert str(picture).isascii()


@pytest.mark.parametrize(("width", "height"), [(78, 20), (160, 40), (40, 12)])
def test_the_kappa_curve_is_where_its_labels_say(width: int, height: int) -> None:
    beta = [2 * i / 32 for i in range(33)]
    exact = [10 ** (1 + 2 * abs(b - 1)) for b in beta]
    picture = kappa_curve(beta, [Curve("κ", "skip", tuple(exact))], width, height, cursor=1.5)
    left = left_of(picture)
    cursor = {
        c for row in picture.rows[1:] for c, cell in enumerate(row) if cell.style == "cursor" and c >= left
    }
    columns = width - left - 1
    for column, rows in dots(picture, "skip", left).items():
        if column in cursor:
            continue
        at = 2 * (column - left + 0.5) / columns
        truth = 1 + 2 * abs(at - 1)
        assert min(abs(level(picture, row) - truth) for row in rows) <= 1.2 * frame_rows(picture)
    assert cursor == {left + math.floor(1.5 / 2 * columns)}


def test_unresolved_places_are_gaps_and_say_so() -> None:
    beta = [i / 10 for i in range(21)]
    values = tuple(None if 8 <= i <= 12 else 3.0 + i for i in range(21))
    picture = kappa_curve(beta, [Curve("κ", "skip", values)], 60, 12)
    assert "infinite or not resolved" in str(picture)
    columns = 60 - left_of(picture) - 1
    left = left_of(picture)
    drawn = dots(picture, "skip", left)
    marked = {c for row in picture.rows[1:] for c, cell in enumerate(row) if cell.char == "!" and c >= left}
    for column in range(left, left + columns):
        at = 2 * (column - left + 0.5) / columns
        if 0.8 <= at <= 1.2:
            assert column not in drawn
            assert column in marked
        elif not 0.7 <= at <= 1.3:
            assert column in drawn
            assert column not in marked


def test_a_peak_narrower_than_a_dot_is_drawn() -> None:
    beta = [i / 16 for i in range(33)]
    at = 0.53
    places = sorted([*beta, at - 1e-4, at, at + 1e-4])
    values = tuple(1e4 if b == at else 3.0 for b in places)
    picture = kappa_curve(places, [Curve("κ", "skip", values)], 60, 12)
    left = left_of(picture)
    columns = 60 - left - 1
    peak = left + math.floor(at / 2 * columns)
    drawn = dots(picture, "skip", left)
    assert max(level(picture, row) for row in drawn[peak]) > 3.5
    for column, rows in drawn.items():
        if abs(column - peak) > 1:
            assert max(level(picture, row) for row in rows) < 1.5


def test_a_diverging_bound_leaves_the_picture_without_squashing_the_curve() -> None:
    beta = [i / 32 for i in range(33)]
    guarantee = tuple((1 + b) / (1 - b) ** 9 if b < 1 else None for b in beta)
    curves = [Curve("κ", "skip", tuple(1 + b for b in beta)), Curve("guaranteed", "bound", guarantee)]
    picture = kappa_curve(beta, curves, 70, 20)
    assert max(ticks(picture).values()) <= 1e3
    drawn = dots(picture, "bound", left_of(picture))
    assert max(drawn) < 69 - 5  # nothing is drawn along the upper edge


@pytest.mark.parametrize("count", [1, 2, 30, 5000])
def test_the_worst_layer_is_kept(count: int) -> None:
    values = [10.0] * count
    values[count // 2] = 1e4
    picture = depth_plot([Curve("chain", "chain", tuple(values))], 80, 20)
    left = left_of(picture)
    rows = [row for rows in dots(picture, "chain", left).values() for row in rows]
    if count > 1:
        assert level(picture, min(rows)) == pytest.approx(4, abs=1.2 * frame_rows(picture))
        column = min(c for c, r in dots(picture, "chain", left).items() if min(r) == min(rows))
        place = (count // 2) / max(count - 1, 1) * (80 - left - 2)
        assert abs(column - left - place) <= 1
    assert f"{count:,}" in picture.lines()[-1] or count == 1


def test_infinite_and_lost_layers_are_marked_at_their_place() -> None:
    values = (1.0, math.inf, 2.0, math.nan, 3.0)
    picture = depth_plot([Curve("chain", "chain", values)], 45, 12)
    left = left_of(picture)
    places = {
        char: [c for row in picture.rows[1:] for c, cell in enumerate(row) if cell.char == char and c >= left]
        for char in "∞x"
    }
    columns = 45 - left - 1
    assert places == {"∞": [left + (columns - 1) // 4], "x": [left + 3 * (columns - 1) // 4]}


@pytest.mark.parametrize("count", [1, 3, 60, 3000])
def test_the_sorted_spectrum_goes_from_largest_to_smallest(count: int) -> None:
    logs = np.linspace(2, -4, count)
    picture = sorted_spectrum([Series("W", "weight", 10.0**logs)], 80, 24)
    left = left_of(picture)
    if count == 1:
        assert "1" in picture.lines()[-1]
        return
    columns = 80 - left - 1
    for column, rows in dots(picture, "weight", left).items():
        first = math.floor((column - left) / columns * count)
        last = min(math.floor((column - left + 1) / columns * count), count - 1)
        slack = 1.2 * frame_rows(picture)
        assert level(picture, min(rows)) <= logs[max(first - 1, 0)] + slack
        assert level(picture, max(rows)) >= logs[last] - slack
    lowest = max(row for rows in dots(picture, "weight", left).values() for row in rows)
    assert level(picture, lowest) == pytest.approx(-4, abs=1.2 * frame_rows(picture))


def test_zeros_keep_their_share_of_the_width() -> None:
    picture = sorted_spectrum([Series("W", "weight", np.array([1.0] * 30 + [0.0] * 10))], 80, 12)
    left = left_of(picture)
    drawn = dots(picture, "weight", left)
    columns = 80 - left - 1
    assert max(drawn) - left + 1 == pytest.approx(0.75 * columns, abs=1)
    assert "zeros 10" in picture.lines()[0]


def test_shared_cells_belong_to_both() -> None:
    raster, sketch = Dots(2, 1), Sketch(2, 1)
    raster.dot(0, 0, 0)
    raster.dot(1, 3, 1)
    raster.dot(2, 0, 1)
    raster.onto(sketch, 0, 0, ["chain", "skip"], plain=False)
    row = sketch.done().rows[0]
    assert [cell.style for cell in row] == ["both", "skip"]
    assert ord(row[0].char) == 0x2800 | 0x40 | 0x08
    raster.onto(sketch, 0, 0, ["chain", "skip"], plain=True)
    assert "".join(cell.char for cell in sketch.done().rows[0]) == "%o"
