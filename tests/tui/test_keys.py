from __future__ import annotations

import asyncio
import csv
import json
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.binding import Binding
from textual.color import Color
from textual.pilot import Pilot
from textual.widgets import Input

from specinspect.tui.app import Inspector, load_panes
from specinspect.tui.bars import Ask
from specinspect.tui.help import PANE_KEYS, HelpScreen, help_text
from specinspect.tui.keys import KEYS
from specinspect.tui.messages import FactEdited, LayerChosen, PatternChosen, ScaleChosen
from specinspect.tui.panes.bounds import BoundsPane
from specinspect.tui.panes.skip import SkipPane
from tests.comparison.canned import comparison
from tests.report.canned import MARKUP
from tests.tui.drive import SMALL, USUAL, computed, drive, screen, table, until
from tests.tui.stub import Stub, app, canned, inspection, with_block

QUERY = "encoder.layers.0.attention.self.query"


def named(inspector: Inspector) -> str:
    selected = inspector.session.selected
    assert selected is not None
    return inspector.session.rows[selected].layer.name


def said(inspector: Inspector) -> str:
    return "\n".join(note.message for note in inspector._notifications)


def go_to(inspector: Inspector, name: str) -> None:
    assert table(inspector).go_to(inspector.session.names[name])


def test_a_key_that_comes_after_the_end_is_no_error() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")

    drive(inspector, steps)
    assert inspector.pane == "skip"
    assert not inspector.screen_stack
    asyncio.run(inspector.on_key(events.Key("m", "m")))


def test_every_binding_is_in_the_palette_and_the_help() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        titles = [command.title for command in inspector.get_system_commands(inspector.screen)]
        for binding in KEYS:
            assert isinstance(binding, Binding)
            assert binding.id
            assert binding.tooltip
            assert any(title.startswith(f"{binding.description} (") for title in titles)
        await pilot.press("question_mark")
        assert isinstance(inspector.screen, HelpScreen)
        text = screen(inspector)
        assert "Go to the worst κ(W)" in text
        await pilot.press("escape")
        assert not isinstance(inspector.screen, HelpScreen)

    ids = [binding.id for binding in KEYS if isinstance(binding, Binding)]
    assert len(set(ids)) == len(ids)
    drive(inspector, steps)


def test_the_help_has_the_keys_of_every_pane() -> None:
    of_app = {key for binding in KEYS if isinstance(binding, Binding) for key in binding.key.split(",")}
    for kind in load_panes().values():
        for binding in kind.BINDINGS:
            assert isinstance(binding, Binding)
            if len(binding.key) == 1 and binding.key not in of_app:
                assert binding.key in dict(PANE_KEYS), binding
    assert "the whole block of the layer" in help_text().plain


def test_everything_in_the_table_can_be_read_in_both_themes() -> None:
    inspector, _ = app(broken={"head": "no memory"})

    def contrast(a: Color, b: Color) -> float:
        first, second = sorted(_luminance(color) for color in (a, b))
        return (second + 0.05) / (first + 0.05)

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        for _ in range(2):
            layers = table(inspector)
            background = layers.background_colors[1]
            for y in range(len(layers.lines) + 1):
                for segment in layers.render_line(y):
                    if segment.text.strip() and segment.style is not None and segment.style.color is not None:
                        fore = Color.from_rich_color(segment.style.color)
                        back = segment.style.bgcolor
                        behind = background if back is None else Color.from_rich_color(back)
                        assert contrast(fore, behind) > 3, (inspector.theme, y, segment)
            await pilot.press("d", "end")

    drive(inspector, steps)


def _luminance(color: Color) -> float:
    """Return the relative luminance as WCAG 2 defines it."""
    parts = [value / 255 for value in color.rgb]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_palette_command_does_what_its_key_does() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await pilot.press("ctrl+p")
        await pilot.press(*"worst", "enter")
        await until(pilot, lambda: named(inspector) == "encoder.layers.1.attention.self.key")

    drive(inspector, steps)


def test_sort_reverse_and_back() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        names = [row.layer.name for row in inspector.session.rows]
        layers = table(inspector)

        def order() -> list[str]:
            return [names[line.index] for line in layers.lines if line.index is not None]

        await pilot.press("s")  # κ(W): NaN, singular, unresolved, then by value
        assert order()[:4] == [names[8], names[9], names[4], names[7]]
        assert order()[-1] == "head"
        assert "κ(W)↓" in screen(inspector)
        await pilot.press("S")
        assert order()[0] == "head"
        assert order()[-1] == names[8]
        await pilot.press("escape")
        assert inspector.session.sort == "order"
        assert order() == names
        await pilot.click("#layers", offset=(3, 0))
        assert inspector.session.sort == "name"
        assert order() == sorted(names)

    drive(inspector, steps)


