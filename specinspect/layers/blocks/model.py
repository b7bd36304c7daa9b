"""What a block is made of: factors on a branch, and a shortcut beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.model import Activation, Layer, Normalization, Source
from specinspect.layers.names import join

BlockKind = Literal["residual", "mlp", "gated-mlp", "attention-vo", "composed"]

ShortcutKind = Literal["identity", "rectangular-identity", "average-pool", "layers", "none"]


@dataclass(frozen=True, slots=True)
class Apply:
    """A layer: z = Wx + b."""

    layer: str
    rows: tuple[int, int] | None = None
    """Half-open range of its outputs, where one layer makes both halves of a gated MLP."""
    stride: int | None = None
    """Where the block's name says more about a convolution's stride than the checkpoint does."""


@dataclass(frozen=True, slots=True)
class Gate:
    """activation(gate(x)) ∘ up(x)."""

    gate: Apply
    up: Apply
    activation: Activation


@dataclass(frozen=True, slots=True)
class Normalize:
    """A normalisation: batch norm in eval mode is a diagonal; the others depend on the input."""

    norm: Normalization
    gain_only: bool = False
    """Only its gain and shift: what comes in is taken as normalised already."""
    offset: float = 0.0
    """Added to the stored gain (Gemma stores the gain less 1)."""


@dataclass(frozen=True, slots=True)
class Activate:
    """An elementwise activation."""

    activation: Activation


@dataclass(frozen=True, slots=True)
class Scale:
    """Times a number, or a stored number per channel."""

    value: float = 1.0
    tensor: str | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Grouped-query attention: every key-value head serves `times` query heads."""

    times: int
    size: int
    """Width of a head."""


@dataclass(frozen=True, slots=True)
class Pool:
    """An average over windows that do not overlap."""

    sides: tuple[int, ...]


Factor = Apply | Gate | Normalize | Activate | Scale | Repeat | Pool


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A in A + J. `factors` says what it is made of, unless it is an identity."""

    kind: ShortcutKind
    source: Source
    factors: tuple[Factor, ...] = ()


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention."""

    count: int
    key_values: int
    size: int
    source: Source


@dataclass(frozen=True, slots=True)
class Block:
    """A branch J of layers and a shortcut A beside it. Plain data: it can be pickled and sent to a worker."""

    name: str
    kind: BlockKind
    factors: tuple[Factor, ...]
    """In the order in which data meets them."""
    shortcut: Shortcut
    source: Source
    assumptions: tuple[str, ...] = ()
    after: Activation | None = None
    """What follows the sum; in neither map."""
    heads: Heads | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers on the branch, in order."""
        return layer_names(self.factors)

    @property
    def shortcut_layers(self) -> tuple[str, ...]:
        """Names of the layers on the shortcut, in order."""
        return layer_names(self.shortcut.factors)


@dataclass(frozen=True, slots=True)
class BlockDiscovery:
    """The blocks of a checkpoint, and those of its model that could not be followed, with the reason."""

    blocks: tuple[Block, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    """What names alone could not settle."""


def block_tensors(
    block: Block, layers: Mapping[str, Layer], tensors: Mapping[str, TensorInfo]
) -> tuple[str, ...]:
    """Return the names of all tensors that `maps.blocks` reads for a block."""
    names: list[str | None] = []
    for factor in (*block.factors, *block.shortcut.factors):
        for apply in applied_layers(factor):
            layer = layers[apply.layer]
            names += [*layer.parameters, layer.bias]
        if isinstance(factor, Activate | Gate):
            names.append(factor.activation.parameter)
        if isinstance(factor, Scale):
            names.append(factor.tensor)
        if isinstance(factor, Normalize):
            names += [join(factor.norm.name, leaf) for leaf in NORM_LEAVES]
    return tuple(dict.fromkeys(name for name in names if name is not None and name in tensors))


GAINS = ("weight", "gamma", "scale")

SHIFTS = ("bias", "beta")

NORM_LEAVES = (*GAINS, *SHIFTS, "running_mean", "running_var")


def applied_layers(factor: Factor) -> tuple[Apply, ...]:
    """Return the layers that a factor applies: one, two for a gate, or none."""
    if isinstance(factor, Apply):
        return (factor,)
    return (factor.gate, factor.up) if isinstance(factor, Gate) else ()


def layer_names(factors: Sequence[Factor]) -> tuple[str, ...]:
    """Return the names of the layers among some factors, each once, in order."""
    return tuple(dict.fromkeys(apply.layer for factor in factors for apply in applied_layers(factor)))


def total_stride(factors: Sequence[Factor], layers: Mapping[str, Layer]) -> tuple[int, ...]:
    """Return the product of all strides per spatial axis, () where there is no convolution and no pool."""
    total: tuple[int, ...] = ()
    for factor in factors:
        sides: tuple[int, ...] = ()
        if isinstance(factor, Pool):
            sides = factor.sides
        elif isinstance(factor, Apply) and (conv := layers[factor.layer].conv) is not None:
            sides = conv.stride.value if factor.stride is None else (factor.stride,) * len(conv.kernel)
        if sides:
            total = tuple(a * b for a, b in zip(total or (1,) * len(sides), sides, strict=True))
    return total
