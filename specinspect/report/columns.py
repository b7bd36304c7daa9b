"""Columns of a table in the terminal: how wide they are, and which go first where there is no room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
"""Blanks between columns."""


class Column(NamedTuple):
    """One column: its header (of one line or two) and one cell per row."""

    header: str
    cells: list[str]
    right: bool = True
    style: str = ""


def wrapped(console: Console, width: int, label: Text, text: Text) -> Iterator[Text]:
    """Yield the text in lines that hang behind the label and end without blanks."""
    indent = cell_len(label.plain)
    for index, line in enumerate(text.wrap(console, max(width - indent, 8))):
        line.rstrip()
        yield Text.assemble(label if index == 0 else " " * indent, line)


def width_of(column: Column) -> int:
    """Return the terminal cells that a column needs."""
    return max(cell_len(text) for text in (*column.header.split("\n"), *column.cells))


def fit(columns: dict[str, Column], width: int, name: int, first_to_go: Sequence[str]) -> dict[str, str]:
    """Give up what matters least until the rest fits: shorter marks first, then whole columns.

    Args:
        columns: changed in place.
        width: of the whole table, in terminal cells.
        name: what the name column needs.
        first_to_go: keys in the order in which they are given up.

    Returns:
        Key and header of the columns that were given up.
    """

    def fits() -> bool:
        return name + sum(map(width_of, columns.values())) + GAP * len(columns) <= width

    if not fits():
        flag = columns["flag"]
        columns["flag"] = flag._replace(cells=[cell[:1] for cell in flag.cells])
    given_up: dict[str, Column] = {}
    order = list(columns)
    for key in first_to_go:
        if fits():
            break
        if key in columns:
            given_up[key] = columns.pop(key)
    for key, column in reversed(given_up.items()):  # a narrow one may still fit where a wide one did not
        kept = dict(columns)
        columns.clear()
        columns.update({k: column if k == key else kept[k] for k in order if k == key or k in kept})
        if not fits():
            del columns[key]
    return {key: column.header.replace("\n", " ") for key, column in given_up.items() if key not in columns}
