"""The JSON Schema of `report --json`."""

from __future__ import annotations

from importlib.resources import files


def schema_text() -> str:
    """Return the schema (JSON Schema 2020-12) as text."""
    return files("specinspect.report").joinpath("schema.json").read_text(encoding="utf-8")
