"""Zero-padded convolutions: their true spectra, and bounds from the periodic grid where those are too dear.

A periodic σ_min may be off by any factor for the zero-padded layer (MATH R64), so it is never quoted for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import hypot, prod, sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.maps.fourier import fourier_blocks
from specinspect.maps.model import ConvolutionMap
from specinspect.maps.operator import (
    ConvolutionOperator,
    LayerOperator,
    dense,
    shortcut_beside,
    spread_diagonal,
)
from specinspect.maps.patterns import Diagonals
from specinspect.spectra.activated import over_patterns
from specinspect.spectra.compute import measure
from specinspect.spectra.iterative import extremes
from specinspect.spectra.model import PaddingBounds, Spectrum, Status, Tau
from specinspect.spectra.plan import Plan
from specinspect.spectra.rounding import scan, storage_floor
from specinspect.spectra.solve import EPS, Batch, hardest, singular_values
from specinspect.spectra.summary import harmless_scale, summarise, unusable

DENSE_SIDE = 4096
"""The smaller side, of one group, up to which an operator is written out and solved in full."""
DENSE_ENTRIES = 2 * DENSE_SIDE**2
ITERATIVE = "extremes by Lanczos, float64"
PRODUCTS = (400, 2000)
"""Least and most products that the small end may take."""
WORK = 4e10
"""Floating-point operations that say where between the two."""


def measure_padded(
    convolution: ConvolutionMap,
    plan: Plan,
    *,
    diagonals: Diagonals | None = None,
    shortcut: str = "none",
    rho: float = 1.0,
    beta: float = 1.0,
    keep_values: bool = False,
    high: tuple[int, ...] = (),
    transposed: bool = False,
) -> dict[str, Spectrum]:
    """Return the spectra of weight, chain, skip and skip_chain of a zero-padded convolution.

    Small operators are solved in full. Of larger ones the extremes are iterated: `sigma_min` and κ are None
    where the small end is out of reach, the status is then 'below_computation_precision', and
    `computation_floor` is what σ_min is at most. Ranks and histogram need the whole spectrum and are None;
    the Frobenius norm is exact.

    Args:
        convolution: kernel, stride, dilation, padding, and the grid of the input (of the output, where
            transposed).
        plan: where to compute.
        diagonals: D per channel (patterns, channels) or per pixel (patterns, channels·places); None for the
            identity, so that D·W is W.
        shortcut: A, as `maps.operator.shortcut_beside` names it; the skip maps are left out where it does
            not fit.
        rho: weight of the skip.
        beta: weight of the branch.
        keep_values: keep all singular values, where they are known.
        high: zeros above the last place of each axis, () for as many as below the first.
        transposed: the layer is the adjoint of what `convolution` holds.

    Raises:
        ValueError: rho and beta are both zero, or D or the grid do not fit.
    """
    if rho == 0 and beta == 0 and shortcut != "none":
        raise ValueError("rho and beta are both zero: there is no map")
    whole = ConvolutionOperator.of(convolution, high=high, transposed=transposed, device=plan.device)
    kernel = whole.kernel
    groups, out, inn = kernel.shape[:3]
    taps = prod(kernel.shape[3:])
    found = scan(iter([kernel.reshape(groups * out, inn * taps)]), inn * taps, convolution.dtype)
    beside = shortcut_beside(whole, shortcut)
    with_skip = beside is not None and (groups == 1 or out == inn)
    if found.nonfinite:
        bad = unusable(min(whole.shape), found.nonfinite, plan.device)
        return dict.fromkeys(["weight", "chain", *(["skip", "skip_chain"] if with_skip else [])], bad)
    # The rounding errors of a kernel meet as in a block of the periodic operator: all taps in a row, those of
    # one input channel in a column, shared by the aliases and averaged over groups.
    unit = float(found.column_ulps.amax()) or 1.0  # its square may leave float64
    column = unit * torch.linalg.vector_norm((found.column_ulps / unit).reshape(inn, taps), dim=1)
    layer = _Layer(
        whole,
        shortcut if with_skip else "none",
        storage_floor(found.row_ulp, float(column.amax()) / sqrt(groups * convolution.aliases)),
        found.largest,
        plan,
        keep_values,
    )
    rows = [] if diagonals is None else [spread_diagonal(v, whole.outputs) for v in diagonals.values]
    # W, then D·W per pattern, then the same beside the skip: group by group, each written out only once.
    cases = [_Case(None, 0.0, 1.0), *(_Case(d, 0.0, 1.0) for d in rows)]
    if with_skip:
        cases += [_Case(None, rho, beta), *(_Case(d, rho, beta) for d in rows)]
    spectra = layer.spectra(cases)
    maps = {"weight": spectra[0], "chain": spectra[0]}
    patterns = len(rows)
    if diagonals is not None:
        active = diagonals.active_fraction.tolist()
        maps["chain"] = over_patterns(spectra[1 : 1 + patterns], active)
    if with_skip:
        maps["skip"] = maps["skip_chain"] = spectra[1 + patterns]
        if diagonals is not None:
            maps["skip_chain"] = over_patterns(spectra[2 + patterns :], active)
    return maps


def padded_tau(convolution: ConvolutionMap, plan: Plan, *, transposed: bool = False) -> Tau | None:
    """Return the extreme eigenvalues of T + Tᵀ of a zero-padded convolution T that is square (MATH §0).

    In full for small operators, else by Lanczos; None where T is not square, has NaN or infinite entries,
    or where Lanczos does not settle.
    """
    whole = ConvolutionOperator.of(convolution, transposed=transposed, device=plan.device)
    if whole.inputs != whole.outputs or not bool(whole.kernel.isfinite().all()):
        return None
    ends: list[float] = []
    for group in whole.groups():
        found = _symmetric_ends(group)
        if found is None:
            return None
        ends += found
    return Tau(min(ends), max(ends))


def _symmetric_ends(operator: ConvolutionOperator) -> tuple[float, float] | None:
    """Return the smallest and the largest eigenvalue of T + Tᵀ."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    n = operator.shape[0]
    if n <= DENSE_SIDE:
        matrix = dense(operator)
        values = torch.linalg.eigvalsh(matrix + matrix.T)
        return float(values[0]), float(values[-1])

    def symmetric(x: NDArray[np.float64]) -> NDArray[np.float64]:
        row = torch.from_numpy(np.ascontiguousarray(x.reshape(1, -1))).to(operator.device)
        return (operator.matvec(row) + operator.adjoint(row)).cpu().numpy()[0]

    start = np.random.default_rng(0).standard_normal(n)
    try:
        values = eigsh(
            LinearOperator((n, n), matvec=symmetric, dtype=np.float64),
            k=2,
            which="BE",
            v0=start,
            tol=1e-8,
            ncv=40,
            maxiter=60,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence:
        return None
    return float(values.min()), float(values.max())


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """One map: ρA + β·D·W."""

    diagonal: torch.Tensor | None
    """(rows,) of the whole layer."""
    rho: float
    beta: float


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What was found of one map of one group."""

    values: NDArray[np.float64] | None
    """All but the structural zeros, descending; None where only the extremes are known."""
    zeros: int
    """Structural zeros."""
    top: float
    low: float | None
    """The smallest but for the structural zeros; None where out of reach."""
    floor: float
    """Absolute accuracy of `low`; where it is None, what it is at most."""
    norm: float
    """Frobenius."""
    method: str


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A zero-padded convolution with what all its maps share."""

    whole: ConvolutionOperator
    shortcut: str
    storage: float
    largest: float
    """Largest |entry| of the kernel."""
    plan: Plan
    keep_values: bool

    def spectra(self, cases: list[_Case]) -> list[Spectrum]:
        """Return the spectrum of each map."""
        parts: list[list[_Part]] = [[] for _ in cases]
        for g, group in enumerate(self.whole.groups()):
            rows, columns = group.shape
            small = min(rows, columns) <= DENSE_SIDE and rows * columns <= DENSE_ENTRIES
            matrix = dense(group) if small else None
            beside = shortcut_beside(group, self.shortcut)
            for case, collected in zip(cases, parts, strict=True):
                d = (
                    None
                    if case.diagonal is None
                    else case.diagonal[g * rows : (g + 1) * rows].to(group.device)
                )
                operator = LayerOperator(group, d, beside if case.rho else None, case.rho, case.beta)
                part = self._iterate(operator) if matrix is None else self._solve(operator, matrix)
                collected.append(part)
        return [self._merge(case, found) for case, found in zip(cases, parts, strict=True)]

    def _solve(self, operator: LayerOperator, matrix: torch.Tensor) -> _Part:
        """Write one map out, W being given, and solve it without its structural zeros."""
        m = operator.beta * matrix
        if operator.diagonal is not None:
            m *= operator.diagonal[:, None]
        if operator.shortcut is not None:
            operator.shortcut.add_to(m, operator.rho)
        live = operator.live()
        if not bool(live[0].all() & live[1].all()):
            m = m[live[0]][:, live[1]]
        zeros = min(operator.shape) - min(m.shape)
        if m.numel() == 0:
            return _Part(np.zeros(0), zeros, 0.0, 0.0, 0.0, 0.0, "exact")
        scale = harmless_scale(float(m.abs().max()))
        if scale != 1.0:
            m *= scale
        solution = singular_values(Batch(m[None]))
        values = (solution.values[0] / scale).numpy()
        floor = float(solution.floor[0]) / scale
        return _Part(values, zeros, float(values[0]), float(values[-1]), floor, 0.0, solution.method)

    def _iterate(self, operator: LayerOperator) -> _Part:
        """Find the extremes of one map."""
        live = operator.live()
        zeros = min(operator.shape) - min(int(side.sum()) for side in live)
        if zeros == min(operator.shape):
            return _Part(None, zeros, 0.0, 0.0, 0.0, 0.0, "exact")
        peak = 1.0 if operator.diagonal is None else float(operator.diagonal.abs().max())
        skip = abs(operator.rho) if operator.shortcut is not None else 0.0
        scale = harmless_scale(max(skip, abs(operator.beta) * peak * self.largest))
        # In units whose squares stay within float64: W through its kernel, A through ρ.
        conv = replace(operator.convolution, kernel=operator.convolution.kernel * scale)
        scaled = replace(operator, convolution=conv, rho=operator.rho * scale)
        found = extremes(scaled, live=live, products=_budget(scaled))
        low = None if found.sigma_min is None else found.sigma_min / scale
        # Beside the residual, squaring leaves an error that it does not show.
        floor = found.residual_min if low is not None else found.sigma_min_upper + EPS * found.sigma_max
        norm = sqrt(max(scaled.squared_norm(), 0.0)) / scale
        return _Part(None, zeros, found.sigma_max / scale, low, floor / scale, norm, ITERATIVE)

    def _merge(self, case: _Case, parts: list[_Part]) -> Spectrum:
        """Join the groups, whose spectra are side by side (MATH R62)."""
        peak = 1.0 if case.diagonal is None else float(case.diagonal.abs().max())
        storage = self.storage * abs(case.beta) * peak
        zeros = sum(p.zeros for p in parts)
        count = len(parts) * (min(self.whole.shape) // len(parts))
        worst = min(parts, key=lambda p: p.floor if p.low is None else p.low)
        values = [p.values for p in parts if p.values is not None]
        if len(values) == len(parts):
            methods = [p.method for p in parts if p.method != "exact"]
            return summarise(
                np.concatenate([np.sort(np.concatenate(values))[::-1], np.zeros(zeros)]),
                structural_zeros=zeros,
                storage_floor=storage,
                computation_floor=worst.floor,
                method=f"zero-padded, {hardest(methods)}, float64" if methods else "exact",
                device=self.plan.device,
                keep_values=self.keep_values,
            )
        unresolved = [p for p in parts if p.low is None]
        low = None if unresolved else worst.low
        floor = min((p.floor for p in unresolved), default=worst.floor)
        top, norm = max(p.top for p in parts), hypot(*(p.norm for p in parts))
        status = _status(low, zeros, storage, floor)
        apart = low is not None and low > max(storage, floor)
        return Spectrum(
            count=count,
            sigma_max=top,
            sigma_min=0.0 if zeros else low,
            condition_number=top / low if status == "resolved" and low is not None else None,
            condition_number_status=status,
            pseudo_condition_number=top / low if apart and low is not None else None,
            numerical_rank=None,
            stable_rank=(norm / top) ** 2 if top > 0 else None,
            effective_rank=None,
            frobenius_norm=norm,
            storage_floor=storage,
            computation_floor=floor,
            method=f"zero-padded, {worst.method}",
            device=self.plan.device,
            histogram=None,
        )


def _budget(operator: LayerOperator) -> int:
    """Return how many products the small end is worth: what is cheap may take longer."""
    kernel = operator.convolution.kernel
    each = 4 * kernel.numel() * prod(operator.convolution.coarse)
    return int(min(max(WORK / each, PRODUCTS[0]), PRODUCTS[1]))


def _status(low: float | None, zeros: int, storage: float, computation: float) -> Status:
    if zeros:
        return "infinite"
    if low is None:
        return "below_computation_precision"
    if low <= storage:
        return "below_storage_precision"
    return "below_computation_precision" if low <= computation else "resolved"


# What the periodic grid says of the zero-padded layer


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
