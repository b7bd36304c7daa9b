"""`specinspect schema`: what `report --json` and `compare --json` look like."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer


class Document(StrEnum):
    """Commands whose JSON has a schema."""

    REPORT = "report"
    COMPARE = "compare"


def schema(
    of: Annotated[
        Document, typer.Argument(metavar="[report|compare]", help="Which command's.")
    ] = Document.REPORT,
) -> None:
    """Print the JSON Schema of `report --json`, or of `compare --json`."""
    from specinspect.report.schema import schema_text

    sys.stdout.write(schema_text("specinspect.report" if of is Document.REPORT else "specinspect.comparison"))
