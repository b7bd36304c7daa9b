"""How far apart two linear maps are: the norm of W_A - W_B, and how their leading subspaces overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, isfinite

import torch

from specinspect.comparison.leading import largest, right_vectors
from specinspect.comparison.model import Difference, Overlap, Status
from specinspect.maps.fourier import fourier_blocks
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap, LowRankMap
from specinspect.spectra.model import Spectrum
from specinspect.spectra.plan import Plan
from specinspect.spectra.solve import Streamed, row_blocks, tall
from specinspect.spectra.summary import harmless_scale, unit_scale

VECTORS = 8
"""Leading singular vectors that are compared at most."""


@dataclass(frozen=True, slots=True)
class _Norms:
    """Of W_A - W_B."""

    spectral: float
    frobenius: float


ZERO = Difference("identical", 0.0, 0.0, 0.0, 0.0, None)


def difference(a: LinearMap, b: LinearMap, of_a: Spectrum, of_b: Spectrum, plan: Plan) -> Difference:
    """Return the norms of W_A - W_B.

    Args:
        a: W_A.
        b: W_B.
        of_a: spectrum of W_A.
        of_b: spectrum of W_B.
        plan: where to compute.

    The spectral norm is right to about nine digits of itself, or to the rounding of float64 beside ‖W_A‖,
    whichever is coarser.
    """
    if of_a.sigma_max is None or of_b.sigma_max is None:
        return Difference(_no_numbers(of_a, of_b))
    # Entries are at most σ_max: their squares, and their sums, then stay within float64.
    scale = harmless_scale(max(of_a.sigma_max, of_b.sigma_max))
    match a, b:
        case DenseMap(), DenseMap():
            if a.shape != b.shape:
                return Difference("shape_changed")
            norms = _dense(a.matrix, b.matrix, scale, plan)
        case LowRankMap(), LowRankMap():
            if a.shape != b.shape:
                return Difference("shape_changed")
            norms = _low_rank(a, b, plan)
        case ConvolutionMap(), ConvolutionMap():
            if a.kernel.shape != b.kernel.shape:
                return Difference("shape_changed")
            if _geometry(a) != _geometry(b):
                return Difference("geometry_changed")
            norms = _convolution(a, b, scale, plan)
        case _:
            return Difference("kind_changed")
    if not isfinite(norms.frobenius):
        raise OverflowError("a norm beyond float64")
    return Difference(
        "computed",
        norms.spectral,
        _ratio(norms.spectral, of_a.sigma_max),
        norms.frobenius,
        _ratio(norms.frobenius, of_a.frobenius_norm or 0.0),
        (norms.frobenius / norms.spectral) ** 2 if norms.spectral > 0 else None,
    )


def _no_numbers(a: Spectrum, b: Spectrum) -> Status:
    return "nonfinite_weights" if a.nonfinite or b.nonfinite else "not_computed"


def _ratio(value: float, of: float) -> float | None:
    """Return value/of; 0 for 0/0, None where only the denominator is zero."""
    if value == 0:
        return 0.0
    return value / of if of > 0 and value / of < inf else None


def _geometry(c: ConvolutionMap) -> tuple[tuple[int, ...], ...]:
    return c.stride, c.dilation, c.grid, c.padding


def _differences(
    a: torch.Tensor, b: torch.Tensor, first: float, second: float, device: str
) -> Iterator[torch.Tensor]:
    """Yield A - B by blocks of rows of the taller orientation, times first · second."""
    n = min(a.shape)
    blocks = (row_blocks(tall(m), n // 4, first, device) for m in (a, b))
    for left, right in zip(*blocks, strict=True):
        yield (left - right) * second


def _dense(a: torch.Tensor, b: torch.Tensor, scale: float, plan: Plan) -> _Norms:
    peak = max(float(d.abs().max()) for d in _differences(a, b, scale, 1.0, plan.device))
    if peak == 0:
        return _Norms(0.0, 0.0)
    # A small difference is brought near 1 as well: its square would otherwise vanish.
    unit = unit_scale(peak)
    n = min(a.shape)
    gram = torch.zeros(n, n, dtype=torch.float64, device=plan.device)
    for d in _differences(a, b, scale, unit, plan.device):
        gram.addmm_(d.T, d)
    frobenius = float(gram.diagonal().sum().sqrt())
    return _Norms(largest(gram) ** 0.5 / unit / scale, frobenius / unit / scale)


def _low_rank(a: LowRankMap, b: LowRankMap, plan: Plan) -> _Norms:
    """B_A·A_A - B_B·A_B as one product of factors side by side."""
    left = torch.cat([_float64(a.left, plan) * a.scale, _float64(b.left, plan) * -b.scale], 1)
    right = torch.cat([_float64(a.right, plan), _float64(b.right, plan)])
    core = torch.linalg.qr(left, mode="r").R @ torch.linalg.qr(right.mT, mode="r").R.mT
    values = torch.linalg.svdvals(core)
    return _Norms(float(values.max()), float(torch.linalg.vector_norm(values)))


def _float64(tensor: torch.Tensor, plan: Plan) -> torch.Tensor:
    return tensor.to(plan.device).to(torch.float64)


def _convolution(a: ConvolutionMap, b: ConvolutionMap, scale: float, plan: Plan) -> _Norms:
    """The operator is linear in the kernel, so its difference is that of the kernels' difference."""
    kernel = _float64(a.kernel, plan) * scale
    kernel -= _float64(b.kernel, plan) * scale
    peak = float(kernel.abs().max())
    if peak == 0:
        return _Norms(0.0, 0.0)
    unit = unit_scale(peak)
    kernel *= unit
    top = squares = 0.0
    # The padding only turns phases, which both share.
    plain = replace(a, padding=())
    for batch in fourier_blocks(plain, kernel, plan.block_bytes(8 * kernel.numel())):
        m = batch.blocks if batch.blocks.shape[-2] >= batch.blocks.shape[-1] else batch.blocks.mH
        gram = m.mH @ m
        traces = gram.diagonal(dim1=-2, dim2=-1).real.sum(-1)
        squares += float((traces.cpu() * batch.multiplicity).sum())
        # No eigenvalue exceeds the trace: most frequencies of a smooth kernel need no decomposition.
        candidates = gram[traces > top]
        if len(candidates):
            top = max(top, float(torch.linalg.eigvalsh(candidates)[:, -1].max()))
    return _Norms(top**0.5 / unit / scale, squares**0.5 / unit / scale)


