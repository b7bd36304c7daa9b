"""Compare: one layer in two checkpoints, spectrum against spectrum, and how far the weight moved."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from specinspect.plots.bars import mirror_histogram
from specinspect.plots.reference import floors
from specinspect.plots.series import Series
from specinspect.report import kappas
from specinspect.report.text import ABSENT, number, visible
from specinspect.settings import MAPS
from specinspect.tui.messages import MapsWanted
from specinspect.tui.panes import words
from specinspect.tui.panes.pane import Choices, Pane, Picture

if TYPE_CHECKING:
    from specinspect.comparison.model import LayerComparison
    from specinspect.spectra.model import Spectrum

WHY = {
    "identical": "the weights are the same bytes",
    "shape_changed": "the shape has changed: there is nothing to subtract",
    "kind_changed": "it is another kind of layer: there is nothing to subtract",
    "geometry_changed": "stride, dilation or padding has changed: there is nothing to subtract",
    "nonfinite_weights": "NaN or infinite entries",
    "not_computed": "beyond float64, or a solver that did not converge",
    "convolution": "not computed for convolutions",
    "no_gap": "neighbouring singular values are too close to tell subspaces apart",
    "rank_zero": "rank zero",
    "too_small": "a single singular value",
}
"""Status of a difference or an overlap → why there is no number."""


class ComparePane(Pane):
    """The spectrum of A upwards, that of B downwards, on one axis: of the weight, or of any other map."""

    DEFAULT_CSS = """
    ComparePane #moved { height: auto; }
    ComparePane #both { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "next_map", "map", id="compare.map", tooltip="Compare the next map of the layer"),
    ]

    chosen = "weight"
    """Map that is shown."""

    def compose_body(self) -> ComposeResult:
        """Lay out numbers and picture."""
        yield Choices(id="compared")
        with Vertical(classes="body"):
            yield Static(id="moved", markup=False)
            yield Picture(id="both")

    def action_next_map(self) -> None:
        """Show the next map."""
        self._choose(MAPS[(MAPS.index(self.chosen) + 1) % len(MAPS)])

    @on(Choices.Picked, "#compared")
    def pick(self, event: Choices.Picked) -> None:
        """Show the map that was clicked."""
        self._choose(MAPS[event.index])

    def _choose(self, name: str) -> None:
        self.chosen = name
        wanted = name != "weight"
        if wanted != self.view.all_maps:
            self.post_message(MapsWanted(wanted))
        self.show(replace(self.view, all_maps=wanted))

    @property
    def pair(self) -> LayerComparison | None:
        """The comparison that holds the map that is shown, None until it is there."""
        return self.view.comparison if self.chosen == "weight" else self.view.compared_maps

    def update_body(self) -> None:
        """Draw."""
        view, picture, numbers = self.view, self.query_one("#both", Picture), self.query_one("#moved", Static)
        labels = [self.text(words.MAPS[name]).plain for name in MAPS]
        self.query_one("#compared", Choices).offer("m  ", labels, MAPS.index(self.chosen))
        picture.display = False
        if view.comparison is None:
            why = (
                "nothing to show yet: c opens a second checkpoint; one that is open is still being compared, "
                "or has no such layer"
            )
            numbers.update(self.text(why, "label"))
            return
        text = self._kappas(view.comparison, view.compared_maps)
        pair = self.pair
        if pair is None:
            why = visible(view.compared_not)
            state = self.text(f"x {why}", "bad") if why else self.text("computing …", "label")
            numbers.update(text.append("\n").append_text(state))
            return
        a, b = pair.a.maps.get(self.chosen), pair.b.maps.get(self.chosen)
        if a is not None or b is not None:
            text.append("\n").append_text(self.text(_facts(words.MAPS[self.chosen], a, b)))
        text.append("\n").append_text(self._moved(pair, a, b))
        numbers.update(text)
        if a is None and b is None:
            return
        picture.display = True
        drawing = partial(
            mirror_histogram,
            _series("A", "chain", a),
            _series("B", "skip", b),
            lines=floors(a) if a is not None else (),
            plain=view.plain,
        )
        picture.draw(drawing, dark=view.dark)

    def _kappas(self, weight: LayerComparison, maps: LayerComparison | None) -> Text:
        """Return κ of every map in both, as far as they are known."""
        rows = [("κ", *(words.MAPS[name] for name in MAPS))]
        for side in ("a", "b"):
            cells = []
            for name in MAPS:
                pair = weight if name == "weight" else maps
                cells.append(kappas.shown(getattr(pair, side), name).text if pair is not None else "·")
            rows.append((side.upper(), *cells))
        text = self.text("\n".join(_row(*row) for row in rows))
        if maps is None and not self.view.all_maps:
            text.append_text(self.text("\n· not compared: m does it for this layer", "label"))
        at = self.view.compared_at
        if maps is not None and at is not None and at != (self.view.rho, self.view.beta):
            text.append_text(self.text(f"\nat ρ {at[0]:.4g}, β {at[1]:.4g}", "warning"))
        return text

    def _moved(self, pair: LayerComparison, a: Spectrum | None, b: Spectrum | None) -> Text:
        """Return how far the map that is shown has moved."""
        if self.chosen == "weight":
            return self.text("\n".join(_weight_moved(pair)))
        if a is None or b is None:
            sides = [side for side, spectrum in (("A", a), ("B", b)) if spectrum is None]
            return self.text(f"no such map of {' and '.join(sides)}", "label")
        apart = pair.spectral_distance.get(self.chosen)
        if a.patterns is not None or b.patterns is not None:
            count = max(s.patterns.n for s in (a, b) if s.patterns is not None)
            return self.text(f"medians over {count} patterns, at the same inputs on both sides", "label")
        return self.text("" if apart is None else f"‖σ(A) - σ(B)‖ / ‖σ(A)‖ {number(apart)}")


