"""Where the cache is, and how large it may grow."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from specinspect.errors import SettingsError

DIRECTORY = "SPECINSPECT_CACHE_DIR"
LIMIT = "SPECINSPECT_CACHE_LIMIT"
DEFAULT_LIMIT = 1 << 30
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def directory() -> Path | None:
    """Return the cache's directory, whether it exists or not; None where the system has no place for one.

    SPECINSPECT_CACHE_DIR, or else the platform's: %LOCALAPPDATA% on Windows, ~/Library/Caches on macOS,
    $XDG_CACHE_HOME or ~/.cache elsewhere.
    """
    chosen = os.environ.get(DIRECTORY)
    if chosen:
        return Path(os.path.abspath(chosen))  # noqa: PTH100 - resolve() would follow a link put there on purpose
    try:
        return _platform() / "specinspect"
    except RuntimeError:  # no home directory
        return None


def _platform() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The specification asks to ignore relative paths.
    return Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".cache"


def limit() -> int:
    """Return how many bytes the cache may hold: SPECINSPECT_CACHE_LIMIT such as 500M or 2G, or 1 GiB.

    Raises:
        SettingsError: not a size.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return DEFAULT_LIMIT
    found = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise SettingsError(f"{LIMIT}: expected a size such as 500M or 2G, got {text!r}")
    return int(found[1]) * _UNITS[found[2].upper()]
