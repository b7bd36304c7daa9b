"""What the bounds of a block rest on, gathered while its spectra are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from specinspect.spectra.blocks.gather import Values
from specinspect.spectra.blocks.question import BlockQuestion
from specinspect.spectra.quantities import BlockPattern, BlockQuantities
from specinspect.spectra.solve import EPS

if TYPE_CHECKING:
    from torch import Tensor

TRIED = 6
"""Frequencies that are solved first for each end of τ."""
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
    lead: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """τ of the last pattern of which all were computed: where to look for the ends of the next."""

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
        low, high = extremes(matrices, rank)
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
        if pattern == 0 or len(h) <= 2 * TRIED or count <= 2 or not h.numel():
            tau = F.pad(torch.linalg.eigvalsh(h), (0, more)).cpu().numpy()
            self.lead = tau
        else:
            low, high = ends(h, torch.from_numpy(self.lead))
            if more:
                low, high = min(low, 0.0), max(high, 0.0)
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


def ends(h: Tensor, like: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest eigenvalue of all members of a batch.

    A few members are solved; a Cholesky factorisation, many times cheaper, then shows of nearly all others
    that they reach no further.

    Args:
        h: (batch, n, n) Hermitian.
        like: (batch, any) eigenvalues of similar matrices: their extremes say which members to solve.
    """
    lowest, highest = like.amin(1).topk(TRIED, largest=False), like.amax(1).topk(TRIED)
    found = torch.linalg.eigvalsh(h[sorted({*lowest.indices.tolist(), *highest.indices.tolist()})])
    low, high = float(found.min()), float(found.max())
    for sign in (1, -1):
        end = low if sign > 0 else -high
        shifted = sign * h
        # Just beyond the end: the members that define it then count as solved.
        shifted.diagonal(dim1=-2, dim2=-1).sub_(end - 1e-12 * max(abs(low), abs(high)))
        beyond = torch.linalg.cholesky_ex(shifted).info != 0
        if bool(beyond.any()):
            further = torch.linalg.eigvalsh(h[beyond])
            low, high = min(low, float(further.min())), max(high, float(further.max()))
    return low, high


def extremes(matrices: Tensor, rank: int) -> tuple[float, float]:
    """Return what all min(m, n) singular values of some matrices are at least and at most.

    Args:
        matrices: (batch, m, n).
        rank: each has at most this.
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    gram = matrices @ matrices.mH if wide else matrices.mH @ matrices
    squares = torch.linalg.eigvalsh(gram)
    high = float(squares[:, -1].max())
    low = float(squares[:, 0].min()) - gram.shape[-1] * EPS * high  # rounding must not raise it
    return sqrt(low) if rank >= gram.shape[-1] and low > 0 else 0.0, sqrt(max(high, 0.0))
