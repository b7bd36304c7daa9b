"""The maps of one dense layer from its stored matrix, a block of rows at a time.

The same algebra as `family`, for a single matrix that may be the largest of a checkpoint: beside the mapped
file never more than three matrices of its size are held in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specinspect.spectra.family import Given
from specinspect.spectra.solve import Solution, Streamed, row_blocks, singular_values


@dataclass(frozen=True, slots=True, eq=False)
class LeanFamily:
    """A stored matrix M, turned so that it is at least as tall as wide, with its Gram matrix."""

    stored: torch.Tensor
    """(m, n) view of the stored matrix, m >= n, in its own dtype."""
    turned: bool
    """The layer's own matrix is the transpose of this: D then acts on the columns."""
    scale: float
    """A power of two that multiplies every entry."""
    device: str
    gram: torch.Tensor
    """(n, n) float64: MᵀM, scaled."""
    norm: float
    """‖M‖, scaled: what rounding errors go by."""

    @staticmethod
    def of(matrix: torch.Tensor, scale: float, device: str, norm: float) -> LeanFamily:
        """Form the Gram matrix of a layer's (out, in) matrix.

        Square matrices are turned too: D then only changes the Gram matrix by factors.
        """
        turned = matrix.shape[0] <= matrix.shape[1]
        stored = matrix.T if turned else matrix
        return LeanFamily(stored, turned, scale, device, Streamed(stored, scale, device).gram()[0], norm)

    def shared(self, diagonal: torch.Tensor) -> torch.Tensor | None:
        """Return (DM)ᵀDM for `skip` and `chain`, where forming it once saves work and holds little memory."""
        m, n = self.stored.shape
        return self._gram(diagonal) if not self.turned and m >= 2 * n else None

    def skip(
        self,
        rho: float,
        beta: float,
        diagonal: torch.Tensor | None = None,
        shared: torch.Tensor | None = None,
    ) -> Solution:
        """Return the singular values of ρA+βM, or of ρA+β·D·M, for the (rectangular) identity A.

        `shared` is what `shared` returned for this diagonal.
        """
        unit = max(abs(rho), abs(beta))
        if unit == 0:
            raise ValueError("rho and beta are both zero: there is no map")
        rho, beta = rho / unit, beta / unit  # the square of the larger one may leave float64
        added = self._gram(diagonal) if shared is None else shared.clone()
        added.mul_(beta * beta)
        n = len(added)
        start = 0
        for block in row_blocks(self.stored[:n], n // 4, self.scale, self.device):
            stop = start + len(block)
            part: torch.Tensor | float = 1.0
            if diagonal is not None:
                part = diagonal if self.turned else diagonal[start:stop, None]
            activated = block * part
            added[start:stop].add_(activated, alpha=rho * beta)
            added[:, start:stop].add_(activated.T, alpha=rho * beta)
            start = stop
        added.diagonal().add_(rho * rho)
        peak = 1.0 if diagonal is None else float(diagonal.abs().max())

        def explicit(_: torch.Tensor) -> torch.Tensor:
            m = self._matrix(diagonal).mul_(beta)
            m.diagonal().add_(rho)
            return m[None]

        size = torch.tensor([abs(rho) + abs(beta) * peak * self.norm], dtype=torch.float64)
        handed = [added[None]]
        del added  # or it would be held through the refinement
        return singular_values(Given(handed, explicit, size)).scaled(unit)

    def chain(self, diagonal: torch.Tensor, shared: torch.Tensor | None = None) -> Solution | None:
        """Return the singular values of D·M that D leaves, None if there are none; see `Family.chain`.

        `shared` is what `shared` returned for this diagonal.
        """
        alive = diagonal != 0
        count = int(alive.sum())
        if count == 0:
            return None
        n = self.stored.shape[1]
        d = diagonal[alive]
        if self.turned:
            gram = self.gram[alive][:, alive].mul_(d[:, None]).mul_(d)
        elif count >= n:
            gram = self._gram(diagonal) if shared is None else shared
        else:
            kept = self._matrix(diagonal)[alive]
            gram = kept @ kept.T
            del kept

        def explicit(_: torch.Tensor) -> torch.Tensor:
            m = self._matrix(diagonal)
            m = m[:, alive] if self.turned else m[alive]
            return (m if m.shape[0] >= m.shape[1] else m.T)[None]

        handed = [gram[None]]
        del gram
        return singular_values(Given(handed, explicit, None))

    def tau(self, diagonal: torch.Tensor | None = None) -> torch.Tensor:
        """Return the eigenvalues of AᵀM + MᵀA, or with D·M for M, (1, n) descending; see `Family.tau`."""
        n = len(self.gram)
        total = torch.zeros(n, n, dtype=torch.float64, device=self.device)
        start = 0
        for block in row_blocks(self.stored[:n], n // 4, self.scale, self.device):
            stop = start + len(block)
            part = block
            if diagonal is not None:
                part = block * (diagonal if self.turned else diagonal[start:stop, None])
            total[start:stop].add_(part)
            total[:, start:stop].add_(part.T)
            start = stop
        return torch.linalg.eigvalsh(total).flip(-1).cpu()[None]

    def _gram(self, diagonal: torch.Tensor | None) -> torch.Tensor:
        """Return (DM)ᵀDM as a matrix of its own."""
        if diagonal is None:
            return self.gram.clone()
        if self.turned:
            return self.gram.clone().mul_(diagonal[:, None]).mul_(diagonal)
        n = self.stored.shape[1]
        total = torch.zeros(n, n, dtype=torch.float64, device=self.device)
        start = 0
        for block in row_blocks(self.stored, n // 4, self.scale, self.device):
            stop = start + len(block)
            weighted = block * diagonal[start:stop, None]
            total.addmm_(weighted.T, weighted)
            start = stop
        return total

    def _matrix(self, diagonal: torch.Tensor | None) -> torch.Tensor:
        """Return DM in float64, (m, n), to be changed at will."""
        m = self.stored.to(self.device).to(torch.float64, copy=True)
        if self.scale != 1.0:
            m.mul_(self.scale)
        if diagonal is not None:
            m.mul_(diagonal if self.turned else diagonal[:, None])
        return m
