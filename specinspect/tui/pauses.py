"""Short garbage collections: a full one over torch and thousands of results would hold up a key."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 0.015
"""Seconds that a full collection may take."""


@contextmanager
def short_collections() -> Iterator[None]:
    """Leave out of every further collection what survived one that took too long.

    Results and modules stay to the end of the app anyway.
    """
    started = 0.0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal started
        if phase == "start":
            started = time.perf_counter()
        elif info["generation"] == 2 and time.perf_counter() - started > LONGEST:
            gc.freeze()

    gc.freeze()
    gc.callbacks.append(watch)
    try:
        yield
    finally:
        gc.callbacks.remove(watch)
        gc.unfreeze()
