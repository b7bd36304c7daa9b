"""What is known of a network once its `forward` has been traced: plain data, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specinspect.checkpoint.model import ModuleFacts

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation as it is applied.

    The names are those of torch.nn.functional where there is one, with 'gelu_tanh' for the tanh approximation
    of GELU, 'quick_gelu' for x·sigmoid(1.702x) and 'relu_squared'. Parameters that are not the usual ones and
    have no field here are part of the name, e.g. 'hardtanh(-2.0, 2.0)', so that it is not mistaken for the
    usual one.
    """

    name: str
    slope: float | None = None
    """Negative slope of leaky_relu, alpha of elu and celu."""
    parameter: str | None = None
    """Tensor that holds the slopes of a prelu."""


@dataclass(frozen=True, slots=True)
class Gated:
    """The join of a gated MLP: activation(gate(x)) · up(x)."""

    gate: str
    """Layer path."""
    activation: Activation
    up: str
    """Layer path; equal to `gate` where one layer makes both and is split."""
    half: int | None = None
    """Where one layer makes both: which half of its rows (0 or 1) is the gate."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing on a path through the network, in the order in which data meets it.

    Kinds: 'layer', 'norm', 'activation', 'pool'; 'scale' (times a number or a tensor), 'shift' (plus one),
    'reshape' (axes moved or merged, no arithmetic), 'gate' (see `gated`), and 'other': an operation, or
    several data paths that join, named in `detail`.
    """

    kind: str
    path: str
    """Module path, for functional calls that of the weight's owner; the tensor's name for scale and shift."""
    activation: Activation | None = None
    detail: str = ""
    """Class or function name, with its parameters for pools and reshapes; the number of a scale."""
    gated: Gated | None = None
    inside: tuple[str, ...] = ()
    """Layers that lie on the paths that join in this step (for 'attention': query, key, value)."""


@dataclass(frozen=True, slots=True)
class ResidualBlock:
    """y = shortcut(x) + scale · branch(x), perhaps followed by an activation or a normalisation."""

    name: str
    """Module path in whose `forward` the addition happens, made unique."""
    branch: tuple[Step, ...]
    shortcut: tuple[Step, ...]
    """Empty: the identity."""
    after: Activation | None = None
    scale: float = 1.0
    norm: str | None = None
    """Path of the norm that takes the sum and nothing but it (post-norm transformers)."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that was read from a module."""

    modules: Mapping[str, ModuleFacts]
    shapes: Mapping[str, tuple[int, ...]]
    """Names in the state dict → shapes."""
    activations: Mapping[str, Activation]
    """Layer path → what follows it before the next layer; identity where none does, absent where unknown."""
    normalizations: Mapping[str, str]
    """Layer path → path of the norm that follows it, before any activation."""
    blocks: tuple[ResidualBlock, ...]
    traced: bool
    """Whether the whole of `forward` was followed."""
    notes: tuple[str, ...] = ()
    """Why tracing fell short, and what was chosen where a layer is used twice: one sentence each."""
    ambiguous: Mapping[str, str] = field(default_factory=dict)
    """Layer path → a sentence, where what follows it differs between its uses."""
    assumption: str = ""
    """A sentence, where the example was a guess with which `forward` was followed."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Name in the state dict → the first name of the same tensor, for tied tensors only."""


@dataclass(frozen=True, slots=True)
class Built:
    """A network made from MODULE:FACTORY, and what was done differently from what was asked."""

    module: nn.Module
    notes: tuple[str, ...] = ()
