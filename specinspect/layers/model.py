"""What a layer is: which tensors make its weight, how, and which facts are known or guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Source = Literal["model", "config", "shape", "assumed"]


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """A value and where it comes from."""

    value: T
    source: Source


@dataclass(frozen=True, slots=True)
class Stored:
    """The weight is one stored tensor, perhaps transposed, perhaps only some of its rows."""

    tensor: str
    transpose: bool = False
    """Swap the first two axes before anything else (GPT-2 Conv1D, embeddings). Never for convolutions."""
    rows: tuple[tuple[int, int], ...] | None = None
    """Half-open row ranges kept, in order, after the transpose; None keeps all."""


@dataclass(frozen=True, slots=True)
class Product:
    """The weight is left @ right (a low-rank adapter's B and A), times a scale."""

    left: str
    right: str
    scale: float = 1.0
    alpha: str | None = None
    """A scalar tensor: the scale is then alpha / rank, and `scale` is ignored."""


@dataclass(frozen=True, slots=True)
class WeightNorm:
    """The weight is g · v / ‖v‖, the norm taken over every axis but `dim` (torch's weight_norm)."""

    g: str
    v: str
    dim: int | None = 0


@dataclass(frozen=True, slots=True)
class SpectralNorm:
    """The weight is original / (uᵀ · original · v): torch's spectral_norm in eval mode.

    `original` is flattened to 2-D with axis `dim` first before u and v are applied.
    """

    original: str
    u: str
    v: str
    dim: int = 0


Recipe = Stored | Product | WeightNorm | SpectralNorm


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """What turns a kernel into an operator on a grid. Tuples have one entry per spatial axis.

    The kernel stays as torch stores it: (out, in/groups, *k), or (in, out/groups, *k) where `transposed`.
    """

    kernel: tuple[int, ...]
    stride: Fact[tuple[int, ...]]
    dilation: Fact[tuple[int, ...]]
    groups: Fact[int]
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Normalization:
    """The normalisation that follows a layer."""

    kind: Literal["batch_norm", "layer_norm", "group_norm", "rms_norm"]
    name: str
    """Module path."""
    source: Source


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear layer. Plain data: it can be pickled and sent to a worker."""

    name: str
    kind: str
    """linear, conv1d|2d|3d, conv_transpose1d|2d|3d, embedding, recurrent, lora."""
    parameters: tuple[str, ...]
    """Names of the tensors that make the weight."""
    shape: tuple[int, ...]
    """Of the weight as stored (for a product, of the map it makes)."""
    matrix_shape: tuple[int, int]
    """(out, in) of the linear map; for a convolution, channels (all groups together)."""
    dtype: str
    weight: Recipe
    conv: ConvGeometry | None = None
    bias: str | None = None
    normalization: Normalization | None = None
    assumptions: tuple[str, ...] = ()
    """One sentence for everything guessed rather than known."""
