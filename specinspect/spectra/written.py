"""All maps of a zero-padded convolution that is small enough to be written out, from one Gram matrix.

D and the shortcut change a Gram matrix by factors and sums (see `family`): W takes one product of matrices,
and every map beside it only an eigenvalue problem, however many patterns there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from specinspect.maps.operator import ConvolutionOperator, LayerOperator, ShortcutOperator
from specinspect.maps.written import written_out
from specinspect.spectra.family import Family, RectangularIdentity
from specinspect.spectra.solve import Batch, Solution, singular_values
from specinspect.spectra.summary import harmless_scale


@dataclass(frozen=True, slots=True, eq=False)
class PooledShortcut:
    """An average pool beside a batch of one matrix, applied and not written out; see `family.Shortcut`."""

    operator: ShortcutOperator
    turned: bool
    """The matrix is the transpose of the layer's, and A with it."""

    def add_gram_to(self, total: torch.Tensor, factor: float) -> None:
        """Add factor·AᵀA."""
        identity = torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
        there, back = self.operator.matvec, self.operator.adjoint
        square = there(back(identity)) if self.turned else back(there(identity))
        total.add_(square, alpha=factor)

    def norm(self) -> float:
        """Return 1."""
        return 1.0

    def cross(self, m: torch.Tensor) -> torch.Tensor:
        """Return AᵀM."""
        apply = self.operator.matvec if self.turned else self.operator.adjoint
        return apply(m[0].T).T[None]

    def add_to(self, m: torch.Tensor, rho: float, index: torch.Tensor) -> torch.Tensor:
        """Return ρA + M."""
        self.operator.add_to(m[0].T if self.turned else m[0], rho)
        return m


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One group of a zero-padded convolution as a matrix."""

    matrix: torch.Tensor
    """W, (rows, columns)."""
    largest: float
    """Largest |entry|."""
    family: Family | None
    """What its maps share; None where W has zero rows or columns, or entries whose squares leave float64."""

    @staticmethod
    def of(group: ConvolutionOperator, shortcut: ShortcutOperator | None) -> Written:
        """Write a group out, and solve W itself."""
        matrix = written_out(group)
        largest = float(matrix.abs().max())
        rows, columns = LayerOperator(group).live()
        if not bool(rows.all() & columns.all()) or harmless_scale(largest) != 1.0:
            return Written(matrix, largest, None)
        if shortcut is None or max(shortcut.stride) == 1:
            family = Family.of(matrix[None], None if shortcut is None else RectangularIdentity())
            return Written(matrix, largest, family)
        family = Family.of(matrix[None], None)
        beside = PooledShortcut(shortcut, family.turned)
        cross = beside.cross(family.matrices)
        return Written(matrix, largest, replace(family, shortcut=beside, cross=cross))

    def solve(self, operator: LayerOperator, live: tuple[torch.Tensor, torch.Tensor]) -> Solution:
        """Return the singular values of a map of this group but for its structural zeros, a batch of one.

        Args:
            operator: ρA + β·D·W, with no shortcut where ρ is zero.
            live: its rows and columns that are not zero by structure, at least one of each.
        """
        found = None if self.family is None else self._shared(self.family, operator, live)
        return self._explicit(operator, live) if found is None else found

    def _shared(
        self, family: Family, operator: LayerOperator, live: tuple[torch.Tensor, torch.Tensor]
    ) -> Solution | None:
        """Solve from the shared Gram matrix; None where structural zeros would be left in it."""
        d, beta = operator.diagonal, operator.beta
        counts = [int(side.sum()) for side in live]
        peak = 1.0 if d is None else float(d.abs().max())
        if harmless_scale(max(abs(operator.rho), abs(beta) * peak * self.largest)) != 1.0:
            return None
        if operator.shortcut is None:
            if d is None:
                return family.weight.scaled(abs(beta))
            left = int((d != 0).sum())
            expected = left if family.turned else min(left, family.matrices.shape[-1])
            chain = family.chain(d) if expected == min(counts) else None
            return None if chain is None else chain.scaled(abs(beta))
        small, long = live if family.turned else live[::-1]
        if int(small.sum()) > int(long.sum()):
            return None
        return family.skip(operator.rho, beta, d, None if bool(small.all()) else small)

    def _explicit(self, operator: LayerOperator, live: tuple[torch.Tensor, torch.Tensor]) -> Solution:
        """Write one map out and solve it on its own."""
        m = operator.beta * self.matrix
        if operator.diagonal is not None:
            m *= operator.diagonal[:, None]
        if operator.shortcut is not None:
            operator.shortcut.add_to(m, operator.rho)
        if not bool(live[0].all() & live[1].all()):
            m = m[live[0]][:, live[1]]
        scale = harmless_scale(float(m.abs().max()))
        if scale != 1.0:
            m *= scale
        return singular_values(Batch(m[None])).scaled(1 / scale)
