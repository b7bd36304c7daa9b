"""Every pane in a small host with canned results: what it shows, its keys, its states, any size, any name."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input

from specinspect.bounds.catalogue.model import Result
from specinspect.report.model import Finding
from specinspect.tui.messages import ActivationChosen, FactEdited, LayerChosen, PatternChosen, ScaleChosen
from specinspect.tui.panes import bounds as bounds_module
from specinspect.tui.panes.bounds import BoundsPane
from specinspect.tui.panes.layer import LayerPane, problem
from specinspect.tui.panes.network import NetworkPane
from specinspect.tui.panes.pane import Pane, Picture
from specinspect.tui.panes.skip import SkipPane
from specinspect.tui.panes.spectrum import SpectrumPane
from specinspect.tui.view import Live, PaneView
from tests.report import canned
from tests.tui.host import ADVICE, Host, check, measured, result, screen, view

PANES: dict[str, Callable[[], Pane]] = {
    "spectrum": SpectrumPane,
    "skip": SkipPane,
    "bounds": BoundsPane,
    "layer": LayerPane,
    "network": NetworkPane,
}
NARROW, WIDE = (78, 18), (158, 44)
GOLDENS = Path(__file__).parent / "goldens"
Steps = Callable[[Host, Pilot[None]], Awaitable[None]]
R4 = Result(
    id="r4.best",
    title="κ of a skip",
    statement="κ(ρI+βM) ≤ u/l",
    assumptions=("M is square",),
    vacuous="l ≤ 0",
    strength="deterministic",
    source="P0 Thm 22",
    corrected="nr is ours",
)


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Screens do not depend on how the catalogue words its results."""
    monkeypatch.setattr(bounds_module, "CATALOGUE", {"r4.best": R4})


def drive(name: str, shown: PaneView, steps: Steps | None = None, size: tuple[int, int] = NARROW) -> Host:
    """Show a pane, press keys, and return its host after the last step, with the screen as `.text`."""
    host = Host(PANES[name], shown)

    async def play() -> None:
        async with host.run_test(size=size) as pilot:
            await pilot.pause()
            if steps is not None:
                await steps(host, pilot)
            await pilot.pause()
            host.text = screen(host)

    asyncio.run(play())
    return host


def keys(*pressed: str) -> Steps:
    async def steps(_host: Host, pilot: Pilot[None]) -> None:
        for key in pressed:
            await pilot.press(key)
        await pilot.pause()

    return steps


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("name", PANES)
def test_screens(name: str, size: tuple[int, int]) -> None:
    text = "\n".join(line.rstrip() for line in drive(name, view(), size=size).text.splitlines()) + "\n"
    path = GOLDENS / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PANES)
def test_ascii(name: str) -> None:
    text = drive(name, view(plain=True)).text
    scrollbars = set("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉")  # textual's own, one column at the right of a list
    assert {char for char in text if not char.isascii()} <= scrollbars
    assert sum(not char.isascii() for char in text) <= 4


