"""`specinspect schema`: what `report --json`, `compare --json` and `check --format json` look like."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer


class Document(StrEnum):
    """Commands whose JSON has a schema."""

    REPORT = "report"
    COMPARE = "compare"
    CHECK = "check"


def schema(
    of: Annotated[
        Document, typer.Argument(metavar="[report|compare|check]", help="Which command's.")
    ] = Document.REPORT,
) -> None:
    """Print the JSON Schema of `report --json`, `compare --json` or `check --format json`."""
    from specinspect.report.schema import schema_text

    rooms = {Document.COMPARE: "specinspect.comparison", Document.CHECK: "specinspect.gate"}
    sys.stdout.write(schema_text(rooms.get(of, "specinspect.report")))
