"""The report as a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specinspect.errors import SpecinspectError
from specinspect.report.rows import COLUMNS, rows

if TYPE_CHECKING:
    import pandas as pd

    from specinspect.report.model import Report


def to_frame(report: Report) -> pd.DataFrame:
    """Return one row per layer and map, with the columns of the CSV.

    Raises:
        SpecinspectError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise SpecinspectError(
            "a data frame needs pandas, which is not installed", "pip install 'specinspect[frame]'"
        ) from error
    return pd.DataFrame(list(rows(report)), columns=list(COLUMNS))
