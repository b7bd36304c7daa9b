"""What the names of styles look like; the only place in this room that knows colours."""

from __future__ import annotations

from collections.abc import Mapping

_DARK: Mapping[str, str] = {
    "weight": "#73daca",
    "chain": "#ff9e64",
    "skip": "#7aa2f7",
    "skip_chain": "#bb9af7",
    "both": "#c0caf5",
    "axis": "#7a7f99",
    "label": "#9aa0bd",
    "floor": "#f7768e",
    "bulk": "#9ece6a",
    "bound": "#e0af68",
    "cursor": "bold #ffffff",
    "title": "bold",
    "good": "#9ece6a",
    "warning": "#e0af68",
    "bad": "bold #f7768e",
}
_LIGHT: Mapping[str, str] = {
    "weight": "#0f766e",
    "chain": "#b45309",
    "skip": "#1d4ed8",
    "skip_chain": "#7e22ce",
    "both": "#374151",
    "axis": "#6b7280",
    "label": "#4b5563",
    "floor": "#be123c",
    "bulk": "#3f7d0a",
    "bound": "#92600a",
    "cursor": "bold #000000",
    "title": "bold",
    "good": "#3f7d0a",
    "warning": "#92600a",
    "bad": "bold #be123c",
}


def styles(*, dark: bool = True) -> Mapping[str, str]:
    """Return style name → rich style, for a dark or a light background."""
    return _DARK if dark else _LIGHT
