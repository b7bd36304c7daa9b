"""The spectrum of one map: histogram, sorted curve, the numbers beside them, and what was assumed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from specinspect.plots.bars import log_histogram
from specinspect.plots.reference import bulk, floors
from specinspect.plots.series import Line, Series
from specinspect.plots.spectrum import sorted_spectrum
from specinspect.report.text import visible
from specinspect.settings import MAPS
from specinspect.spectra.model import Spectrum
from specinspect.tui.panes import words
from specinspect.tui.panes.pane import Choices, Pane, Picture
from specinspect.tui.view import Live


class SpectrumPane(Pane, can_focus=True):
    """Histogram and sorted spectrum of W, D·W, ρI+βW or ρI+β·D·W."""

    DEFAULT_CSS = """
    SpectrumPane .pictures { width: 1fr; }
    SpectrumPane .numbers { width: 44; padding: 0 0 0 2; }
    SpectrumPane.-narrow .numbers { width: 30; padding: 0 0 0 1; }
    SpectrumPane #histogram { height: 3fr; }
    SpectrumPane #sorted { height: 2fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "next_map", "map", id="spectrum.map", tooltip="Show the next map of the layer"),
        Binding("down", "scroll(1)", "scroll the numbers", show=False, id="spectrum.down"),
        Binding("up", "scroll(-1)", "scroll the numbers back", show=False, id="spectrum.up"),
    ]

    chosen: str = "weight"
    """Map that is shown, where the layer has it."""

    def compose_body(self) -> ComposeResult:
        """Lay out pictures beside numbers."""
        yield Choices(id="maps")
        with Horizontal(classes="body"):
            with Vertical(classes="pictures"):
                yield Picture(id="histogram")
                yield Picture(id="sorted")
            with VerticalScroll(classes="numbers", can_focus=False):
                yield Static(id="numbers", markup=False)

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps that the selected layer has."""
        if self.view.result is None:
            return ()
        return tuple(name for name in MAPS if words.spectrum_of(self.view, name)[0] is not None)

    def action_next_map(self) -> None:
        """Show the next map."""
        if self.maps:
            place = self.maps.index(self.chosen) if self.chosen in self.maps else 0
            self.chosen = self.maps[(place + 1) % len(self.maps)]
            self.show(self.view)

    def action_scroll(self, rows: int) -> None:
        """Move the numbers beside the picture."""
        self.query_one(".numbers", VerticalScroll).scroll_relative(y=rows, animate=False)

    @on(Choices.Picked, "#maps")
    def pick(self, event: Choices.Picked) -> None:
        """Show the map that was clicked."""
        self.chosen = self.maps[event.index]
        self.show(self.view)

    def update_body(self) -> None:
        """Draw."""
        view = self.view
        name = self.chosen if self.chosen in self.maps else "weight"
        labels = [self.text(words.MAPS[key]).plain for key in self.maps]
        chosen = self.maps.index(name) if name in self.maps else 0
        self.query_one(Choices).offer("m  ", labels, chosen)
        spectrum, live = words.spectrum_of(view, name)
        if spectrum is None or view.layer is None or view.result is None:
            return
        series = replace(Series.of(words.MAPS[name], name, spectrum), legend="")
        lines = [*floors(spectrum), *self._references(name), *_extremes(live)]
        histogram = partial(log_histogram, series, lines=lines, plain=view.plain)
        ordered = partial(sorted_spectrum, (series,), lines=floors(spectrum), plain=view.plain)
        self.query_one("#histogram", Picture).draw(histogram, dark=view.dark)
        self.query_one("#sorted", Picture).draw(ordered, dark=view.dark)
        self.query_one("#numbers", Static).update(self._numbers(name, spectrum, live))

    def _references(self, name: str) -> tuple[Line, ...]:
        """Return what W is compared with: the bulk of a fresh random layer, and bounds on its extremes."""
        result = self.view.result
        if result is None:
            return ()
        checks = [c for c in result.bounds if c.of == name and c.verdict in {"holds", "violated"}]
        bounds = tuple(
            Line(check.bound, check.id, "bound")
            for check in checks
            if check.bound is not None and check.bound > 0 and _about_sigma(check.id)
        )
        return (*(bulk(result.layer, result.maps["weight"]) if name == "weight" else ()), *bounds)

    def _numbers(self, name: str, spectrum: Spectrum, live: Live | None) -> Text:
        result = self.view.result
        text = Text()
        wide = 15
        if live is not None and not live.exact:
            text.append_text(self.text("≈ interpolated between exact values\n", "warning"))
        elif words.mark(self.view, name) != "exact":
            text.append_text(self.text(f"{words.mark(self.view, name)}\n", "warning"))
        for label, value in words.facts_of(spectrum):
            if label:
                text.append_text(self.text(f"{label:<{wide}}", "label"))
            text.append_text(self.text(f"{value}\n", "bold" if label == "κ" else ""))
        for title, sentences in (
            ("seen", result.notes if result else ()),
            ("assumed", result.assumptions or result.layer.assumptions if result else ()),
        ):
            if sentences:
                text.append_text(self.text(f"\n{title}\n", "title"))
                for sentence in sentences:
                    text.append_text(self.text(f"- {visible(sentence)}\n"))
        if name == "weight" and spectrum.frobenius_norm:
            text.append_text(self.text(f"\n{RANDOM_BULK}\n", "label"))
        return text


RANDOM_BULK = (
    "random bulk: where σ of a fresh random layer of this shape and Frobenius norm lie (Marchenko-Pastur)"
)


def _about_sigma(bound: str) -> bool:
    """Say whether a bound speaks of single singular values rather than of κ or τ."""
    return bound.partition(".")[0] in {"r3", "r10", "r11", "r19"}


def _extremes(live: Live | None) -> tuple[Line, ...]:
    """Return today's extremes, where the picture is still that of another ρ and β."""
    if live is None or live.spectrum is not None:
        return ()
    found = (("σmax now", live.sigma_max), ("σmin now", live.sigma_min))
    return tuple(Line(value, label, "cursor") for label, value in found if value is not None and value > 0)
