"""Curves from braille dots, 2×4 in a cell: two curves that share a cell are both in it, and it is neutral."""

from __future__ import annotations

import math
from collections.abc import Sequence

from specinspect.plots.canvas import Sketch

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
ACROSS, DOWN = 2, 4
"""Dots in a cell."""
MARKS = ("*", "o", ".")
"""What curves are made of where there is no braille, in their order."""
SHARED = "%"


class Dots:
    """A raster of dots over a part of a sketch."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = max(columns, 1), max(rows, 1)
        self.width, self.height = self.columns * ACROSS, self.rows * DOWN
        self._bits = [[0] * self.columns for _ in range(self.rows)]
        self._owners: list[list[set[int]]] = [[set() for _ in range(self.columns)] for _ in range(self.rows)]

    def dot(self, x: int, y: int, owner: int) -> None:
        """Set a dot; y counts from the bottom."""
        if 0 <= x < self.width and 0 <= y < self.height:
            down = self.height - 1 - y
            self._bits[down // DOWN][x // ACROSS] |= _DOTS[x % ACROSS][down % DOWN]
            self._owners[down // DOWN][x // ACROSS].add(owner)

    def curve(self, spans: Sequence[tuple[int, int] | None], owner: int, *, dashed: bool = False) -> None:
        """Draw a curve that covers (lowest, highest) dot in each column, joined up; None is a gap."""
        before: tuple[int, int] | None = None
        for x, span in enumerate(spans):
            if span is None:
                before = None
                continue
            low, high = span
            if before is not None:
                low, high = min(low, before[1] + 1), max(high, before[0] - 1)
            if not dashed or x % 4 < ACROSS or high - low >= DOWN:
                for y in range(max(low, 0), min(high, self.height - 1) + 1):
                    self.dot(x, y, owner)
            before = span

    def onto(self, sketch: Sketch, left: int, top: int, styles: Sequence[str], *, plain: bool) -> None:
        """Put the dots into a sketch; styles by owner."""
        for row in range(self.rows):
            for column in range(self.columns):
                owners = self._owners[row][column]
                if not owners:
                    continue
                shared = len(owners) > 1
                owner = min(owners)
                if plain:
                    char = SHARED if shared else MARKS[owner % len(MARKS)]
                else:
                    char = chr(0x2800 + self._bits[row][column])
                sketch.put(left + column, top + row, char, "both" if shared else styles[owner])


def spans(values: Sequence[float | None], width: int) -> list[tuple[float, float] | None]:
    """Return the smallest and largest value in each of so many columns.

    Args:
        values: evenly spaced from the first to the last column, joined by straight lines where there are
            fewer than columns; None is a gap.
        width: number of columns.
    """
    count = len(values)
    if count <= width:
        return [_between(values, x * (count - 1) / max(width - 1, 1)) for x in range(width)]
    found: list[tuple[float, float] | None] = []
    for x in range(width):
        part = [v for v in values[x * count // width : (x + 1) * count // width] if v is not None]
        found.append((min(part), max(part)) if part else None)
    return found


def _between(values: Sequence[float | None], place: float) -> tuple[float, float] | None:
    """Return the value at a fractional index; a gap on either side of it makes one."""
    first = min(math.floor(place), len(values) - 1)
    share = place - first
    low = values[first]
    high = values[min(first + 1, len(values) - 1)] if share > 1e-9 else low
    if low is None or high is None:
        nearest = low if share < 0.5 else high
        return None if nearest is None else (nearest, nearest)
    value = low * (1 - share) + high * share
    return value, value
