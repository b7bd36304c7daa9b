from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.pilot import Pilot

from specinspect.report import kappas
from specinspect.report.model import BadTensor
from specinspect.tui.rows import kappa_cell
from tests.report.canned import ESCAPES, tall
from tests.tui.drive import SMALL, WIDE, computed, drive, screen, table, until
from tests.tui.stub import app, canned


@pytest.mark.parametrize("size", [WIDE, SMALL])
def test_opens_streams_and_quits(size: tuple[int, int]) -> None:
    held = threading.Event()
    first = canned()[0].layer.name
    inspector, work = app(held={first: held})

    async def steps(pilot: Pilot[Any]) -> None:
        assert "encoder.layers (9)" in screen(inspector)  # before anything is computed
        assert all(row.result is None for row in inspector.session.rows)
        held.set()
        await computed(pilot)
        shown = screen(inspector)
        assert "NaN" in shown
        assert "15/15" in shown
        await pilot.press("q")

    drive(inspector, steps, size)
    assert inspector.return_code == 0
    assert len(work.computed) == 15


def test_the_weight_of_a_slow_layer_is_there_before_its_other_maps() -> None:
    results = canned(15)
    slow, held = results[0].layer.name, threading.Event()
    inspector, work = app(results, held={slow: held}, slow={slow})

    async def steps(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: inspector.session.rows[0].partial)
        await pilot.press("1")
        await until(pilot, lambda: "W so far" in screen(inspector))
        row = inspector.session.rows[0]
        assert row.state != "done"
        assert kappa_cell(row, "weight") == kappas.shown(results[0], "weight").text
        assert kappa_cell(row, "skip") == "…"
        assert inspector.session.results == ()  # a report of now does not have it
        for pane in "23451":
            await pilot.press(pane)
            await pilot.pause()
            assert ("still being computed" in screen(inspector)) == (pane in "23")
        assert work.studied == []  # its other maps are not measured twice
        held.set()
        await computed(pilot)
        await until(pilot, lambda: "W so far" not in screen(inspector))
        row = inspector.session.rows[0]
        assert (row.partial, row.state) == (False, "done")
        assert set(row.result.maps if row.result is not None else ()) == set(results[0].maps)

    drive(inspector, steps, WIDE)


def test_the_selected_layer_jumps_the_queue() -> None:
    results = canned(15)
    held = threading.Event()
    inspector, work = app(results, held={results[0].layer.name: held})

    async def steps(pilot: Pilot[Any]) -> None:
        table(inspector).go_to(13)
        await pilot.pause()
        assert inspector.session.selected == 13
        held.set()
        await computed(pilot)

    drive(inspector, steps)
    assert work.computed[:2] == [results[0].layer.name, results[13].layer.name]


def test_a_layer_that_fails_is_a_row_with_its_reason() -> None:
    results = canned(15)
    inspector, _ = app(results, broken={results[3].layer.name: "out [of] luck\x1b"})

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        table(inspector).go_to(3)
        await pilot.pause()
        shown = screen(inspector)
        assert "failed" in shown
        assert "RuntimeError: out [of] luck\\x1b" in shown
        assert [row.state for row in inspector.session.rows].count("done") == 14

    drive(inspector, steps)


def test_hostile_names_are_shown_as_they_are() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await pilot.press("s", *["s"] * 6)
        shown = screen(inspector)
        assert inspector.session.sort == "name"
        assert "enc[/].weight[bold red]" in shown
        assert "\x1b" not in shown
        assert "<script>" in shown

    drive(inspector, steps)
    assert ESCAPES in inspector.session.names


def test_narrow_windows_have_the_layers_as_a_tab() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        assert not inspector.narrow
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert inspector.narrow
        assert inspector.pane == "layers"
        assert "[Layers]" in screen(inspector)
        await pilot.press("2")
        assert not table(inspector).display
        await pilot.resize_terminal(200, 60)
        await pilot.pause()
        assert table(inspector).display
        assert inspector.pane == "skip"
        await pilot.resize_terminal(60, 15)
        await pilot.pause()
        assert "60×15 is small" in screen(inspector)

    drive(inspector, steps, WIDE)


def test_blocks_fold_and_open() -> None:
    inspector, _ = app(list(tall(40).layers))

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        layers = table(inspector)
        assert len(inspector.session.rows) == 282
        assert len(layers.lines) == 44  # model, embedding, head, the list and its 40 blocks
        shown = screen(inspector)
        assert "▸ 20 (7)" in shown
        worst = inspector.session.worst_layer()
        assert worst is not None
        await pilot.press("z")
        await until(pilot, lambda: len(layers.lines) > 282)
        await pilot.press("z")
        await until(pilot, lambda: len(layers.lines) == 44)
        await pilot.press("w")
        await until(pilot, lambda: inspector.session.selected == worst)
        assert layers.selected == worst
        place = layers.cursor
        await pilot.press(*["left"] * 4)  # its module, close it, the block, close that
        await until(pilot, lambda: len(layers.lines) == 44)
        assert layers.cursor < place
        await pilot.press("enter")
        await until(pilot, lambda: len(layers.lines) == 50)

    drive(inspector, steps)


def test_tensors_in_no_layer_that_are_not_finite_are_findings_of_the_network() -> None:
    bad = BadTensor("encoder.ln[/].bias\x1b", "bias of a layer", 64, 3, 0, 0)
    inspector, _ = app(bad=(bad,))

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: inspector.session.bad_tensors == (bad,))
        await pilot.press("5")
        await until(pilot, lambda: "as\\x1b: 3 NaN and" in screen(inspector))
        assert "\x1b" not in screen(inspector)

    drive(inspector, steps)
    report = inspector.session.report(device="cpu", notices=(), seconds=1.0)
    assert [f.layer for f in report.findings if f.message.startswith("3 NaN")] == [bad.name]
