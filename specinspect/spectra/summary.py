"""From singular values to a Spectrum: κ with its status, ranks, histogram. Pure numpy, float64."""

from __future__ import annotations

from math import frexp

import numpy as np
from numpy.typing import NDArray

from specinspect.spectra.model import Histogram, Spectrum, Status

BINS = 48
SMALLEST, LARGEST = 5e-324, float(np.finfo(np.float64).max)
CERTAIN = 100.0
"""Computation floors that σ_min must exceed for a condition number: two digits are then certain."""


def unit_scale(largest: float) -> float:
    """Return the power of two that brings the largest entry near 1."""
    return 1.0 if largest == 0 else 2.0 ** -max(-1000, frexp(largest)[1])


def harmless_scale(largest: float) -> float:
    """Return 1, or `unit_scale` where squares of the largest entry would leave float64."""
    return 1.0 if 1e-100 < largest < 1e100 else unit_scale(largest)


def histogram(values: NDArray[np.float64], bins: int = BINS) -> Histogram:
    """Count singular values on a logarithmic axis from the smallest positive one to the largest.

    Args:
        values: (k,), non-negative, any order.
        bins: number of bins; a spectrum of one value gets a single bin around it.
    """
    positive = values[values > 0]
    zeros = len(values) - len(positive)
    if len(positive) == 0:
        return Histogram((), (), zeros)
    logs = np.log(positive)
    low, high = float(logs.min()), float(logs.max())
    single = high - low < 1e-6
    edges = np.array([low - 0.05, high + 0.05]) if single else np.linspace(low, high, bins + 1)
    counts, edges = np.histogram(logs, edges)
    # exp of a logarithm rounds: the outermost edges are set to the values themselves or beyond.
    with np.errstate(over="ignore"):
        bounds = np.clip(np.exp(edges), SMALLEST, LARGEST)
    bounds[0], bounds[-1] = min(bounds[0], positive.min()), max(bounds[-1], positive.max())
    return Histogram(tuple(bounds.tolist()), tuple(int(c) for c in counts), zeros)


def effective_rank(values: NDArray[np.float64]) -> float:
    """Return exp(-Σ p log p) with p = σ/Σσ (Roy and Vetterli 2007); 0 for a zero matrix."""
    top = values.max()
    if top == 0:
        return 0.0
    relative = values / top  # a sum may leave float64 where its terms do not
    p = relative / relative.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def summarise(
    values: NDArray[np.float64],
    *,
    structural_zeros: int,
    storage_floor: float,
    computation_floor: float,
    method: str,
    device: str,
    keep_values: bool,
) -> Spectrum:
    """Build the Spectrum of a map without NaN or infinite entries.

    Args:
        values: (k,), k >= 1, descending, the structural zeros among them.
        structural_zeros: singular values that are zero whatever the other entries are (dead rows, low rank).
        storage_floor: spectral norm of the rounding error of the stored entries.
        computation_floor: absolute error to expect of the smallest values.
        method: how they were computed.
        device: where.
        keep_values: put the values themselves into the result.

    Raises:
        OverflowError: a singular value is too large for float64, though every entry is not.
    """
    if not np.isfinite(values).all():
        raise OverflowError("singular values beyond float64")
    top, low = float(values[0]), float(values[-1])
    floor = max(storage_floor, computation_floor)
    rank = int(np.count_nonzero(values > floor))
    # In units of σ_max, so that squares stay within float64 whatever the scale.
    relative = float(np.linalg.norm(values / top)) if top > 0 else 0.0
    status = _status(low, structural_zeros, storage_floor, computation_floor)
    return Spectrum(
        count=len(values),
        sigma_max=top,
        sigma_min=low,
        condition_number=top / low if status == "resolved" else None,
        condition_number_status=status,
        pseudo_condition_number=top / float(values[rank - 1]) if rank else None,
        numerical_rank=rank,
        stable_rank=relative**2 if top > 0 else None,
        effective_rank=effective_rank(values),
        frobenius_norm=top * relative,
        storage_floor=storage_floor,
        computation_floor=computation_floor,
        method=method,
        device=device,
        histogram=histogram(values),
        singular_values=values if keep_values else None,
    )


def _status(low: float, structural_zeros: int, storage_floor: float, computation_floor: float) -> Status:
    if structural_zeros:
        return "infinite"
    if low <= storage_floor:
        return "below_storage_precision"
    if low <= CERTAIN * computation_floor or low == 0:
        return "below_computation_precision"
    return "resolved"


def unusable(count: int, nonfinite: int, device: str, status: Status = "nonfinite_weights") -> Spectrum:
    """Return the Spectrum of a map of which nothing can be said but why: NaN or infinite entries, usually."""
    return Spectrum(
        count=count,
        sigma_max=None,
        sigma_min=None,
        condition_number=None,
        condition_number_status=status,
        pseudo_condition_number=None,
        numerical_rank=None,
        stable_rank=None,
        effective_rank=None,
        frobenius_norm=None,
        storage_floor=None,
        computation_floor=None,
        method="none",
        device=device,
        histogram=None,
        nonfinite=nonfinite,
    )
