"""The Fourier blocks of a convolution on a periodic grid (MATH §I)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import pi, prod, sqrt
from typing import TYPE_CHECKING

import torch

from specinspect.maps.model import ConvolutionMap

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, eq=False)
class FourierBlocks:
    """A batch of blocks whose singular values, repeated, are those of the operator."""

    blocks: torch.Tensor
    """(batch, out, s^D·in), complex128."""
    multiplicity: torch.Tensor
    """(batch,): how often each block occurs in the operator's spectrum."""
    shortcut: torch.Tensor | None = None
    """(batch, out, s^D·in): the blocks of the average-pool shortcut, where asked for."""


def frequencies(sides: Sequence[int]) -> list[tuple[tuple[int, ...], int]]:
    """Return one of each conjugate pair ±ω of a grid, with how many it stands for (2, or 1 if ω = -ω).

    A real kernel has K̂(-ω) = conj K̂(ω), and conjugation leaves singular values alone (MATH R60).
    """
    chosen = []
    for omega in itertools.product(*(range(n) for n in sides)):
        mirror = tuple(-w % n for w, n in zip(omega, sides, strict=True))
        if omega <= mirror:
            chosen.append((omega, 1 if omega == mirror else 2))
    return chosen


def fourier_blocks(
    convolution: ConvolutionMap,
    kernel: torch.Tensor,
    limit: int,
    *,
    pool: bool = False,
    beside: ConvolutionMap | None = None,
) -> Iterator[FourierBlocks]:
    """Yield the blocks of some groups of a convolution, about `limit` bytes of them at a time.

    Args:
        convolution: stride, dilation and grid.
        kernel: (groups, out, in, *k) in float64, on the device to compute on; the spectrum of a grouped
            convolution is the union over its groups (MATH R62).
        limit: bytes; the blocks of one frequency are always made, however large.
        pool: also make the blocks of the rescaled average pool over stride × stride windows (MATH R33).
        beside: also make the blocks of this convolution, on the same grid and with the same stride, a float64
            kernel of one group; added to those of the pool.

    The blocks of output frequency ν are the s^D alias blocks K̂(ν + (n/s)a) side by side, divided by
    s^{D/2} (MATH R61); without a stride that is K̂(ν) itself (MATH R60, Sedghi, Gupta and Long 2019).
    """
    groups, out, inn = kernel.shape[:3]
    if prod(kernel.shape[3:]) == 1 and not pool and beside is None and not any(convolution.padding):
        # A single tap has the same block, up to a phase, at every frequency, and the s^D equal alias
        # blocks side by side have √(s^D) times its singular values: the divisor cancels.
        multiplicity = torch.full((groups,), prod(convolution.coarse))
        yield FourierBlocks(kernel.reshape(groups, out, inn).to(torch.complex128), multiplicity)
        return

    sides, coarse = torch.tensor(convolution.grid), torch.tensor(convolution.coarse)
    shifts = torch.tensor(list(itertools.product(*(range(s) for s in convolution.stride)))) * coarse
    chosen = frequencies(convolution.coarse)
    aliases = convolution.aliases
    chunk = max(1, limit // (16 * aliases * (groups * out * inn + prod(kernel.shape[3:]))))
    for start in range(0, len(chosen), chunk):
        part = chosen[start : start + chunk]
        nu = torch.tensor([omega for omega, _ in part])
        omegas = (nu[:, None, :] + shifts[None, :, :]).to(torch.float64) / sides  # (F, s^D, D)
        blocks = _blocks_at(convolution, kernel, omegas)
        multiplicity = torch.tensor([count for _, count in part]).repeat_interleave(groups)
        shortcut = _pool_blocks(convolution, omegas, kernel) if pool else None
        if beside is not None:
            own = _blocks_at(beside, beside.kernel.to(kernel.device), omegas)
            shortcut = own if shortcut is None else own + shortcut
        yield FourierBlocks(blocks, multiplicity, shortcut)


def inputs_read(kernel: torch.Tensor, stride: Sequence[int], dilation: Sequence[int]) -> torch.Tensor:
    """Return how many of the s^D·in columns of a block each group reads, (groups,): its rank is no larger.

    A block's columns are, but for a unitary matrix, the input channels at each place modulo the stride; a
    kernel whose taps t reach only some of the residues t·dilation mod s skips the others.

    Args:
        kernel: (groups, out, in, *k).
        stride: per axis.
        dilation: per axis.
    """
    groups, _, inn, *sizes = kernel.shape
    read = torch.zeros(groups, inn, prod(stride), dtype=torch.bool, device=kernel.device)
    taps = (kernel != 0).any(1).flatten(2).unbind(2)
    for used, tap in zip(taps, itertools.product(*(range(size) for size in sizes)), strict=True):
        place = 0
        for t, d, s in zip(tap, dilation, stride, strict=True):
            place = place * s + t * d % s
        read[:, :, place] |= used
    return read.sum((1, 2))


def _blocks_at(convolution: ConvolutionMap, kernel: torch.Tensor, omegas: torch.Tensor) -> torch.Tensor:
    """Return the blocks of some frequencies, all groups of one frequency before the next.

    Args:
        convolution: dilation and padding.
        kernel: (groups, out, in, *k) float64.
        omegas: (frequencies, s^D, D): the aliases of each output frequency, in turns per input position.
    """
    groups, out, inn = kernel.shape[:3]
    count, aliases = omegas.shape[:2]
    taps = torch.tensor(list(itertools.product(*(range(k) for k in kernel.shape[3:]))), dtype=torch.float64)
    # The padding only turns phases: no matter for W alone, but for W beside a shortcut (MATH R63).
    positions = taps * torch.tensor(convolution.dilation) - torch.tensor(convolution.padding)
    flat = kernel.reshape(groups * out * inn, -1)
    # Reduced to one turn before the exponential: a whole number of turns carries no information.
    angles = 2 * pi * (omegas.flatten(0, 1) @ positions.T).remainder(1.0).to(kernel.device)
    blocks = torch.complex(angles.cos() @ flat.T, angles.sin() @ flat.T)
    blocks = blocks.reshape(count, aliases, groups, out, inn).permute(0, 2, 3, 1, 4)
    blocks = blocks.reshape(count * groups, out, aliases * inn)
    return blocks / sqrt(aliases) if aliases > 1 else blocks


def _pool_blocks(convolution: ConvolutionMap, omegas: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Return s^{D/2} times the average pool, channel by channel, as blocks like those of the kernel.

    Args:
        convolution: stride.
        omegas: (frequencies, s^D, D): the aliases of each output frequency, in turns per input position.
        kernel: (groups, out, in, *k), for shapes and device; several groups have as many outputs as inputs,
            so that the pool mixes none of them.
    """
    groups, out, inn = kernel.shape[:3]
    if groups != 1 and out != inn:
        raise AssertionError("the pool would mix groups")
    window = torch.tensor(
        list(itertools.product(*(range(s) for s in convolution.stride))), dtype=torch.float64
    )
    angles = 2 * pi * (omegas @ window.T).remainder(1.0)  # (F, s^D aliases, s^D window places)
    # Taps s^{-D/2}, then s^{-D/2} for the aliases (MATH R61): 1/s^D in all.
    symbol = torch.complex(angles.cos(), angles.sin()).mean(-1).to(kernel.device)
    identity = torch.eye(out, inn, dtype=torch.complex128, device=kernel.device)
    blocks = (symbol[:, None, :, None] * identity[None, :, None, :]).flatten(2)
    return blocks.repeat_interleave(groups, 0) if groups > 1 else blocks
