"""κ of each map of a layer as people read it: how bad it is, and the text that says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from specinspect.report.structure import singular_by_construction
from specinspect.report.text import ABSENT, at_least, kappa, kappa_bound, number

if TYPE_CHECKING:
    from specinspect.report.model import LayerResult, Report
    from specinspect.spectra.model import Spectrum

HEADERS: Mapping[str, str] = MappingProxyType({"chain": "κ(DW)", "skip": "κ(skip)"})
"""Map beside the weight → header of its column."""
SAME = "="
PARTIAL = "*"
"""Follows a κ that leaves out the rows that D zeroes."""


class Shown(NamedTuple):
    """κ of one map as shown, and how bad it is."""

    text: str
    level: int
    """-1 nothing to say, 0 a number, 1 unresolved, 2 infinite, 3 not finite, or not computed."""
    value: float = 0.0
    """Orders within a level."""


def severity(spectrum: Spectrum) -> tuple[int, float]:
    """Return (level, value) of `Shown` for a spectrum."""
    match spectrum.condition_number_status:
        case "nonfinite_weights" | "beyond_float64" | "not_converged":
            return 3, 0.0
        case "infinite":
            return 2, 0.0
        case "resolved":
            return 0, spectrum.condition_number or 0.0
    return 1, kappa_bound(spectrum) or 0.0


def shown(result: LayerResult, name: str) -> Shown:
    """Return κ of one map of a layer.

    Args:
        result: its maps; 'weight' among them.
        name: key of maps.

    Where only the rows that D zeroes make D·W singular, κ is that of the rest and PARTIAL follows. Where the
    layer's construction makes W singular, that is no worse than κ of the rest.
    """
    spectrum, weight = result.maps.get(name), result.maps["weight"]
    if spectrum is None:
        return Shown(ABSENT, -1)
    level, value = severity(spectrum)
    if name == "chain" and spectrum.patterns is None and level < 3:
        return Shown(SAME, -1, value)
    rest = spectrum.pseudo_condition_number
    if level == 2 and name in {"weight", "chain"} and singular_by_construction(result):
        return Shown(kappa(spectrum), 0, rest or 0.0)
    if name != "chain" or level != 2 or weight.condition_number_status == "infinite" or rest is None:
        return Shown(kappa(spectrum), level, value)
    if _below_floor(spectrum):
        return Shown(f"{at_least(rest)}{PARTIAL}", 1, rest)
    return Shown(f"{number(rest)}{PARTIAL}", 0, rest)


def _below_floor(spectrum: Spectrum) -> bool:
    """Say whether singular values other than the structural zeros are lost in rounding too."""
    edges = spectrum.histogram.edges if spectrum.histogram is not None else ()
    floor = max(spectrum.storage_floor or 0.0, spectrum.computation_floor or 0.0)
    return bool(edges) and edges[0] <= floor


def worst(results: Iterable[LayerResult], name: str) -> Shown:
    """Return the worst κ of one map over some layers; SAME only where it is so for all that have the map."""
    found = [(result, shown(result, name)) for result in results]
    texts = {cell.text for _, cell in found} - {ABSENT}
    if SAME in texts and len(texts) > 1:
        found = [
            (result, shown(result, "weight")) if cell.text == SAME else (result, cell)
            for result, cell in found
        ]
    return max((cell for _, cell in found), key=lambda cell: (cell.level, cell.text == SAME, cell.value))


def present(report: Report) -> list[str]:
    """Return the maps of HEADERS that some layer of the report has."""
    return [name for name in HEADERS if any({name, "weight"} <= set(result.maps) for result in report.layers)]
