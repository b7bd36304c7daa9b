"""Results on bounded entries (MATH C)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

RESULTS: tuple[Result, ...] = ()
