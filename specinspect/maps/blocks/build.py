"""From a block and its tensors to the stages that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

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
from specinspect.maps.blocks.linear import Affine, Convolution, Dense
from specinspect.maps.blocks.nonlinear import Elementwise, Gated, Normalizer
from specinspect.maps.blocks.stage import Kernel, Stage, Stored
from specinspect.maps.build import Read, build_weight_map
from specinspect.maps.model import ConvolutionMap, DenseMap, LowRankMap

if TYPE_CHECKING:
    from torch import Tensor

Grid = int | tuple[int, ...]
"""One side for all axes, or each axis's."""


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
    alone: bool = False
    """Without a shortcut."""

    @property
    def strides(self) -> int:
        """Input pixels for each output pixel: the product of all strides, over all axes."""
        return prod(prod(s.kernel.stride) for s in self.stages if isinstance(s, Convolution))

    @property
    def varies(self) -> bool:
        """Whether its Jacobian depends on the input."""
        return any(stage.varies for stage in self.stages)


def build_branch(
    block: Block,
    layers: Mapping[str, Layer],
    read: Read,
    available: frozenset[str],
    grid: Grid,
    *,
    zeros: bool = False,
) -> Branch:
    """Read the tensors of a block.

    Args:
        block: what to build.
        layers: name → layer, those of the block at least.
        read: name → tensor on the CPU.
        available: names that can be read.
        grid: side of the grid for convolutions, or its sides; widened where a kernel would wrap onto itself,
            and to a multiple of the strides. Sides with zeros around them are taken as they are.
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
    sides = grid if zeros and isinstance(grid, tuple) else block_grid(block, layers, grid)
    coarse = sides
    for stage in stages:
        coarse = stage.places(coarse) if isinstance(stage, Convolution) else coarse
    return Branch(
        stages,
        shortcut,
        inputs,
        builder.width,
        sides,
        coarse,
        tuple(dict.fromkeys(builder.assumptions)),
        block.shortcut.kind == "none",
    )


def block_grid(block: Block, layers: Mapping[str, Layer], grid: Grid) -> tuple[int, ...]:
    """Return the periodic grid for a block, () where it has no convolution.

    A rule's side of one of its layers counts before that of the run, but not before sides that are given.
    """
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
    if isinstance(grid, int):
        ruled = ruled_side(block, layers)
        grid = (grid if ruled is None else ruled,) * len(strides)
    return tuple(-(-max(asked, n) // s) * s for asked, n, s in zip(grid, needed, strides, strict=True))


def ruled_side(block: Block, layers: Mapping[str, Layer]) -> int | None:
    """Return the side that a rule sets for the first of a block's layers for which one does."""
    return next((side for name in block.layers if (side := layers[name].grid) is not None), None)


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
                pool = Kernel(kernel, factor.sides, (1,) * axes, (0,) * axes)
                return Convolution(pool, None, zeros=self.zeros)

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
