"""A host for one pane: an app that shows it, and remembers what it asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from textual.app import App, ComposeResult
from textual.message import Message

from specinspect.bounds.model import Advice, BoundCheck
from specinspect.report.model import LayerResult
from specinspect.spectra.model import SkipCurve, Spectrum
from specinspect.spectra.summary import summarise
from specinspect.tui.messages import ActivationChosen, FactEdited, LayerChosen, PatternChosen, ScaleChosen
from specinspect.tui.panes.pane import Pane
from specinspect.tui.view import Guarantee, Live, PaneView
from tests.plots.samples import chain_values, skip_values
from tests.report import canned

ASKED = (FactEdited, ScaleChosen, ActivationChosen, PatternChosen, LayerChosen)


class Host(App[None]):
    """Shows one pane on the whole screen."""

    ENABLE_COMMAND_PALETTE = False

    def __init__(self, pane: Callable[[], Pane], view: PaneView) -> None:
        super().__init__()
        self.make, self.first = pane, view
        self.asked: list[Message] = []
        self.text = ""

    def compose(self) -> ComposeResult:
        self.pane = self.make()
        self.pane.show(self.first)  # before it is mounted, as an app may
        yield self.pane

    def on_mount(self) -> None:
        self.theme = "textual-dark" if self.first.dark else "textual-light"

    def _remember(self, message: Any) -> None:
        self.asked.append(message)

    on_fact_edited = on_scale_chosen = on_activation_chosen = on_pattern_chosen = on_layer_chosen = _remember


def screen(app: App[None]) -> str:
    """Return what is on the screen as text."""
    width, height = app.size
    rows = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
    assert len(rows) == height
    assert all(len(row) <= width + 1 for row in rows)
    return "\n".join(rows)


def measured(values: Any, **other: Any) -> Spectrum:
    found = summarise(
        np.sort(np.asarray(values, dtype=np.float64))[::-1],
        structural_zeros=0,
        storage_floor=1e-9,
        computation_floor=1e-15,
        method="eigvalsh of the Gram matrix, float64",
        device="cpu",
        keep_values=True,
    )
    return replace(found, **other)


def check(id_: str = "r4.best", verdict: str = "holds", **other: Any) -> BoundCheck:
    fields: dict[str, Any] = {
        "of": "skip",
        "value": 2.78,
        "bound": 4.5,
        "slack": 0.38,
        "probability": None,
        "why": "κ = 2.78 is at most 4.5",
        "assumptions": ("W is square (256×256)",),
    }
    return BoundCheck(id_, verdict=verdict, **{**fields, **other})  # type: ignore[arg-type]


CHECKS = (
    check(),
    check(
        "r1",
        value=1.5,
        bound=1.52,
        slack=0.013,
        why="every σ² lies between its bounds; the tightest is i = 3",
    ),
    check("r4.simple", "vacuous", bound=None, slack=None, why="ρ - β‖W‖ = -1.5 is not positive"),
    check(
        "r9", "not_applicable", of="chain", value=None, bound=None, slack=None, why="W is singular: σmin is 0"
    ),
    check(
        "r21.alld", of="skip_chain", bound=9.0, slack=0.7, probability=0.997, why="with probability 1 - 3δ"
    ),
    check("r2", "violated", value=5.0, bound=4.5, slack=-0.11, why="5.0 exceeds 4.5: digits were lost"),
)
ADVICE = (
    Advice("r4.best", "beta", 0.41, "at β up to 0.41 theory guarantees κ(skip) of at most 10"),
    Advice("r9", "zeroed_rows", 3.0, "replace 3 zeroed rows"),
)
BETA = tuple(i / 16 for i in range(33))


def result(name: str = "encoder.layers.0.mlp.fc1", **other: Any) -> LayerResult:
    """Return a layer whose chain is ill-conditioned and whose skip is not, with bounds and advice."""
    base = canned.linear(name)
    chain, skip = measured(chain_values()), measured(skip_values())
    maps = {
        "weight": chain,
        "chain": canned.patterned(measured([*chain_values(128), *[0.0] * 128])),
        "skip": skip,
        "skip_chain": canned.patterned(measured(skip_values() * 1.1)),
    }
    layer = replace(
        base.layer,
        shape=(256, 256),
        matrix_shape=(256, 256),
        assumptions=("relu is assumed after it: nothing says otherwise",),
    )
    fields: dict[str, Any] = {
        "layer": layer,
        "maps": maps,
        "bounds": CHECKS,
        "advice": ADVICE,
        "assumptions": layer.assumptions,
        "notes": ("4 singular values lie below 1e-2 of the largest",),
    }
    return replace(base, **{**fields, **other})


def curve() -> SkipCurve:
    kappa = tuple(None if 24 < i < 27 else 1 + 1.78 * b**1.5 for i, b in enumerate(BETA))
    return SkipCurve(BETA, tuple(1 + b for b in BETA), tuple(1.0 for _ in BETA), kappa)


def view(**other: Any) -> PaneView:
    """Return a view of a done layer of a network of fifteen."""
    found = result()
    report = canned.report()
    fields: dict[str, Any] = {
        "layer": found.layer,
        "state": "done",
        "result": found,
        "skip_curve": curve(),
        "guarantees": (
            Guarantee(BETA, tuple((1 + b) / (1 - b) if b < 1 else None for b in BETA), "r4.best"),
        ),
        "live": {"skip": Live(1.5, 0.54, 2.78, exact=True, spectrum=found.maps["skip"])},
        "activations": ("auto", "relu", "gelu"),
        "patterns": 8,
        "layers": tuple(r.layer for r in report.layers),
        "results": report.layers,
        "findings": report.findings,
    }
    return PaneView(**{**fields, **other})
