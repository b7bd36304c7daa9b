"""`specinspect schema`: what `report --json` looks like."""

from __future__ import annotations

import sys


def schema() -> None:
    """Print the JSON Schema of `report --json`."""
    from specinspect.report.schema import schema_text

    sys.stdout.write(schema_text())
