"""Condition numbers against limits, whatever became of them: resolved, infinite, unresolved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specinspect.gate.baseline import BaselineLayer
from specinspect.gate.problem import NOT_COMPUTED, Problem, Skip, exceeds, limit_text
from specinspect.report.structure import full_rank
from specinspect.report.text import at_least, kappa_bound, number
from specinspect.spectra.model import FAILED

if TYPE_CHECKING:
    from specinspect.report.model import LayerResult
    from specinspect.spectra.model import Spectrum

_SHOWN = {"weight": "κ(W)", "chain": "κ(DW)", "skip": "κ(skip)"}


def check_kappa(result: LayerResult, name: str, limit: float) -> Problem | Skip | None:
    """Hold the condition number of one map against a limit."""
    spectrum, shown = result.maps.get(name), _SHOWN[name]
    if spectrum is None:
        return Skip(f"no {name} map for this layer") if name != "weight" else NOT_COMPUTED
    if spectrum.condition_number_status == "not_computed":
        return NOT_COMPUTED
    if spectrum.condition_number_status in FAILED:
        why = "; ".join(result.notes)
        return Problem(f"{shown} is not known: {why}, {limit_text(limit)}", unknown=True)
    partial = _without_structural_zeros(result, name, spectrum)
    if partial is not None:
        rest, note = partial
        if not exceeds(rest, limit):
            return None
        return Problem(f"{shown} = {number(rest)}{note}, {limit_text(limit)}", rest)
    value, note, status = _worst(spectrum)
    if status == "resolved" and value is not None:
        if not exceeds(value, limit):
            return None
        return Problem(f"{shown} = {number(value)}{note}, {limit_text(limit)}", value)
    if status == "infinite":
        why = "; ".join(result.notes)
        return Problem(f"{shown} = ∞{f' ({why})' if why else ''}, {limit_text(limit)}")
    return Problem(f"{shown} {_unresolved_text(result, spectrum)}, {limit_text(limit)}")


def _worst(spectrum: Spectrum) -> tuple[float | None, str, str]:
    """Return κ at the worst pattern, what to say of it, and its status."""
    value, status = spectrum.condition_number, spectrum.condition_number_status
    if spectrum.patterns is None or status != "resolved":
        return value, "", status
    found = spectrum.patterns.scalars.get("condition_number")
    if found is None:
        return value, "", status
    if found.max is None:  # infinite or unresolved at some pattern
        return None, "", "below_computation_precision"
    return found.max, f" at the worst of {spectrum.patterns.n} patterns (median {number(value)})", status


def _without_structural_zeros(result: LayerResult, name: str, spectrum: Spectrum) -> tuple[float, str] | None:
    """Return κ of what is left beside structural zeros, where they are what makes a map singular.

    They are rows that D zeroes, and the rank that an adapter or a stride beyond the kernel does not have.
    """
    pseudo = spectrum.pseudo_condition_number
    if spectrum.condition_number_status != "infinite" or pseudo is None:
        return None
    if result.layer.kind == "lora":
        return pseudo, " of its rank"
    weight = result.maps.get("weight")
    skips = weight is not None and full_rank(result.layer, weight.count) < weight.count
    if skips and (name == "weight" or (name == "chain" and spectrum.patterns is None)):
        return pseudo, " of the rank that its stride leaves"
    if name != "chain" or spectrum.patterns is None or weight is None:
        return None
    if weight.condition_number_status == "infinite" and not skips:
        return None
    found = spectrum.patterns.scalars.get("pseudo_condition_number")
    if found is None or found.max is None:
        return pseudo, " beside the rows that D zeroes"
    return found.max, f" at the worst of {spectrum.patterns.n} patterns (median {number(pseudo)})"


def unresolved(result: LayerResult, spectrum: Spectrum) -> Problem | Skip | None:
    """Find a κ that is not resolved."""
    if spectrum.condition_number_status in {"not_computed", *FAILED}:
        return NOT_COMPUTED
    if not spectrum.condition_number_status.startswith("below_"):
        return None
    return Problem(f"κ(W) {_unresolved_text(result, spectrum)}")


def _unresolved_text(result: LayerResult, spectrum: Spectrum) -> str:
    bound = kappa_bound(spectrum)
    known = "> 1" if bound is None else at_least(bound)
    if spectrum.condition_number_status == "below_storage_precision":
        return f"{known}, not resolved in {result.layer.dtype}"
    return f"{known}, not resolved by the computation"


def kappa_growth(result: LayerResult, before: BaselineLayer, limit: float) -> Problem | Skip | None:
    """Hold the growth of κ(W) over a baseline against a ratio."""
    spectrum = result.maps.get("weight")
    if spectrum is None or spectrum.condition_number_status in {"not_computed", *FAILED}:
        return NOT_COMPUTED
    now, old = spectrum.condition_number, before.condition_number
    if now is not None and old is not None:
        if not exceeds(now, limit * old):
            return None
        text = f"κ(W) has grown from {number(old)} to {number(now)}, {number(now / old)} times"
        return Problem(f"{text}, {limit_text(limit)}", now / old)
    if now is not None:  # it was infinite or unresolved
        return None
    status, was = spectrum.condition_number_status, before.condition_number_status
    if status == "infinite":
        if was == "infinite":
            return None
        return Problem(f"κ(W) = ∞, in the baseline {_old(before)}, {limit_text(limit)}")
    text = f"κ(W) {_unresolved_text(result, spectrum)}, in the baseline {_old(before)}"
    if was == "infinite":
        return None
    return Problem(f"{text}, {limit_text(limit)}", doubt=was != "resolved")


def _old(before: BaselineLayer) -> str:
    if before.condition_number is not None:
        return number(before.condition_number)
    names = {"infinite": "∞", "nonfinite_weights": "not a number"}
    return names.get(before.condition_number_status, "neither")
