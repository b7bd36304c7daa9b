"""A comparison as plain data: what every renderer and the app read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from specinspect.layers.model import Layer
from specinspect.report.model import CheckpointSummary, LayerResult

Status = Literal[
    "computed",
    "identical",
    "shape_changed",
    "kind_changed",
    "geometry_changed",
    "nonfinite_weights",
    "not_computed",
    "convolution",
    "no_gap",
    "rank_zero",
    "too_small",
]
"""How a number came about, or why there is none."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far apart two weights are. Norms are those of the linear maps: of a convolution, on its grid."""

    status: Status
    """'computed', 'identical' (the same bytes: zero without computing), or why there are no numbers."""
    spectral_norm: float | None = None
    """‖W_A - W_B‖₂."""
    relative_spectral_norm: float | None = None
    """‖W_A - W_B‖₂/‖W_A‖₂; None where W_A is zero and W_B is not."""
    frobenius_norm: float | None = None
    """‖W_A - W_B‖_F."""
    relative_frobenius_norm: float | None = None
    """‖W_A - W_B‖_F/‖W_A‖_F."""
    stable_rank: float | None = None
    """(‖W_A - W_B‖_F/‖W_A - W_B‖₂)²: in how many directions the layer moved."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of the leading singular subspaces two weights share.

    ‖U_AᵀU_B‖_F²/k for the k leading left singular vectors, and the same with V for the right ones: 1 where
    they span the same space, k/m (k/n on the right) where they are unrelated.
    """

    status: Status
    """'computed', 'identical', or why there is none. 'no_gap': in one of the two σ_k and σ_{k+1} are closer
    than the rounding error of the stored weights (or of the computation), which may then turn the subspace
    by any angle (Wedin 1972)."""
    k: int | None = None
    """Singular vectors on each side."""
    left: float | None = None
    right: float | None = None
    gap_a: float | None = None
    """(σ_k - σ_{k+1})/σ_1 of A."""
    gap_b: float | None = None

    @property
    def least(self) -> float | None:
        """The smaller one of left and right."""
        return None if self.left is None or self.right is None else min(self.left, self.right)


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """One layer in both checkpoints."""

    a: LayerResult
    b: LayerResult
    """Under the name that it has in B."""
    identical: bool
    """The weights are the same bytes, dtype and geometry."""
    difference: Difference
    overlap: Overlap
    spectral_distance: Mapping[str, float | None]
    """Map → ‖σ_A - σ_B‖₂/‖σ_A‖₂ over the sorted singular values. For the weight it is at most
    ‖W_A - W_B‖_F/‖W_A‖_F (MATH R6). None where a spectrum is missing, or their numbers differ; left out
    for maps that hold medians over patterns."""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The layer's name in A."""
        return self.a.layer.name

    @property
    def shape_changed(self) -> bool:
        """Whether the weight has another shape, or is another kind of layer, in B."""
        return (self.a.layer.shape, self.a.layer.kind) != (self.b.layer.shape, self.b.layer.kind)

    @property
    def dtype_changed(self) -> bool:
        """Whether the weight is stored in another dtype in B."""
        return self.a.layer.dtype != self.b.layer.dtype


@dataclass(frozen=True, slots=True)
class OtherTensors:
    """The tensors that are in no layer: biases, normalisations, buffers."""

    identical: int
    """In both, with the same bytes."""
    changed: tuple[str, ...]
    """In both, with other values, another shape or another dtype; names as in A."""
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What was taken off the names so that they match."""

    a: str
    b: str


@dataclass(frozen=True, slots=True)
class ComparisonSummary:
    """The comparison in one line."""

    matched: int
    identical: int
    changed: int
    """Matched, and not identical."""
    only_in_a: int
    only_in_b: int
    verdict: Literal["identical", "different"]
    """'identical': every layer and every other tensor is there on both sides with the same bytes."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two checkpoints side by side."""

    a: CheckpointSummary
    b: CheckpointSummary
    settings: Mapping[str, Any]
    """All that decides a number."""
    layers: tuple[LayerComparison, ...]
    """The matched ones, those that moved most first (see `order.movement`)."""
    only_in_a: tuple[Layer, ...]
    only_in_b: tuple[Layer, ...]
    others: OtherTensors | None
    """None where only some layers were asked for."""
    prefixes: Prefixes | None
    """None where names match as they are."""
    notices: tuple[str, ...]
    summary: ComparisonSummary
    version: str
    """Of specinspect."""

    def __iter__(self) -> Iterator[LayerComparison]:
        """Iterate over the matched layers, those that moved most first."""
        return iter(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object as plain Python data (no NaN, no infinity)."""
        from specinspect.comparison.json import to_dict

        return to_dict(self)

    def to_json(self) -> str:
        """Return the comparison as one JSON object."""
        from specinspect.comparison.json import to_json

        return to_json(self)
