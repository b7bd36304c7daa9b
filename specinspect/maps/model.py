"""The linear maps of one layer, as data that a spectrum can be computed from."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class DenseMap:
    """An explicit matrix (out × in), kept in its stored dtype until a block of it is needed in float64."""

    matrix: torch.Tensor
    dtype: str
    """The dtype whose rounding the entries carry; differs from the tensor's where it was recomposed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return (self.matrix.shape[0], self.matrix.shape[1])

    @property
    def count(self) -> int:
        """Number of singular values."""
        return min(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class LowRankMap:
    """left @ right · scale, with left out × r and right r × in: never multiplied out."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float
    dtype: str

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return (self.left.shape[0], self.right.shape[1])

    @property
    def count(self) -> int:
        """Number of singular values, those that are zero by construction among them."""
        return min(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class ConvolutionMap:
    """A convolution on a periodic grid: the operator, not the kernel reshaped (MATH R60-R62).

    A transposed convolution is the adjoint of the convolution with the same kernel, so it has the same
    singular values and is kept as that one.
    """

    kernel: torch.Tensor
    """(groups, out/groups, in/groups, *k): as the (adjoint) convolution reads it."""
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    grid: tuple[int, ...]
    """Side of the input's grid along each axis; the stride divides it."""
    dtype: str
    padding: tuple[int, ...] = ()
    """Zeros on the low side of each axis, which only turn phases here; () for none."""
    high: tuple[int, ...] = ()
    """Zeros on the high side, which matter beside a border alone; () for as many as on the low one."""

    def __post_init__(self) -> None:
        """Let () stand for no padding on any axis."""
        if not self.padding:
            object.__setattr__(self, "padding", (0,) * len(self.grid))

    @property
    def coarse(self) -> tuple[int, ...]:
        """Side of the output's grid along each axis."""
        return tuple(n // s for n, s in zip(self.grid, self.stride, strict=True))

    @property
    def aliases(self) -> int:
        """Input frequencies that fold onto one output frequency: the product of the strides."""
        return prod(self.stride)

    @property
    def count(self) -> int:
        """Number of singular values, over all groups and frequencies."""
        groups, out, inn = self.kernel.shape[:3]
        return groups * prod(self.coarse) * min(out, self.aliases * inn)


LinearMap = DenseMap | LowRankMap | ConvolutionMap
