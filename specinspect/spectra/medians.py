"""One spectrum for a map that is sampled at several activation patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specinspect.spectra.model import PatternStatistics, Range, Spectrum

SCALARS = (
    "sigma_max",
    "sigma_min",
    "condition_number",
    "pseudo_condition_number",
    "numerical_rank",
    "stable_rank",
    "effective_rank",
    "frobenius_norm",
)
"""What is given as minimum, median and maximum over the patterns."""


def over_patterns(spectra: Sequence[Spectrum], active: Sequence[float]) -> Spectrum:
    """Return lower medians over sampled patterns, with minimum and maximum beside them.

    The histogram, status and singular values are those of the pattern whose κ (whose pseudo κ, where κ is
    infinite or unresolved) is the median.
    """

    def key(spectrum: Spectrum) -> tuple[float, float]:
        return _or_infinity(spectrum.condition_number), _or_infinity(spectrum.pseudo_condition_number)

    middle = sorted(spectra, key=key)[(len(spectra) - 1) // 2]
    ranges = {name: _range([getattr(s, name) for s in spectra]) for name in SCALARS}
    statistics = PatternStatistics(len(spectra), _range(list(active)), ranges)
    medians = {name: found.median for name, found in ranges.items() if name != "numerical_rank"}
    rank = ranges["numerical_rank"].median
    return replace(
        middle,
        patterns=statistics,
        numerical_rank=None if rank is None else int(rank),
        **medians,  # type: ignore[arg-type]
    )


def _or_infinity(value: float | None) -> float:
    return float("inf") if value is None else value


def _range(values: Sequence[float | None]) -> Range:
    ordered = sorted(_or_infinity(v) for v in values)
    found = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    low, median, high = (None if v == float("inf") else v for v in found)
    return Range(low, median, high)
