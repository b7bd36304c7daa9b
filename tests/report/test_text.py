"""Numbers, names and bars as text."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specinspect.report.text import (
    ASCII_BARS,
    BARS,
    ascii_only,
    kappa,
    kappa_bound,
    middle,
    number,
    resample,
    size,
    spectrum_bars,
    visible,
)
from tests.report import canned


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (0.0, "0"),
        (1.0, "1.00"),
        (41.24, "41.2"),
        (123.4, "123"),
        (999.7, "1.00e3"),
        (12345.0, "1.23e4"),
        (0.0123, "0.0123"),
        (0.00123, "1.23e-3"),
        (5e-324, "4.94e-324"),
        (-2.5, "-2.50"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_number_keeps_three_digits_and_stays_short(value: float) -> None:
    text = number(value)
    assert float(text) == pytest.approx(value, rel=5.1e-3)
    assert len(text) <= 9


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_visible_prints_on_one_line(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
    assert ascii_only(shown).isascii()
    shown.encode("utf-8")


@given(st.text(), st.integers(1, 40))
def test_middle_fits(name: str, width: int) -> None:
    short = middle(name, width)
    assert len(short) <= width
    assert len(name) > width or short == name


def test_middle_keeps_both_ends() -> None:
    assert middle("encoder.layer.11.output", 11) == "encod…utput"


@given(st.floats(1e-3, 1e3), st.floats(1e-12, 1), st.floats(0, 1e-2), st.floats(0, 1e-6))
def test_the_shown_bound_is_a_bound(top: float, ratio: float, storage: float, computation: float) -> None:
    spectrum = replace(
        canned.unresolved(),
        sigma_max=top,
        sigma_min=top * ratio,
        storage_floor=storage * top,
        computation_floor=computation * top,
    )
    bound = kappa_bound(spectrum)
    shown = kappa(spectrum)
    assert shown.startswith("> ")
    if bound is None:
        assert shown == "> 1"
        return
    # The worst case of Weyl's inequality for both ends at once; two digits, rounded down.
    floor = storage * top + computation * top
    assert bound == pytest.approx((top - computation * top - storage * top) / (top * ratio + floor))
    assert 0.9 * bound <= float(shown[2:]) <= bound * (1 + 1e-9)


def test_a_bin_that_is_not_empty_is_never_blank() -> None:
    spectrum = replace(
        canned.spectrum(), histogram=canned.histogram(1e-6, 1.0, (1, 0, 0, 0, 0, 0, 100_000, 7))
    )
    assert (
        spectrum_bars(spectrum, 8) == f"{spectrum_bars(spectrum, 8)[0]}     █{spectrum_bars(spectrum, 8)[7]}"
    )
    assert spectrum_bars(spectrum, 8)[0] in BARS
    assert set(spectrum_bars(spectrum, 8, plain=True)) <= set(ASCII_BARS + " ")


@given(st.lists(st.integers(0, 9), max_size=64), st.integers(1, 20))
def test_resampling_loses_no_count(counts: list[int], cells: int) -> None:
    assert sum(resample(counts, cells)) == sum(counts)


def test_size() -> None:
    assert [size(n) for n in (0, 999, 1000, 90_900_000, 6 * 10**9, 2 * 10**15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "90.9 MB",
        "6.0 GB",
        "2000.0 TB",
    ]
