"""Histograms: every positive σ is in a visible bar, at its place on the axis that the ticks tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from specinspect.plots.axis import LogAxis
from specinspect.plots.bars import heights, log_histogram, mirror_histogram
from specinspect.plots.canvas import Canvas
from specinspect.plots.series import Line, Series
from specinspect.spectra.model import Histogram
from tests.plots.samples import binned, chain, chain_values, number, skip, skip_values

BARS = set("▁▂▃▄▅▆▇█▔▀#.:=\"'")
ANY = st.one_of(
    st.floats(0, 1e308), st.sampled_from([0.0, 5e-324, 1e-300, 1e300, math.inf, math.nan, 1.0, 1.0])
)
SPECTRA = st.lists(ANY, max_size=12).map(lambda values: np.array(values, dtype=np.float64))
WIDTHS, HEIGHTS = st.integers(20, 300), st.integers(4, 80)


def rows_of(picture: Canvas, *styles: str) -> dict[int, set[int]]:
    """Return row → columns whose cells are bars of a style."""
    found: dict[int, set[int]] = {}
    axis = axis_row(picture)
    left = picture.lines()[axis].index("├" if "├" in picture.lines()[axis] else "|") + 1
    for number_, row in enumerate(picture.rows):
        columns = {
            c for c, cell in enumerate(row) if c >= left and cell.style in styles and cell.char in BARS
        }
        if columns:
            found[number_] = columns
    return found


def axis_row(picture: Canvas) -> int:
    return next(
        i
        for i, line in enumerate(picture.lines())
        if "├─" in line or "├┼" in line or "|-" in line or "|+" in line
    )


def calibrate(picture: Canvas) -> tuple[float, float]:
    """Return (cells per decade, column of 10⁰) as the labels under the axis tell them."""
    lines = picture.lines()
    axis, labels = lines[axis_row(picture)], lines[-1]
    marks = [i for i, char in enumerate(axis) if char in "┼+"]
    found = []
    at = 0
    for text in labels.split():
        at = labels.index(text, at)
        middle = at + len(text) // 2
        found.append((min(marks, key=lambda mark: abs(mark - middle)), math.log10(number(text))))
        at += len(text)
    (c0, v0), (c1, v1) = found[0], found[-1]
    scale = (c1 - c0) / (v1 - v0)
    return scale, c0 - v0 * scale


@settings(max_examples=60, deadline=None)
@given(SPECTRA, SPECTRA, WIDTHS, HEIGHTS, st.booleans())
def test_any_spectrum_at_any_size(
    up: NDArray[np.float64], down: NDArray[np.float64], width: int, height: int, plain: bool
) -> None:
    lines = [Line(1e-8, "storage floor", "floor"), Line(0.0, "zero", "floor"), Line(math.inf, "b", "bound")]
    picture = mirror_histogram(
        Series("chain", "chain", up), Series("skip", "skip", down), width, height, lines=lines, plain=plain
    )
    assert len(picture.rows) == height
    assert {len(row) for row in picture.rows} == {width}
    if plain:
        assert str(picture).isascii()
    single = log_histogram(Series("chain", "chain", up), width, height, lines=lines, plain=plain)
    assert {len(row) for row in single.rows} == {width}


@settings(max_examples=60, deadline=None)
@given(SPECTRA, WIDTHS, HEIGHTS)
def test_every_positive_value_is_in_a_bar_beside_the_axis(
    values: NDArray[np.float64], width: int, height: int
) -> None:
    positive = values[np.isfinite(values) & (values > 0)]
    picture = mirror_histogram(Series("a", "chain", values), Series("b", "skip", values[::-1]), width, height)
    if not len(positive):
        assert "no positive" in str(picture) or width < 30
        return
    axis = axis_row(picture)
    upper, lower = rows_of(picture, "chain"), rows_of(picture, "skip")
    assert upper[axis - 1] == lower[axis + 1]
    bars = sorted(upper[axis - 1])
    # the axis is fitted to the extremes: their bars are the outermost, the others are between, in proportion
    low, high = (math.log10(v) for v in (positive.min(), positive.max()))
    if bars[-1] - bars[0] >= 10:
        for value in positive:
            place = bars[0] + (math.log10(value) - low) / (high - low) * (bars[-1] - bars[0])
            assert min(abs(place - bar) for bar in bars) <= 1
    assert len(bars) <= len(positive)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("width", "height"), [(80, 20), (160, 40), (60, 9)])
def test_bars_and_lines_are_where_the_labels_say(width: int, height: int, plain: bool) -> None:
    values = np.array([10.0, 1.0, 1.0, 1.0, 1e-3, 1e-5])
    lines = [Line(1e-4, "storage floor", "floor"), Line(3e-2, "bound", "bound")]
    picture = mirror_histogram(
        Series("a", "chain", values), Series("b", "skip", values), width, height, lines=lines, plain=plain
    )
    scale, origin = calibrate(picture)
    axis = axis_row(picture)
    expected = sorted({math.log10(v) * scale + origin for v in values})
    for bars in (rows_of(picture, "chain")[axis - 1], rows_of(picture, "skip")[axis + 1]):
        assert len(bars) == len(expected)
        for bar, place in zip(sorted(bars), expected, strict=True):
            assert abs(bar - place) <= 1
    for line in lines:
        columns = {c for c, cell in enumerate(picture.rows[axis - 1]) if cell.style == line.style}
        assert len(columns) == 1
        assert abs(columns.pop() - (math.log10(line.value) * scale + origin)) <= 1


def test_a_lone_tiny_value_is_seen_beside_a_million() -> None:
    counts = np.array([1.0, 0.0, 1e6])
    assert heights(counts, 4).tolist() == [2, 0, 32]
    assert heights(np.array([0.001, 1e9]), 4)[0] == 1


def test_heights_are_logarithmic() -> None:
    found = heights(np.array([3.0, 15.0, 255.0]), 10)
    assert found.tolist() == [round(80 * math.log(n + 1) / math.log(256)) for n in (3, 15, 255)]


def test_zeros_stand_beside_the_axis_and_in_the_legend() -> None:
    picture = log_histogram(Series("W", "weight", np.array([0.0] * 30 + [1.0, 2.0])), 60, 10)
    assert any(line.startswith("  30×0│") for line in picture.lines())
    assert "zeros 30" in picture.lines()[0]


def test_a_line_off_the_axis_is_in_the_legend_with_its_side() -> None:
    picture = log_histogram(skip(), 100, 12, lines=[Line(1e-15, "computation floor", "floor")])
    assert "◂ computation floor 1.00e-15" in str(picture)
    assert "┊" not in str(picture)


def test_bins_and_values_tell_the_same_story() -> None:
    for series in (chain(), skip()):
        exact, known = log_histogram(series, 78, 16), log_histogram(binned(series), 78, 16)
        axis = axis_row(exact)
        bars = [sorted(rows_of(p, series.style)[axis - 1]) for p in (exact, known)]
        assert abs(bars[0][0] - bars[1][0]) <= 1
        assert abs(bars[0][-1] - bars[1][-1]) <= 1


def test_counts_of_bins_are_complete() -> None:
    for values in (chain_values(), skip_values()):
        series = binned(Series("x", "chain", values))
        for cells in (7, 48, 131):
            axis = LogAxis.over(series.range(), cells)
            assert axis is not None
            assert series.counts(axis).sum() == pytest.approx(len(values))


def test_bins_make_no_comb() -> None:
    """Bins and cells of nearly equal width must not beat: even counts stay even."""
    edges = tuple((10.0 ** np.linspace(-2, 1, 49)).tolist())
    series = Series("x", "chain", None, Histogram(edges, (100,) * 48, 0))
    for cells in (31, 48, 69, 200):
        axis = LogAxis.over(series.range(), cells)
        assert axis is not None
        inside = series.counts(axis)[2:-2]
        inside = inside[inside > 0]
        assert inside.max() / inside[1:-1].min() < 1.001


@pytest.mark.parametrize("cells", [7, 48, 131, 300])
def test_every_bin_that_is_not_empty_is_seen(cells: int) -> None:
    counts = tuple(1 if i in {0, 7, 20, 47} else 0 for i in range(48))
    edges = tuple((10.0 ** np.linspace(-300, 300, 49)).tolist())
    series = Series("x", "chain", None, Histogram(edges, counts, 0))
    axis = LogAxis.over(series.range(), cells)
    assert axis is not None
    drawn = heights(series.counts(axis), 3) > 0
    for place in (0, 7, 20, 47):
        middle = math.log10(edges[place]) + 300 / 48
        assert drawn[axis.place(middle)]
    assert drawn.sum() <= 4 * (cells / 48 + 2)


def test_a_count_that_comes_from_bins_says_so() -> None:
    assert any(line.lstrip().startswith("≈") for line in log_histogram(binned(skip()), 60, 12).lines())
    assert "≈" not in str(log_histogram(skip(), 60, 12))