def _weight_moved(pair: LayerComparison) -> list[str]:
    """Return how far the weight has moved, in lines."""
    lines = []
    difference, overlap = pair.difference, pair.overlap
    if difference.status == "computed":
        lines.append(
            f"‖A - B‖ / ‖A‖ {number(difference.relative_spectral_norm)}"
            f"   Frobenius {number(difference.relative_frobenius_norm)}"
            f"   in about {number(difference.stable_rank)} directions"
        )
    else:
        lines.append(f"A - B: {WHY.get(difference.status, difference.status)}")
    if overlap.status == "computed":
        lines.append(
            f"leading {overlap.k} singular directions shared: "
            f"left {number(overlap.left)}, right {number(overlap.right)} (1 the same, 0 unrelated)"
        )
    elif overlap.status != difference.status:
        lines.append(f"shared directions: {WHY.get(overlap.status, overlap.status)}")
    if pair.dtype_changed:
        lines.append(f"stored as {pair.a.layer.dtype} in A, {pair.b.layer.dtype} in B")
    return lines


_SHOWN = (("σmax", "sigma_max"), ("σmin", "sigma_min"), ("stable rank", "stable_rank"))


def _facts(name: str, a: Spectrum | None, b: Spectrum | None) -> str:
    rows = [(name, *(label for label, _ in _SHOWN))]
    for side, spectrum in (("A", a), ("B", b)):
        rows.append((side, *(_value(spectrum, field) for _, field in _SHOWN)))
    return "\n".join(_row(*row) for row in rows)


def _row(label: str, *cells: str) -> str:
    return f"{label:<9}{''.join(f'{cell:>12}' for cell in cells)}"


def _value(spectrum: Spectrum | None, name: str) -> str:
    value = None if spectrum is None else getattr(spectrum, name)
    return ABSENT if value is None else number(value)


def _series(name: str, style: str, spectrum: Spectrum | None) -> Series:
    return Series(name, style, legend="not there") if spectrum is None else Series.of(name, style, spectrum)
