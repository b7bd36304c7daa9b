"""The text of every bound, by id: `explain`, the report and the app all read it here."""

from __future__ import annotations

from collections.abc import Mapping

from specinspect.bounds.catalogue import activation, convolution, data, entries, gaussian, skip
from specinspect.bounds.catalogue.model import Result, Strength

CATALOGUE: Mapping[str, Result] = {
    result.id: result
    for part in (skip, activation, entries, data, gaussian, convolution)
    for result in part.RESULTS
}
"""Id → text, in the order of MATH.md."""

__all__ = ["CATALOGUE", "Result", "Strength"]
