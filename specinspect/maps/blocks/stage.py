"""What a stage of a block is, and what its derivative is with the same diagonal at every pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor


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


def along(vector: Tensor, like: Tensor) -> Tensor:
    """Shape a vector of channels so that it broadcasts against (batch, channels, *grid)."""
    return vector.reshape(-1, *(1,) * (like.ndim - 2)) if vector.ndim else vector


def to_device(piece: Piece, device: str) -> Piece:
    """Return the piece on another device."""
    match piece:
        case Diagonal():
            return Diagonal(piece.values.to(device))
        case Matrix():
            return Matrix(piece.matrix.to(device))
        case Kernel():
            return replace(piece, kernel=piece.kernel.to(device))
