"""One flat row per layer and map: what CSV and the data frame are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from specinspect.report.json import assumptions
from specinspect.report.plain import SCALARS
from specinspect.report.text import visible

if TYPE_CHECKING:
    from specinspect.layers.model import Activation
    from specinspect.report.model import Report

Cell = str | int | float | None

FACTS = (
    "name",
    "map",
    "kind",
    "dtype",
    "shape",
    "matrix_out",
    "matrix_in",
    "grid",
    "activation",
    "skip",
)
PATTERNS = ("patterns", "active_fraction")
COLUMNS = (*FACTS, *SCALARS, *PATTERNS, "seconds", "notes", "assumptions")
"""Names as in the JSON; lists are joined by '; ', sizes by 'x'.

patterns is how many were sampled, active_fraction the median share of outputs let through; both are empty
where nothing was sampled.
"""


def rows(report: Report) -> Iterator[dict[str, Cell]]:
    """Yield one dict with the keys of COLUMNS for every map of every layer, in checkpoint order.

    Text comes out on one line with control characters made visible; what has no value is None.
    """
    for result in report.layers:
        layer = result.layer
        for name, spectrum in result.maps.items():
            row: dict[str, Cell] = {
                "name": visible(layer.name),
                "map": name,
                "kind": layer.kind,
                "dtype": layer.dtype,
                "shape": "x".join(map(str, layer.shape)),
                "matrix_out": layer.matrix_shape[0],
                "matrix_in": layer.matrix_shape[1],
                "grid": None if result.grid is None else "x".join(map(str, result.grid)),
                "activation": _activation(layer.activation),
                "skip": layer.skip.kind,
            }
            row.update((field, getattr(spectrum, field)) for field in SCALARS)
            sampled = spectrum.patterns
            row["patterns"] = None if sampled is None else sampled.n
            row["active_fraction"] = None if sampled is None else sampled.active_fraction.median
            row["seconds"] = result.seconds
            row["notes"] = "; ".join(visible(note) for note in result.notes)
            row["assumptions"] = "; ".join(visible(sentence) for sentence in assumptions(result))
            yield row


def _activation(activation: Activation) -> str:
    """Return it as --activation takes it: relu, leaky_relu:0.2."""
    return activation.name if activation.slope is None else f"{activation.name}:{activation.slope:g}"
