"""The table: what fits, what is said, and that nothing from a file is taken for markup."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from specinspect.report.model import Report
from specinspect.report.table import print_table, render
from tests.report import canned
from tests.report.test_formats import check_golden


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def drawn(report: Report, width: int, *, encoding: str = "utf-8", merge: bool | None = None) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Console(file=stream, width=width, markup=False, highlight=False)
    console.print(render(report, merge=merge))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120])
def test_golden(width: int) -> None:
    check_golden(f"table-{width}.txt", drawn(canned.report(), width))


def test_golden_without_unicode() -> None:
    text = drawn(canned.report(), 80, encoding="ascii")
    check_golden("table-80-ascii.txt", text)


def test_golden_of_repeated_blocks() -> None:
    check_golden("table-blocks.txt", drawn(canned.tall(), 100))


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200, 400])
@pytest.mark.parametrize("merge", [False, True])
def test_fits_and_ends_without_blanks(width: int, merge: bool) -> None:
    for report in (canned.report(), canned.tall(3)):
        for line in drawn(report, width, merge=merge).splitlines():
            assert cell_len(line) <= width
            assert line == line.rstrip()


@pytest.mark.parametrize("width", [50, 60, 70, 80, 100, 200])
def test_condition_numbers_are_whole_at_any_width(width: int) -> None:
    text = drawn(canned.report(), width)
    for kappa in ("1.04e5", "> 130", "NaN", "∞", "104"):
        assert re.search(rf"(^|\s){re.escape(kappa)}(\s|$)", text, re.MULTILINE)
    assert "◀" in text


def test_a_wide_table_shows_every_column_and_every_name() -> None:
    text = drawn(canned.report(), 200)
    for header in ("layer", "shape", "dtype", "σmax", "σmin", "κ(W)", "rank", "spectrum"):
        assert header in text
    assert "  a_module_with_a_rather_long_name_of_its_own.output" in text
    assert "enc[/].weight[bold red]" in text
    assert r"a\nb\x1b[31mred\u202e.weight\ud800" in text


def test_what_is_skipped_and_assumed_is_counted() -> None:
    text = drawn(canned.report(), 120)
    assert "analysed 30 of 34 tensors · 15 layers · 1.50 s" in text
    assert (
        "normalisation scale: encoder.layers.0.bn1.weight, … encoder.layers.1.bn1.weight (3 tensors)" in text
    )
    assert "stride and dilation are not in the file: 1 is assumed (4 layers)" in text
    assert "periodic 16×16 grid" in text


def test_long_lists_say_what_they_leave_out() -> None:
    results = tuple(canned.linear(f"l{i}", assumptions=(f"guess {i}",)) for i in range(30))
    text = drawn(replace(canned.report(), layers=results), 120)
    assert "guess 10" in text
    assert "guess 12" not in text
    assert "and 19 more (all are in --format json)" in text


def test_repeated_blocks_merge_into_a_screenful() -> None:
    text = drawn(canned.tall(32), 100)
    assert len(text.splitlines()) < 40
    assert "226 layers in 9 rows" in text
    assert "self_attn.q_proj ×32" in text
    full = drawn(canned.tall(32), 100, merge=False)
    assert "226 layers in" not in full
    assert len(full.splitlines()) > 226


def test_layers_that_only_some_blocks_have_stay_named() -> None:
    results = (*canned.tall(3).layers, canned.linear("model.layers.1.extra"), canned.linear("last"))
    lines = drawn(replace(canned.tall(3), layers=results), 120, merge=True).splitlines()
    assert any(line.startswith("  extra (block 1)") for line in lines)
    assert [line for line in lines if line.startswith("model.layers.*")] == ["model.layers.*"]


def test_no_layers_at_all() -> None:
    assert "analysed" in drawn(replace(canned.report(), layers=(), findings=()), 80)


def test_a_bare_module_has_a_name() -> None:
    assert "(root)" in drawn(replace(canned.report(), layers=(canned.linear(""),), findings=()), 80)


def test_a_pipe_gets_a_hundred_columns_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    print_table(canned.report(), stream)
    assert "\x1b" not in stream.getvalue()
    widest = max(map(cell_len, stream.getvalue().splitlines()))
    assert 80 < widest <= 100
    monkeypatch.setenv("COLUMNS", "70")
    narrow = io.StringIO()
    print_table(canned.report(), narrow)
    assert max(map(cell_len, narrow.getvalue().splitlines())) <= 70


EXPECTED = (
    ("104", "–", "–"),
    ("250", "312", "8.00"),
    ("250", "312", "8.00"),
    ("40.0", "12.5*", "8.00"),
    ("130", ">", "56*"),
    ("250", "312", "8.00"),
    ("250", "312", "8.00"),
    ("1.04e5", "12.5*", "8.00"),
    ("NaN", "NaN", "NaN"),
    ("∞", "∞", "8.00"),
    ("40.0", "12.5*", "8.00"),
    ("40.0", "12.5*", "8.00"),
    ("40.0", "12.5*", "8.00"),
    ("2.00", "=", "2.00"),
    ("40.0", "12.5*", "8.00"),
)


@pytest.mark.parametrize("width", [80, 120])
def test_condition_numbers_of_all_three_maps_fit(width: int) -> None:
    lines = drawn(canned.report(), width).splitlines()
    header = next(line for line in lines if line.startswith("layer"))
    assert [text for text in header.split() if text.startswith("κ")] == ["κ(W)", "κ(DW)", "κ(skip)"]

    rows = [line.split() for line in lines if "×" in line]
    results = canned.report().layers
    for row, expected in zip(rows[: len(results)], EXPECTED, strict=True):
        start = row.index(expected[0])
        assert tuple(row[start : start + 3]) == expected


def test_maps_that_are_not_there_get_no_column_and_no_sentence() -> None:
    layers = tuple(replace(r, maps={"weight": r.maps["weight"]}) for r in canned.report())
    text = drawn(replace(canned.report(), layers=layers), 120)
    assert "κ(W)" in text
    assert "κ(DW)" not in text
    assert "κ(skip)" not in text
    assert "zeroes" not in text


def test_the_caption_says_what_the_maps_are() -> None:
    text = " ".join(drawn(canned.report(), 120).split())
    assert "median over 8 random inputs; =: D is the identity; x*: without the rows that D zeroes and" in text
    assert "σ lost in rounding, with which it is ∞ or unknown" in text
    assert "κ(skip): of I + 0.5 W, I is rectangular like W (1 layer), the average pool where" in text
    plain = drawn(canned.report(), 30, encoding="ascii")
    assert "no room at this width for" in " ".join(plain.split())


def test_a_merged_row_shows_the_worst_of_each_map() -> None:
    lines = drawn(canned.tall(32), 110).splitlines()
    gate = next(line for line in lines if "mlp.gate_proj" in line).split()
    assert "672" in gate  # 21 / (1 / 32)
    assert "=" in next(line for line in lines if "mlp.up_proj" in line).split()
