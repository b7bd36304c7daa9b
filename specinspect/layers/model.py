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
    padding: Fact[tuple[int, ...]] | None = None
    """Zeros added on the low side of each axis; None: half the kernel's reach, `dilation·(kernel-1)//2`.

    The spectrum of W does not depend on it, that of a skip map does (MATH R63).
    """
    padding_mode: str = "zeros"
    uneven: bool = False
    """Whether an odd reach gets one more zero on the high side: padding='same' with an even kernel."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """The normalisation that follows a layer."""

    kind: Literal["batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm"]
    name: str
    """Module path."""
    source: Source
    eps: float = 1e-5
    eps_source: Source = "assumed"
    groups: int | None = None
    """Of a group normalisation; None where unknown."""
    axes: int = 1
    """How many axes a layer or RMS normalisation averages over: the channels alone, or places too."""


@dataclass(frozen=True, slots=True)
class Activation:
    """What D is made of: the activation that follows a layer and its normalisation."""

    name: str
    """A canonical name of `maps.activations`; 'identity' where none follows."""
    source: Source
    slope: float | None = None
    """leaky_relu's slope below zero, elu's and celu's α."""
    parameter: str | None = None
    """prelu: the tensor of slopes, one or one per channel."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The shortcut A of the skip map ρA + βW: an isometry that follows from the shapes, or a projection.

    The source says whether the network has a skip around this very layer ('model', 'config') or the map asks
    what one would do ('assumed').
    """

    kind: Literal[
        "identity",
        "rectangular-identity",
        "average-pool",
        "projection",
        "projection-plus-identity",
        "none",
    ]
    source: Source
    shortcut: Layer | None = None
    """Of the projections: the layer that A is; its batch normalisation belongs to A."""


PROJECTIONS: tuple[Literal["projection", "projection-plus-identity"], ...] = (
    "projection",
    "projection-plus-identity",
)
"""A is a layer of the checkpoint, alone or beside the isometry that the shapes give (MacDonald's I + A)."""


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
    bias_rows: tuple[tuple[int, int], ...] | None = None
    """Half-open ranges of the bias that belong to this layer, where it is one part of a packed one."""
    activation: Activation = Activation("identity", "assumed")
    skip: Skip = Skip("none", "assumed")
    grid: int | None = None
    """Side of the periodic grid where a rule sets one for this layer."""
    sides: tuple[int, ...] | None = None
    """Of the images that the user gives this very layer, where it is measured on those, pixel by pixel."""
