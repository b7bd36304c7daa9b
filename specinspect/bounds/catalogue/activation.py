"""Results on an activation pattern (MATH B)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

RESULTS: tuple[Result, ...] = ()
