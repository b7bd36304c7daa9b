"""specinspect: singular spectra and condition numbers of the layers of a neural-network checkpoint.

`inspect`, `iter_layers` and `compare` are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specinspect._version import __version__
from specinspect.errors import SpecinspectError

if TYPE_CHECKING:
    from specinspect.comparison.model import Comparison
    from specinspect.comparison.run import compare
    from specinspect.engine import inspect, iter_layers
    from specinspect.gate.check import check
    from specinspect.report.model import Report

__all__ = [
    "Comparison",
    "Report",
    "SpecinspectError",
    "__version__",
    "check",
    "compare",
    "inspect",
    "iter_layers",
]

_LAZY = {
    "check": "specinspect.gate.check",
    "inspect": "specinspect.engine",
    "iter_layers": "specinspect.engine",
    "compare": "specinspect.comparison.run",
    "Comparison": "specinspect.comparison.model",
    "Report": "specinspect.report.model",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'specinspect' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
