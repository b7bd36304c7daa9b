"""The JSON Schemas of what commands print."""

from __future__ import annotations

from importlib.resources import files


def schema_text(room: str = "specinspect.report") -> str:
    """Return the schema (JSON Schema 2020-12) that a room keeps, as text."""
    return files(room).joinpath("schema.json").read_text(encoding="utf-8")
