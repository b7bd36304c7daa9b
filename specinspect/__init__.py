"""specinspect: singular spectra and condition numbers of the layers of a neural-network checkpoint.

`inspect` and `iter_layers` are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specinspect._version import __version__
from specinspect.errors import SpecinspectError

if TYPE_CHECKING:
    from specinspect.engine import inspect, iter_layers
    from specinspect.gate.check import check
    from specinspect.report.model import Report

__all__ = ["Report", "SpecinspectError", "__version__", "check", "inspect", "iter_layers"]

_LAZY = {
    "check": "specinspect.gate.check",
    "inspect": "specinspect.engine",
    "iter_layers": "specinspect.engine",
    "Report": "specinspect.report.model",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'specinspect' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
