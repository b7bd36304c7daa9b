"""Results on random weights (MATH E)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

RESULTS: tuple[Result, ...] = ()
