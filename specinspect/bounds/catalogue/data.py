"""Results on the data factor (MATH D)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

RESULTS: tuple[Result, ...] = ()
