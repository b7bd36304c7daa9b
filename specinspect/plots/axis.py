"""Axes: from a value to a cell, and which ticks to write. Bars, lines and labels all ask the same axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.02
"""Share of the axis left free on both sides, so that extremes do not sit on the frame."""
NARROWEST = 0.1
"""Decades that a logarithmic axis has at least."""
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    cell: int
    label: str


@dataclass(frozen=True, slots=True)
class LogAxis:
    """A logarithmic axis; `low` and `high` are decimal logarithms, so that no positive float leaves it."""

    low: float
    high: float
    cells: int

    @classmethod
    def over(cls, values: Iterable[float], cells: int, *, within: Iterable[float] = ()) -> LogAxis | None:
        """Return an axis over the positive finite values.

        Args:
            values: all of them are inside.
            cells: how many cells it is long, at least 1.
            within: more values, taken in only where they lengthen the axis by its own length at most.

        Returns:
            None where no value is positive and finite.
        """
        logs = sorted(math.log10(v) for v in values if 0 < v < math.inf)
        if not logs:
            return None
        low, high = logs[0], logs[-1]
        reach = max(high - low, 1.0)
        for log in (math.log10(v) for v in within if 0 < v < math.inf):
            if logs[0] - reach <= log <= logs[-1] + reach:
                low, high = min(low, log), max(high, log)
        lack = max(0.0, NARROWEST - (high - low)) / 2
        margin = lack + MARGIN * max(high - low, NARROWEST)
        return cls(low - margin, high + margin, max(cells, 1))

    def cell(self, value: float) -> int | None:
        """Return the cell that a value falls into; None where that is outside, or the value not positive."""
        if not 0 < value < math.inf:
            return None
        place = self.place(math.log10(value))
        return place if 0 <= place < self.cells else None

    def place(self, log: float) -> int:
        """Return the cell of a decimal logarithm, below 0 or from `cells` on where it is outside."""
        if log == self.high:
            return self.cells - 1
        return math.floor((log - self.low) / (self.high - self.low) * self.cells)

    def places(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the cells of positive finite values that are inside the axis."""
        share = (np.log10(values) - self.low) / (self.high - self.low)
        return np.clip(np.floor(share * self.cells), 0, self.cells - 1).astype(np.int64)

    def ticks(self, room: int, *, plain: bool = False) -> tuple[Tick, ...]:
        """Return ticks at least so many cells apart: powers of ten, or round numbers on a short axis."""
        most = max(1, self.cells // max(room, 1))
        first, last = math.ceil(self.low), math.floor(self.high)
        if last >= first:
            step = _step(last - first, most)
            start = first + (-first) % step
            powers = {float(d): _power(d, plain=plain) for d in range(start, last + 1, step)}
            decades = self._apart(powers, room)
            if len(decades) >= min(2, most) or self.high - self.low > 2:
                return decades
        finer = [self._apart(_round_numbers(self.low, self.high, count), room) for count in (most, 2 * most)]
        return max(finer, key=len)

    def _apart(self, logs: dict[float, str], room: int) -> tuple[Tick, ...]:
        ticks: list[Tick] = []
        for log in sorted(logs):
            cell = self.place(log)
            if 0 <= cell < self.cells and (not ticks or cell - ticks[-1].cell >= room):
                ticks.append(Tick(cell, logs[log]))
        return tuple(ticks)


@dataclass(frozen=True, slots=True)
class LinearAxis:
    """A linear axis from low to high, both inside."""

    low: float
    high: float
    cells: int

    def cell(self, value: float) -> int | None:
        """Return the cell that a value falls into; None where that is outside."""
        if not self.low <= value <= self.high:
            return None
        if self.high == self.low:
            return self.cells // 2
        half = 0.5 * value - 0.5 * self.low  # halves: the width of the widest axis leaves float64
        share = half / (0.5 * self.high - 0.5 * self.low)
        return min(math.floor(share * self.cells), self.cells - 1)

    def value(self, cell: int) -> float:
        """Return the value in the middle of a cell."""
        share = (min(max(cell, 0), self.cells - 1) + 0.5) / self.cells
        return self.low * (1 - share) + self.high * share

    def ticks(self, room: int) -> tuple[Tick, ...]:
        """Return ticks at round numbers, at least so many cells apart."""
        if self.low == self.high:
            return (Tick(self.cells // 2, f"{self.low:.6g}"),)
        found: list[Tick] = []
        for value in _round_between(self.low, self.high, max(1, self.cells // max(room, 1))):
            cell = self.cell(value)
            if cell is not None and (not found or cell - found[-1].cell >= room):
                found.append(Tick(cell, f"{value:.6g}"))
        return tuple(found)


def _step(decades: int, most: int) -> int:
    """Return how many decades lie between ticks: 1, 2, 3, 5, 10, …, so that there are at most so many."""
    for scale in (1, 10, 100):
        for step in (1, 2, 3, 5):
            if decades // (step * scale) + 1 <= most:
                return step * scale
    return max(decades, 1)


def _power(exponent: int, *, plain: bool) -> str:
    return f"1e{exponent}" if plain else "10" + str(exponent).translate(_SUPERSCRIPT)


def _round_numbers(low: float, high: float, most: int) -> dict[float, str]:
    """Return decimal logarithm → label of round numbers on an axis of about a decade."""
    base = math.floor(low)  # numbers are taken in units of 10^base: no float is too large or too small
    found: dict[float, str] = {}
    for value in _round_between(10.0 ** (low - base), 10.0 ** (high - base), most):
        text = f"{value:.6g}"
        number = float(text)
        if number > 0:
            short = number * 10.0**base if -4 < base < 4 else None
            label = f"{short:.6g}" if short is not None else _scientific(number, base)
            found[math.log10(number) + base] = label
    return found


def _scientific(number: float, base: int) -> str:
    shift = 1 if number >= 10 else 0
    return f"{number / 10**shift:.6g}e{base + shift}"


def _round_between(low: float, high: float, most: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between two numbers: at most so many, and one."""
    width = high / most - low / most
    if not 0 < width < math.inf:
        return [low]
    power = math.floor(math.log10(width))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * 10.0**power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if step > 0 and last - first + 1 <= most and last >= first:
            return [i * step for i in range(first, last + 1)]
    return [float(f"{0.5 * low + 0.5 * high:.2g}")]
