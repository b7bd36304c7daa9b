"""Where the cache is on each platform, and how large it may be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from specinspect.cache import place
from specinspect.errors import SettingsError


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECINSPECT_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "/home/ann/.cache/specinspect"),
        ("linux", {"XDG_CACHE_HOME": "/big/cache"}, "/big/cache/specinspect"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/ann/.cache/specinspect"),
        ("darwin", {"XDG_CACHE_HOME": "/big/cache"}, "/home/ann/Library/Caches/specinspect"),
        ("win32", {"LOCALAPPDATA": "/users/ann/local"}, "/users/ann/local/specinspect"),
        ("linux", {"SPECINSPECT_CACHE_DIR": "/mine"}, "/mine"),
        ("linux", {"SPECINSPECT_CACHE_DIR": ""}, "/home/ann/.cache/specinspect"),
    ],
)
def test_the_platforms_directory(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert place.directory() == Path(expected)


def test_no_home_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert place.directory() is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 1 << 30), ("500M", 500 << 20), ("2 GiB", 2 << 30), ("10kb", 10 << 10), ("0", 0), ("123", 123)],
)
def test_the_limit(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECINSPECT_CACHE_LIMIT", text)
    assert place.limit() == expected


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "1P", "9" * 20, "٣"])
def test_a_limit_that_is_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECINSPECT_CACHE_LIMIT", text)
    with pytest.raises(SettingsError, match="SPECINSPECT_CACHE_LIMIT: expected a size"):
        place.limit()
