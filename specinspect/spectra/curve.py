"""σ_max, σ_min and κ of ρA+βW along β (MATH R1–R4 bound this curve; here it is computed)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap
from specinspect.spectra.activated import (
    LayerBatch,
    Question,
    dense_batches,
    fourier_batches,
    kernel_matrix,
    shortcut_floor,
)
from specinspect.spectra.compute import kernel_floor
from specinspect.spectra.extremes import Extremes, skip_extremes
from specinspect.spectra.family import Family, RectangularIdentity
from specinspect.spectra.model import SkipCurve
from specinspect.spectra.plan import Plan
from specinspect.spectra.rounding import Scan, exact_dtype, scan
from specinspect.spectra.solve import Batch, row_blocks, singular_values

POINTS, LAST = 33, 2.0
BETAS = tuple(LAST * i / (POINTS - 1) for i in range(POINTS))
"""The grid of β that is shown unless another is asked for."""
SMALL = 256
"""Columns up to which a full eigenvalue problem per β is as quick as iterating."""


def skip_curve(
    linear: LinearMap,
    shortcut: str,
    rho: float,
    betas: Sequence[float],
    plan: Plan,
    projection: LinearMap | None = None,
) -> SkipCurve | None:
    """Return the extremes of ρA+βW for every β, for a convolution over all frequencies (MATH R63).

    Args:
        linear: W, dense or a convolution.
        shortcut: which A, as in `activated.Question`.
        rho: weight of the skip.
        betas: weights of the branch, finite; they come back in ascending order.
        plan: where to compute.
        projection: A itself, where it is a projection.

    Returns:
        The curve; None where no skip makes sense, and where W has NaN or infinite entries.
    """
    kernel = kernel_matrix(linear)
    if kernel is None or shortcut == "none":
        return None
    blocks = row_blocks(kernel, kernel.shape[1], 1.0, "cpu", exact_dtype(kernel.dtype))
    found = scan(blocks, kernel.shape[1], linear.dtype)
    if found.nonfinite:
        return None
    betas = sorted(float(beta) for beta in betas)
    high, low = np.zeros(len(betas)), np.full(len(betas), np.inf)
    floor = np.zeros(len(betas))
    for batch, isometric in _batches(linear, Question(1.0, 1.0, shortcut, None, projection), plan):
        part = _extremes(batch, isometric, rho, betas)
        high = np.maximum(high, part.high)
        floor = np.where(part.low < low, part.floor, floor)
        low = np.minimum(low, part.low)
    stored = abs(rho) * shortcut_floor(projection) + np.abs(betas) * _storage_floor(linear, found)
    floor = np.maximum(floor, stored)
    return SkipCurve(
        beta=tuple(betas),
        sigma_max=tuple(high.tolist()),
        sigma_min=tuple(low.tolist()),
        condition_number=tuple(
            float(top / bottom) if bottom > accuracy else None
            for top, bottom, accuracy in zip(high, low, floor, strict=True)
        ),
    )


HIGHER = 1.25
"""Factor by which κ may exceed what is drawn between two points before another is put there."""


def doubtful_places(curve: SkipCurve, norm: float, most: int, least: float) -> tuple[float, ...]:
    """Return the middles of the intervals in which κ may be much larger than at both ends.

    Every singular value of ρA + βW is Lipschitz in β with constant ‖W‖ (MATH R2), so between neighbours a
    and b σmin is at least (σmin(a) + σmin(b) - ‖W‖(b - a))/2. The deeper it may fall, the sooner the interval
    comes: those around the smallest σmin first, where κ has its peaks.

    Args:
        curve: what is known.
        norm: ‖W‖.
        most: how many places at the most.
        least: shortest interval that is still halved.

    Returns:
        β in ascending order; none where the curve is as good as it has to be.
    """
    found: list[tuple[float, float]] = []
    for i in range(len(curve.beta) - 1):
        gap = curve.beta[i + 1] - curve.beta[i]
        low, high = sorted(curve.sigma_min[i : i + 2])
        fall = norm * gap
        if gap >= 2 * least and (low + high - fall) / 2 < low / HIGHER:
            found.append(((low + high) / fall, curve.beta[i] + gap / 2))
    return tuple(sorted(place for _, place in sorted(found)[:most]))


def joined(first: SkipCurve, second: SkipCurve) -> SkipCurve:
    """Return the points of two curves of one map at one ρ, in ascending order of β."""
    rows = {
        beta: row
        for curve in (first, second)
        for beta, *row in zip(
            curve.beta, curve.sigma_max, curve.sigma_min, curve.condition_number, strict=True
        )
    }
    beta, top, low, kappa = zip(*((beta, *rows[beta]) for beta in sorted(rows)), strict=True)
    return SkipCurve(beta, top, low, kappa)


def _batches(linear: LinearMap, question: Question, plan: Plan) -> Iterator[tuple[LayerBatch, bool]]:
    """Yield the layer's matrices, and whether A is an isometry or the adjoint of one (MATH R33)."""
    if isinstance(linear, DenseMap):
        for batch in dense_batches(linear, plan, question):
            yield batch, batch.shortcut is None
    elif isinstance(linear, ConvolutionMap):
        out, inn = linear.kernel.shape[1:3]
        for batch in fourier_batches(linear, question, plan):
            pooled = question.projection is None and out <= inn
            yield batch, batch.shortcut is None or pooled


