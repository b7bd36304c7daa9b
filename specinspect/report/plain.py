"""Spectra and values as plain data, as JSON has them: no NaN, no infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specinspect.bounds.catalogue import CATALOGUE

if TYPE_CHECKING:
    from specinspect.bounds.model import BoundCheck
    from specinspect.spectra.model import Histogram, PatternStatistics, Spectrum

SCALARS = (
    "sigma_max",
    "sigma_min",
    "condition_number",
    "condition_number_status",
    "pseudo_condition_number",
    "numerical_rank",
    "stable_rank",
    "effective_rank",
    "frobenius_norm",
    "storage_floor",
    "computation_floor",
    "method",
    "device",
    "count",
    "nonfinite",
)
"""Fields of a Spectrum that are one value each, in the order in which every format lists them."""


def plain(value: Any) -> Any:
    """Return plain data: non-finite floats as None, numpy scalars as Python's, what JSON lacks as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return plain(value.item())
    return str(value)


def spectrum_to_dict(spectrum: Spectrum) -> dict[str, Any]:
    """Return a spectrum under the names of the contract."""
    data = {name: plain(getattr(spectrum, name)) for name in SCALARS}
    data["histogram"] = None if spectrum.histogram is None else _histogram(spectrum.histogram)
    if spectrum.patterns is not None:
        data["patterns"] = _patterns(spectrum.patterns)
    if spectrum.singular_values is not None:
        import numpy as np

        values = spectrum.singular_values.tolist()
        data["singular_values"] = values if np.isfinite(spectrum.singular_values).all() else plain(values)
    return data


def bound_to_dict(check: BoundCheck) -> dict[str, Any]:
    """Return a verdict under the names of the contract."""
    return {
        "id": check.id,
        "of": check.of,
        "verdict": check.verdict,
        "value": plain(check.value),
        "bound": plain(check.bound),
        "slack": plain(check.slack),
        "probability": plain(check.probability),
        "source": CATALOGUE[check.id].source,
        "assumptions": list(check.assumptions),
        "why": check.why,
    }


def _patterns(patterns: PatternStatistics) -> dict[str, Any]:
    data: dict[str, Any] = {
        "n": patterns.n,
        "active_fraction": plain(patterns.active_fraction.median),
        "active_fraction_min": plain(patterns.active_fraction.min),
        "active_fraction_max": plain(patterns.active_fraction.max),
    }
    for end in ("min", "median", "max"):
        data[end] = {name: plain(getattr(found, end)) for name, found in patterns.scalars.items()}
    return data


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {
        "edges": plain(histogram.edges),
        "counts": plain(histogram.counts),
        "zeros": plain(histogram.zeros),
    }
