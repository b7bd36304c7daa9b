"""What the pass hands over: each once, and never replaced by another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specinspect.comparison.model import LayerComparison
    from specinspect.report.model import BadTensor, BlockResult, LayerResult


@dataclass(frozen=True, slots=True)
class LayerDone:
    """A layer's result."""

    index: int
    result: LayerResult


@dataclass(frozen=True, slots=True)
class WeightDone:
    """A layer's result with its weight alone; the other maps are still being computed."""

    index: int
    result: LayerResult


@dataclass(frozen=True, slots=True)
class LayerFailed:
    """A layer that could not be computed, and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block's result."""

    result: BlockResult


@dataclass(frozen=True, slots=True)
class PairDone:
    """A layer beside that of a second checkpoint."""

    index: int
    pair: LayerComparison | None
    path: str
    """Of the second checkpoint."""
    scale: tuple[float, float] | None = None
    """ρ and β at which all maps were compared; None: the weights alone were."""
    reason: str = ""
    """Why all maps could not be compared."""


@dataclass(frozen=True, slots=True)
class TensorsRead:
    """What is wrong with the tensors in no layer."""

    bad: tuple[BadTensor, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """Something that the user should know, in one sentence."""

    sentence: str
    error: bool = False


Event = LayerDone | WeightDone | LayerFailed | BlockDone | PairDone | TensorsRead | Said
