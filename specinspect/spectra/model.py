"""What is said of one linear map: its singular values, κ, ranks, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from specinspect.layers.blocks import Block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Status = Literal[
    "resolved",
    "below_storage_precision",
    "below_computation_precision",
    "infinite",
    "nonfinite_weights",
    "beyond_float64",
    "not_converged",
    "not_computed",
]
"""'not_computed' only where less than a spectrum was asked for (the gate's quick paths)."""

FAILED = frozenset({"beyond_float64", "not_converged"})
"""Status of a map of finite weights whose singular values could not be had: none of its numbers is given."""


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


@dataclass(frozen=True, slots=True)
class PaddingBounds:
    """Bounds on a zero-padded convolution T from periodic ones C, None where they do not apply."""

    same_grid_reason: str = ""
    """Why MATH R64 does not apply; '' where it does."""
    frobenius_distance: float | None = None
    """‖C-T‖_F = √E on T's own grid, exact; no singular value of T is further from that of C (MATH R64)."""
    frobenius_norm: float | None = None
    """‖T‖_F, exact: ‖T‖_F² = ‖C‖_F² - E."""
    rank: int | None = None
    """r: the rank of C-T is at most this."""
    sigma_max_lower: float | None = None
    """σ_{1+r}(C) <= σ_max(T), by interlacing; 0 where r leaves nothing."""
    sigma_max_upper_same_grid: float | None = None
    """σ_max(T) <= σ_max(C) + √E."""
    sigma_min_upper: float | None = None
    """σ_min(T) <= σ_{N-r}(C), by interlacing; None where r >= N."""

    enlarged_reason: str = ""
    """Why MATH R65 does not apply; '' where it does, at least for σ_max."""
    enlarged_grid: tuple[int, ...] | None = None
    """n' >= n + dil(k-1), whose periodic operator T is a part of."""
    sigma_max_upper: float | None = None
    """σ_max(T) <= σ_max(C_n')."""
    square_reason: str = ""
    """Why there is no τ and nothing beside a skip: not square, strided, or not one output per place."""
    tau_min: float | None = None
    """τmin(C_n') <= every eigenvalue of T + Tᵀ."""
    tau_max: float | None = None
    skip_sigma_min_lower: float | None = None
    """|ρ| + min(ρβτmin, ρβτmax)/(2|ρ|) <= σ_min(ρI+βT); vacuous where not positive. None for ρ = 0."""
    skip_sigma_max_upper: float | None = None
    """σ_max(ρI+βT) <= √(ρ² + β²σ_max² + max(ρβτmin, ρβτmax)) (MATH R3)."""
    skip_condition_number_upper: float | None = None
    """The ratio of the two, where the lower one is positive."""


@dataclass(frozen=True, slots=True)
class BranchLayer:
    """A layer on a branch, as it acts there."""

    name: str
    """'' for a repetition of attention heads, a multiple of an isometry."""
    sides: tuple[int, ...]
    """Of the grid that it reads; () without one."""
    stride: tuple[int, ...]
    padded: bool
    """With zeros around the grid."""


@dataclass(frozen=True, slots=True)
class BranchLayers:
    """The layers of a branch J, and the diagonals between them, over all sampled patterns."""

    layers: tuple[BranchLayer, ...]
    """In the order in which data meets them."""
    sizes: tuple[int, ...]
    """Channels times pixels in front of each, and at the end."""
    zeros: tuple[int, ...]
    """Places (0 in front of the first layer) where a diagonal of some pattern has entries that are zero."""
    largest: float
    """The largest product of the largest |entries| of the diagonals, and of the norms of repetitions."""
    spread: float
    """The largest product of their ratios, largest over smallest |entry| that is not zero; infinite where a
    diagonal is zero."""
    why_not: str = ""
    """Why the branch is no product of layers and diagonals, '' where it is."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockSpectra:
    """What was measured of a block."""

    block: Block
    chain: Spectrum | None
    """J. None where it could not be measured; `notes` say why."""
    skip: Spectrum | None
    """ρA + βJ; None where there is no shortcut."""
    grid: tuple[int, ...] | None = None
    heads: tuple[Spectrum, ...] = ()
    """W_O·W_V of each attention head on its own."""
    assumptions: tuple[str, ...] = ()
    """The block's own among them."""
    notes: tuple[str, ...] = ()
    branch: BranchLayers | None = None
    """What J is made of; None where bounds were not asked for."""

    @property
    def norm(self) -> float | None:
        """‖J‖, the median over patterns (MATH R31 needs it below 1)."""
        return None if self.chain is None else self.chain.sigma_max


@dataclass(frozen=True, slots=True)
class ProductExtremes:
    """The product of maps that follow each other, at sampled activation patterns (MATH R26)."""

    logs: tuple[tuple[float, float], ...]
    """Pattern → natural logarithms of σ_max and σ_min: the product of many maps may leave float64. Empty
    where it was not formed."""
    why_not: str = ""
    """Why it was not formed, '' where it was."""