def test_findings_next_previous_and_worst() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        seen = []
        for key in ("n", "n", "n", "n", "N"):
            await pilot.press(key)
            seen.append(inspector.session.selected)
        # the layer with lost rank, the one of NaN, the dead one, and around the end
        assert seen == [4, 8, 9, 4, 9]
        await pilot.press("w")
        assert inspector.session.selected == 8

    drive(inspector, steps)


def test_filter_works_while_typed_and_esc_takes_it_back() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        layers = table(inspector)

        def shown() -> set[int]:
            return {line.index for line in layers.lines if line.index is not None}

        await pilot.press("slash")
        for character in "query":
            await pilot.press(character)
        assert shown() == {3, 7}
        field = inspector.query_one(Input)
        for text, wanted in (
            ("kind:conv", {1, 2, 5, 6}),
            ("*.conv1", {1, 5}),
            ("kappa>1e4", {7, 8, 9}),
            ("κ>1e4 QUERY", {7}),
            ("kappa<3", {13}),
            ("finding:", {4, 8, 9}),
            ("dtype:bf", {0}),
            ("[/]", {10}),
            ("nothing-like-it", set()),
        ):
            field.value = text
            await pilot.pause()
            assert shown() == wanted, text
        field.value = "kappa>many"
        await pilot.pause()
        assert "expects a number" in screen(inspector)
        field.value = "kapa>3"
        await pilot.pause()
        assert "did you mean kappa?" in screen(inspector)
        field.value = "conv1"
        await pilot.press("enter")
        assert not inspector.query_one(Ask).is_open
        assert layers.has_focus
        assert "filter conv1: 2 of 15 layers" in screen(inspector)
        await pilot.press("slash")
        field.value = "head"
        await pilot.press("escape")
        assert shown() == {1, 5}
        await pilot.press("escape")
        assert len(shown()) == 15

    drive(inspector, steps)


def test_beta_and_rho_follow_at_once_and_exactly_later() -> None:
    inspector, work = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        go_to(inspector, QUERY)
        await pilot.press("2")
        session = inspector.session
        await until(pilot, lambda: len(session.looked.skip.order) > 10)
        await pilot.press("right_square_bracket")
        assert session.beta == 1.05
        maps = session.live_maps()
        # the stub's layer is diag(1, 2, 3, 4)
        assert maps["skip"].sigma_max == pytest.approx(1 + 1.05 * 4)
        assert maps["skip"].sigma_min == pytest.approx(1 + 1.05)
        await until(pilot, lambda: session.live_maps()["skip"].exact)
        assert session.live_maps()["skip"].sigma_max == pytest.approx(5.2)
        await pilot.press("left_curly_bracket", "left_curly_bracket")
        assert session.rho == 0.9
        await until(pilot, lambda: session.live_maps()["skip"].exact)
        found = session.live_maps()["skip"]
        assert found.sigma_max == pytest.approx(0.9 + 1.05 * 4)
        assert found.condition_number == pytest.approx((0.9 + 4.2) / (0.9 + 1.05))
        text = screen(inspector)
        assert "β 1.05  ρ 0.90 (run: 1, 1)" in text
        assert "x' is at β 1, ρ 1" in text
        assert "2.62 " in text  # κ(skip) of the selected row is today's
        await pilot.press("0")
        assert session.at_run
        assert "(run:" not in screen(inspector)
        assert work.studied == [QUERY]  # nothing else was computed

    drive(inspector, steps)


