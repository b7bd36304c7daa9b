"""What is said of one linear map: its singular values, κ, ranks, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Status = Literal[
    "resolved", "below_storage_precision", "below_computation_precision", "infinite", "nonfinite_weights"
]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of singular values per bin of a logarithmic axis; exact zeros have no place on it."""

    edges: tuple[float, ...]
    """Ascending and positive, one more than counts; empty where no singular value is positive."""
    counts: tuple[int, ...]
    zeros: int
    """Singular values that are exactly zero."""


@dataclass(frozen=True, slots=True)
class Range:
    """Minimum, lower median and maximum over patterns; None stands for infinite or unresolved."""

    min: float | None
    median: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class PatternStatistics:
    """How a map varies over the sampled activation patterns."""

    n: int
    active_fraction: Range
    """Share of outputs that the activation lets through (|φ′| > ½ where it is smooth)."""
    scalars: Mapping[str, Range]
    """Name of a Spectrum's field → its range."""


@dataclass(frozen=True, slots=True)
class Tau:
    """Extreme eigenvalues of M + Mᵀ (MATH §0), for a convolution over all frequencies (MATH R63)."""

    min: float
    max: float


@dataclass(frozen=True, slots=True)
class SkipCurve:
    """The extremes of ρA + βW along β; lists of equal length, β ascending."""

    beta: tuple[float, ...]
    sigma_max: tuple[float, ...]
    sigma_min: tuple[float, ...]
    condition_number: tuple[float | None, ...]
    """None where sigma_min is below its accuracy."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The singular spectrum of one linear map, computed in float64.

    A value that cannot be given is None and `condition_number_status` says why.
    """

    count: int
    """Number of singular values: min(m, n), for a convolution over all frequencies."""
    sigma_max: float | None
    sigma_min: float | None
    condition_number: float | None
    """sigma_max / sigma_min; None unless the status is 'resolved'."""
    condition_number_status: Status
    pseudo_condition_number: float | None
    """sigma_max / the smallest singular value above both floors (MATH §0)."""
    numerical_rank: int | None
    """Singular values above both floors."""
    stable_rank: float | None
    """‖W‖_F² / sigma_max²."""
    effective_rank: float | None
    """exp of the entropy of σ_i/Σσ (Roy and Vetterli 2007)."""
    frobenius_norm: float | None
    storage_floor: float | None
    """Spectral norm of the rounding error that the stored dtype implies."""
    computation_floor: float | None
    """Absolute accuracy of the smallest singular values by the method used."""
    method: str
    device: str
    """Where it was computed."""
    histogram: Histogram | None
    nonfinite: int = 0
    """NaN and infinite entries of the weight."""
    singular_values: NDArray[np.float64] | None = None
    """Descending; kept only on request."""
    patterns: PatternStatistics | None = None
    """Only for maps with a sampled D: the scalars above are then lower medians over the patterns."""
