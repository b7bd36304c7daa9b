"""Renderers: pure functions of a `Report`, one file per format, each imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specinspect.report.model import Report


def _lazy(name: str) -> Callable[[Report], str]:
    def render(report: Report) -> str:
        module = import_module(f"specinspect.report.{name}")
        text: str = getattr(module, f"to_{name}")(report)
        return text

    return render


FORMATS: Mapping[str, Callable[[Report], str]] = MappingProxyType(
    {name: _lazy(name) for name in ("json", "csv", "markdown", "html")}
)
"""Format name → the function that renders a whole report as text. The table is `specinspect.report.table`."""
