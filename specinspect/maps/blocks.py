"""A block as stages that can be run, and whose derivatives at a point can be multiplied with (MATH §0)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F

from specinspect.errors import LayerError
from specinspect.layers.blocks import (
    GAINS,
    SHIFTS,
    Activate,
    Apply,
    Block,
    Factor,
    Gate,
    Normalize,
    Pool,
    Repeat,
    Scale,
    total_stride,
)
from specinspect.layers.model import Activation, Layer, Normalization
from specinspect.layers.names import join
from specinspect.layers.vocabulary import SLOPES
from specinspect.maps.activations import DERIVATIVES
from specinspect.maps.build import Read, build_weight_map
from specinspect.maps.model import ConvolutionMap, DenseMap, LowRankMap
from specinspect.maps.patterns import probe_seed

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[["Tensor", "Tensor"], "Tensor"]
"""(z, slope) → φ(z), elementwise."""

FUNCTIONS: Mapping[str, Function] = {
    "identity": lambda z, _: z,
    "relu": lambda z, _: z.relu(),
    "leaky_relu": lambda z, slope: torch.where(z > 0, z, slope * z),
    "prelu": lambda z, slope: torch.where(z > 0, z, slope * z),
    "abs": lambda z, _: z.abs(),
    "relu6": lambda z, _: F.relu6(z),
    "hardtanh": lambda z, _: F.hardtanh(z),
    "hardsigmoid": lambda z, _: F.hardsigmoid(z),
    "hardswish": lambda z, _: F.hardswish(z),
    "elu": lambda z, alpha: torch.where(z > 0, z, alpha * z.clamp_max(0).expm1()),
    "celu": lambda z, alpha: torch.where(z > 0, z, alpha * (z.clamp_max(0) / alpha).expm1()),
    "selu": lambda z, _: F.selu(z),
    "gelu": lambda z, _: F.gelu(z),
    "gelu_tanh": lambda z, _: F.gelu(z, approximate="tanh"),
    "quick_gelu": lambda z, _: z * (1.702 * z).sigmoid(),
    "silu": lambda z, _: F.silu(z),
    "mish": lambda z, _: F.mish(z),
    "tanh": lambda z, _: z.tanh(),
    "sigmoid": lambda z, _: z.sigmoid(),
    "softplus": lambda z, _: F.softplus(z),
}
"""The activations whose derivatives `maps.activations` knows."""

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


# What the derivative of a stage is, with the same diagonal at every pixel


@dataclass(frozen=True, slots=True, eq=False)
class Diagonal:
    """A factor per channel."""

    values: Tensor
    """(channels,) float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A matrix on the channels."""

    matrix: Tensor
    """(out, in) float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A convolution on a periodic grid."""

    kernel: Tensor
    """(groups, out/groups, in/groups, *k) float64."""
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]

    def symbol(self, turns: Tensor) -> Tensor:
        """Return K̂ at some frequencies as full matrices (MATH R60), times s^{-D/2} (MATH R61).

        Args:
            turns: (frequencies, axes): the phase from one input pixel to the next, in turns.

        Returns:
            (frequencies, out, in), complex128.
        """
        groups, out, inn, *sizes = self.kernel.shape
        taps = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes))
        positions = (taps * torch.tensor(self.dilation) - torch.tensor(self.padding)).to(turns)
        angles = 2 * torch.pi * (turns @ positions.T).remainder(1.0)
        flat = self.kernel.reshape(groups * out * inn, -1).T
        parts = torch.complex(angles.cos() @ flat, angles.sin() @ flat) / sqrt(prod(self.stride))
        parts = parts.reshape(-1, groups, out, inn)
        if groups == 1:
            return parts[:, 0]
        whole = parts.new_zeros(len(turns), groups, out, groups, inn)
        index = torch.arange(groups, device=parts.device)
        whole[:, index, :, index] = parts.movedim(1, 0)
        return whole.reshape(len(turns), groups * out, groups * inn)


Piece = Diagonal | Matrix | Kernel


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The entries of a weight, whose dtype says how much they were rounded."""

    entries: Tensor
    dtype: str


class Stage(Protocol):
    """One step of a branch. Tensors are (batch, channels, *grid), float64."""

    @property
    def stored(self) -> tuple[Stored, ...]:
        """The weights it is made of."""

    @property
    def varies(self) -> bool:
        """Whether its derivative depends on the input."""

    def run(self, x: Tensor) -> Tensor:
        """Return its output."""

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return its Jacobian at the single input x (1, …) times every v."""

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return its adjoint Jacobian at the single input x (1, …) times every w."""

    def piece(self, x: Tensor) -> Piece:
        """Return its derivative at one pixel x (channels,)."""