def test_a_block_follows_beta_and_rho_too() -> None:
    inspector, _ = with_block(QUERY, MARKUP)

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: bool(inspector.session.blocks))
        go_to(inspector, QUERY)
        await pilot.press("2", "k")
        session = inspector.session
        await until(pilot, lambda: len(session.looked.block.order) > 10)
        await until(pilot, lambda: "κ(ρA+βJ) 3.00   exact" in screen(inspector))
        await pilot.press("right_square_bracket")  # interpolated at once
        found = session._block_live()
        assert found is not None
        assert found.sigma_max == pytest.approx(1 + 1.05 / 2)
        await until(pilot, lambda: "κ(ρA+βJ) 3.21   exact" in screen(inspector))
        await pilot.press("left_curly_bracket")
        await until(pilot, lambda: (it := session._block_live()) is not None and it.exact)
        found = session._block_live()
        assert found is not None
        assert (found.sigma_max, found.sigma_min) == pytest.approx((0.95 + 0.525, 0.95 - 0.525))
        inspector.post_message(ScaleChosen(0.0, 0.5))
        await until(pilot, lambda: (it := session._block_live()) is not None and it.sigma_max == 0.25)
        # what is shown of a block does not depend on which of its layers is selected
        go_to(inspector, MARKUP)
        await until(pilot, lambda: (it := session._block_live()) is not None and it.sigma_max == 0.25)
        go_to(inspector, "head")  # in no block
        await until(pilot, lambda: "[W]" in screen(inspector))

    drive(inspector, steps)


def test_a_block_that_takes_too_long_stays_where_the_run_was_and_says_so() -> None:
    inspector, _ = with_block(QUERY, stays=True)

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: bool(inspector.session.blocks))
        go_to(inspector, QUERY)
        await pilot.press("2", "k", "right_square_bracket")
        await until(pilot, lambda: "too large to follow: at ρ 1, β 1" in screen(inspector))
        assert "κ(ρA+βJ) 3.00" in screen(inspector)

    drive(inspector, steps, (160, 40))


def test_a_block_that_fails_is_told_and_the_layer_still_follows() -> None:
    inspector, work = with_block(QUERY)

    def failing(*_: Any) -> Any:
        raise RuntimeError("no room [/] for it")

    work.block = failing  # type: ignore[method-assign, assignment]

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: bool(inspector.session.blocks))
        go_to(inspector, QUERY)
        await pilot.press("2", "k", "right_square_bracket")
        await until(pilot, lambda: "no room [/] for it" in screen(inspector))
        await until(pilot, lambda: (it := inspector.session.live_maps().get("skip")) is not None and it.exact)

    drive(inspector, steps, (160, 40))


def test_the_bounds_of_the_block_are_a_key_away_and_the_choice_is_one_for_all_panes() -> None:
    inspector, _ = with_block(QUERY)

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: bool(inspector.session.blocks))
        go_to(inspector, QUERY)
        await pilot.press("b")
        await until(pilot, lambda: "[layer] block blk[/]" in screen(inspector))
        of_layer = screen(inspector)
        assert "of the block" not in of_layer
        await pilot.press("k")
        await until(pilot, lambda: "layer [block blk[/]]" in screen(inspector))
        assert "of the block" in screen(inspector)
        assert "ρA+βJ" in screen(inspector)
        await pilot.press("right_square_bracket")  # verdicts stay those of the run
        await until(pilot, lambda: "✓ holds 1   at ρ 1, β 1" in screen(inspector))
        await pilot.press("2")
        await until(pilot, lambda: "[block]" in screen(inspector))
        await pilot.press("k", "b")
        await until(pilot, lambda: "[layer] block blk[/]" in screen(inspector))
        go_to(inspector, "head")
        await until(pilot, lambda: "block blk[/]" not in screen(inspector))

    drive(inspector, steps)


def test_zero_rho_is_the_branch_alone() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        go_to(inspector, QUERY)
        await pilot.press("2")
        inspector.post_message(ScaleChosen(0.0, 0.5))
        session = inspector.session
        await until(pilot, lambda: "skip" in session.live_maps())
        assert session.live_maps()["skip"].sigma_max == pytest.approx(2.0)
        assert session.live_maps()["skip"].exact
        inspector.post_message(ScaleChosen(0.0, 0.0))  # no map at all
        await pilot.pause()
        assert (session.rho, session.beta) == (0.0, 0.5)

    drive(inspector, steps)


def test_patterns_are_switched() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        go_to(inspector, QUERY)
        await pilot.press("2", "p")
        session = inspector.session
        assert session.pattern == 0
        await until(pilot, lambda: {"chain", "skip_chain"} <= set(session.live_maps()))
        # row 0 of diag(1, 2, 3, 4) is let through by nothing: what is left is 2, 3, 4
        assert session.live_maps()["chain"].spectrum is not None
        assert session.live_maps()["chain"].sigma_max == pytest.approx(4)
        assert session.live_maps()["skip_chain"].sigma_min == pytest.approx(1)
        inspector.post_message(PatternChosen(None))
        await until(pilot, lambda: session.pattern is None)
        assert "chain" not in session.live_maps()

    drive(inspector, steps)


