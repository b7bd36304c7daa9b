"""The maps D·W, ρA+βW and ρA+β·D·W of one layer from one Gram matrix and one product with the shortcut A.

With M tall, G = MᴴM and E = AᴴM:

    (ρA+βM)ᴴ(ρA+βM) = ρ²AᴴA + ρβ(E + Eᴴ) + β²G

where AᴴA = I for the usual shortcuts (identity, rectangular identity, average pool without new channels),

and D only changes what G and E are made of. Every ρ and β is thus an addition and an eigenvalue problem; no
further product of matrices (MATH R1, R1'').
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from specinspect.spectra.solve import Solution, singular_values, triangular_factors


class Shortcut(Protocol):
    """The shortcut A of a batch of tall matrices."""

    def add_gram_to(self, total: torch.Tensor, factor: float) -> None:
        """Add factor·AᴴA to (batch, n, n) in place."""

    def norm(self) -> float:
        """Return an upper bound of ‖A‖."""

    def cross(self, m: torch.Tensor) -> torch.Tensor:
        """Return AᴴM, (batch, n, n)."""

    def add_to(self, m: torch.Tensor, rho: float, index: torch.Tensor) -> torch.Tensor:
        """Return ρA + M for the chosen members, whose matrices m (k, m, n) may be overwritten."""


class RectangularIdentity:
    """Ones on the diagonal of an m × n matrix: the identity where m = n."""

    def add_gram_to(self, total: torch.Tensor, factor: float) -> None:
        """Add factor·I."""
        total.diagonal(dim1=-2, dim2=-1).add_(factor)

    def norm(self) -> float:
        """Return 1."""
        return 1.0

    def cross(self, m: torch.Tensor) -> torch.Tensor:
        """Return AᴴM: the first n rows."""
        return m[..., : m.shape[-1], :]

    def add_to(self, m: torch.Tensor, rho: float, index: torch.Tensor) -> torch.Tensor:
        """Return ρA + M."""
        m.diagonal(dim1=-2, dim2=-1).add_(rho)
        return m


@dataclass(frozen=True, slots=True, eq=False)
class ExplicitShortcut:
    """A shortcut that is written out (the Fourier blocks of an average pool, a 1×1 convolution)."""

    matrices: torch.Tensor
    """(batch, m, n), m >= n."""

    def add_gram_to(self, total: torch.Tensor, factor: float) -> None:
        """Add factor·AᴴA."""
        total.add_(self.matrices.mH @ self.matrices, alpha=factor)

    def norm(self) -> float:
        """Return √(‖A‖₁‖A‖∞), which is at least the spectral norm and close to it where A is sparse."""
        columns, rows = (torch.linalg.matrix_norm(self.matrices, p) for p in (1, float("inf")))
        return float((columns * rows).sqrt().max())

    def cross(self, m: torch.Tensor) -> torch.Tensor:
        """Return AᴴM."""
        return self.matrices.mH @ m

    def add_to(self, m: torch.Tensor, rho: float, index: torch.Tensor) -> torch.Tensor:
        """Return ρA + M."""
        return m.add_(self.matrices[index], alpha=rho)


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A batch of matrices whose Gram matrix was put together from parts; see `solve.Tall`."""

    matrix: list[torch.Tensor]
    """One (batch, n, n): the Gram matrix on the smaller side, handed over to whoever asks for it."""
    explicit: Callable[[torch.Tensor], torch.Tensor]
    """Indices → the matrices themselves (k, m, n), m >= n; only for the ill-conditioned ones."""
    size: torch.Tensor | None
    """(batch,): norm of the terms that were added up, which their rounding errors go by, if any were."""

    def gram(self) -> torch.Tensor:
        """Return AᴴA, once."""
        return self.matrix.pop()

    def factor(self, index: torch.Tensor) -> list[torch.Tensor]:
        """Return R of A = QR."""
        return triangular_factors(self.explicit(index))


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A batch of matrices M (batch, m, n), turned so that m >= n, with what all their maps share."""

    matrices: torch.Tensor
    """(batch, m, n), m >= n."""
    shortcut: Shortcut | None
    """A, turned as the matrices are; None where no skip makes sense."""
    turned: bool
    """The layer's own matrices are the adjoints of these: D then acts on the columns."""
    gram: torch.Tensor
    """(batch, n, n): MᴴM."""
    cross: torch.Tensor | None
    """(batch, n, n): AᴴM."""
    weight: Solution
    """Singular values of M itself."""

    @staticmethod
    def of(matrices: torch.Tensor, shortcut: torch.Tensor | RectangularIdentity | None) -> Family:
        """Form the shared products and solve M itself.

        Args:
            matrices: (batch, out, in) float64 or complex128.
            shortcut: A as (batch, out, in) of the same dtype, or the identity of that shape, or None.
        """
        # Square matrices too: D on the columns only changes the Gram matrix by factors.
        turned = matrices.shape[-2] <= matrices.shape[-1]
        m = matrices.mH if turned else matrices
        a: Shortcut | None
        if isinstance(shortcut, torch.Tensor):
            a = ExplicitShortcut(shortcut.mH if turned else shortcut)
        else:
            a = shortcut
        gram = m.mH @ m
        weight = singular_values(Given([gram], lambda index: m[index], None))
        return Family(m, a, turned, gram, None if a is None else a.cross(m), weight)

    def skip(
        self,
        rho: float,
        beta: float,
        diagonal: torch.Tensor | None = None,
        alive: torch.Tensor | None = None,
    ) -> Solution:
        """Return the singular values of ρA+βM, or of ρA+β·D·M for D = diag(diagonal).

        Args:
            rho: weight of the skip.
            beta: weight of the branch.
            diagonal: (out,), or (batch, out), or None for the identity.
            alive: (n,) bool, the lines of the smaller side that are not zero by structure, None for all; the
                others are left out.
        """
        a, m = self.shortcut, self.matrices
        if a is None or self.cross is None:
            raise AssertionError("no shortcut was given")
        unit = max(abs(rho), abs(beta))
        if unit == 0:
            raise ValueError("rho and beta are both zero: there is no map")
        # In units of the larger one, whose square may leave float64.
        rho, beta = rho / unit, beta / unit
        gram, cross = self._activated(a, self.cross, diagonal)
        added = gram.clone() if diagonal is None else gram
        added.mul_(beta * beta).add_(cross, alpha=rho * beta).add_(cross.mH, alpha=rho * beta)
        a.add_gram_to(added, rho * rho)
        if alive is not None:
            added = added[:, alive][:, :, alive]
        peak = 1.0 if diagonal is None else float(diagonal.abs().max())
        shortcut_norm = a.norm() if rho else 0.0

        def explicit(index: torch.Tensor) -> torch.Tensor:
            chosen = diagonal[index] if diagonal is not None and diagonal.ndim == 2 else diagonal
            whole = a.add_to(beta * self._apply(m[index], chosen), rho, index)
            return whole if alive is None else whole[..., alive]

        size = abs(rho) * shortcut_norm + abs(beta) * peak * self.weight.values[:, 0]
        handed = [added]
        del added, gram  # or they would be held through the refinement
        return singular_values(Given(handed, explicit, size)).scaled(unit)

    def chain(self, diagonal: torch.Tensor) -> Solution | None:
        """Return the singular values of D·M that D leaves, None if there are none.

        Rows that D removes are structural zeros: they are counted by the caller, not computed (MATH R9).
        """
        alive = diagonal != 0
        count = int(alive.sum())
        if count == 0:
            return None
        d, m = diagonal[alive], self.matrices
        if self.turned:
            kept = m[:, :, alive]
            gram = self.gram[:, alive][:, :, alive] * (d[:, None] * d[None, :])
        else:
            kept = m[:, alive]
            weighted = kept * d[:, None]
            gram = weighted.mH @ weighted if count >= m.shape[-1] else weighted @ weighted.mH

        def explicit(index: torch.Tensor) -> torch.Tensor:
            if self.turned:
                return kept[index] * d
            rows = kept[index] * d[:, None]
            return rows if rows.shape[-2] >= rows.shape[-1] else rows.mH

        return singular_values(Given([gram], explicit, None))

    def tau(self, diagonal: torch.Tensor | None = None) -> torch.Tensor:
        """Return the eigenvalues of AᴴM + MᴴA, or with D·M for M: (batch, n) descending (MATH §0, R1'').

        On the smaller side, as everything here; without a shortcut those of M + Mᴴ, for square M.
        """
        return torch.linalg.eigvalsh(self.symmetric(diagonal)).flip(-1).cpu()

    def symmetric(self, diagonal: torch.Tensor | None = None) -> torch.Tensor:
        """Return AᴴM + MᴴA, (batch, n, n), whose eigenvalues `tau` gives."""
        cross = self.matrices if self.cross is None else self.cross
        if diagonal is not None and self.turned:
            cross = cross * diagonal[..., None, :]
        elif diagonal is not None:
            if self.shortcut is None:
                raise AssertionError("no shortcut was given")
            cross = self.shortcut.cross(self.matrices * diagonal[..., :, None])
        return cross + cross.mH

    def _apply(self, m: torch.Tensor, diagonal: torch.Tensor | None) -> torch.Tensor:
        if diagonal is None:
            return m
        return m * diagonal[..., None, :] if self.turned else m * diagonal[..., :, None]

    def _activated(
        self, a: Shortcut, cross: torch.Tensor, diagonal: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (DM)ᴴDM and AᴴDM."""
        if diagonal is None:
            return self.gram, cross
        if self.turned:  # M·D, D on the smaller side: the products only change by factors
            factors = diagonal[..., :, None] * diagonal[..., None, :]
            return self.gram * factors, cross * diagonal[..., None, :]
        weighted = self.matrices * diagonal[..., :, None]
        return weighted.mH @ weighted, a.cross(weighted)