def _along(vector: Tensor, like: Tensor) -> Tensor:
    """Shape a vector of channels so that it broadcasts against (batch, channels, *grid)."""
    return vector.reshape(-1, *(1,) * (like.ndim - 2)) if vector.ndim else vector


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A matrix and a bias, at every pixel where there are any."""

    matrix: Tensor
    bias: Tensor | None
    stored: tuple[Stored, ...] = ()
    varies: bool = False

    def run(self, x: Tensor) -> Tensor:
        """Return Wx + b."""
        z = self.tangent(x, x)
        return z if self.bias is None else z + _along(self.bias, z)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return Wv."""
        return torch.einsum("oi,bi...->bo...", self.matrix, v)

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return Wᵀw."""
        return torch.einsum("oi,bo...->bi...", self.matrix, w)

    def piece(self, x: Tensor) -> Piece:
        """Return W."""
        return Matrix(self.matrix)


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution with a bias, periodic at the borders, or with zeros outside."""

    kernel: Kernel
    bias: Tensor | None
    stored: tuple[Stored, ...] = ()
    varies: bool = False
    zeros: bool = False

    @property
    def _weight(self) -> Tensor:
        groups, out, inn, *sizes = self.kernel.kernel.shape
        return self.kernel.kernel.reshape(groups * out, inn, *sizes)

    def _places(self, axis: int, side: int, device: torch.device) -> Tensor:
        """Return which input pixel each pixel of the padded input is, along one axis."""
        return (torch.arange(self._length(axis, side), device=device) - self.kernel.padding[axis]) % side

    def _length(self, axis: int, side: int) -> int:
        """Return how many pixels the padded input has along one axis."""
        k, coarse = self.kernel, side // self.kernel.stride[axis]
        return (coarse - 1) * k.stride[axis] + k.dilation[axis] * (k.kernel.shape[3 + axis] - 1) + 1

    def _margins(self, sides: Sequence[int]) -> list[int]:
        """Return the zeros below and above, last axis first, as torch's pad takes them."""
        low = self.kernel.padding
        return [
            margin
            for axis in reversed(range(len(sides)))
            for margin in (low[axis], self._length(axis, sides[axis]) - sides[axis] - low[axis])
        ]

    def keeps(self, sides: Sequence[int]) -> bool:
        """Say whether torch's convolution, with as many zeros above as below, has one place per stride."""
        k = self.kernel
        axes = zip(sides, k.kernel.shape[3:], k.stride, k.dilation, k.padding, strict=True)
        return all((n + 2 * p - d * (size - 1) - 1) // s + 1 == n // s for n, size, s, d, p in axes)

    def run(self, x: Tensor) -> Tensor:
        """Return K∗x + b."""
        z = self.tangent(x, x)
        return z if self.bias is None else z + _along(self.bias, z)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return K∗v."""
        k = self.kernel
        if self.zeros:
            v = F.pad(v, self._margins(v.shape[2:]))
        for axis in range(0 if self.zeros else v.ndim - 2):
            v = v.index_select(2 + axis, self._places(axis, v.shape[2 + axis], v.device))
        return _CONVOLVE[v.ndim - 2](
            v, self._weight, stride=k.stride, dilation=k.dilation, groups=k.kernel.shape[0]
        )

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the adjoint of K∗ times w: the padded pixels are added to those they copy."""
        k = self.kernel
        v = _TRANSPOSE[w.ndim - 2](
            w, self._weight, stride=k.stride, dilation=k.dilation, groups=k.kernel.shape[0]
        )
        if self.zeros:
            sides = [n * s for n, s in zip(w.shape[2:], k.stride, strict=True)]
            return F.pad(v, [-margin for margin in self._margins(sides)])
        for axis in range(w.ndim - 2):
            side = w.shape[2 + axis] * k.stride[axis]
            shape = [*v.shape]
            shape[2 + axis] = side
            v = v.new_zeros(shape).index_add_(2 + axis, self._places(axis, side, v.device), v)
        return v

    def piece(self, x: Tensor) -> Piece:
        """Return K."""
        return self.kernel


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A factor and a shift per channel: batch norm in eval mode, a gain, a scale."""

    scale: Tensor
    """(channels,), or () for all alike."""
    shift: Tensor | None
    channels: int
    stored: tuple[Stored, ...] = ()
    varies: bool = False

    def run(self, x: Tensor) -> Tensor:
        """Return scale·x + shift."""
        z = self.tangent(x, x)
        return z if self.shift is None else z + _along(self.shift, z)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return scale·v."""
        return _along(self.scale, v) * v

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return scale·w."""
        return self.tangent(x, w)

    def piece(self, x: Tensor) -> Piece:
        """Return the scale."""
        return Diagonal(self.scale.expand(self.channels))


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """An activation."""

    name: str
    slope: Tensor
    """(), or (channels,)."""
    stored: tuple[Stored, ...] = ()
    varies: bool = True

    def run(self, x: Tensor) -> Tensor:
        """Return φ(x)."""
        return FUNCTIONS[self.name](x, _along(self.slope, x))

    def derivative(self, x: Tensor) -> Tensor:
        """Return φ′(x); x is (batch, channels, *grid)."""
        return DERIVATIVES[self.name](x, _along(self.slope, x))  # type: ignore[arg-type]

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return φ′(x)·v."""
        return self.derivative(x) * v

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return φ′(x)·w."""
        return self.tangent(x, w)

    def piece(self, x: Tensor) -> Piece:
        """Return D."""
        return Diagonal(self.derivative(x[None])[0])


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """φ(gate(x)) ∘ up(x); its Jacobian is diag(φ(g))·W_u + diag(φ′(g)∘u)·W_g."""

    gate: Dense
    up: Dense
    activation: Elementwise
    stored: tuple[Stored, ...] = ()
    varies: bool = True

    def run(self, x: Tensor) -> Tensor:
        """Return φ(gate(x)) ∘ up(x)."""
        return self.activation.run(self.gate.run(x)) * self.up.run(x)

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return φ(g) and φ′(g)∘u."""
        g = self.gate.run(x)
        return self.activation.run(g), self.activation.derivative(g) * self.up.run(x)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the Jacobian times v."""
        on_up, on_gate = self.factors(x)
        return on_up * self.up.tangent(x, v) + on_gate * self.gate.tangent(x, v)

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the adjoint Jacobian times w."""
        on_up, on_gate = self.factors(x)
        return self.up.cotangent(x, on_up * w) + self.gate.cotangent(x, on_gate * w)

    def piece(self, x: Tensor) -> Piece:
        """Return the Jacobian."""
        on_up, on_gate = self.factors(x[None])
        return Matrix(on_up[0][:, None] * self.up.matrix + on_gate[0][:, None] * self.gate.matrix)


@dataclass(frozen=True, slots=True, eq=False)
class Normalizer:
    """Layer or RMS normalisation over the channels, with its own derivative."""

    centred: bool
    gain: Tensor | None
    shift: Tensor | None
    eps: float
    stored: tuple[Stored, ...] = ()
    varies: bool = True

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x̂ and 1/σ."""
        if self.centred:
            x = x - x.mean(1, keepdim=True)
        inverse = (x.square().mean(1, keepdim=True) + self.eps).rsqrt()
        return x * inverse, inverse

    def run(self, x: Tensor) -> Tensor:
        """Return gain·x̂ + shift."""
        y, _ = self._normalised(x)
        y = y if self.gain is None else _along(self.gain, y) * y
        return y if self.shift is None else y + _along(self.shift, y)

    def _project(self, x: Tensor, v: Tensor) -> Tensor:
        """Return (I - 11ᵀ/n - x̂x̂ᵀ/n)v/σ, without the middle term where x is not centred."""
        unit, inverse = self._normalised(x)
        if self.centred:
            v = v - v.mean(1, keepdim=True)
        return inverse * (v - unit * (unit * v).mean(1, keepdim=True))

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the Jacobian times v."""
        v = self._project(x, v)
        return v if self.gain is None else _along(self.gain, v) * v

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the adjoint Jacobian times w."""
        return self._project(x, w if self.gain is None else _along(self.gain, w) * w)

    def piece(self, x: Tensor) -> Piece:
        """Return the Jacobian."""
        identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
        return Matrix(self.tangent(x[None], identity).T)


# Building


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A block that is ready to be run: y = A(x) + J(x)."""

    stages: tuple[Stage, ...]
    shortcut: tuple[Stage, ...] | None
    """None: an identity between the first channels, or none at all."""
    channels: int
    """That come in."""
    outputs: int
    grid: tuple[int, ...]
    """Sides of the periodic grid of the input, () where there is none."""
    coarse: tuple[int, ...]
    """Sides of the grid of the output."""
    assumptions: tuple[str, ...] = ()

    @property
    def varies(self) -> bool:
        """Whether its Jacobian depends on the input."""
        return any(stage.varies for stage in self.stages)


def build_branch(
    block: Block,
    layers: Mapping[str, Layer],
    read: Read,
    available: frozenset[str],
    grid: int,
    *,
    zeros: bool = False,
) -> Branch:
    """Read the tensors of a block.

    Args:
        block: what to build.
        layers: name → layer, those of the block at least.
        read: name → tensor on the CPU.
        available: names that can be read.
        grid: side of the periodic grid for convolutions; widened where a kernel would wrap onto itself, and
            to a multiple of the strides.
        zeros: convolutions have zeros around the grid, where their own padding is of zeros.

    Raises:
        LayerError: the tensors do not fit together.
    """
    builder = _Builder(layers, read, available, [], zeros=zeros)
    stages = builder.stages(block.factors)
    inputs = builder.inputs(block.factors)
    shortcut = None
    if block.shortcut.factors:
        shortcut = builder.stages(block.shortcut.factors, inputs)
    sides = block_grid(block, layers, grid)
    stride = total_stride(block.factors, layers) or total_stride(block.shortcut.factors, layers)
    return Branch(
        stages,
        shortcut,
        inputs,
        builder.width,
        sides,
        tuple(n // s for n, s in zip(sides, stride, strict=True)),
        tuple(dict.fromkeys(builder.assumptions)),
    )


def block_grid(block: Block, layers: Mapping[str, Layer], side: int) -> tuple[int, ...]:
    """Return the periodic grid for a block, () where it has no convolution."""
    needed: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    for factors in (block.factors, block.shortcut.factors):
        total = total_stride(factors, layers)
        strides = strides or total
        for end, factor in enumerate(factors):
            conv = layers[factor.layer].conv if isinstance(factor, Apply) else None
            if conv is None:
                continue
            before = total_stride(factors[:end], layers) or (1,) * len(total)
            reach = zip(conv.dilation.value, conv.kernel, before, strict=True)
            own = tuple((d * (k - 1) + 1) * s for d, k, s in reach)
            needed = tuple(map(max, needed or own, own))
    needed = needed or (1,) * len(strides)
    ruled = [g for name in block.layers if (g := layers[name].grid) is not None]
    asked = ruled[0] if ruled else side
    return tuple(-(-max(asked, n) // s) * s for n, s in zip(needed, strides, strict=True))


@dataclass
class _Builder:
    layers: Mapping[str, Layer]
    read: Read
    available: frozenset[str]
    assumptions: list[str]
    width: int = 0
    """Channels after the last stage built."""
    zeros: bool = False

    def inputs(self, factors: Sequence[Factor]) -> int:
        """Return the channels that the first layer reads: what comes before it changes none."""
        for factor in factors:
            if isinstance(factor, Apply | Gate):
                apply = factor if isinstance(factor, Apply) else factor.gate
                return self.layers[apply.layer].matrix_shape[1]
        raise AssertionError("a block has a layer")

    def stages(self, factors: Sequence[Factor], width: int | None = None) -> tuple[Stage, ...]:
        self.width = self.inputs(factors) if width is None else width
        return tuple(self._stage(factor) for factor in factors)

    def _stage(self, factor: Factor) -> Stage:
        match factor:
            case Apply():
                return self._layer(factor)
            case Gate():
                gate, up = self._dense(factor.gate), self._dense(factor.up)
                self.width = len(gate.matrix)
                activation = self._activation(factor.activation)
                return Gated(gate, up, activation, (*gate.stored, *up.stored))
            case Normalize():
                return self._norm(factor)
            case Activate():
                return self._activation(factor.activation)
            case Scale():
                return self._scale(factor)
            case Repeat():
                groups = self.width // factor.size
                index = torch.arange(self.width).reshape(groups, factor.size)
                index = index.repeat_interleave(factor.times, 0).flatten()
                matrix = torch.eye(self.width, dtype=torch.float64)[index]
                self.width = len(index)
                return Dense(matrix, None)
            case Pool():
                size = prod(factor.sides)
                kernel = torch.full((self.width, 1, 1, *factor.sides), 1 / size, dtype=torch.float64)
                axes = len(factor.sides)
                return Convolution(Kernel(kernel, factor.sides, (1,) * axes, (0,) * axes), None)

    def _layer(self, apply: Apply) -> Stage:
        layer = self.layers[apply.layer]
        if layer.conv is None:
            dense = self._dense(apply)
            self.width = len(dense.matrix)
            return dense
        linear = build_weight_map(layer, self.read, 1)
        if not isinstance(linear, ConvolutionMap) or layer.conv.transposed:
            raise AssertionError("only plain convolutions are put into blocks")
        stride = linear.stride if apply.stride is None else (apply.stride,) * len(linear.stride)
        kernel = Kernel(linear.kernel.to(torch.float64), stride, linear.dilation, linear.padding)
        self._check(layer.matrix_shape[1], layer.name)
        self.width = layer.matrix_shape[0]
        flat = linear.kernel.reshape(self.width, -1)
        stored = (Stored(flat, linear.dtype),)
        zeros = self.zeros and layer.conv.padding_mode == "zeros"
        return Convolution(kernel, self._bias(layer), stored, zeros=zeros)

    def _dense(self, apply: Apply) -> Dense:
        layer = self.layers[apply.layer]
        linear = build_weight_map(layer, self.read, 1)
        if isinstance(linear, LowRankMap):
            matrix = linear.left.to(torch.float64) @ linear.right.to(torch.float64) * linear.scale
            stored = matrix
        elif isinstance(linear, DenseMap):
            stored = linear.matrix
            matrix = stored.to(torch.float64)
        else:
            raise AssertionError("only called for matrices")
        bias = self._bias(layer)
        if apply.rows is not None:
            rows = slice(*apply.rows)
            matrix, stored, bias = matrix[rows], stored[rows], None if bias is None else bias[rows]
        self._check(matrix.shape[1], layer.name)
        return Dense(matrix, bias, (Stored(stored, linear.dtype),))

    def _check(self, inputs: int, name: str) -> None:
        if inputs != self.width:
            raise LayerError(f"{name}: expected a layer that reads {self.width} channels, got {inputs}")

    def _bias(self, layer: Layer) -> Tensor | None:
        if layer.bias is None or layer.bias not in self.available:
            return None
        bias = self.read(layer.bias).flatten().to(torch.float64)
        if layer.bias_rows is not None:
            bias = torch.cat([bias[start:stop] for start, stop in layer.bias_rows])
        return bias if len(bias) == layer.matrix_shape[0] else None

    def _activation(self, activation: Activation) -> Elementwise:
        default = SLOPES.get(activation.name, 0.0)
        slope = torch.tensor(activation.slope if activation.slope is not None else default).double()
        if activation.parameter is not None and activation.parameter in self.available:
            stored = self.read(activation.parameter).to(torch.float64).flatten()
            if len(stored) in {1, self.width}:
                slope = stored
        return Elementwise(activation.name, slope)

    def _vector(self, path: str, leaves: Sequence[str]) -> Tensor | None:
        """Return the first of a module's vectors that is there."""
        for leaf in leaves:
            name = join(path, leaf)
            if name in self.available:
                vector = self.read(name).to(torch.float64).flatten()
                if len(vector) != self.width:
                    raise LayerError(f"{name}: expected {self.width} entries, got {len(vector)}")
                return vector
        return None

    def _norm(self, factor: Normalize) -> Stage:
        norm: Normalization = factor.norm
        gain, shift = self._vector(norm.name, GAINS), self._vector(norm.name, SHIFTS)
        if gain is not None and factor.offset:
            gain = gain + factor.offset
        one = torch.ones(self.width, dtype=torch.float64)
        if factor.gain_only:
            return Affine(one if gain is None else gain, shift, self.width)
        if norm.kind != "batch_norm":
            return Normalizer(norm.kind == "layer_norm", gain, shift, norm.eps)
        scale = one if gain is None else gain
        mean = self._vector(norm.name, ("running_mean",))
        variance = self._vector(norm.name, ("running_var",))
        if mean is None or variance is None:
            self.assumptions.append(f"{norm.name}: statistics not stored, only its gain and shift folded")
            return Affine(scale, shift, self.width)
        scale = scale / (variance + norm.eps).sqrt()
        moved = -scale * mean
        return Affine(scale, moved if shift is None else shift + moved, self.width)

    def _scale(self, factor: Scale) -> Stage:
        if factor.tensor is None:
            return Affine(torch.tensor(factor.value, dtype=torch.float64), None, self.width)
        stored = self.read(factor.tensor).to(torch.float64).flatten()
        if len(stored) not in {1, self.width}:
            raise LayerError(f"{factor.tensor}: expected {self.width} entries, got {len(stored)}")
        return Affine(stored.expand(self.width), None, self.width)


# Running


def sample_inputs(branch: Branch, name: str, patterns: int, seed: int) -> Tensor:
    """Return standard normal inputs (patterns, channels, *grid); the same seed gives the same bytes."""
    generator = torch.Generator().manual_seed(probe_seed(seed, name))
    shape = (patterns, branch.channels, *branch.grid)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def points(stages: Sequence[Stage], x: Tensor) -> list[Tensor]:
    """Return what comes into each stage when x (batch, channels, *grid) runs through them."""
    found = []
    for stage in stages:
        found.append(x)
        x = stage.run(x)
    return found


def tangent(stages: Sequence[Stage], at: Sequence[Tensor], v: Tensor) -> Tensor:
    """Return the Jacobian of the stages, at inputs of batch size 1 as `points` gives them, times every v."""
    for stage, x in zip(stages, at, strict=True):
        v = stage.tangent(x, v)
    return v


def cotangent(stages: Sequence[Stage], at: Sequence[Tensor], w: Tensor) -> Tensor:
    """Return the adjoint Jacobian times every w."""
    for stage, x in zip(reversed(stages), reversed(at), strict=True):
        w = stage.cotangent(x, w)
    return w


def shortcut_stages(branch: Branch) -> tuple[Stage, ...]:
    """Return the shortcut as stages, the identity between the first channels written out."""
    if branch.shortcut is not None:
        return branch.shortcut
    return (Dense(torch.eye(branch.outputs, branch.channels, dtype=torch.float64), None),)


def dense_jacobian(stages: Sequence[Stage], x: Tensor, at: Sequence[Tensor] | None = None) -> Tensor:
    """Return the exact Jacobian of some stages at one input, every pixel with its own diagonal.

    Args:
        stages: of a branch or a shortcut.
        x: (channels, *grid) float64.
        at: what comes into each stage, (1, …) each; None to run x through them.

    Returns:
        (outputs·pixels, channels·pixels), both in row-major order of (channel, *grid).
    """
    identity = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)
    return tangent(stages, points(stages, x[None]) if at is None else at, identity).flatten(1).T


def jacobian(branch: Branch, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact Jacobians J of the branch and A of the shortcut at one input.

    Convolutions are periodic; A is an identity where the block has no shortcut of its own.
    """
    return dense_jacobian(branch.stages, x), dense_jacobian(shortcut_stages(branch), x)


def keeps_grid(branch: Branch) -> bool:
    """Say whether every convolution of a block has exactly one place per stride, zeros around its grid."""
    for stages in (branch.stages, branch.shortcut or ()):
        sides = branch.grid
        for stage in stages:
            if isinstance(stage, Convolution):
                if stage.zeros and not stage.keeps(sides):
                    return False
                sides = tuple(n // s for n, s in zip(sides, stage.kernel.stride, strict=True))
    return True


def alike_at_all_pixels(at: Sequence[Tensor]) -> list[Tensor]:
    """Return the same points with the middle pixel's values everywhere: one diagonal per channel."""
    middle = []
    for x in at:
        centre = x
        for axis in range(2, x.ndim):
            centre = centre.narrow(axis, x.shape[axis] // 2, 1)
        middle.append(centre.expand_as(x))
    return middle


def pieces(branch: Branch, at: Sequence[Tensor], pattern: int) -> tuple[Piece, ...]:
    """Return the derivative of every stage, that of the first pixel taken to hold at all of them.

    Args:
        branch: what was run.
        at: what came into each stage, from `points`.
        pattern: which member of the batch.
    """
    return tuple(
        stage.piece(x[pattern].flatten(1)[:, 0] if branch.grid else x[pattern])
        for stage, x in zip(branch.stages, at, strict=True)
    )


def to_device(piece: Piece, device: str) -> Piece:
    """Return the piece on another device."""
    match piece:
        case Diagonal():
            return Diagonal(piece.values.to(device))
        case Matrix():
            return Matrix(piece.matrix.to(device))
        case Kernel():
            return replace(piece, kernel=piece.kernel.to(device))