def test_an_edit_recomputes_the_layer_and_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inspector, work = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        go_to(inspector, MARKUP)
        before = len(work.computed)
        await pilot.press("a")  # auto → identity
        await until(pilot, lambda: len(work.computed) == before + 1)
        await computed(pilot)
        row = inspector.session.rows[inspector.session.names[MARKUP]]
        assert row.layer.activation.name == "identity"
        assert row.result is not None
        assert row.result.layer.activation.source == "config"
        assert work.computed[-1] == MARKUP
        inspector.post_message(FactEdited(MARKUP, "activation", "no such thing"))
        await pilot.pause()
        assert row.layer.activation.name == "identity"
        inspector.post_message(FactEdited(MARKUP, "activation", "gelu"))
        await until(pilot, lambda: len(work.computed) == before + 2)
        await pilot.press("ctrl+s")

    drive(inspector, steps)
    saved = tomllib.loads((tmp_path / "specinspect.toml").read_text(encoding="utf-8"))
    assert saved == {"rules": {MARKUP: {"activation": "gelu"}}}


def test_export_writes_what_the_suffix_says_and_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inspector, _ = app()

    async def export(pilot: Pilot[Any], name: str) -> None:
        await pilot.press("e")
        inspector.query_one(Input).value = name
        await pilot.press("enter")
        await pilot.pause()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        go_to(inspector, "<script>alert(1)</script>|`x`")
        for name in ("report.json", "sigma.csv", "screen.svg", "screen.txt"):
            await export(pilot, name)
            assert not inspector.query_one(Ask).is_open
        (tmp_path / "mine.json").write_text("kept", encoding="utf-8")
        await export(pilot, "mine.json")
        assert inspector.query_one(Ask).is_open
        assert "is there already" in screen(inspector)
        inspector.query_one(Input).value = "no.suffix"
        await pilot.press("enter")
        assert "expected a name ending in" in screen(inspector)
        await pilot.press("escape")
        assert not inspector.query_one(Ask).is_open

    drive(inspector, steps)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert len(report["layers"]) == 15
    assert "singular_values" not in report["layers"][14]["maps"]["weight"]
    rows = list(csv.reader((tmp_path / "sigma.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["layer", "map", "rho", "beta", "index", "singular_value"]
    assert [float(row[5]) for row in rows[1:]] == [2.5, 0.5, 0.0625]
    assert (tmp_path / "screen.svg").read_text(encoding="utf-8").startswith("<svg")
    assert "specinspect  model.pt" in (tmp_path / "screen.txt").read_text(encoding="utf-8")
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == "kept"


def test_compare_sorts_by_what_moved_most() -> None:
    pairs = {pair.name: pair for pair in comparison().layers}
    results = [pair.a for pair in pairs.values()]
    work = Stub({result.layer.name: result for result in results}, seconds={"b.pt": pairs})
    inspector = Inspector(inspection(sorted(results, key=lambda r: r.layer.name)), work=work)

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await pilot.press("c")
        inspector.query_one(Input).value = "b.pt"
        await pilot.press("enter")
        session = inspector.session
        await until(pilot, lambda: all(row.pair is not None for row in session.rows))
        await until(pilot, lambda: not inspector._dirty)
        shown = [
            session.rows[line.index].layer.name for line in table(inspector).lines if line.index is not None
        ]
        assert shown == list(pairs)  # the comparison's own order
        await pilot.press("6")
        go_to(inspector, "grown")
        await until(pilot, lambda: "‖A - B‖ / ‖A‖ 1.00" in screen(inspector))
        assert "κ(W) of B" in screen(inspector)
        assert "[Compare]" in screen(inspector)

    drive(inspector, steps)


def beside_b() -> tuple[Inspector, Stub]:
    pairs = {pair.name: pair for pair in comparison().layers}
    work = Stub({name: pair.a for name, pair in pairs.items()}, seconds={"b.pt": pairs})
    return Inspector(inspection([pair.a for pair in pairs.values()]), work=work, against="b.pt"), work


def test_all_maps_of_the_selected_layer_are_compared_on_demand() -> None:
    inspector, work = beside_b()
    session = inspector.session

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: all(row.pair is not None for row in session.rows))
        go_to(inspector, "grown")
        await pilot.press("6")
        await until(pilot, lambda: "m does it for this layer" in screen(inspector))
        await pilot.pause(0.3)
        assert not work.besides  # not before it is asked for
        await pilot.press("m", "m")  # ρI+βW
        await until(pilot, lambda: "‖σ(A) - σ(B)‖ / ‖σ(A)‖ 0.250" in screen(inspector))
        grown = session.names["grown"]
        assert work.besides == [(grown, (1.0, 1.0), {})]
        text = screen(inspector)
        # (1 + 4)/(1 + 1) beside (1 + 8)/(1 + 2); no ρI+β·D·W on either side
        lines = [line.split("▏")[-1].split() for line in text.splitlines()]
        assert any(line[:1] == ["A"] and line[-2:] == ["2.50", "–"] for line in lines)
        assert any(line[:1] == ["B"] and line[-2:] == ["3.00", "–"] for line in lines)
        await pilot.press("right_square_bracket", "right_square_bracket")
        await until(pilot, lambda: len(work.besides) > 1 and session.looked.beside is not None)
        await until(pilot, lambda: (it := session.looked.beside) is not None and it.scale == (1, 1.1))
        assert work.besides[-1] == (grown, (1.0, 1.1), {})
        await until(pilot, lambda: "2.57" in screen(inspector))  # (1 + 4.4)/(1 + 1.1)
        await pilot.press("m")
        await until(pilot, lambda: "no such map of A and B" in screen(inspector))
        go_to(inspector, "dead")  # follows the selection
        await until(pilot, lambda: work.besides[-1][0] == session.names["dead"])
        await pilot.press("m")  # W again: nothing more is computed
        await pilot.pause(0.3)
        many = len(work.besides)
        go_to(inspector, "grown")
        await pilot.pause(0.3)
        assert len(work.besides) == many

    drive(inspector, steps)


def test_what_was_edited_holds_on_both_sides_of_a_comparison() -> None:
    inspector, work = beside_b()
    session = inspector.session

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: all(row.pair is not None for row in session.rows))
        go_to(inspector, "grown")
        await pilot.press("6", "m")
        await until(pilot, lambda: bool(work.besides))
        inspector.post_message(FactEdited("grown", "activation", "gelu"))
        await until(pilot, lambda: work.besides[-1][2] == {"activation": "gelu"})

    drive(inspector, steps)


def test_maps_that_cannot_be_compared_say_why() -> None:
    inspector, work = beside_b()
    work.refused = "no room [/] for it"

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: all(row.pair is not None for row in inspector.session.rows))
        await pilot.press("6", "m")
        await until(pilot, lambda: "x no room [/] for it" in screen(inspector))
        await pilot.pause(0.5)
        assert len(work.besides) == 1  # not again and again

    drive(inspector, steps)


