"""Could these be fresh weights? The scale of the entries, and a test of independence (MATH E rests on both).

Trained weights rarely pass. What random-matrix theory says is then no guarantee for them, only what a fresh
layer of the same size and scale would show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from specinspect.spectra.quantities import Entries

Family = Literal["gaussian", "uniform"]

FALSE_ALARM = 1e-3
"""The test rejects i.i.d. Gaussian or uniform entries about this often (it shares it among its parts)."""
SMALLEST_SIDE = 16
"""Rows and columns below which moments say too little."""
_PARTS = 7
_EXCESS = {"gaussian": 0.0, "uniform": -1.2}
_SKEW_VARIANCE = {"gaussian": 6.0, "uniform": 72 / 35}
"""N times the variance of the sample skewness of N entries."""
_KURTOSIS_VARIANCE = {"gaussian": 24.0, "uniform": 1.3166}
"""N times that of the sample kurtosis."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The standard deviation of the entries, and where it comes from."""

    std: float
    sentence: str
    doubt: str = ""
    """Why the entries do not have it."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """The outcome of the test of independence."""

    family: Family | None
    """None where it fails."""
    doubt: str = ""
    """Why it fails, with the number that decided it."""


def initial_std(init: str, entries: Entries) -> float:
    """Return the standard deviation that an initialisation draws with.

    kaiming: √(2/fan_in), for ReLU; xavier: √(2/(fan_in + fan_out)), with gain 1; pytorch-default: uniform in
    ±1/√fan_in, as nn.Linear and nn.Conv do; std:X: X.
    """
    rows, fan_in = entries.shape
    if init.startswith("std:"):
        return float(init.removeprefix("std:"))
    fan_out = rows * (entries.taps or 1)
    return {
        "kaiming": sqrt(2 / fan_in),
        "xavier": sqrt(2 / (fan_in + fan_out)),
        "pytorch-default": sqrt(1 / (3 * fan_in)),
    }[init]


def scale_of(entries: Entries, init: str | None) -> Scale:
    """Return the scale of the entries: as they are, or as the initialisation draws them."""
    rms, count = entries.standard_deviation, entries.shape[0] * entries.shape[1]
    if init is None:
        error = 1 / sqrt(2 * count)
        return Scale(
            rms, f"standard deviation {rms:.3g} estimated from the entries (standard error {error:.1g} of it)"
        )
    std = initial_std(init, entries)
    sentence = f"standard deviation {std:.3g} of the initialisation {init}"
    # The mean square of Gaussian entries fluctuates most, by √(2/N).
    off = abs(min(rms / std, 2.0) ** 2 - 1) * sqrt(count / 2)
    if off <= _threshold():
        return Scale(std, sentence)
    return Scale(
        std,
        sentence,
        f"the entries are not those of {init}: their root mean square is {rms:.3g}, it draws with {std:.3g}",
    )


def freshness(entries: Entries, singular_values: NDArray[np.float64] | None) -> Freshness:
    """Test whether the entries could be independent, centred, of one variance, and Gaussian or uniform.

    Mean, skewness and kurtosis of the entries, the spread of row and of column norms (as a χ² of their
    dispersion), and the spread of the squared singular values (sphericity: Ledoit and Wolf 2002, Wang and Yao
    2013), each two-sided at an equal share of FALSE_ALARM.

    Args:
        entries: their moments.
        singular_values: all of them, of a dense matrix; None leaves sphericity untested.
    """
    if min(entries.shape) < SMALLEST_SIDE:
        return Freshness(
            None, f"too small to test whether its entries are i.i.d. (under {SMALLEST_SIDE} a side)"
        )
    if entries.standard_deviation == 0:
        return Freshness(None, "every entry is zero")
    limit = _threshold()
    scores = {name: _kurtosis_score(entries, name) for name in _FAMILIES}
    family = min(_FAMILIES, key=lambda name: abs(scores[name]))
    for score, sentence in _scores(entries, singular_values, family, scores[family]):
        if not (isfinite(score) and abs(score) <= limit):
            return Freshness(None, f"entries are not i.i.d.: {sentence}")
    return Freshness(family)


_FAMILIES: tuple[Family, ...] = ("gaussian", "uniform")


def _threshold() -> float:
    """Return how many standard deviations each part allows."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * _PARTS))


