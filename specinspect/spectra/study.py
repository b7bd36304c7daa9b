"""One layer held ready: its maps beside a skip at any ρ, β and sampled pattern, from products formed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap
from specinspect.maps.patterns import Diagonals
from specinspect.spectra.activated import (
    LayerBatch,
    Question,
    dense_batches,
    fourier_batches,
    shortcut_floor,
    without_dead_outputs,
)
from specinspect.spectra.curve import skip_curve
from specinspect.spectra.family import Family, RectangularIdentity
from specinspect.spectra.lean import LeanFamily
from specinspect.spectra.medians import over_patterns
from specinspect.spectra.model import SkipCurve, Spectrum
from specinspect.spectra.plan import Plan
from specinspect.spectra.solve import Solution, hardest
from specinspect.spectra.summary import harmless_scale, summarise

HELD_BYTES = 256 << 20
"""Fourier blocks beyond this are made anew every time."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some of a layer's matrices, with the products that all maps share."""

    family: Family | LeanFamily
    scale: float
    multiplicity: torch.Tensor
    outputs: torch.Tensor | None
    """Which entries of D they have; None for all."""


class Study:
    """A layer whose skip maps can be had at any ρ and β for one eigenvalue problem each (MATH R1).

    Args:
        linear: W, dense or a convolution.
        shortcut: which A, as in `activated.Question`; not 'none'.
        weight: the spectrum of W.
        diagonals: sampled D, or None for the identity.
        plan: where to compute.
        projection: A itself, where it is a projection.
    """

    def __init__(
        self,
        linear: DenseMap | ConvolutionMap,
        shortcut: str,
        weight: Spectrum,
        diagonals: Diagonals | None,
        plan: Plan,
        projection: LinearMap | None = None,
    ) -> None:
        self._linear, self._weight, self._plan = linear, weight, plan
        question = without_dead_outputs(linear, Question(1.0, 1.0, shortcut, diagonals, projection))
        self._question = question
        self._diagonals = None if question.diagonals is None else question.diagonals.values
        self._active = [] if diagonals is None else diagonals.active_fraction.tolist()
        self._beside = shortcut_floor(projection)
        self._held: list[_Part] | None = None

    @property
    def patterns(self) -> int:
        """Number of sampled D; 0 where D is the identity."""
        return 0 if self._diagonals is None else len(self._diagonals)

    @property
    def columns(self) -> int:
        """Smaller side of the matrix that every eigenvalue problem is about."""
        if isinstance(self._linear, DenseMap):
            return min(self._linear.shape)
        return min(self._linear.kernel.shape[1:3])

    def skip(self, rho: float, beta: float) -> Spectrum:
        """Return the spectrum of ρA + βW, all singular values included."""
        return self._summary(rho, beta, None)

    def skip_chain(self, rho: float, beta: float, pattern: int | None) -> Spectrum:
        """Return the spectrum of ρA + β·D·W for one pattern, or its medians over all of them."""
        if self._diagonals is None:
            return self.skip(rho, beta)
        if pattern is not None:
            return self._summary(rho, beta, pattern)
        return over_patterns([self._summary(rho, beta, p) for p in range(self.patterns)], self._active)

    def chain(self, pattern: int) -> Spectrum:
        """Return the spectrum of D·W for one pattern; the zeros that D makes are structural (MATH R9)."""
        if self._diagonals is None:
            return self._weight
        values: list[NDArray[np.float64]] = []
        floors, methods = [0.0], []
        for part in self._parts():
            found = self._solve_chain(part, pattern)
            if found is not None:
                values.append(_spread(found.values, part))
                floors.append(float(found.floor[int(found.values[:, -1].argmin())]) / part.scale)
                methods.append(found.method)
        flat = np.concatenate([v[v > 0] for v in values]) if values else np.zeros(0)
        zeros = self._weight.count - len(flat)
        peak = float(self._diagonals[pattern].abs().max())
        return summarise(
            np.concatenate([np.sort(flat)[::-1], np.zeros(zeros)]),
            structural_zeros=zeros,
            storage_floor=(self._weight.storage_floor or 0.0) * peak,
            computation_floor=max(floors),
            method=f"{hardest(methods)}, float64" if methods else "exact",
            device=self._plan.device,
            keep_values=True,
        )

    def curve(self, betas: Sequence[float], pattern: int | None = None) -> SkipCurve | None:
        """Return the extremes of A + βW, or of A + β·D·W for one pattern, for every β."""
        linear: LinearMap = self._linear
        if pattern is not None and self._diagonals is not None:
            linear = _activated(self._linear, self._diagonals[pattern])
        return skip_curve(linear, self._question.shortcut, 1.0, betas, self._plan, self._question.projection)

    def _parts(self) -> list[_Part]:
        if self._held is not None:
            return self._held
        parts, held = [], 0
        if isinstance(self._linear, DenseMap) and self._question.projection is not None:
            parts += [_part(batch) for batch in dense_batches(self._linear, self._plan, self._question)]
        elif isinstance(self._linear, DenseMap):
            top = self._weight.sigma_max or 0.0
            scale = harmless_scale(top)
            family = LeanFamily.of(self._linear.matrix, scale, self._plan.device, top * scale)
            parts.append(_Part(family, scale, torch.ones(1, dtype=torch.int64), None))
        else:
            for batch in fourier_batches(self._linear, self._question, self._plan):
                parts.append(_part(batch))
                held += 3 * batch.matrices.numel() * batch.matrices.element_size()
        if held <= HELD_BYTES:
            self._held = parts
        return parts

    def _summary(self, rho: float, beta: float, pattern: int | None) -> Spectrum:
        diagonal = None if pattern is None or self._diagonals is None else self._diagonals[pattern]
        values, methods, lowest, floor = [], [], np.inf, 0.0
        for part in self._parts():
            solution = part.family.skip(rho * part.scale, beta, _chosen(diagonal, part))
            member = int(solution.values[:, -1].argmin())
            low = float(solution.values[member, -1]) / part.scale
            if low < lowest:
                lowest, floor = low, float(solution.floor[member]) / part.scale
            values.append(_spread(solution.values, part))
            methods.append(solution.method)
        flat = np.concatenate(values)
        zeros = self._weight.count - len(flat)
        peak = 1.0 if diagonal is None else float(diagonal.abs().max())
        return summarise(
            np.concatenate([np.sort(flat)[::-1], np.zeros(zeros)]),
            structural_zeros=zeros,
            storage_floor=abs(rho) * self._beside + (self._weight.storage_floor or 0.0) * abs(beta) * peak,
            computation_floor=floor,
            method=f"{hardest(methods)}, float64",
            device=self._plan.device,
            keep_values=True,
        )

    def _solve_chain(self, part: _Part, pattern: int) -> Solution | None:
        if self._diagonals is None:
            raise AssertionError("only called with D")
        diagonal = _chosen(self._diagonals[pattern], part)
        if diagonal is None:
            raise AssertionError("only called with D")
        if isinstance(part.family, Family) and diagonal.ndim == 2:
            factor = diagonal[:, 0].abs().cpu()  # a single output per member
            weight = part.family.weight
            return Solution(weight.values * factor[:, None], weight.floor * factor, weight.method)
        return part.family.chain(diagonal)


def _part(batch: LayerBatch) -> _Part:
    shortcut = RectangularIdentity() if batch.shortcut is None else batch.shortcut
    return _Part(Family.of(batch.matrices, shortcut), batch.scale, batch.multiplicity, batch.outputs)


def _chosen(diagonal: torch.Tensor | None, part: _Part) -> torch.Tensor | None:
    if diagonal is None or part.outputs is None:
        return diagonal
    return diagonal[part.outputs]


def _spread(values: torch.Tensor, part: _Part) -> NDArray[np.float64]:
    """Return all values of a part in the layer's own scale, each as often as it occurs."""
    return (values / part.scale).repeat_interleave(part.multiplicity, 0).flatten().numpy()


def _activated(linear: DenseMap | ConvolutionMap, diagonal: torch.Tensor) -> LinearMap:
    """Return D·W, written out in float64."""
    if isinstance(linear, DenseMap):
        return DenseMap(linear.matrix.to(torch.float64) * diagonal[:, None].cpu(), linear.dtype)
    groups, out = linear.kernel.shape[:2]
    factors = diagonal.cpu().reshape(groups, out, *(1,) * (linear.kernel.ndim - 2))
    return replace(linear, kernel=linear.kernel.to(torch.float64) * factors)