def test_a_second_checkpoint_that_is_not_there_is_a_message() -> None:
    inspector, _ = app(canned(4))

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await pilot.press("c")
        inspector.query_one(Input).value = "[gone]"
        await pilot.press("enter")
        await until(pilot, lambda: "no such file: '[gone]'" in said(inspector))

    drive(inspector, steps)


def test_panes_by_key_and_click_and_esc_goes_back() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        for key, pane in zip("12345", ("spectrum", "skip", "bounds", "layer", "network"), strict=True):
            await pilot.press(key)
            assert inspector.pane == pane
        await pilot.press("escape")
        assert inspector.pane == "layers"
        await pilot.press("full_stop")
        assert inspector.pane == "spectrum"
        await pilot.press("comma")
        assert inspector.pane == "layers"
        await pilot.press("b")
        assert inspector.pane == "bounds"
        await pilot.click("#tabs", offset=(1, 0))
        assert inspector.pane == "layers"
        await pilot.press("home", "enter")
        assert inspector.pane == "spectrum"
        inspector.post_message(LayerChosen("head"))
        await pilot.pause()
        assert named(inspector) == "head"
        await pilot.press("d")
        assert not inspector.current_theme.dark

    drive(inspector, steps, SMALL)


def test_keys_of_a_pane_work_from_the_table_and_its_fields_are_reached() -> None:
    inspector, work = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        go_to(inspector, QUERY)
        await pilot.press("2")
        pane = inspector._panes["skip"]
        assert isinstance(pane, SkipPane)
        await until(pilot, lambda: pane.pair is not None)
        assert pane.chosen == "W"
        await pilot.press("m")
        assert pane.chosen == "D·W"
        assert table(inspector).has_focus
        await pilot.press("4")
        await until(pilot, lambda: inspector.at_rest)
        await pilot.press("enter", "enter")  # into the pane; the first fact
        await until(pilot, lambda: isinstance(inspector.focused, Input))
        assert isinstance(inspector.focused, Input)
        inspector.focused.value = "gelu"
        await pilot.press("enter")
        await until(pilot, lambda: work.computed.count(QUERY) == 2)
        assert inspector.session.edits == {QUERY: {"activation": "gelu"}}
        await pilot.press("escape")
        assert table(inspector).has_focus

    drive(inspector, steps)


