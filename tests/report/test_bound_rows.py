"""Bounds in the table: counts per verdict, the tightest layer, guarantees and advice."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from specinspect.bounds.model import Advice, BoundCheck, Verdict
from specinspect.layers.blocks import Apply, Block, Shortcut
from specinspect.report.block_rows import block_lines
from specinspect.report.bound_rows import advice_lines, bound_lines, guaranteed
from specinspect.report.model import BlockResult, LayerResult
from specinspect.report.table import print_table
from tests.report import canned


def check(name: str = "r4.best", verdict: Verdict = "holds", **values: Any) -> BoundCheck:
    known = {"value": 3.0, "bound": 6.0, "slack": 0.5} if verdict in {"holds", "violated"} else {}
    given = {"of": "skip", "value": None, "bound": None, "slack": None, "probability": None} | known | values
    return BoundCheck(id=name, verdict=verdict, why="", **given)


def layers(*checks: tuple[BoundCheck, ...]) -> list[LayerResult]:
    return [replace(canned.linear(f"layer{i}"), bounds=found) for i, found in enumerate(checks)]


def lines(found: list[LayerResult], width: int = 120) -> list[str]:
    return [text.plain for text in bound_lines(found, width, plain=False, ellipsis="…")]


def test_one_line_per_bound_counts_the_verdicts_and_names_the_tightest_layer() -> None:
    found = layers(
        (check(slack=0.5), check("r2", "vacuous")),
        (check(slack=0.25, value=4.5), check("r2", "not_applicable")),
        (check("r4.best", "vacuous"),),
    )
    header, _, second, first = lines(found)
    assert header.split() == [
        "bound",
        "of",
        "holds",
        "vacuous",
        "n/a",
        "tightest:",
        "value",
        "bound",
        "slack",
        "layer",
    ]
    assert first.split() == ["r4.best", "skip", "2", "1", "4.50", "6.00", "25.0", "%", "layer1"]
    assert second.split() == ["r2", "skip", "1", "1", "–", "–", "–"]


def test_a_convolution_is_guaranteed_the_better_of_both_bounds() -> None:
    assert guaranteed(layers((check(bound=6.0), check("r63", bound=4.0)))) == "4.00"
    assert guaranteed(layers((check("r4.best", "vacuous"), check("r63", bound=4.0)))) == "4.00"


def test_maps_come_in_their_order_and_bounds_in_that_of_the_catalogue() -> None:
    mixed = (check(of="skip_chain"), check("r4.best"), check("r1"), check("r2", of="chain"))
    found = [line.split()[:2] for line in lines(layers(mixed))[2:]]
    assert found == [["r2", "chain"], ["r1", "skip"], ["r4.best", "skip"], ["r4.best", "skip_chain"]]


def test_a_violation_has_a_column_of_its_own() -> None:
    header, _, row = lines(layers((check("r1", "violated", value=7.0, slack=-0.17),)))
    assert "violated" in header
    assert row.split()[:3] == ["r1", "skip", "1"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_lines_fit(width: int) -> None:
    found = [replace(canned.linear("encoder.layer.11.attention.output.dense" * 2), bounds=(check(),))]
    assert all(cell_len(line) <= width for line in lines(found, width))


def test_a_guarantee_of_merged_layers_is_the_weakest_or_none() -> None:
    assert guaranteed(layers((check(bound=6.0),), (check(bound=9.0),))) == "9.00"
    assert guaranteed(layers((check(bound=6.0),), (check("r4.best", "vacuous"),))) == "–"
    assert guaranteed(layers((check(of="skip_chain"),))) == "–"


def table(found: list[LayerResult], *, bounds: bool = False) -> str:
    report = replace(canned.report(), layers=tuple(found))
    stream = io.StringIO()
    print_table(report, stream, bounds=bounds)
    return stream.getvalue()


def test_the_default_table_has_the_guarantee_beside_the_computed_value() -> None:
    text = table(layers((check(bound=7.5),), (check("r4.best", "vacuous"),)))
    rows = [line for line in text.splitlines() if line.startswith(("layer0", "layer1"))]
    assert "7.50" in rows[0]
    assert "7.50" not in rows[1]
    assert "proven ≤" in text


def test_without_any_guarantee_there_is_no_column_but_a_sentence() -> None:
    text = table(layers((check("r4.best", "vacuous"),)))
    assert "proven" not in text
    assert "theory guarantees no κ(skip) here" in text


def test_bounds_and_advice_come_on_request() -> None:
    found = layers((check(),), (check(),))
    advised = [
        replace(r, advice=(Advice("r4.best", "beta", b, f"β up to {b}"),))
        for r, b in zip(found, (0.75, 0.5), strict=True)
    ]
    assert "tightest" not in table(advised)
    shown = table(advised, bounds=True)
    assert "tightest" in shown
    assert "layer1: β up to 0.5 (r4.best, the least of 2 layers)" in shown
    assert "0.75" not in shown


def test_hostile_names_stay_on_one_line() -> None:
    result = replace(
        canned.linear(canned.ESCAPES), bounds=(check(),), advice=(Advice("r2", "beta", 1.0, "a\x1b[31m"),)
    )
    assert all("\x1b" not in line and "\n" not in line for line in lines([result]))
    assert all("\x1b" not in line and "\n" not in line for line in advice_lines([result]))


def blocks() -> list[BlockResult]:
    def block(name: str, *bounds: BoundCheck) -> BlockResult:
        made = Block(name, "residual", (Apply("a"), Apply("b")), Shortcut("identity", "model"), "model")
        return BlockResult(made, canned.spectrum(), canned.spectrum(3.0, 1.5), bounds=bounds)

    simple, best = check("r4.simple", bound=9.0), check(bound=6.0)
    return [block("l.[0]", simple, best, check("r2", slack=0.125)), block("l.1", check("r4.best", "vacuous"))]


def test_blocks_have_lines_of_their_own_behind_those_of_layers() -> None:
    found = bound_lines(layers((check(),)), 120, blocks=blocks(), plain=False, ellipsis="…")
    _, _, first, *rest = [text.plain for text in found]
    assert first.split()[:2] == ["r4.best", "skip"]
    by_id = {line.split()[0]: line.split() for line in rest}
    assert {cells[1] for cells in by_id.values()} == {"block"}
    assert by_id["r4.best"] == ["r4.best", "block", "1", "1", "3.00", "6.00", "50.0", "%", "l.[0]"]
    assert by_id["r2"][-3:] == ["12.5", "%", "l.[0]"]


def test_what_holds_of_a_row_has_a_line_where_there_is_one() -> None:
    row = [
        check("r26", of="block"),
        check("r26", "not_applicable", of="skip_chain"),
    ]
    found = bound_lines(layers((check(),)), 120, network=row, plain=False, ellipsis="…")
    _, _, first, *rest = [text.plain.split() for text in found]
    assert first[0] == "r4.best"
    assert rest == [["r26", "block", "1", "3.00", "6.00", "50.0", "%", "network"]]


def test_blocks_are_shown_their_best_guarantee_where_some_have_one() -> None:
    drawn = [text.plain for text in block_lines(blocks(), 100, plain=False, ellipsis="…")]
    assert drawn[0].endswith("proven ≤")
    assert (drawn[2].split()[-1], drawn[3].split()[-1]) == ("6.00", "–")
    bare = [text.plain for text in block_lines(blocks()[1:], 100, plain=False, ellipsis="…")]
    assert "proven" not in bare[0]


@pytest.mark.parametrize("starred", [False, True])
def test_the_star_of_a_block_is_explained_where_one_is_shown(starred: bool) -> None:
    first, *rest = blocks()
    if starred:
        lost = replace(canned.spectrum(), condition_number=None, condition_number_status="infinite")
        first = replace(first, chain=lost)
    report = replace(canned.report(), blocks=(first, *rest))
    buffer = io.StringIO()
    print_table(report, buffer)
    drawn = " ".join(buffer.getvalue().split())
    assert "A the shortcut beside it" in drawn
    assert ("x*: of the rank that it has by construction" in drawn) is starred
