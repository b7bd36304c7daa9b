"""Maps that follow each other, multiplied: the extremes of ΠN_l, N_l = ρI + β·D_l·W_l (MATH R26)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, log, log2

import torch

from specinspect.spectra.model import ProductExtremes
from specinspect.spectra.solve import Batch, singular_values

BEYOND = ProductExtremes((), "its entries leave float64")


@dataclass(slots=True)
class Running:
    """A product of square matrices while its factors come in, brought to size by powers of two."""

    matrices: torch.Tensor | None = None
    """(batch, n, n), the largest entry between 1/2 and 1."""
    log: float = 0.0
    """Natural logarithm of what was taken out."""

    def multiply(self, factor: torch.Tensor) -> None:
        """Put one more factor (batch, n, n) in front; it may be overwritten."""
        factor = self._to_size(factor)
        self.matrices = factor if self.matrices is None else self._to_size(factor @ self.matrices)

    def _to_size(self, matrices: torch.Tensor) -> torch.Tensor:
        peak = float(matrices.abs().amax())
        if not (0 < peak < inf):
            self.log += log(peak) if peak else -inf
            return matrices
        power = -int(log2(peak)) - 1
        self.log -= power * log(2)
        half = power // 2  # 2^power alone may leave float64
        return matrices.mul_(2.0**half).mul_(2.0 ** (power - half))

    def extremes(self) -> tuple[float, float] | None:
        """Return the logarithms of σ_max and σ_min over the batch; None where entries left float64."""
        if self.matrices is None or self.log == -inf:
            return -inf, -inf
        if not (isfinite(self.log) and bool(self.matrices.isfinite().all())):
            return None
        values = singular_values(Batch(self.matrices)).values
        top, low = float(values[:, 0].max()), float(values[:, -1].min())
        return self.log + log(top), self.log + log(low) if low > 0 else -inf


def layers_product(
    matrices: Sequence[torch.Tensor],
    diagonals: Sequence[torch.Tensor | None],
    rho: float,
    beta: float,
    device: str,
) -> ProductExtremes:
    """Return the extremes of the product of ρI + β·D·W over some layers, at every pattern.

    Args:
        matrices: W of each, (n, n) of any dtype, in the order in which data meets them.
        diagonals: of each (patterns, n) sampled D, or None for I. The p-th of all go together; those of a
            layer with fewer begin again.
        rho: weight of the skip.
        beta: weight of the branch.
        device: where to compute.
    """
    count = max((len(d) for d in diagonals if d is not None), default=1)
    found = []
    for p in range(count):
        running = Running()
        for w, d in zip(matrices, diagonals, strict=True):
            m = w.to(device).to(torch.float64, copy=True).mul_(beta)
            if d is not None:
                m.mul_(d[p % len(d)].to(m)[:, None])
            m.diagonal().add_(rho)
            running.multiply(m[None])
        extremes = running.extremes()
        if extremes is None:
            return BEYOND
        found.append(extremes)
    return ProductExtremes(tuple(found))