def _storage_floor(linear: LinearMap, found: Scan) -> float:
    if isinstance(linear, ConvolutionMap):
        return kernel_floor(found, linear.kernel, linear.aliases)
    return found.floor


def _extremes(batch: LayerBatch, isometric: bool, rho: float, betas: Sequence[float]) -> Extremes:
    """Return the extremes over the members of one batch, in the layer's own scale."""
    high, low, floor = np.zeros(len(betas)), np.zeros(len(betas)), np.zeros(len(betas))
    known = np.array([beta == 0 and (isometric or rho == 0) for beta in betas], dtype=bool)
    high[known] = low[known] = abs(rho)
    rest = ~known
    chosen = [beta for beta, done in zip(betas, known, strict=True) if not done]
    if chosen:
        scaled = _scaled_extremes(batch, rho * batch.scale, chosen)
        high[rest], low[rest], floor[rest] = (
            values / batch.scale for values in (scaled.high, scaled.low, scaled.floor)
        )
    return Extremes(high, low, floor)


def _scaled_extremes(batch: LayerBatch, rho: float, betas: Sequence[float]) -> Extremes:
    m, a = batch.matrices, batch.shortcut
    if rho == 0:
        weight = singular_values(Batch(m))
        size = np.abs(betas)
        lowest = int(weight.values[:, -1].argmin())
        low, floor = float(weight.values[lowest, -1]), float(weight.floor[lowest])
        return Extremes(size * float(weight.values[:, 0].max()), size * low, size * floor)
    if min(m.shape[-2:]) <= SMALL:
        family = Family.of(m, RectangularIdentity() if a is None else a)
        return _through(family, rho, betas)
    parts = [_iterated(m[i], None if a is None else a[i], rho, betas) for i in range(len(m))]
    lows = np.stack([part.low for part in parts])
    lowest_member = lows.argmin(0)[None]
    floors = np.stack([part.floor for part in parts])
    return Extremes(
        np.stack([part.high for part in parts]).max(0),
        lows.min(0),
        np.take_along_axis(floors, lowest_member, 0)[0],
    )


def _through(family: Family, rho: float, betas: Sequence[float]) -> Extremes:
    """Solve one full problem per β."""
    rows: list[NDArray[np.float64]] = []
    for beta in betas:
        solution = family.skip(rho, beta)
        lowest = int(solution.values[:, -1].argmin())
        top, low = solution.values[:, 0].max(), solution.values[lowest, -1]
        rows.append(np.array([float(top), float(low), float(solution.floor[lowest])]))
    return Extremes(*np.stack(rows, 1))


def _iterated(m: torch.Tensor, a: torch.Tensor | None, rho: float, betas: Sequence[float]) -> Extremes:
    if m.shape[0] < m.shape[1]:
        m, a = m.mH, None if a is None else a.mH

    family: Callable[[], Family] = cache(
        lambda: Family.of(m[None], RectangularIdentity() if a is None else a[None])
    )
    return skip_extremes(m, a, rho, betas, family)
