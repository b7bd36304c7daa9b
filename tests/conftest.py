"""Settings that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

# Small matrices gain nothing from threads, and on a busy machine they wait for each other many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A busy machine is no failure; in CI the same examples every time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a result cache of its own, subprocesses too; the user's is never touched."""
    directory = tmp_path_factory.mktemp("cache") / "specinspect"
    monkeypatch.setenv("SPECINSPECT_CACHE_DIR", str(directory))
    monkeypatch.delenv("SPECINSPECT_CACHE_LIMIT", raising=False)
    return directory
