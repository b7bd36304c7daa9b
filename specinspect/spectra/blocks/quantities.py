"""What the bounds of a block rest on, gathered while its spectra are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from specinspect.spectra.blocks.gather import Values
from specinspect.spectra.blocks.question import BlockQuestion
from specinspect.spectra.quantities import BlockPattern, BlockQuantities
from specinspect.spectra.solve import extreme_values

if TYPE_CHECKING:
    from torch import Tensor

TRIED = 4
"""Frequencies that are solved before any is compared."""
SINGLE = 32
"""Size from which on a factorisation in single precision is quicker than one in double."""
ISOMETRY = 1e-10
"""Relative spread of the squares of A's singular values up to which A counts as a multiple of an isometry."""


@dataclass(slots=True)
class Gathered:
    """The quantities of one block while its chunks of frequencies come in."""

    tau: list[list[NDArray[np.float64]]]
    """Pattern → (frequencies, k or 2) of each chunk, in no order, of A as it stands."""
    low: float = 1.0
    high: float = 1.0
    written_out: bool = False
    """Whether A has been seen; else it is an identity."""
    shape: tuple[int, int] = (0, 0)
    multiplicity: list[NDArray[np.int64]] = field(default_factory=list)
    ends: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Pattern → what its τ lie between, so far."""

    @classmethod
    def of(cls, question: BlockQuestion, patterns: int) -> Gathered | None:
        """Return an empty one where the block has a shortcut and bounds are wanted, else None."""
        if not (question.quantities and question.with_skip):
            return None
        return cls([[] for _ in range(patterns)])

    @property
    def isometric(self) -> bool:
        """Whether A is a multiple of an isometry, as far as it has been seen (MATH R1'')."""
        return self.high > 0 and self.high**2 - self.low**2 <= ISOMETRY * self.high**2

    def add_shortcut(self, matrices: Tensor, rank: int) -> None:
        """Take A, (frequencies, out, in), which has at most this rank."""
        low, high = extreme_values(matrices, rank)
        seen = self.written_out
        self.low, self.high = min(low, self.low if seen else inf), max(high, self.high if seen else 0.0)
        self.written_out = True

    def add_symmetric(self, pattern: int, h: Tensor, count: int) -> None:
        """Take AᴴJ + JᴴA of one pattern at the frequencies of a chunk.

        Args:
            pattern: its number; the first one comes first.
            h: (frequencies, n, n) Hermitian.
            count: k; the k - n eigenvalues beside those of h are zero.
        """
        more = count - h.shape[-1]
        if pattern == 0 or len(h) == 1 or count <= 2 or not h.numel():
            tau = F.pad(torch.linalg.eigvalsh(h), (0, more)).cpu().numpy()
        else:
            low, high = ends(h, *self.ends.get(pattern, (0.0, 0.0) if more else (inf, -inf)))
            self.ends[pattern] = low, high
            tau = np.broadcast_to(np.array([low, high]), (len(h), 2))
        self.tau[pattern].append(tau)

    def add_chunk(self, shape: tuple[int, int], multiplicity: Tensor) -> None:
        """Take how often each frequency of a chunk counts."""
        self.shape = shape
        self.multiplicity.append(multiplicity.numpy())

    def quantities(
        self, question: BlockQuestion, chains: Sequence[Values], skips: Sequence[Values], *, periodic: bool
    ) -> BlockQuantities:
        """Return what was gathered."""
        k = min(self.shape)
        return BlockQuantities(
            shape=self.shape,
            identity=question.block.shortcut.kind == "identity",
            periodic=periodic,
            rho=question.rho,
            beta=question.beta,
            shortcut=(self.low, self.high),
            multiplicity=np.concatenate(self.multiplicity),
            patterns=tuple(
                BlockPattern(chain.by_frequency(k), skip.by_frequency(k), self._ordered(tau))
                for chain, skip, tau in zip(chains, skips, self.tau, strict=True)
            ),
        )

    def _ordered(self, tau: Sequence[NDArray[np.float64]]) -> NDArray[np.float64] | None:
        if not (tau and self.isometric):
            return None
        if len({part.shape[1] for part in tau}) > 1:
            tau = [np.stack([part.max(1), part.min(1)], 1) for part in tau]
        return -np.sort(-np.concatenate(tau), 1) / self.high


def ends(h: Tensor, low: float, high: float) -> tuple[float, float]:
    """Return the smallest and the largest of some numbers and of all eigenvalues of a batch.

    A Cholesky factorisation, many times cheaper than eigenvalues, shows which members reach no further than
    what is known; the others are solved.

    Args:
        h: (batch, n, n) Hermitian.
        low: the smallest so far.
        high: the largest so far; below `low` for none.
    """
    if low > high:
        found = torch.linalg.eigvalsh(h[:TRIED])
        low, high = float(found.min()), float(found.max())
    h = h[~_well_within(h, low, high)]
    margin = 1e-12 * max(abs(low), abs(high))
    above, below = h.clone(), -h
    above.diagonal(dim1=-2, dim2=-1).sub_(low - margin)
    below.diagonal(dim1=-2, dim2=-1).add_(high + margin)
    beyond = (torch.linalg.cholesky_ex(above).info != 0) | (torch.linalg.cholesky_ex(below).info != 0)
    if bool(beyond.any()):
        found = torch.linalg.eigvalsh(h[beyond])
        low, high = min(low, float(found.min())), max(high, float(found.max()))
    return low, high


def _well_within(h: Tensor, low: float, high: float) -> Tensor:
    """Say of which members all eigenvalues lie between two numbers, so far that single precision shows it.

    A factorisation that succeeds is that of a matrix nearby: at most 3n(n+1)u times the largest diagonal
    entry away (Higham 2002, Theorem 10.3, for complex numbers), u the unit roundoff, and rounding the entries
    adds less than half of that. It takes half the time of one in double precision.
    """
    n, span = h.shape[-1], high - low
    room = 5 * n * (n + 1) * torch.finfo(torch.float32).eps / 2
    if not (h.is_complex() and n >= SINGLE and span > 0 and room < 0.1):
        return torch.zeros(len(h), dtype=torch.bool, device=h.device)
    below = h * (-1 / span)
    below.diagonal(dim1=-2, dim2=-1).add_(high / span)  # eigenvalues from 0 to 1
    inside = torch.ones(len(h), dtype=torch.bool, device=h.device)
    for shifted in (below, -below):
        single = shifted.to(torch.complex64)
        single.diagonal(dim1=-2, dim2=-1).add_(-room if shifted is below else 1 - room)
        inside &= torch.linalg.cholesky_ex(single).info == 0
    return inside