@pytest.mark.parametrize("name", PANES)
def test_themes_and_no_color_change_no_character(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = drive(name, view()).text
    assert drive(name, view(dark=False)).text == expected
    monkeypatch.setenv("NO_COLOR", "1")
    assert drive(name, view()).text == expected


STATES = (
    (PaneView(), "No layer is selected"),
    (PaneView(layer=result().layer), "waiting for its turn"),
    (PaneView(layer=result().layer, state="running"), "computing"),
    (PaneView(layer=result().layer, state="failed", reason="no memory: 9 GiB"), "x failed: no memory: 9 GiB"),
)


@pytest.mark.parametrize("name", ["spectrum", "skip", "bounds"])
def test_states(name: str) -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        for state, said in STATES:
            host.pane.show(state)
            await pilot.pause()
            assert said in screen(host)
        host.pane.show(view())
        await pilot.pause()
        assert "encoder.layers.0.mlp.fc1" in screen(host)
        assert "failed" not in screen(host)

    drive(name, PaneView(), steps)


@pytest.mark.parametrize("name", PANES)
def test_nothing_and_not_a_number_at_any_size(name: str) -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        nan = canned.linear("nan", canned.NONFINITE)
        for shown in (PaneView(), view(result=nan, layer=nan.layer, live={}), view(results=(), layers=())):
            host.pane.show(shown)
            for size in ((20, 4), (5, 2), (200, 60), NARROW):
                await pilot.resize_terminal(*size)
                await pilot.pause()

    drive(name, PaneView(), steps)


@pytest.mark.parametrize("name", PANES)
def test_resize_back_and_forth(name: str) -> None:
    expected = drive(name, view()).text

    async def steps(_host: Host, pilot: Pilot[None]) -> None:
        await pilot.resize_terminal(*WIDE)
        await pilot.pause()
        await pilot.resize_terminal(*NARROW)
        await pilot.pause()

    assert drive(name, view(), steps).text == expected


HOSTILE = {canned.MARKUP: "enc[/]", canned.ESCAPES: "a\\nb\\x1b", canned.SCRIPT: "<script>"}


@pytest.mark.parametrize("name", PANES)
def test_hostile_names_are_shown_as_they_are(name: str) -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        for hostile, seen in HOSTILE.items():
            found = result(hostile, notes=(hostile,), assumptions=(hostile,), bounds=(check(why=hostile),))
            shown = view(
                result=found,
                layer=found.layer,
                results=(found,),
                layers=(found.layer,),
                failed={hostile: hostile},
                findings=(Finding("nan", "error", hostile, hostile),),
            )
            host.pane.show(shown)
            await pilot.pause()
            text = screen(host)
            assert seen in text
            assert "\x1b" not in text
            assert "\u202e" not in text

    drive(name, view(), steps, size=WIDE)


def test_the_numbers_are_those_of_the_result() -> None:
    values = [4.0, 2.0, 1.0, 0.5]
    found = result(maps={"weight": measured(values)})
    text = drive("spectrum", view(result=found, live={}), size=WIDE).text
    for name, number in (("κ", "8.00"), ("σmax", "4.00"), ("σmin", "0.500"), ("Frobenius", "4.61")):
        assert any(name in line and line.rstrip().endswith(number) for line in text.splitlines()), name
    assert "relu is assumed after it" in text


def test_spectrum_goes_through_the_maps() -> None:
    host = drive("spectrum", view(), keys("m"))
    assert host.pane.chosen == "chain"  # type: ignore[attr-defined]
    assert "[D·W]" in host.text
    assert "zeros 128" in host.text
    assert "[W]" in drive("spectrum", view(), keys("m", "m", "m", "m")).text


def test_a_map_is_chosen_with_the_mouse() -> None:
    async def steps(_host: Host, pilot: Pilot[None]) -> None:
        await pilot.click("#maps", offset=(7, 0))

    assert "[D·W]" in drive("spectrum", view(), steps).text


def test_bounds_and_bulk_are_lines_of_the_histogram() -> None:
    found = result(bounds=(check("r3.sharp", of="weight", bound=0.02),))
    text = drive("spectrum", view(result=found), size=WIDE).text
    assert "┆ r3.sharp 0.0200" in text
    assert "╎ random bulk to 3.47" in text
    assert "┊ storage floor 1.00e-9" in text


def test_interpolated_is_said_and_exact_takes_its_place() -> None:
    interpolated = Live(1.4, 0.5, 2.8, exact=False)
    text = drive("skip", view(beta=0.7, live={"skip": interpolated}), size=WIDE).text
    assert "≈ 2.80" in text
    assert "≈ interpolated" in text
    assert "σmin now 0.500" in text

    async def steps(host: Host, pilot: Pilot[None]) -> None:
        exact = Live(1.4, 0.56, 2.5, exact=True, spectrum=measured([1.4, 0.56]))
        host.pane.show(view(beta=0.7, live={"skip": exact}))
        await pilot.pause()

    text = drive("skip", view(beta=0.7, live={"skip": interpolated}), steps).text
    assert "-> 2.50   exact" in text
    assert "≈" not in text


def test_no_scale_heals_a_layer_that_is_not_finite() -> None:
    broken = next(r for r in canned.report().layers if r.maps["weight"].nonfinite)
    shown = view(result=broken, layer=broken.layer, beta=0.25, live={}, skip_curve=None)
    text = drive("skip", shown, size=WIDE).text
    assert "NaN and infinite entries stay" in text
    assert "curve" not in text
    for name in ("skip", "spectrum"):
        assert "still at" not in drive(name, shown, keys("m", "m"), size=WIDE).text


def test_a_pane_says_nothing_before_it_is_given_anything() -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        await host.mount(SpectrumPane())

    text = drive("spectrum", view(), steps, size=WIDE).text
    assert "encoder.layers.0.mlp.fc1" in text
    assert "No layer is selected" not in text


def test_what_is_not_yet_at_todays_scale_says_so() -> None:
    text = drive("skip", view(beta=0.25, live={}), size=WIDE).text
    assert "still at ρ 1, β 1" in text


def test_the_guarantee_at_todays_beta_is_that_of_the_curve() -> None:
    assert "κ ≤ 3.00 guaranteed (r4.best)" in drive("skip", view(beta=0.5)).text
    assert "nothing guaranteed" in drive("skip", view(beta=1.0)).text
    assert "guaranteed (r4.best)" in drive("skip", view(beta=0.51)).text  # in the legend of the curve only


def test_a_click_on_the_curve_chooses_the_beta_under_it() -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        picture = host.query_one("#curve", Picture)
        lines = picture.canvas().lines()
        column = next(i for i, char in enumerate(lines[-2]) if char == "┼" and lines[-1][i] == "1")
        await pilot.click("#curve", offset=(column, 2))

    asked = drive("skip", view(rho=0.5), steps, size=WIDE).asked
    assert [type(message) for message in asked] == [ScaleChosen]
    assert isinstance(asked[0], ScaleChosen)
    assert asked[0].rho == 0.5
    assert asked[0].beta == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("now", "next_"), [(None, 0), (0, 1), (7, None)])
