"""What became of κ, and which layer moved most."""

from __future__ import annotations

from math import inf
from typing import Literal, NamedTuple

from specinspect.comparison.model import LayerComparison
from specinspect.spectra.model import Spectrum

Kind = Literal["resolved", "unresolved", "infinite", "nonfinite"]
KINDS: dict[str, Kind] = {
    "resolved": "resolved",
    "below_storage_precision": "unresolved",
    "below_computation_precision": "unresolved",
    "infinite": "infinite",
    "nonfinite_weights": "nonfinite",
    "beyond_float64": "unresolved",
    "not_converged": "unresolved",
}
"""Status of a condition number → what it means for a comparison."""


class KappaChange(NamedTuple):
    """How κ differs between A and B."""

    status: str
    """'resolved' (on both sides), 'became_…' or 'still_…' with 'unresolved', 'infinite' or 'nonfinite';
    'became_resolved'."""
    delta: float | None
    """κ_B - κ_A; None unless the status is 'resolved'."""
    ratio: float | None
    """κ_B/κ_A; likewise."""


def kappa_change(a: Spectrum, b: Spectrum) -> KappaChange:
    """Return what became of κ."""
    before, after = KINDS[a.condition_number_status], KINDS[b.condition_number_status]
    if before != after:
        return KappaChange(f"became_{after}", None, None)
    if a.condition_number is None or b.condition_number is None:
        return KappaChange(f"still_{after}", None, None)
    return KappaChange(
        "resolved", b.condition_number - a.condition_number, b.condition_number / a.condition_number
    )


class Movement(NamedTuple):
    """How much a layer moved; larger is more."""

    level: int
    """4 NaN or infinite entries on one side; 3 another shape, kind or geometry: nothing to subtract;
    2 κ(W) became infinite, unresolved or resolved; 1 anything else; 0 identical."""
    value: float
    """Orders within a level: ‖W_A - W_B‖₂/‖W_A‖₂, else the relative spectral distance, else infinity."""


def movement(layer: LayerComparison) -> Movement:
    """Return how much a layer moved: what comparisons are sorted by, largest first, then as in A."""
    if layer.identical:
        return Movement(0, 0.0)
    value = layer.difference.relative_spectral_norm
    if value is None:
        value = layer.spectral_distance.get("weight")
    value = inf if value is None else value
    status = layer.difference.status
    if status == "nonfinite_weights":
        return Movement(4, value)
    if layer.shape_changed or status != "computed":
        return Movement(3, value)
    change = kappa_change(layer.a.maps["weight"], layer.b.maps["weight"])
    return Movement(2 if change.status.startswith("became") else 1, value)