@pytest.mark.parametrize("size", [SMALL, USUAL])
def test_a_key_of_a_pane_acts_once_whoever_has_the_focus(size: tuple[int, int]) -> None:
    inspector, _ = with_block(QUERY)

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        await until(pilot, lambda: bool(inspector.session.blocks))
        go_to(inspector, QUERY)
        pane = inspector._panes["skip"]
        assert isinstance(pane, SkipPane)
        await pilot.press("2")
        await until(pilot, lambda: pane.pair is not None and len(pane.pairs) == 3)
        if size == SMALL:
            await until(pilot, lambda: inspector.focused is pane)
        labels = []
        for key in ("m", "m", "m", "k", "k", "k"):
            await pilot.press(key)
            labels.append(pane.pair.label if pane.pair is not None else "")
        assert labels == ["D·W", "block", "W", "block", "W", "block"]
        await pilot.press("b")
        await until(pilot, lambda: "[block blk[/]]" in screen(inspector))
        await pilot.press("v")
        bounds = inspector._panes["bounds"]
        assert isinstance(bounds, BoundsPane)
        assert bounds.hiding

    drive(inspector, steps, size)


def test_keys_may_come_faster_than_the_app_follows() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        marked = [row.index for row in inspector.session.rows if row.findings or row.violated]
        for _ in range(2):
            inspector.action_finding(1)  # with no message handled in between
        assert inspector.session.selected == marked[1]
        await pilot.pause()
        assert inspector.session.selected == marked[1]
        table(inspector).action_move(-1)
        inspector.action_activation()
        name = inspector.session.rows[marked[1] - 1].layer.name
        await until(pilot, lambda: name in inspector.session.edits)

    drive(inspector, steps)


def test_two_edits_at_once_both_count() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        names = [row.layer.name for row in inspector.session.rows if row.layer.kind == "linear"][:2]
        for name in names:
            inspector.post_message(FactEdited(name, "activation", "gelu"))
        await until(pilot, lambda: set(inspector.session.edits) == set(names))
        await computed(pilot)
        layers = {row.layer.name: row.layer for row in inspector.session.rows}
        assert [layers[name].activation.name for name in names] == ["gelu", "gelu"]

    drive(inspector, steps)


def test_presses_of_a_add_up_however_quick() -> None:
    inspector, work = app()
    told, gate = work.told, threading.Event()

    def slowly(*arguments: Any) -> Any:
        assert gate.wait(10)
        return told(*arguments)

    work.told = slowly  # type: ignore[method-assign, assignment]

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        go_to(inspector, MARKUP)
        await pilot.press("2", "a", "a", "a", "a")  # auto → identity → relu → leaky_relu → gelu
        assert inspector._view().activation == "gelu"  # at once, before the engine has answered
        gate.set()
        await until(pilot, lambda: not inspector.session.pending)
        await computed(pilot)
        row = inspector.session.rows[inspector.session.names[MARKUP]]
        assert row.layer.activation.name == "gelu"
        assert inspector.session.edits == {MARKUP: {"activation": "gelu"}}
        await pilot.press("a")
        await until(pilot, lambda: inspector.session.edits == {MARKUP: {"activation": "silu"}})

    drive(inspector, steps)


def test_an_edit_that_fails_holds_up_no_other() -> None:
    inspector, work = app()
    told = work.told

    def refusing(given: Any, settings: Any) -> Any:
        if any(rule.activation == "tanh" for rule in settings.rules):
            raise RuntimeError("no [room] for it")
        return told(given, settings)

    work.told = refusing  # type: ignore[method-assign]

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        names = [row.layer.name for row in inspector.session.rows if row.layer.kind == "linear"][:2]
        inspector.post_message(FactEdited(names[0], "activation", "tanh"))
        inspector.post_message(FactEdited(names[1], "activation", "gelu"))
        await until(pilot, lambda: set(inspector.session.edits) == {names[1]})
        assert "no [room] for it" in said(inspector)
        assert not inspector.session.pending

    drive(inspector, steps)


def test_ctrl_c_says_which_key_ends_the_app() -> None:
    inspector, _ = app()

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("ctrl+c")
        assert "q ends specinspect" in said(inspector)

    drive(inspector, steps)
