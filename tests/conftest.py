"""Settings that all tests share."""

from __future__ import annotations

import os

# Small matrices gain nothing from threads, and on a busy machine they wait for each other many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# A busy machine is no failure; in CI the same examples every time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
