"""Compare: one layer in two checkpoints, spectrum against spectrum, and how far the weight moved."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from specinspect.plots.bars import mirror_histogram
from specinspect.plots.reference import floors
from specinspect.plots.series import Series
from specinspect.report import kappas
from specinspect.report.text import ABSENT, number
from specinspect.tui.panes.pane import Pane, Picture

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
    """The spectrum of A upwards, that of B downwards, on one axis."""

    DEFAULT_CSS = """
    ComparePane #moved { height: auto; }
    ComparePane #both { height: 1fr; }
    """

    def compose_body(self) -> ComposeResult:
        """Lay out numbers and picture."""
        with Vertical(classes="body"):
            yield Static(id="moved", markup=False)
            yield Picture(id="both")

    def update_body(self) -> None:
        """Draw."""
        pair = self.view.comparison
        picture = self.query_one("#both", Picture)
        picture.display = pair is not None
        if pair is None:
            self.query_one("#moved", Static).update(
                self.text("not compared yet, or the second checkpoint has no such layer", "label")
            )
            return
        self.query_one("#moved", Static).update(self._numbers(pair))
        a, b = pair.a.maps["weight"], pair.b.maps["weight"]
        drawing = partial(
            mirror_histogram,
            Series.of("A", "chain", a),
            Series.of("B", "skip", b),
            lines=floors(a),
            plain=self.view.plain,
        )
        picture.draw(drawing, dark=self.view.dark)

    def _numbers(self, pair: LayerComparison) -> Text:
        a, b = pair.a.maps["weight"], pair.b.maps["weight"]
        lines = [
            _row("", "A", "B"),
            _row("κ(W)", kappas.shown(pair.a, "weight").text, kappas.shown(pair.b, "weight").text),
            *(_row(label, _value(a, name), _value(b, name)) for label, name in _SHOWN),
        ]
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
        return self.text("\n".join(lines))


_SHOWN = (("σmax", "sigma_max"), ("σmin", "sigma_min"), ("stable rank", "stable_rank"))


def _row(label: str, a: str, b: str) -> str:
    return f"{label:<12}{a:>10}{b:>10}"


def _value(spectrum: Spectrum, name: str) -> str:
    value = getattr(spectrum, name)
    return ABSENT if value is None else number(value)