def test_patterns_go_round(now: int | None, next_: int | None) -> None:
    asked = drive("skip", view(pattern=now), keys("p")).asked
    assert asked == [] or [m.pattern for m in asked if isinstance(m, PatternChosen)] == [next_]
    assert len(asked) == 1


def test_the_pattern_that_is_shown_is_said() -> None:
    assert "median of 8 patterns" in drive("skip", view(), keys("m")).text
    assert "pattern 3 of 8" in drive("skip", view(pattern=2), keys("m")).text


def test_an_activation_is_chosen_with_the_mouse() -> None:
    async def steps(_host: Host, pilot: Pilot[None]) -> None:
        await pilot.press("m")
        await pilot.click("#activations", offset=(11, 0))

    host = drive("skip", view(), steps)
    assert "a  [auto] relu  gelu" in host.text
    assert host.asked == [ActivationChosen("relu")]
    assert "[auto]" not in drive("skip", view()).text


def test_the_block_as_a_whole() -> None:
    from specinspect.layers.blocks import Apply, Block, Shortcut
    from specinspect.report.model import BlockResult

    block = Block(
        "layer1.0", "residual", (Apply("a"), Apply("b")), Shortcut("identity", "assumed"), "assumed"
    )
    measured_block = BlockResult(block, measured([2.0, 0.125]), measured([3.0, 1.5]))
    host = drive("skip", view(block=measured_block), keys("k"))
    assert "residual layer1.0: 2 layers, shortcut identity" in host.text
    assert "κ(J) 16.0 -> κ(ρA+βJ) 2.00" in host.text
    assert "[W]" in drive("skip", view(block=measured_block), keys("k", "k")).text
    attention = replace(measured_block, block=replace(block, kind="attention-vo"))
    text = drive("skip", view(block=attention), keys("k")).text
    assert "value-output layer1.0: 2 layers" in text  # as the table calls it
    assert "[W]" in drive("skip", view(), keys("k")).text


def test_a_layer_without_a_skip_map() -> None:
    found = result(maps={"weight": measured([2.0, 1.0])})
    text = drive("skip", view(result=found, live={}, skip_curve=None)).text
    assert "no skip map makes sense here" in text
    assert "ρI+βW  not there" in text
    partial = drive("skip", view(result=found, live={}, skip_curve=None, partial=True)).text
    assert "its other maps are still being computed" in partial
    assert "ρI+βW  not yet" in partial