def _scores(
    entries: Entries, singular_values: NDArray[np.float64] | None, family: Family, kurtosis: float
) -> Iterator[tuple[float, str]]:
    """Yield standard scores, normal if i.i.d., and what a large one means: the most telling first."""
    rows, columns = entries.shape
    count, rms = rows * columns, entries.standard_deviation
    spreads = [
        (*_dispersion(norms, length, rms, _EXCESS[family]), name)
        for norms, length, name in (
            (entries.row_norms, columns, "row"),
            (entries.column_norms, rows, "column"),
        )
    ]
    for ratio, score, name in sorted(spreads, key=lambda spread: -abs(spread[1])):
        only = "" if ratio >= 1 else " only"
        words = f"{name} norms vary{only} {sqrt(ratio):.3g} times as much as those of i.i.d. entries"
        yield score, words
    yield (
        kurtosis,
        f"their excess kurtosis is {entries.excess_kurtosis:.3g} (Gaussian: 0, uniform: -1.2)",
    )
    yield entries.mean / rms * sqrt(count), f"their mean is {entries.mean:.2g}, not 0"
    yield (
        entries.skewness * sqrt(count / _SKEW_VARIANCE[family]),
        f"their skewness is {entries.skewness:.2g}, not 0",
    )
    if singular_values is not None:
        score = _sphericity(singular_values, rows, columns, _EXCESS[family])
        more = "more" if score > 0 else "less"
        yield (
            score,
            f"singular values spread {more} than those of i.i.d. entries (sphericity score {score:.3g})",
        )


def _dispersion(norms: NDArray[np.float64], length: int, rms: float, excess: float) -> tuple[float, float]:
    """Return the variance of the squared norms over what i.i.d. entries give, and its standard score.

    A sum of `length` squares of entries of excess kurtosis γ has variance length·(γ + 2)·rms⁴. The sample
    variance of such sums is compared with a χ² of matched degrees of freedom, by Wilson's and Hilferty's
    cube root.
    """
    squares = (norms / rms) ** 2
    k = len(squares)
    ratio = float(squares.var(ddof=1) / (length * (excess + 2)))
    fourth = 12 / length if excess == 0 else 0.0  # excess kurtosis of a χ² sum of squares
    freedom = 2 / (2 / (k - 1) + fourth / k)
    spread = 2 / (9 * freedom)
    return ratio, (ratio ** (1 / 3) - (1 - spread)) / sqrt(spread)


def _sphericity(values: NDArray[np.float64], rows: int, columns: int, excess: float) -> float:
    """Return the standard score of m·n·Σσ⁴/(Σσ²)² - m - n, which tends to N(1 + γ, 4) for i.i.d. entries."""
    squares = (values / values.max()) ** 2
    statistic = rows * columns * float((squares**2).sum() / squares.sum() ** 2) - rows - columns
    return (statistic - 1 - excess) / 2


def _kurtosis_score(entries: Entries, family: Family) -> float:
    """Return the standard score of the excess kurtosis; for Gaussian entries by Anscombe and Glynn (1983)."""
    count = entries.shape[0] * entries.shape[1]
    raw = entries.excess_kurtosis - _EXCESS[family]
    if family == "uniform":
        return raw * sqrt(count / _KURTOSIS_VARIANCE[family])
    n = float(count)
    mean = -6 / (n + 1)
    variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    x = (raw - mean) / sqrt(variance)
    skew = (
        6 * (n * n - 5 * n + 2) / ((n + 7) * (n + 9)) * sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    )
    a = 6 + 8 / skew * (2 / skew + sqrt(1 + 4 / skew**2))
    inner = (1 - 2 / a) / (1 + x * sqrt(2 / (a - 4)))
    return float((1 - 2 / (9 * a) - np.cbrt(inner)) / sqrt(2 / (9 * a)))
