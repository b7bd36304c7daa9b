"""Ticks say what is at their cell: labels are read back and compared with plain arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specinspect.plots.axis import LinearAxis, LogAxis
from tests.plots.samples import number

POSITIVE = st.floats(min_value=5e-324, max_value=1.7e308, exclude_min=False)
CELLS = st.integers(1, 320)


def share(axis: LogAxis, log: float) -> float:
    """Return where a decimal logarithm is, in cells: plain arithmetic."""
    return (log - axis.low) / (axis.high - axis.low) * axis.cells


@given(st.lists(POSITIVE, min_size=1, max_size=8), CELLS, st.integers(1, 12), st.booleans())
def test_ticks_of_a_logarithmic_axis_say_what_is_there(
    values: list[float], cells: int, room: int, plain: bool
) -> None:
    axis = LogAxis.over(values, cells)
    assert axis is not None
    ticks = axis.ticks(room, plain=plain)
    for tick in ticks:
        value = number(tick.label)
        if 1e-307 < value < math.inf:  # a subnormal label loses digits, its cell does not
            # six digits of a label are worth 1e-6 of a decade, which may be more than a cell's border
            assert abs(share(axis, math.log10(value)) - (tick.cell + 0.5)) <= 0.5 + 1e-5 * cells
    assert all(b.cell - a.cell >= room for a, b in pairwise(ticks))


@given(st.lists(POSITIVE, min_size=1, max_size=8), CELLS)
def test_every_value_is_on_its_axis(values: list[float], cells: int) -> None:
    axis = LogAxis.over(values, cells)
    assert axis is not None
    for value in values:
        cell = axis.cell(value)
        assert cell is not None
        assert abs(share(axis, math.log10(value)) - (cell + 0.5)) <= 0.5 + 1e-9 * cells
    assert axis.places(np.array(values)).tolist() == pytest.approx([axis.cell(v) for v in values], abs=1)


@pytest.mark.parametrize("width", [20, 60, 300])
@pytest.mark.parametrize(
    ("low", "high"), [(0.9, 1.1), (1e-7, 10), (1e-300, 1e300), (3.0, 3.0), (1e-20, 1.0000001e-20), (40, 4000)]
)
def test_an_axis_has_ticks(low: float, high: float, width: int) -> None:
    axis = LogAxis.over((low, high), width)
    assert axis is not None
    assert axis.ticks(9)


@pytest.mark.parametrize("high", [1.5, 2.0, 3.1, 4.5, 5.0, 7.0, 9.0, 9.9, 15.0, 40.0, 99.0])
@pytest.mark.parametrize("cells", [12, 16, 24])
def test_a_short_axis_tells_its_scale(high: float, cells: int) -> None:
    """One tick fixes no scale."""
    axis = LogAxis.over((0.98, high), cells)
    assert axis is not None
    assert len(axis.ticks(4)) >= 2


@pytest.mark.parametrize("values", [(), (0.0,), (math.nan, math.inf, -1.0)])
def test_nothing_positive_has_no_axis(values: tuple[float, ...]) -> None:
    assert LogAxis.over(values, 40) is None


def test_far_lines_do_not_squash_the_data() -> None:
    axis = LogAxis.over((0.1, 10), 40, within=(1e-15, 0.02))
    assert axis is not None
    assert axis.cell(0.02) is not None
    assert axis.cell(1e-15) is None


FINITE = st.floats(-1e300, 1e300)


@given(FINITE, FINITE, CELLS, st.integers(1, 12))
def test_ticks_of_a_linear_axis_say_what_is_there(a: float, b: float, cells: int, room: int) -> None:
    axis = LinearAxis(min(a, b), max(a, b), cells)
    for tick in axis.ticks(room):
        assert 0 <= tick.cell < cells
        if axis.high > axis.low:
            half = float(tick.label) / 2 - axis.low / 2
            place = half / (axis.high / 2 - axis.low / 2) * cells
            digits = max(abs(axis.low), abs(axis.high)) / (axis.high / 2 - axis.low / 2)
            assert abs(place - (tick.cell + 0.5)) <= 0.5 + 1e-5 * cells * max(1.0, digits)


@pytest.mark.parametrize("cell", [0, 7, 39])
def test_a_click_comes_back_to_its_cell(cell: int) -> None:
    axis = LinearAxis(-0.5, 2.0, 40)
    assert axis.cell(axis.value(cell)) == cell