# Leading subspaces


def overlap(a: LinearMap, b: LinearMap, of_a: Spectrum, of_b: Spectrum, plan: Plan) -> Overlap:
    """Return how much of their leading singular subspaces two maps share (see `Overlap`).

    Args:
        a: W_A.
        b: W_B, of the same shape.
        of_a: spectrum of W_A, with its singular values.
        of_b: spectrum of W_B, likewise.
        plan: where to compute.

    k is VECTORS, or less where a rank is lower or that would be more than half of all.
    """
    if isinstance(a, ConvolutionMap) or isinstance(b, ConvolutionMap):
        return Overlap("convolution")
    if a.shape != b.shape:
        return Overlap("shape_changed")
    if type(a) is not type(b):
        return Overlap("kind_changed")
    if of_a.singular_values is None or of_b.singular_values is None:
        return Overlap(_no_numbers(of_a, of_b))
    k = min(VECTORS, of_a.numerical_rank or 0, of_b.numerical_rank or 0, of_a.count // 2)
    if k == 0:
        return Overlap("too_small" if of_a.count < 2 else "rank_zero")
    gaps = []
    for spectrum, values in ((of_a, of_a.singular_values), (of_b, of_b.singular_values)):
        gap = float(values[k - 1] - values[k])
        gaps.append(gap / float(values[0]))
        if gap <= max(spectrum.storage_floor or 0.0, spectrum.computation_floor or 0.0):
            return Overlap("no_gap", k)
    if isinstance(a, LowRankMap) and isinstance(b, LowRankMap):
        left, right = _low_rank_overlap(a, b, k, plan)
    elif isinstance(a, DenseMap) and isinstance(b, DenseMap):
        left, right = _dense_overlap(a, b, of_a, of_b, k, plan)
    else:
        raise AssertionError("both maps are of one type")
    return Overlap("computed", k, left, right, *gaps)


def _dense_overlap(
    a: DenseMap, b: DenseMap, of_a: Spectrum, of_b: Spectrum, k: int, plan: Plan
) -> tuple[float, float]:
    turned = a.shape[0] < a.shape[1]
    vectors = []
    blocks = []
    for dense, spectrum in ((a, of_a), (b, of_b)):
        assert spectrum.singular_values is not None
        assert spectrum.sigma_max is not None
        scale = harmless_scale(spectrum.sigma_max)
        streamed = Streamed(dense.matrix, scale, plan.device)
        v = right_vectors(streamed, (spectrum.singular_values[: k + 1] * scale).tolist())
        vectors.append(v)
        blocks.append((row_blocks(tall(dense.matrix), min(dense.shape) // 4, scale, plan.device), v))
    # U = W·V/σ a block of rows at a time, so that a tall weight needs no copy.
    products = [torch.cat([block @ v for block in rows]) for rows, v in blocks]
    small = _shared(vectors[0], vectors[1])
    large = _shared(*(torch.linalg.qr(product).Q for product in products))
    return (small, large) if turned else (large, small)


def _shared(u: torch.Tensor, v: torch.Tensor) -> float:
    """Return ‖UᵀV‖_F²/k for orthonormal columns, at most 1 up to rounding."""
    return min(1.0, float((u.mT @ v).square().sum()) / u.shape[1])


def _low_rank_overlap(a: LowRankMap, b: LowRankMap, k: int, plan: Plan) -> tuple[float, float]:
    sides = []
    for product in (a, b):
        left = torch.linalg.qr(_float64(product.left, plan))
        right = torch.linalg.qr(_float64(product.right, plan).mT)
        core = torch.linalg.svd(left.R @ right.R.mT * product.scale)
        sides.append((left.Q @ core.U[:, :k], right.Q @ core.Vh[:k].mT))
    return _shared(sides[0][0], sides[1][0]), _shared(sides[0][1], sides[1][1])