def test_the_table_of_bounds_can_hide_what_says_nothing() -> None:
    everything = drive("bounds", view())
    assert "○ vacuous" in everything.text
    assert "– n/a" in everything.text
    hidden = drive("bounds", view(), keys("v"))
    assert "r4.simple" not in hidden.text
    assert "2 hidden, v shows them" in hidden.text
    assert "r4.simple" in drive("bounds", view(), keys("v", "v")).text


def test_the_reason_of_the_row_under_the_cursor_is_shown() -> None:
    assert "W is singular: σmin is 0" in drive("bounds", view(), keys("down", "down", "down")).text


def test_the_advice_is_shown_and_the_rest_is_counted() -> None:
    text = drive("bounds", view()).text
    assert all(item.sentence in text for item in ADVICE)
    found = result(advice=(*ADVICE, replace(ADVICE[0], sentence="a third one")))
    text = drive("bounds", view(result=found)).text
    assert "a third one" not in text
    assert "1 more: Enter on their bounds" in text
    assert "a third one" in drive("bounds", view(result=found), keys("enter")).text


def test_a_bound_says_from_which_side_it_is() -> None:
    checks = (
        check("r1", value=2.0, bound=4.0, slack=0.5),
        check("r2", value=4.0, bound=2.0, slack=1.0),
        check("r3.upper.simple", "violated", value=4.0, bound=2.0, slack=-1.0),
        check("r3.lower.simple", "violated", value=2.0, bound=4.0, slack=-0.5),
    )
    rows = drive("bounds", view(result=result(bounds=checks))).text.splitlines()
    for name, used in (
        ("r1 ", " 50%"),
        ("r2 ", " 50%"),
        ("r3.upper.simple", "200%"),
        ("r3.lower.simple", "200%"),
    ):
        assert any(name in row and used in row for row in rows), name
    for name, side in (
        ("r1 ", "≤ 4.00"),
        ("r2 ", "≥ 2.00"),
        ("r3.upper.simple", "≤ 2.00"),
        ("r3.lower.simple", "≥ 4.00"),
    ):
        assert any(name in row and side in row for row in rows), name


def test_what_does_not_apply_has_no_bar() -> None:
    checks = (
        check("r17", "not_applicable", value=1.0, bound=2.0, slack=0.5, why="W is not known to be random"),
    )
    text = drive("bounds", view(result=result(bounds=checks))).text
    assert "≤ 2.00" in text
    assert "50%" not in text


def test_enter_explains_and_escape_goes_back() -> None:
    text = drive("bounds", view(), keys("enter"), size=WIDE).text
    for part in (
        "κ(ρI+βM) ≤ u/l",
        "M is square",
        "l ≤ 0",
        "P0 Thm 22",
        "nr is ours",
        "deterministic",
        "256×256",
    ):
        assert part in text
    assert "VIOLATED 1" not in text
    back = drive("bounds", view(), keys("enter", "escape", "down"))
    assert "VIOLATED 1" in back.text
    assert "the tightest is i = 3" in back.text


def test_escape_is_left_to_the_app_while_the_table_is_shown() -> None:
    pane = drive("bounds", view()).pane
    assert pane.check_action("back", ()) is False


def test_an_unknown_bound_has_no_text_but_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_module, "CATALOGUE", {})
    text = drive("bounds", view(), keys("enter")).text
    assert "The catalogue has no text for this bound" in text
    assert "κ = 2.78 is at most 4.5" in text


def test_an_edit_is_told_to_the_app() -> None:
    host = drive("layer", view(), keys("enter", *["backspace"] * 4, *"gelu", "enter"))
    assert host.asked == [FactEdited("encoder.layers.0.mlp.fc1", "activation", "gelu")]


def test_a_bad_edit_is_one_clear_line_and_tells_nobody() -> None:
    host = drive("layer", view(), keys("enter", "x", "enter"))
    assert host.asked == []
    assert "unknown activation 'x'" in host.text
    assert drive("layer", view(), keys("enter", "x", "enter", "escape")).asked == []


def test_escape_leaves_the_fact_and_the_focus_returns() -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        assert isinstance(host.focused, Input)
        await pilot.press("escape")
        assert isinstance(host.focused, DataTable)

    assert drive("layer", view(), steps).asked == []


def test_a_fact_of_the_file_cannot_be_edited() -> None:
    text = drive("layer", view(), keys("down", "down", "enter")).text
    assert "cannot be edited" in text


