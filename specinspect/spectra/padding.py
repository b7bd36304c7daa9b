"""What the periodic grid says of a zero-padded convolution: bounds on its spectrum (MATH R64, R65)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import prod, sqrt

import torch

from specinspect.maps.fourier import fourier_blocks
from specinspect.maps.model import ConvolutionMap
from specinspect.spectra.compute import measure
from specinspect.spectra.model import PaddingBounds, Spectrum
from specinspect.spectra.plan import Plan
from specinspect.spectra.summary import harmless_scale


def padding_bounds(
    convolution: ConvolutionMap,
    plan: Plan,
    *,
    circular: Spectrum | None = None,
    rho: float = 1.0,
    beta: float = 1.0,
    high: tuple[int, ...] = (),
) -> PaddingBounds:
    """Bound the spectrum of a zero-padded convolution by periodic ones (MATH R64, R65).

    Args:
        convolution: kernel, geometry and grid.
        plan: where to compute.
        circular: the spectrum of `convolution` on its periodic grid with its singular values, if at hand;
            else it is computed.
        rho: weight of the skip.
        beta: weight of the branch.
        high: zeros above the last place of each axis, () for as many as below the first.
    """
    if not bool(convolution.kernel.isfinite().all()):
        reason = "NaN or infinite weights"
        return PaddingBounds(same_grid_reason=reason, enlarged_reason=reason, square_reason=reason)
    high = high or convolution.padding
    reach = tuple(
        d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel.shape[3:], strict=True)
    )
    bounds = _enlarged(PaddingBounds(), convolution, plan, reach, high, (rho, beta))
    reason = _same_grid_reason(convolution, reach, high)
    if reason:
        return replace(bounds, same_grid_reason=reason)
    if circular is None or circular.singular_values is None:
        circular = measure([convolution], plan, keep_values=True)[0].spectrum
    return _same_grid(bounds, convolution, circular, reach)


def _same_grid_reason(convolution: ConvolutionMap, reach: tuple[int, ...], high: tuple[int, ...]) -> str:
    if convolution.aliases > 1:
        return "strided"
    if any(low + up != r for low, up, r in zip(convolution.padding, high, reach, strict=True)):
        return "the padding does not keep the grid's size"
    if any(n <= r for n, r in zip(convolution.grid, reach, strict=True)):
        return "the kernel wraps onto itself on this grid"
    return ""


def _same_grid(
    bounds: PaddingBounds, convolution: ConvolutionMap, circular: Spectrum, reach: tuple[int, ...]
) -> PaddingBounds:
    """Add MATH R64."""
    grid, places = convolution.grid, prod(convolution.grid)
    kernel = convolution.kernel.to(torch.float64).cpu()
    scale = harmless_scale(float(kernel.abs().max()))
    squares = (kernel * scale).square().sum((0, 1, 2)).flatten().tolist()
    distance = norm = 0.0
    for tap, square in zip(product(*(range(k) for k in kernel.shape[3:])), squares, strict=True):
        offsets = zip(tap, convolution.dilation, convolution.padding, grid, strict=True)
        kept = prod(max(n - abs(d * t - low), 0) for t, d, low, n in offsets)
        distance += square * (places - kept)
        norm += square * kept
    interior = prod(n - r for n, r in zip(grid, reach, strict=True))
    groups, out, inn = kernel.shape[:3]
    rank = groups * min(out, inn) * (places - interior)
    values = circular.singular_values
    if values is None:
        raise AssertionError("computed with its values")
    count = len(values)
    distance = sqrt(distance) / scale
    return replace(
        bounds,
        frobenius_distance=distance,
        frobenius_norm=sqrt(norm) / scale,
        rank=rank,
        sigma_max_lower=float(values[rank]) if rank < count else 0.0,
        sigma_max_upper_same_grid=float(values[0]) + distance,
        sigma_min_upper=float(values[count - rank - 1]) if rank < count else None,
    )


def _enlarged(
    bounds: PaddingBounds,
    convolution: ConvolutionMap,
    plan: Plan,
    reach: tuple[int, ...],
    high: tuple[int, ...],
    weights: tuple[float, float],
) -> PaddingBounds:
    """Add MATH R65."""
    out, inn = convolution.kernel.shape[1:3]
    sides = zip(convolution.grid, reach, convolution.padding, high, convolution.stride, strict=True)
    # Room for every zero that is read, and for every output: both ends share it.
    grid = tuple(-(-(n + max(r, low, up, low + up - r)) // s) * s for n, r, low, up, s in sides)
    square_reason = ""
    if convolution.aliases > 1:
        square_reason = "strided: only σmax is bounded"
    elif out != inn:
        square_reason = "not square: only σmax is bounded"
    elif any(low + up != r for low, up, r in zip(convolution.padding, high, reach, strict=True)):
        square_reason = "the padding does not keep the grid's size: only σmax is bounded"
    enlarged = replace(convolution, grid=grid)
    top, taus = 0.0, []
    kernel = convolution.kernel.to(plan.device).to(torch.float64)
    scale = harmless_scale(float(kernel.abs().max()))
    kernel = kernel * scale
    for blocks in _blocks(enlarged, kernel, plan):
        wide = blocks.shape[-2] < blocks.shape[-1]
        gram = blocks @ blocks.mH if wide else blocks.mH @ blocks
        top = max(top, sqrt(max(float(torch.linalg.eigvalsh(gram).max()), 0.0)))
        if not square_reason:
            eigenvalues = torch.linalg.eigvalsh(blocks + blocks.mH)
            taus.append((float(eigenvalues.min()), float(eigenvalues.max())))
    top /= scale
    bounds = replace(bounds, enlarged_grid=grid, sigma_max_upper=top, square_reason=square_reason)
    if square_reason:
        return bounds
    low, up = min(t[0] for t in taus) / scale, max(t[1] for t in taus) / scale
    return _beside_skip(replace(bounds, tau_min=low, tau_max=up), *weights, top, low, up)


def _blocks(convolution: ConvolutionMap, kernel: torch.Tensor, plan: Plan) -> Iterator[torch.Tensor]:
    limit = plan.block_bytes(8 * kernel.numel()) // 2
    for batch in fourier_blocks(convolution, kernel, limit):
        yield batch.blocks


def _beside_skip(
    bounds: PaddingBounds, rho: float, beta: float, top: float, low: float, up: float
) -> PaddingBounds:
    """Add the bounds on ρI+βT from σ_max and τ (MATH R3)."""
    unit = max(abs(rho), abs(beta) * top)
    if unit == 0:
        return replace(bounds, skip_sigma_max_upper=0.0)
    # In units of the larger term, so that squares stay within float64.
    r, b, least, most = rho / unit, beta / unit * top, beta / unit * low, beta / unit * up
    upper = unit * sqrt(max(r * r + b * b + max(r * least, r * most), 0.0))
    if rho == 0:
        return replace(bounds, skip_sigma_max_upper=upper)
    sign = 1.0 if rho > 0 else -1.0
    lower = abs(rho) + unit * min(sign * least, sign * most) / 2
    return replace(
        bounds,
        skip_sigma_min_lower=lower,
        skip_sigma_max_upper=upper,
        skip_condition_number_upper=upper / lower if lower > 0 else None,
    )
