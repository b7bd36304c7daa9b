"""The report as plain data: what every renderer, the gate and the app read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from specinspect.bounds.model import Advice, BoundCheck
from specinspect.checkpoint.model import Skipped
from specinspect.layers.model import Layer
from specinspect.spectra.model import BlockSpectra, PaddingBounds, SkipCurve, Spectrum, Tau

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = "1"


@dataclass(frozen=True, slots=True)
class CheckpointSummary:
    """The file that was read."""

    path: str
    format: str
    files: tuple[str, ...]
    bytes: int
    tensors: int
    parameters: int
    metadata: Mapping[str, str]
    key: str | None
    assumptions: tuple[str, ...]
    placeholders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One layer: its facts, and the spectrum of each of its maps."""

    layer: Layer
    maps: Mapping[str, Spectrum]
    """'weight' → spectrum of W."""
    seconds: float
    """How long it took when it was computed, perhaps in an earlier run."""
    grid: tuple[int, ...] | None = None
    """Side of the periodic grid along each spatial axis, for convolutions."""
    tau: Tau | None = None
    """Extreme eigenvalues of W + Wᵀ, for square maps."""
    boundary: str | None = None
    """Of a convolution's grid: 'circular' or 'zeros'."""
    padding_bounds: PaddingBounds | None = None
    """What the periodic grid says of the zero-padded layer (MATH R64, R65)."""
    skip_curve: SkipCurve | None = None
    """κ along β, only on request."""
    assumptions: tuple[str, ...] = ()
    """The layer's own, and what computing it had to assume (a grid, say)."""
    notes: tuple[str, ...] = ()
    """Facts about the stored numbers worth a sentence: zero rows, NaN counts, a zero matrix."""
    bounds: tuple[BoundCheck, ...] = ()
    """What theory guarantees of the maps, each with its verdict."""
    advice: tuple[Advice, ...] = ()
    """What would make a bound hold."""
    zeros: tuple[int, int] | None = None
    """Rows and columns of W (channels of a convolution) that are zero; None for a low-rank product."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockResult(BlockSpectra):
    """One block: its spectra, and what theory guarantees of them."""

    bounds: tuple[BoundCheck, ...] = ()
    """Of ρA + βJ, 'skip'; where patterns were sampled, of the one with the least room."""

    @classmethod
    def of(cls, spectra: BlockSpectra, bounds: tuple[BoundCheck, ...] = ()) -> BlockResult:
        """Put a block's spectra and bounds together."""
        return cls(**{field.name: getattr(spectra, field.name) for field in fields(spectra)}, bounds=bounds)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a reader should look at first."""

    rule: str
    severity: str
    """'error' or 'warning'."""
    layer: str
    message: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class BadTensor:
    """A tensor in no layer (a bias, a normalisation's gain, a table) with entries that no network can use."""

    name: str
    what: str
    """Why it is no layer, which mostly says what it is."""
    entries: int
    nan: int
    infinite: int
    negative: int
    """Where it holds variances; else 0."""


@dataclass(frozen=True, slots=True)
class WorstConditionNumber:
    """The largest condition number that was resolved."""

    layer: str
    map: str
    value: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The report in one line."""

    layers: int
    analysed_tensors: int
    """Tensors that are in some layer."""
    tensors: int
    worst_condition_number: WorstConditionNumber | None
    nonfinite: int
    """Layers with NaN or infinite weights."""
    unresolved: int
    """Layers whose condition number is null."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found in one checkpoint."""

    checkpoint: CheckpointSummary
    settings: Mapping[str, Any]
    """All that decides a number."""
    layers: tuple[LayerResult, ...]
    """In checkpoint order."""
    skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]
    summary: Summary
    version: str
    """Of specinspect."""
    blocks: tuple[BlockResult, ...] = ()
    """Residual blocks, MLPs, attention products and composed chains."""
    network: tuple[BoundCheck, ...] = ()
    """What theory guarantees of layers one after the other."""
    bad_tensors: tuple[BadTensor, ...] = ()
    """Among the tensors in no layer; the findings name them too."""

    def __iter__(self) -> Iterator[LayerResult]:
        """Iterate over the layers in checkpoint order."""
        return iter(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of schema_version 1 as plain Python data (no NaN, no infinity)."""
        from specinspect.report.json import to_dict

        return to_dict(self)

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        from specinspect.report.json import to_json

        return to_json(self)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer and map (needs pandas: `pip install specinspect[frame]`)."""
        from specinspect.report.frame import to_frame

        return to_frame(self)