def test_an_edit_does_not_outlive_its_layer() -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        other = result("another")
        host.pane.show(view(layer=other.layer, result=other))
        await pilot.press("enter", *"x", "enter")

    assert all(m.layer == "another" for m in drive("layer", view(), steps).asked if isinstance(m, FactEdited))


@pytest.mark.parametrize(
    ("field", "value", "fine"),
    [
        ("activation", "relu", True),
        ("activation", "leaky_relu:0.2", True),
        ("activation", "leaky_relu:x", False),
        ("activation", "[/]", False),
        ("skip", "identity", True),
        ("skip", "sideways", False),
        ("stride", "2", True),
        ("stride", "2,1", True),
        ("stride", "2,1,1", False),
        ("stride", "0", False),
        ("stride", "-1", False),
        ("stride", "", False),
        ("stride", "²", False),
        ("stride", "9" * 5000, False),
        ("grid", "16", True),
        ("grid", "16,16", False),
        ("grid", "5000", False),
        ("grid", "nan", False),
    ],
)
def test_values_are_checked(field: str, value: str, fine: bool) -> None:
    wrong = problem(canned.conv("c").layer, field, value)  # type: ignore[arg-type]
    assert (wrong == "") is fine
    assert "\n" not in wrong


def test_facts_of_a_convolution_and_where_they_come_from() -> None:
    found = canned.conv("layer1.conv", stride_source="model")
    text = drive("layer", view(layer=found.layer, result=found), size=WIDE).text
    lines = text.splitlines()
    assert any("stride" in line and "1×1" in line and "seen in the model" in line for line in lines)
    assert any("grid" in line and "16×16" in line for line in lines)
    assert any(
        "followed by" in line and "batch norm layer1.bn" in line and "assumed" in line for line in lines
    )


def test_a_failed_layer_still_has_facts() -> None:
    text = drive("layer", view(state="failed", reason="its tensors do not fit", result=None)).text
    assert "its tensors do not fit" in text
    assert "activation" in text


def test_the_worst_layer_comes_first_and_enter_selects_it() -> None:
    report = canned.report()
    asked = drive("network", view(), keys("enter")).asked
    assert asked == [LayerChosen("encoder.layers.1.attention.self.key")]  # the one with NaN
    finite = tuple(r for r in report.layers if r.maps["weight"].condition_number_status == "resolved")
    asked = drive("network", view(results=finite), keys("enter")).asked
    worst = max(finite, key=lambda r: r.maps["weight"].condition_number or 0)
    assert asked == [LayerChosen(worst.layer.name)]


def test_findings_lead_to_their_layer() -> None:
    asked = drive("network", view(), keys("tab", "enter")).asked
    error = next(f for f in canned.report().findings if f.severity == "error")
    assert asked == [LayerChosen(error.layer)]


def test_failed_layers_are_findings_and_marks() -> None:
    name = canned.report().layers[0].layer.name
    text = drive("network", view(failed={name: "no memory"}, results=canned.report().layers[1:])).text
    assert "14 of 15 layers computed, 1 failed" in text
    assert f"{name}: no memory" in text


def test_the_other_picture_and_the_other_pair() -> None:
    assert "κ(W)" in drive("network", view()).text
    assert "σmax(W)" in drive("network", view(), keys("x")).text
    assert "κ(ρI+β·D·W)" in drive("network", view(), keys("m")).text
    both = drive("network", view(), size=WIDE).text
    assert "σmax(W)" in both
    assert "κ(W)" in both


def test_long_lists_say_what_they_leave_out() -> None:
    big = canned.tall(8)
    shown = view(results=big.layers, layers=tuple(r.layer for r in big.layers))
    assert "the first 50 of 58" in drive("network", shown, size=WIDE).text


def test_a_table_is_not_filled_again_for_the_same_view() -> None:
    async def steps(host: Host, pilot: Pilot[None]) -> None:
        table = host.query_one(DataTable)
        await pilot.press("down", "down")
        host.pane.show(replace(view(), beta=0.9))
        await pilot.pause()
        assert table.cursor_row == 2

    drive("bounds", view(), steps)


def test_panes_need_no_torch() -> None:
    modules = ", ".join(f"specinspect.tui.panes.{name}" for name in PANES)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
