"""One row per layer: how far it is, what it shows in each column, and what it sorts by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from specinspect.report import kappas
from specinspect.report.assemble import layer_findings
from specinspect.report.text import ABSENT, layer_name, number, shape, spectrum_bars

if TYPE_CHECKING:
    from specinspect.comparison.model import LayerComparison
    from specinspect.layers.model import Layer
    from specinspect.report.model import Finding, LayerResult
    from specinspect.tui.view import State

BARS = 8
"""Cells of a row's picture."""


@dataclass(frozen=True, slots=True)
class Row:
    """A layer as the table shows it."""

    index: int
    """Place in the checkpoint's order."""
    layer: Layer
    state: State = "pending"
    result: LayerResult | None = None
    """An old one may stay while the layer is computed again."""
    partial: bool = False
    """Whether `result` has the weight alone so far."""
    reason: str = ""
    """Why it failed."""
    findings: tuple[Finding, ...] = ()
    pair: LayerComparison | None = None
    """The same layer beside that of a second checkpoint."""

    @property
    def violated(self) -> int:
        """Number of bounds that do not hold although they should."""
        checks = self.result.bounds if self.result is not None else ()
        return sum(check.verdict == "violated" for check in checks)


def findings_of(result: LayerResult) -> tuple[Finding, ...]:
    """Return what is wrong with a layer whatever its use."""
    return tuple(layer_findings(result))


class Key(NamedTuple):
    """What rows are sorted by: rows that have nothing to sort by come last, whatever the direction."""

    level: int
    value: float


Order = Callable[[Row], Key | None]


def kappa_key(row: Row, name: str) -> Key | None:
    """Return how bad κ of a map is, None while it is not known."""
    if row.result is None or "weight" not in row.result.maps:
        return None
    found = kappas.shown(row.result, name)
    if found.text == kappas.SAME:
        found = kappas.shown(row.result, "weight")
    return None if found.level < 0 else Key(found.level, found.value)


def _sigma(row: Row) -> Key | None:
    found = row.result.maps["weight"].sigma_max if row.result is not None else None
    return None if found is None else Key(0, found)


def mark(row: Row) -> str:
    """Return what a reader should notice, in up to three letters: V violated bound, !! error, ! warning."""
    if row.state == "failed":
        return "✗"
    if row.violated:
        return "V"
    if any(finding.severity == "error" for finding in row.findings):
        return "!!"
    return "!" if row.findings else ""


def _marks(row: Row) -> Key | None:
    text = mark(row)
    return Key(("", "!", "!!", "V", "✗").index(text), 0.0) if text else None


def kappa_cell(row: Row, name: str) -> str:
    """Return κ of a map as the table shows it, or how far its computation is."""
    if row.state == "failed":
        return "failed" if name == "weight" else ""
    if row.result is None:
        return "…" if row.state == "running" and name == "weight" else ""
    if row.partial and name != "weight":
        return "…"
    return kappas.shown(row.result, name).text


def _sigma_cell(row: Row) -> str:
    return "" if row.result is None else number(row.result.maps["weight"].sigma_max)


def _bars(row: Row) -> str:
    if row.result is None:
        return ""
    return spectrum_bars(row.result.maps["weight"], BARS)


def moved_key(row: Row) -> Key | None:
    """Return how much a layer moved, None while it is not known or where B has no such layer."""
    if row.pair is None:
        return None
    from specinspect.comparison.order import movement

    return Key(*movement(row.pair))


def moved_cell(row: Row) -> str:
    """Return how far the weight moved beside ‖W‖, or what stands in the way of a number."""
    key = moved_key(row)
    if key is None or row.pair is None:
        return ""
    if key.level == 0:
        return kappas.SAME
    value = row.pair.difference.relative_spectral_norm
    if value is not None:
        return number(value)
    return {4: "NaN", 3: "shape"}.get(key.level, ABSENT)


def _other_cell(row: Row) -> str:
    return "" if row.pair is None else kappas.shown(row.pair.b, "weight").text


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table."""

    key: str
    header: str
    width: int
    cell: Callable[[Row], str]
    order: Order | None
    """None: there is nothing to sort by."""
    left: bool = False
    """Text rather than a number."""


COLUMNS: Mapping[str, Column] = {
    column.key: column
    for column in (
        Column("mark", "", 2, mark, _marks, left=True),
        Column(
            "shape",
            "shape",
            13,
            lambda row: shape(row.layer.shape),
            lambda row: Key(0, prod(row.layer.shape)),
        ),
        Column("sigma", "σmax", 7, _sigma_cell, _sigma),
        Column(
            "kappa", "κ(W)", 8, lambda row: kappa_cell(row, "weight"), lambda row: kappa_key(row, "weight")
        ),
        Column(
            "chain", "κ(DW)", 8, lambda row: kappa_cell(row, "chain"), lambda row: kappa_key(row, "chain")
        ),
        Column("skip", "κ(skip)", 8, lambda row: kappa_cell(row, "skip"), lambda row: kappa_key(row, "skip")),
        Column("other", "κ(W) of B", 9, _other_cell, None),
        Column("moved", "moved", 8, moved_cell, moved_key),
        Column("bars", "spectrum", BARS, _bars, None, left=True),
    )
}
"""Every column beside the name, in the order of the table."""

GIVEN_UP = ("bars", "sigma", "shape", "chain", "skip")
GIVEN_UP_COMPARED = ("bars", "chain", "skip", "sigma", "shape", "other")
"""Columns that go first where the table is narrow, without and with a second checkpoint."""


def shown_columns(width: int, names: int, shapes: int, *, compared: bool) -> tuple[tuple[Column, ...], int]:
    """Return the columns that fit, and the width that is left for names.

    Args:
        width: cells in all.
        names: cells that names would like to have.
        shapes: cells of the widest shape.
        compared: whether there is a second checkpoint.
    """
    columns = {**COLUMNS, "shape": replace(COLUMNS["shape"], width=min(max(shapes, 5), 20))}
    wanted = [key for key in columns if compared or key not in {"other", "moved"}]
    least = min(names, max(16, round(0.34 * width)))
    for gone in (None, *(GIVEN_UP_COMPARED if compared else GIVEN_UP)):
        wanted = [key for key in wanted if key != gone]
        left = width - sum(columns[key].width + 1 for key in wanted)
        if left >= least:
            break
    return tuple(columns[key] for key in wanted), max(1, min(left, max(names, 12)))


def sorted_rows(rows: list[Row], key: str, *, reverse: bool) -> list[Row]:
    """Return rows in the order of a column: the worst first, unless reversed; by name from a to z.

    Rows without a value come last either way, in checkpoint order.
    """
    if key == "name":
        return sorted(rows, key=lambda row: layer_name(row.layer.name), reverse=reverse)
    order = COLUMNS[key].order
    if order is None:
        return rows
    keyed = [(order(row), row) for row in rows]
    known = [(found, row) for found, row in keyed if found is not None]
    known.sort(key=lambda pair: pair[0], reverse=not reverse)
    return [row for _, row in known] + [row for found, row in keyed if found is None]
