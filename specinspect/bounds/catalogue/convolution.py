"""Results on convolutions (MATH I)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

RESULTS: tuple[Result, ...] = ()
