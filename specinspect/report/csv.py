"""The report as CSV: one row per layer and map, every digit."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

from specinspect.report.rows import COLUMNS, Cell, rows

if TYPE_CHECKING:
    from specinspect.report.model import Report


def to_csv(report: Report) -> str:
    """Return CSV with a header; numbers as Python's repr, so that they read back to the same bits.

    What has no value is an empty cell. Text from the file that a spreadsheet would run as a formula
    gets a leading apostrophe.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(report):
        writer.writerow([_cell(row[column]) for column in COLUMNS])
    return stream.getvalue()


def _cell(value: Cell) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.lstrip().startswith(("=", "+", "-", "@")) else value
    return repr(float(value)) if isinstance(value, float) else str(int(value))
