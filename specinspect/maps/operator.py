"""A convolution as a linear operator on a finite grid, zero-padded or periodic, applied without its matrix.

Vectors are rows of a batch, each a flattened (channel, *place) in torch's order; everything is float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Literal, Protocol

import torch
import torch.nn.functional as F

from specinspect.maps.model import ConvolutionMap
from specinspect.maps.patterns import Affine, Diagonals, slopes_at

Boundary = Literal["zeros", "circular"]
CHUNK = 32 << 20
"""Bytes of columns that are made at a time when an operator is written out."""

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Operator(Protocol):
    """A real linear map that can be applied from both sides."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""

    @property
    def device(self) -> torch.device:
        """Where its vectors live."""

    def matvec(self, x: torch.Tensor) -> torch.Tensor:
        """Return M·x for every row x of a (batch, columns) tensor, as (batch, rows)."""

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Return Mᵀ·y for every row y of a (batch, rows) tensor, as (batch, columns)."""


def dense(operator: Operator) -> torch.Tensor:
    """Return the matrix (rows, columns) of an operator, made from the identity a few columns at a time."""
    rows, columns = operator.shape
    result = torch.empty(rows, columns, dtype=torch.float64, device=operator.device)
    step = max(1, CHUNK // (8 * (rows + columns)))
    for start in range(0, columns, step):
        stop = min(start + step, columns)
        inputs = torch.zeros(stop - start, columns, dtype=torch.float64, device=operator.device)
        inputs.diagonal(start).fill_(1.0)
        result[:, start:stop] = operator.matvec(inputs).T
    return result


@dataclass(frozen=True, slots=True, eq=False)
class ConvolutionOperator:
    """A convolution on a grid, or its adjoint: the transposed convolution with the same kernel.

    The grid is that of the finer side: of the input, for a transposed convolution of the output.
    """

    kernel: torch.Tensor
    """(groups, out/groups, in/groups, *k) in float64, as the convolution reads it (MATH §I)."""
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    grid: tuple[int, ...]
    low: tuple[int, ...]
    """Places added below the first one of each axis."""
    high: tuple[int, ...]
    """Places added above the last one, for zeros; the periodic grid wraps as far as the kernel reaches."""
    boundary: Boundary = "zeros"
    transposed: bool = False

    def __post_init__(self) -> None:
        """Refuse a grid that the kernel does not fit into.

        Raises:
            ValueError: the output would have no places.
        """
        if min(self.coarse) < 1:
            raise ValueError(f"expected a padded grid of at least the kernel's reach, got {self.grid}")

    @staticmethod
    def of(
        convolution: ConvolutionMap,
        boundary: Boundary = "zeros",
        *,
        high: tuple[int, ...] = (),
        transposed: bool = False,
        device: str = "cpu",
    ) -> ConvolutionOperator:
        """Take kernel, geometry, grid and padding from a map.

        Args:
            convolution: as `maps.build` makes it; its padding is what is added below the first place.
            boundary: zeros beyond the grid, or the grid again.
            high: added above the last place, () for as much as below; padding='same' with an even reach
                needs one more.
            transposed: the layer is the adjoint of what the map holds.
            device: where to compute.
        """
        kernel = convolution.kernel.to(device).to(torch.float64)
        low = convolution.padding
        return ConvolutionOperator(
            kernel,
            convolution.stride,
            convolution.dilation,
            convolution.grid,
            low,
            high or convolution.high or low,
            boundary,
            transposed,
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """Places from the kernel's first tap to its last, per axis."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel.shape[3:], strict=True))

    @property
    def coarse(self) -> tuple[int, ...]:
        """Places of the coarser side, by torch's formula; on a periodic grid every stride-th place."""
        if self.boundary == "circular":
            return tuple((n - 1) // s + 1 for n, s in zip(self.grid, self.stride, strict=True))
        sides = zip(self.grid, self.stride, self.low, self.high, self.reach, strict=True)
        return tuple((n + low + high - reach - 1) // s + 1 for n, s, low, high, reach in sides)

    @property
    def inputs(self) -> tuple[int, ...]:
        """(channels, *places) of the input."""
        return self._coarse_side if self.transposed else self._fine_side

    @property
    def outputs(self) -> tuple[int, ...]:
        """(channels, *places) of the output."""
        return self._fine_side if self.transposed else self._coarse_side

    @property
    def _fine_side(self) -> tuple[int, ...]:
        return (self.kernel.shape[0] * self.kernel.shape[2], *self.grid)

    @property
    def _coarse_side(self) -> tuple[int, ...]:
        return (self.kernel.shape[0] * self.kernel.shape[1], *self.coarse)

    @property
    def shape(self) -> tuple[int, int]:
        """(out·places, in·places)."""
        return prod(self.outputs), prod(self.inputs)

    @property
    def device(self) -> torch.device:
        """Where the kernel lives."""
        return self.kernel.device

    def matvec(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's outputs without bias, (batch, rows), for (batch, columns)."""
        return self._gather(x) if self.transposed else self._slide(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Return the adjoint's outputs, (batch, columns), for (batch, rows)."""
        return self._slide(y) if self.transposed else self._gather(y)

    def groups(self) -> Iterator[ConvolutionOperator]:
        """Yield the diagonal blocks that a grouped convolution consists of (MATH R62)."""
        for g in range(len(self.kernel)):
            yield replace(self, kernel=self.kernel[g : g + 1])

    def _slide(self, x: torch.Tensor) -> torch.Tensor:
        """Go from the fine side to the coarse one."""
        x = x.reshape(-1, *self._fine_side)
        if self.boundary == "zeros":
            pads = [side for pair in zip(self.low, self.high, strict=True) for side in reversed(pair)]
            x = F.pad(x, pads[::-1])
        else:
            for axis, index in enumerate(self._wrapped(), start=2):
                x = x.index_select(axis, index)
        convolve = _CONVOLVE[len(self.grid)]
        y = convolve(
            x,
            self.kernel.flatten(0, 1),
            stride=self.stride,
            dilation=self.dilation,
            groups=len(self.kernel),
        )
        return y.flatten(1)

    def _gather(self, y: torch.Tensor) -> torch.Tensor:
        """Go from the coarse side to the fine one."""
        spread = _TRANSPOSE[len(self.grid)](
            y.reshape(-1, *self._coarse_side),
            self.kernel.flatten(0, 1),
            stride=self.stride,
            dilation=self.dilation,
            groups=len(self.kernel),
        )
        if self.boundary == "zeros":
            pads: list[int] = []
            for n, low, size in zip(self.grid, self.low, spread.shape[2:], strict=True):
                pads = [-low, n + low - size, *pads]
            return F.pad(spread, pads).flatten(1)
        for axis, (index, n) in enumerate(zip(self._wrapped(), self.grid, strict=True), start=2):
            folded = spread.new_zeros(*spread.shape[:axis], n, *spread.shape[axis + 1 :])
            spread = folded.index_add_(axis, index[: spread.shape[axis]], spread)
        return spread.flatten(1)

    def _wrapped(self) -> Iterator[torch.Tensor]:
        """Yield, per axis, which place of the grid stands at each place of the wrapped one."""
        sides = zip(self.grid, self.low, self.reach, strict=True)
        for n, low, reach in sides:
            yield (torch.arange(n + reach, device=self.device) - low) % n


@dataclass(frozen=True, slots=True, eq=False)
class ShortcutOperator:
    """The shortcut A beside a convolution: identity, rectangular identity, rescaled average pool (MATH R33).

    Windows of stride × stride places are summed and divided by the root of their number; channels that the
    coarse side lacks are dropped, those it has beyond are zero. Without a stride that is the identity, cut
    or zero-padded.
    """

    fine: tuple[int, ...]
    """(channels, *places) of the finer side."""
    coarse: tuple[int, ...]
    stride: tuple[int, ...]
    device: torch.device
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        sides = prod(self.coarse), prod(self.fine)
        return sides[::-1] if self.transposed else sides

    @property
    def shared(self) -> int:
        """Channels that both sides have."""
        return min(self.fine[0], self.coarse[0])

    @property
    def entry(self) -> float:
        """The value of every entry that is not zero."""
        return 1 / sqrt(prod(self.stride))

    def matvec(self, x: torch.Tensor) -> torch.Tensor:
        """Return A·x for a batch of rows."""
        return self._spread(x) if self.transposed else self._pool(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Return Aᵀ·y for a batch of rows."""
        return self._pool(y) if self.transposed else self._spread(y)

    def add_to(self, matrix: torch.Tensor, factor: float) -> None:
        """Add factor·A to a (rows, columns) matrix in place, without writing A out."""
        fine = torch.arange(prod(self.fine), device=matrix.device).reshape(self._windows)[: self.shared]
        coarse = torch.arange(prod(self.coarse), device=matrix.device).reshape(self.coarse)[: self.shared]
        for axis in range(len(self.stride)):
            coarse = coarse.unsqueeze(2 * axis + 2)
        pair = (coarse.expand_as(fine).flatten(), fine.flatten())
        matrix[pair[::-1] if self.transposed else pair] += factor * self.entry

    @property
    def _windows(self) -> tuple[int, ...]:
        pairs = zip(self.coarse[1:], self.stride, strict=True)
        return (self.fine[0], *(side for pair in pairs for side in pair))

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.reshape(-1, *self._windows)
        pooled = windows.sum(tuple(range(3, windows.ndim, 2))) * self.entry
        return _match(pooled, self.coarse[0]).flatten(1)

    def _spread(self, y: torch.Tensor) -> torch.Tensor:
        values = _match(y.reshape(-1, *self.coarse), self.fine[0]) * self.entry
        for axis, stride in enumerate(self.stride, start=2):
            values = values.repeat_interleave(stride, axis)
        return values.flatten(1)


def _match(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Cut or zero-pad the channels of (batch, channels, *places)."""
    return F.pad(images, [0, 0] * (images.ndim - 2) + [0, channels - images.shape[1]])


def shortcut_beside(convolution: ConvolutionOperator, kind: str) -> ShortcutOperator | None:
    """Return the shortcut of a kind ('identity', 'rectangular-identity', 'average-pool'), None without a fit.

    It fits where the coarse side has exactly one place per stride: a convolution that pads too little or too
    much for its kernel has no shortcut, nor has the kind 'none'.
    """
    fine, coarse = convolution.inputs, convolution.outputs
    if convolution.transposed:
        fine, coarse = coarse, fine
    one_each = all(n == m * s for n, m, s in zip(fine[1:], coarse[1:], convolution.stride, strict=True))
    if kind == "none" or not one_each or (kind == "identity" and fine != coarse):
        return None
    return ShortcutOperator(fine, coarse, convolution.stride, convolution.device, convolution.transposed)


@dataclass(frozen=True, slots=True, eq=False)
class LayerOperator:
    """ρA + β·D·W; without a diagonal D is the identity, without a shortcut A is zero."""

    convolution: ConvolutionOperator
    diagonal: torch.Tensor | None = None
    """(rows,)."""
    shortcut: ShortcutOperator | None = None
    rho: float = 1.0
    beta: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.convolution.shape

    @property
    def device(self) -> torch.device:
        """Where the kernel lives."""
        return self.convolution.device

    def matvec(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map of every row of a (batch, columns) tensor."""
        y = self.convolution.matvec(x)
        if self.diagonal is not None:
            y *= self.diagonal
        if self.beta != 1:
            y *= self.beta
        return y if self.shortcut is None else y.add_(self.shortcut.matvec(x), alpha=self.rho)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Return the adjoint of every row of a (batch, rows) tensor."""
        x = self.convolution.adjoint(y if self.diagonal is None else y * self.diagonal)
        if self.beta != 1:
            x = x * self.beta
        return x if self.shortcut is None else x.add_(self.shortcut.adjoint(y), alpha=self.rho)

    def live(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which rows and columns are not zero by structure, as (rows,) and (columns,) of bool."""
        kernel = (self.convolution.kernel != 0).to(torch.float64)
        marks = LayerOperator(
            replace(self.convolution, kernel=kernel),
            None if self.diagonal is None else (self.diagonal != 0).to(torch.float64),
            self.shortcut if self.rho else None,
            1.0,
            float(self.beta != 0),
        )
        rows, columns = self.shape
        ones = torch.ones(1, max(rows, columns), dtype=torch.float64, device=self.device)
        return marks.matvec(ones[:, :columns])[0] > 1e-6, marks.adjoint(ones[:, :rows])[0] > 1e-6

    def squared_norm(self) -> float:
        """Return the squared Frobenius norm in closed form; exact only for the zero-padded grid.

        There every entry of W holds at most one tap, so that the sums of squares along its rows are the
        convolution of ones with the squared taps; beside a shortcut the taps that meet A's entries are added.
        """
        conv = self.convolution
        squares = replace(conv, kernel=conv.kernel.square())
        ones = torch.ones(1, self.shape[1], dtype=torch.float64, device=self.device)
        rows = squares.matvec(ones)[0]
        diagonal = torch.ones_like(rows) if self.diagonal is None else self.diagonal
        total = self.beta**2 * float((rows * diagonal.square()).sum())
        if self.shortcut is None:
            return total
        own = prod(self.shortcut.coarse[1:]) * self.shortcut.shared
        return total + self.rho**2 * own + 2 * self.rho * self.beta * self._inner(self.shortcut, diagonal)

    def _inner(self, shortcut: ShortcutOperator, diagonal: torch.Tensor) -> float:
        """Return the Frobenius inner product ⟨A, D·W⟩ of an ungrouped layer."""
        conv = self.convolution
        if len(conv.kernel) != 1:
            raise ValueError("expected an ungrouped convolution: take its groups one by one")
        # The taps between channels that A joins, over the places of one window.
        taps = conv.kernel[0, : shortcut.shared, : shortcut.shared].diagonal().movedim(-1, 0)
        weights = diagonal.reshape(conv.outputs)[: shortcut.shared]
        total = 0.0
        axes = zip(conv.kernel.shape[3:], conv.dilation, conv.low, conv.stride, strict=True)
        inside = [[t for t in range(k) if 0 <= d * t - low < s] for k, d, low, s in axes]
        whole = slice(None)
        for tap in itertools.product(*inside):
            places = weights
            if conv.transposed:  # D stands on the fine side: only on the places that this tap writes to
                starts = zip(tap, conv.dilation, conv.low, conv.stride, strict=True)
                window: list[slice] = [slice(d * t - low, None, s) for t, d, low, s in starts]
                places = weights[(whole, *window)]
            at: list[slice] = [slice(t, t + 1) for t in tap]
            total += float((taps[(whole, *at)].flatten() * places.flatten(1).sum(1)).sum())
        return shortcut.entry * total


def spread_diagonal(values: torch.Tensor, outputs: tuple[int, ...]) -> torch.Tensor:
    """Return D's diagonal as (rows,), from one value per channel or one per channel and place.

    Raises:
        ValueError: neither.
    """
    if values.numel() == outputs[0]:
        return values.flatten().repeat_interleave(prod(outputs[1:]))
    if values.numel() == prod(outputs):
        return values.flatten()
    raise ValueError(f"expected {outputs[0]} or {prod(outputs)} entries of D, got {values.numel()}")


def sample_pixel_diagonals(
    convolution: ConvolutionOperator,
    bias: torch.Tensor | None,
    affine: Affine | None,
    activation: tuple[str, torch.Tensor],
    probes: torch.Tensor,
    normalise: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Diagonals:
    """Return D per channel and place: φ′(z) at z = scale·(W x + b) + shift for whole images x.

    Args:
        convolution: W.
        bias: (channels,) or None.
        affine: the normalisation in between, or None.
        activation: canonical name, and its slope as a tensor of one entry or one per channel.
        probes: (patterns, columns) inputs, from `normal_probes` or the user's own.
        normalise: what else is done to W x + b, (patterns, channels, *places), before the activation.

    Returns:
        As `pixel_diagonals_at`.
    """
    z = convolution.matvec(probes.to(convolution.device).to(torch.float64))
    if bias is not None:
        z = z + spread_diagonal(bias.to(z), convolution.outputs)
    if normalise is not None:
        z = normalise(z.reshape(-1, *convolution.outputs)).flatten(1)
    return pixel_diagonals_at(z, convolution.outputs, affine, activation)


def pixel_diagonals_at(
    z: torch.Tensor, outputs: tuple[int, ...], affine: Affine | None, activation: tuple[str, torch.Tensor]
) -> Diagonals:
    """Return D per channel and place: φ′(scale·z + shift), times that scale.

    Args:
        z: (patterns, channels·places) float64.
        outputs: (channels, *places).
        affine: the folded normalisation, or None.
        activation: canonical name, and its slope as a tensor of one entry or one per channel.

    Returns:
        Values (patterns, channels·places), and the share of active outputs as `patterns.diagonals_at`
        counts it.
    """

    def along(values: torch.Tensor) -> torch.Tensor:
        return spread_diagonal(values.to(z), outputs)

    if affine is not None:
        z = along(affine.scale) * z + along(affine.shift)
    name, slope = activation
    slopes = slope.to(z) if slope.numel() == 1 else along(slope)
    derivative = slopes_at(z, name, slopes)
    smooth = not bool(((derivative == 0) | (derivative == 1)).all())
    active = (derivative.abs() > 0.5) if smooth else derivative != 0
    values = derivative if affine is None else derivative * along(affine.scale)
    return Diagonals(values, active.to(torch.float64).mean(1))


def normal_probes(convolution: ConvolutionOperator, patterns: int, seed: int) -> torch.Tensor:
    """Return (patterns, columns) standard normal inputs; the same seed gives the same bytes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(patterns, convolution.shape[1], generator=generator, dtype=torch.float64)
