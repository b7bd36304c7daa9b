"""What the bounds of a block rest on, gathered while its spectra are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.spectra.blocks.gather import Values
from specinspect.spectra.blocks.question import BlockQuestion
from specinspect.spectra.quantities import BlockPattern, BlockQuantities
from specinspect.spectra.solve import EPS

if TYPE_CHECKING:
    from torch import Tensor

ISOMETRY = 1e-10
"""Relative spread of the squares of A's singular values up to which A counts as a multiple of an isometry."""


@dataclass(slots=True)
class Gathered:
    """The quantities of one block while its chunks of frequencies come in."""

    tau: list[list[NDArray[np.float64]]]
    """Pattern → (frequencies, k) of each chunk, ascending or not, of A as it stands."""
    low: float = 1.0
    high: float = 1.0
    written_out: bool = False
    """Whether A has been seen; else it is an identity."""
    shape: tuple[int, int] = (0, 0)
    multiplicity: list[NDArray[np.int64]] = field(default_factory=list)

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

    def add_tau(self, pattern: int, tau: Tensor | None) -> None:
        """Take the eigenvalues of AᴴJ + JᴴA of one pattern, where there are any."""
        if tau is not None:
            self.tau[pattern].append(tau.cpu().numpy())

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
        return -np.sort(-np.concatenate(tau), 1) / self.high


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
