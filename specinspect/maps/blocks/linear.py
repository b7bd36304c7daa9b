"""Stages that are affine: matrices, convolutions, factors per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from specinspect.maps.blocks.stage import Diagonal, Kernel, Matrix, Piece, Stored, along

if TYPE_CHECKING:
    from torch import Tensor

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


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
        return z if self.bias is None else z + along(self.bias, z)

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

    def _wrapped(self, axis: int, sides: Sequence[int], device: torch.device) -> Tensor:
        """Return which input pixel each pixel of the periodic input is, along one axis."""
        places = torch.arange(self._length(axis, sides), device=device)
        return (places - self.kernel.padding[axis]) % sides[axis]

    def places(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Return the sides of the output: torch's, with as many zeros above as below, or one per stride."""
        k = self.kernel
        if not self.zeros:
            return tuple(n // s for n, s in zip(sides, k.stride, strict=True))
        axes = zip(sides, k.kernel.shape[3:], k.stride, k.dilation, k.padding, strict=True)
        return tuple((n + 2 * p - d * (size - 1) - 1) // s + 1 for n, size, s, d, p in axes)

    def certain(self, sides: Sequence[int]) -> bool:
        """Say whether `places` is what torch's convolution does, whichever way an even kernel is padded.

        Of padding="same" only the zeros on the low side are known here; of an even kernel there is one more
        on the other side.
        """
        k, found = self.kernel, self.places(sides)
        reach = [d * (size - 1) for size, d in zip(k.kernel.shape[3:], k.dilation, strict=True)]
        uneven = any(2 * p + 1 == r for p, r in zip(k.padding, reach, strict=True))
        each = tuple(n // s for n, s in zip(sides, k.stride, strict=True))
        return min(found) > 0 and not (self.zeros and uneven and found != each)

    def _length(self, axis: int, sides: Sequence[int]) -> int:
        """Return how many pixels of the padded input are read along one axis."""
        k, coarse = self.kernel, self.places(sides)[axis]
        return (coarse - 1) * k.stride[axis] + k.dilation[axis] * (k.kernel.shape[3 + axis] - 1) + 1

    def _margins(self, sides: Sequence[int]) -> list[int]:
        """Return the zeros below and above, last axis first, as torch's pad takes them."""
        low = self.kernel.padding
        return [
            margin
            for axis in reversed(range(len(sides)))
            for margin in (low[axis], self._length(axis, sides) - sides[axis] - low[axis])
        ]

    def run(self, x: Tensor) -> Tensor:
        """Return K∗x + b."""
        z = self.tangent(x, x)
        return z if self.bias is None else z + along(self.bias, z)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return K∗v."""
        k = self.kernel
        if self.zeros:
            v = F.pad(v, self._margins(v.shape[2:]))
        sides = v.shape[2:]
        for axis in range(0 if self.zeros else len(sides)):
            v = v.index_select(2 + axis, self._wrapped(axis, sides, v.device))
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
            return F.pad(v, [-margin for margin in self._margins(x.shape[2:])])
        sides = [n * s for n, s in zip(w.shape[2:], k.stride, strict=True)]
        for axis, side in enumerate(sides):
            shape = [*v.shape]
            shape[2 + axis] = side
            v = v.new_zeros(shape).index_add_(2 + axis, self._wrapped(axis, sides, v.device), v)
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
        return z if self.shift is None else z + along(self.shift, z)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return scale·v."""
        return along(self.scale, v) * v

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return scale·w."""
        return self.tangent(x, w)

    def piece(self, x: Tensor) -> Piece:
        """Return the scale."""
        return Diagonal(self.scale.expand(self.channels))
