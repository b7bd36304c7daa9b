"""Every tab as a picture, wide and at 80×24; UPDATE_GOLDENS=1 rewrites them. Nothing is computed in them."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from specinspect.report.model import LayerResult
from specinspect.spectra.model import Tau
from specinspect.tui.app import Inspector
from tests.comparison.canned import comparison
from tests.report.canned import conv, head, linear, patterned, unresolved
from tests.tui.drive import SMALL, USUAL, computed, drive, until
from tests.tui.stub import Stub, inspection, spectrum_of

SNAPSHOTS = Path(__file__).parent / "snapshots"
TABS = ("layers", "spectrum", "skip", "bounds", "layer", "network")


def results() -> list[LayerResult]:
    """Return a small network with a good layer, a doubtful one and a bad one."""
    ramp = np.geomspace(1e-3, 2.0, 48)
    weight, skip = spectrum_of(ramp), spectrum_of(1 + ramp / 4)
    healthy = linear("encoder.0.fc1", weight)
    maps = {
        **healthy.maps,
        "chain": patterned(spectrum_of(ramp[8:])),
        "skip": skip,
        "skip_chain": patterned(skip),
    }
    return [
        conv("stem"),
        replace(healthy, maps=maps, tau=Tau(-1.0, 1.5)),
        linear("encoder.0.fc2", unresolved()),
        replace(healthy, layer=replace(healthy.layer, name="encoder.1.fc1"), maps=maps),
        linear("encoder.1.fc2[/]"),
        head("head"),
    ]


@pytest.mark.parametrize("size", [USUAL, SMALL])
@pytest.mark.parametrize("tab", [*TABS, "compare", "help"])
def test_looks_as_before(tab: str, size: tuple[int, int]) -> None:
    if tab == "compare":
        pairs = {pair.name: pair for pair in comparison().layers}
        found = [pair.a for pair in pairs.values()]
    else:
        pairs, found = {}, results()
    work = Stub({result.layer.name: result for result in found}, seconds={"b.pt": pairs})
    inspector = Inspector(inspection(found), work=work)
    drawn: list[str] = []

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        if pairs:
            inspector._compare("b.pt")
            await until(pilot, lambda: all(row.pair is not None for row in inspector.session.rows))
        inspector._table.go_to(1)
        await pilot.pause()
        if tab == "help":
            await pilot.press("question_mark")
        else:
            inspector.action_pane(tab)
        await until(pilot, lambda: inspector.at_rest)
        await pilot.pause(0.3)  # a layer is looked at once it has been selected for a moment
        await until(pilot, lambda: inspector.at_rest)
        inspector.freeze_clock()
        await pilot.pause()
        drawn.append(inspector.export_screenshot(title=tab))

    drive(inspector, steps, size)
    picture = re.sub(r"terminal-\d+", "terminal", drawn[0])
    path = SNAPSHOTS / f"{tab}-{size[0]}x{size[1]}.svg"
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(picture, encoding="utf-8")
    assert words(picture) == words(path.read_text(encoding="utf-8"))
    assert picture == path.read_text(encoding="utf-8")


def words(picture: str) -> list[str]:
    """Return the texts of a picture: a difference in them reads better than one in the whole."""
    return [text.replace("&#160;", " ") for text in re.findall(r">([^<>]+)</text>", picture)]
