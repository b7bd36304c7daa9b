"""The Jacobian's factors at some frequencies (MATH R60, R61, R63)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from specinspect.maps.blocks import (
    Branch,
    Diagonal,
    Kernel,
    Matrix,
    Piece,
)
from specinspect.maps.fourier import frequencies
from specinspect.spectra.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some output frequencies and, for each, the input frequencies that fold onto it."""

    turns: Tensor | None
    """(frequencies, aliases, axes): phase from one input pixel to the next; None without a grid."""
    multiplicity: Tensor

    @property
    def size(self) -> int:
        """Number of output frequencies."""
        return len(self.multiplicity)

    @property
    def aliases(self) -> int:
        """Input frequencies that fold onto each."""
        return 1 if self.turns is None else self.turns.shape[1]


def chunks_of(branch: Branch, bytes_each: int, plan: Plan) -> Iterator[Chunk]:
    """Yield the output frequencies of a block, as many at a time as the plan takes of `bytes_each` bytes."""
    if not branch.grid:
        yield Chunk(None, torch.ones(1, dtype=torch.int64))
        return
    chosen = frequencies(branch.coarse)
    ratio = [n // m for n, m in zip(branch.grid, branch.coarse, strict=True)]
    shifts = torch.tensor(list(itertools.product(*map(range, ratio)))) * torch.tensor(branch.coarse)
    size = max(1, plan.block_bytes(bytes_each) // (4 * bytes_each))
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        nu = torch.tensor([omega for omega, _ in part])
        turns = (nu[:, None] + shifts[None]).to(torch.float64) / torch.tensor(branch.grid)
        yield Chunk(turns, torch.tensor([count for _, count in part]))


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Matrices whose product is the Jacobian at each frequency of a chunk."""

    matrices: list[Tensor]
    """In the order of the data: (frequencies·aliases, out, in) up to `fold`, (frequencies or 1, …) after."""
    fold: int
    """How many of them act before the last stride."""
    size: int
    aliases: int
    alive: list[Tensor]
    """Channels that are not exactly zero between the matrices, and at both ends."""
    aliases_at: list[int]
    """Input frequencies that are still apart there."""
    read: list[int]
    """Most that a strided convolution can pass on, since it skips pixels."""
    stage: list[int]
    """Which stage each matrix comes from."""
    peaks: list[float]
    """Largest diagonal entry that was put on each."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the product."""
        return self.matrices[-1].shape[-2], self.matrices[0].shape[-1] * self.aliases

    def rank(self) -> int:
        """Return the largest rank that exact zeros and narrow places leave."""
        places = zip(self.alive, self.aliases_at, strict=True)
        return min([int(alive.sum()) * count for alive, count in places] + self.read)

    def right(self, stop: int) -> Tensor:
        """Return the product of the first `stop` matrices, at least `fold` of them, aliases side by side."""
        value = self.matrices[0]
        if self.fold:
            value = value.expand(self.size * self.aliases, -1, -1)
        for index in range(1, stop + 1):
            if index == self.fold:
                _, rows, columns = value.shape
                value = value.reshape(self.size, self.aliases, rows, columns).transpose(1, 2).flatten(2)
            if index < stop:
                value = self.matrices[index] @ value
        return value.expand(self.size, -1, -1)

    def left(self, start: int) -> Tensor:
        """Return the product of the matrices from `start` on, at least one of them after `fold`."""
        value = self.matrices[-1]
        for matrix in reversed(self.matrices[start:-1]):
            value = value @ matrix
        return value.expand(self.size, -1, -1)

    def narrowest(self) -> int | None:
        """Return the place after the last stride with the fewest channels, if they limit the rank."""
        places = range(self.fold, len(self.alive))
        best = min(places, key=lambda place: int(self.alive[place].sum()))
        return best if int(self.alive[best].sum()) < min(self.shape) else None


def multiply(found: Sequence[Piece], chunk: Chunk, symbols: dict[int, Tensor]) -> Product:
    """Multiply diagonals into their neighbours and turn convolutions into their symbols.

    Args:
        found: the derivative of every stage.
        chunk: the frequencies.
        symbols: stage → symbol, kept between patterns.
    """
    linear = [i for i, piece in enumerate(found) if not isinstance(piece, Diagonal)]
    strided = [i for i in linear if isinstance(p := found[i], Kernel) and max(p.stride) > 1]
    last = strided[-1] if strided and chunk.aliases > 1 else -1
    axes = 1 if chunk.turns is None else chunk.turns.shape[-1]
    passed = torch.ones(axes, dtype=torch.float64)
    left = chunk.aliases
    matrices: list[Tensor] = []
    alive: list[Tensor] = []
    aliases_at: list[int] = []
    peaks: list[float] = []
    read: list[int] = []
    before: Tensor | None = None
    for i, piece in enumerate(found):
        if isinstance(piece, Diagonal):
            d = piece.values
            if matrices:
                matrices[-1] = d[:, None] * matrices[-1]
                alive[-1] = alive[-1] & (d != 0)
                peaks[-1] *= float(d.abs().max())
            else:
                before = d if before is None else before * d
            continue
        if isinstance(piece, Matrix):
            matrix, support = piece.matrix[None], piece.matrix != 0
        else:
            if i not in symbols:
                symbols[i] = _symbol(piece, chunk, passed, apart=i <= last)
            passed = passed * torch.tensor(piece.stride)
            left //= prod(piece.stride)
            matrix, support = symbols[i], _support(piece)
            seen = prod(map(min, piece.kernel.shape[3:], piece.stride))
            read.append(int(support.any(0).sum()) * seen * left)
        peak = 1.0
        if before is not None:
            matrix, support = matrix * before, support & (before != 0)
            peak, before = float(before.abs().max()), None
        if matrices:
            alive[-1] = alive[-1] & support.any(0)
        else:
            alive.append(support.any(0))
            aliases_at.append(chunk.aliases)
        matrices.append(matrix)
        alive.append(support.any(1))
        aliases_at.append(left)
        peaks.append(peak)
    fold = sum(1 for i in linear if i <= last)
    if any(matrix.is_complex() for matrix in matrices):
        matrices = [matrix.to(torch.complex128) for matrix in matrices]
    return Product(matrices, fold, chunk.size, chunk.aliases, alive, aliases_at, read, linear, peaks)


def _symbol(kernel: Kernel, chunk: Chunk, passed: Tensor, *, apart: bool) -> Tensor:
    """Return a convolution's symbols, at all input frequencies or once for those that fold together.

    `passed` is the product of the strides before it, per axis.
    """
    if chunk.turns is None:
        raise AssertionError("a convolution needs a grid")
    turns = (chunk.turns if apart else chunk.turns[:, :1]).flatten(0, 1) * passed
    return kernel.symbol(turns.to(kernel.kernel.device))


def _support(piece: Kernel) -> Tensor:
    """Return which outputs read which inputs, (out, in)."""
    used = (piece.kernel != 0).flatten(3).any(-1)
    groups, out, inn = used.shape
    whole = used.new_zeros(groups, out, groups, inn)
    index = torch.arange(groups, device=used.device)
    whole[index, :, index, :] = used
    return whole.reshape(groups * out, groups * inn)
