"""What is drawn: a spectrum as values or bins, and the lines beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from specinspect.plots.axis import LogAxis
from specinspect.report.text import kappa, number
from specinspect.spectra.model import FAILED

if TYPE_CHECKING:
    from specinspect.spectra.model import Histogram, Spectrum

LEAST_SHARE = 1e-6
"""Of a singular value, in a cell: less is rounding of the borders."""
MOST_VALUES = 4096
"""Values that are made up from bins, for a sorted curve."""


@dataclass(frozen=True, slots=True)
class Line:
    """A value on the axis worth a dashed line."""

    value: float
    label: str
    style: str
    """'floor', 'bulk', 'bound' or 'cursor'; each has its own kind of dashes."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Singular values under one name: all of them, or counts in logarithmic bins."""

    name: str
    style: str
    values: NDArray[np.float64] | None = None
    """In any order; zeros, NaN and infinities are set apart, never drawn as something else."""
    histogram: Histogram | None = None
    """Used where there are no values."""
    legend: str = ""
    """What is written behind the name."""

    @classmethod
    def of(cls, name: str, style: str, spectrum: Spectrum) -> Series:
        """Return the series of a spectrum, with its extremes in the legend."""
        return cls(name, style, spectrum.singular_values, spectrum.histogram, extremes(spectrum))

    @property
    def positive(self) -> NDArray[np.float64]:
        """The positive finite values; empty where only bins are known."""
        if self.values is None:
            return np.zeros(0)
        values = np.asarray(self.values, dtype=np.float64).ravel()
        return values[np.isfinite(values) & (values > 0)]

    @property
    def zeros(self) -> int:
        """How many values are exactly zero."""
        if self.values is not None:
            return int(np.count_nonzero(np.asarray(self.values) == 0))
        return 0 if self.histogram is None else self.histogram.zeros

    @property
    def unusable(self) -> int:
        """How many values are NaN or infinite."""
        return 0 if self.values is None else int(np.count_nonzero(~np.isfinite(np.asarray(self.values))))

    def range(self) -> tuple[float, ...]:
        """Return the smallest and the largest positive value; nothing where there is none."""
        positive = self.positive
        if len(positive):
            return float(positive.min()), float(positive.max())
        filled = [edge for pair in self._bins() for edge in pair[:2]]
        return (min(filled), max(filled)) if filled else ()

    def _bins(self) -> list[tuple[float, float, int]]:
        """Return (from, to, count) of every bin that is not empty."""
        if self.values is not None or self.histogram is None:
            return []
        edges = self.histogram.edges
        return [(edges[i], edges[i + 1], count) for i, count in enumerate(self.histogram.counts) if count > 0]

    def counts(self, axis: LogAxis) -> NDArray[np.float64]:
        """Return how many values fall into each cell of an axis that covers them.

        A bin is spread evenly over the part of the axis that it covers, so shares of a value are possible.
        """
        if self.values is not None:
            cells = axis.places(self.positive)
            return np.bincount(cells, minlength=axis.cells).astype(np.float64)
        if not self._bins() or self.histogram is None:
            return np.zeros(axis.cells)
        below = np.concatenate([[0.0], np.cumsum(self.histogram.counts)])
        borders = np.linspace(axis.low, axis.high, axis.cells + 1)
        counts = np.diff(np.interp(borders, np.log10(self.histogram.edges), below))
        return np.where(counts > LEAST_SHARE, counts, 0.0)

    def descending(self) -> NDArray[np.float64]:
        """Return decimal logarithms of the positive values, from the largest down.

        Where only bins are known they are spread evenly over them, and there are at most 4096.
        """
        if self.values is not None:
            return np.sort(np.log10(self.positive))[::-1]
        bins = self._bins()
        total = sum(count for _, _, count in bins)
        if not total:
            return np.zeros(0)
        below, logs = [0.0], [math.log10(bins[0][0])]
        for low, high, count in bins:
            below += [below[-1], below[-1] + count]
            logs += [math.log10(low), math.log10(high)]
        places = np.linspace(0.0, total, min(total, MOST_VALUES))
        return np.asarray(np.interp(places, below, logs)[::-1])


def extremes(spectrum: Spectrum) -> str:
    """Return 'σmax 2.58  σmin 8.36e-7  κ 3.09e6'."""
    if spectrum.condition_number_status == "nonfinite_weights":
        return "NaN or infinite weights"
    if spectrum.condition_number_status in FAILED:
        return "not computed"
    least = number(spectrum.sigma_min) if spectrum.sigma_min is not None else "not resolved"
    return f"σmax {number(spectrum.sigma_max)}  σmin {least}  κ {kappa(spectrum)}"
