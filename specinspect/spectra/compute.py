"""From linear maps to spectra: scan the entries, set exact zeros aside, scale, solve, summarise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod, sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.maps.fourier import fourier_blocks, inputs_read
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap, LowRankMap
from specinspect.spectra.model import Spectrum
from specinspect.spectra.plan import Plan
from specinspect.spectra.rounding import SCANNED, Scan, exact_dtype, scan, storage_floor
from specinspect.spectra.solve import (
    EPS,
    Batch,
    Solution,
    Streamed,
    hardest,
    row_blocks,
    singular_values,
)
from specinspect.spectra.summary import harmless_scale, summarise, unit_scale, unusable


@dataclass(frozen=True, slots=True)
class Measured:
    """A spectrum, and what reading the entries told beside it."""

    spectrum: Spectrum
    notes: tuple[str, ...] = ()
    zeros: tuple[int, int] | None = None
    """Zero rows and columns, of a convolution channels; None for a low-rank product."""


def measure(maps: Sequence[LinearMap], plan: Plan, *, keep_values: bool) -> list[Measured]:
    """Return the spectrum of each map, in order; dense maps of equal shape are solved as one batch."""
    results: dict[int, Measured] = {}
    dense = [(i, m) for i, m in enumerate(maps) if isinstance(m, DenseMap)]
    for (i, _), measured in zip(dense, _dense([m for _, m in dense], plan, keep_values), strict=True):
        results[i] = measured
    for i, item in enumerate(maps):
        if isinstance(item, LowRankMap):
            results[i] = _low_rank(item, plan, keep_values)
        elif isinstance(item, ConvolutionMap):
            results[i] = _convolution(item, plan, keep_values)
    return [results[i] for i in range(len(maps))]


# Dense matrices


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A matrix ready to be solved: its zero rows and columns are gone, its scale is harmless."""

    matrix: torch.Tensor
    scale: float
    zeros: int
    """Singular values that are exactly zero because of what was removed."""
    scan: Scan

    @property
    def bytes(self) -> int:
        return 8 * self.matrix.numel()


def _dense(maps: Sequence[DenseMap], plan: Plan, keep_values: bool) -> list[Measured]:
    prepared = [_prepare(m) for m in maps]
    solved: dict[int, tuple[NDArray[np.float64], float, str]] = {}
    solvable = [i for i, p in enumerate(prepared) if p.matrix.numel() and not p.scan.nonfinite]
    by_shape = sorted(solvable, key=lambda i: prepared[i].matrix.shape)
    for _, group in groupby(by_shape, key=lambda i: prepared[i].matrix.shape):
        indices = list(group)
        size = max(1, plan.batch_bytes() // prepared[indices[0]].bytes)
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            solution = _solve([prepared[i] for i in chunk], plan)
            for row, i in enumerate(chunk):
                scale = prepared[i].scale
                values = (solution.values[row] / scale).numpy()
                solved[i] = values, float(solution.floor[row]) / scale, solution.method
    return [
        _dense_result(m, p, solved.get(i), plan, keep_values)
        for i, (m, p) in enumerate(zip(maps, prepared, strict=True))
    ]


def _prepare(dense: DenseMap) -> _Prepared:
    matrix = dense.matrix
    columns = matrix.shape[1]
    blocks = row_blocks(matrix, SCANNED, 1.0, "cpu", exact_dtype(matrix.dtype))
    found = scan(blocks, columns, dense.dtype)
    if found.nonfinite:
        return _Prepared(matrix, 1.0, 0, found)
    live = int(found.live_rows.sum()), int(found.live_columns.sum())
    zeros = min(matrix.shape) - min(live)
    if zeros:  # otherwise the removal would copy the matrix and change nothing
        matrix = matrix[found.live_rows][:, found.live_columns]
    return _Prepared(matrix, harmless_scale(found.largest), zeros, found)


def _solve(prepared: Sequence[_Prepared], plan: Plan) -> Solution:
    if len(prepared) == 1:
        return singular_values(Streamed(prepared[0].matrix, prepared[0].scale, plan.device))
    stack = [p.matrix.to(plan.device).to(torch.float64) * p.scale for p in prepared]
    return singular_values(Batch(torch.stack(stack)))


def _dense_result(
    dense: DenseMap,
    prepared: _Prepared,
    solved: tuple[NDArray[np.float64], float, str] | None,
    plan: Plan,
    keep_values: bool,
) -> Measured:
    rows, columns = dense.shape
    found = prepared.scan
    if found.nonfinite:
        spectrum = unusable(min(rows, columns), found.nonfinite, plan.device)
        return Measured(spectrum, (found.describe_nonfinite(),), zero_lines(found))
    values, floor, method = solved or (np.zeros(0), 0.0, "exact")
    spectrum = summarise(
        np.concatenate([values, np.zeros(prepared.zeros)]),
        structural_zeros=prepared.zeros,
        storage_floor=found.floor,
        computation_floor=floor,
        method=f"{method}, float64" if solved else method,
        device=plan.device,
        keep_values=keep_values,
    )
    return Measured(spectrum, zero_notes(found), zero_lines(found))


def zero_lines(found: Scan) -> tuple[int, int]:
    """Return how many rows and columns are zero."""
    return int((~found.live_rows).sum()), int((~found.live_columns).sum())


def zero_notes(found: Scan, row: str = "rows", column: str = "columns") -> tuple[str, ...]:
    """Say which rows and columns are zero."""
    if found.largest == 0:
        return ("every entry is zero",)
    notes = []
    for live, what in ((found.live_rows, row), (found.live_columns, column)):
        dead = len(live) - int(live.sum())
        if dead:
            notes.append(f"{dead:,} of {len(live):,} {what} {'is' if dead == 1 else 'are'} zero")
    return tuple(notes)


# Low-rank products


def _low_rank(product: LowRankMap, plan: Plan, keep_values: bool) -> Measured:
    """B·A through the r × r product of their triangular factors."""
    count = min(product.shape)
    left = product.left.to(plan.device).to(torch.float64)
    right = product.right.to(plan.device).to(torch.float64)
    scans = [
        scan(iter([left]), left.shape[1], product.dtype),
        scan(iter([right]), right.shape[1], product.dtype),
    ]
    nonfinite = sum(s.nonfinite for s in scans)
    if nonfinite:
        notes = tuple(s.describe_nonfinite() for s in scans if s.nonfinite)
        return Measured(unusable(count, nonfinite, plan.device), notes)
    live = scans[0].live_columns & scans[1].live_rows
    if not live.any() or product.scale == 0:
        values, floor, storage, method = np.zeros(0), 0.0, 0.0, "exact"
    else:
        left, right = left[:, live], right[live]
        units = [unit_scale(s.largest) for s in scans]
        left, right = left * units[0], right * units[1]
        core = _factor(left) @ _factor(right.mT).mT
        solution = singular_values(Batch(core[None]))
        # One division after the other: the product of the units may leave float64.
        scale = abs(product.scale)
        norms = [float(torch.linalg.matrix_norm(_factor(f), 2)) for f in (left, right.mT)]
        values = (solution.values[0] / units[0] / units[1] * scale).numpy()
        # Multiplying the factors already costs eps·‖B‖·‖A‖, whatever the solver does afterwards.
        floor = scale * max(float(solution.floor[0]), 4 * EPS * norms[0] * norms[1]) / units[0] / units[1]
        storage = scale * (scans[0].floor * (norms[1] / units[1]) + scans[1].floor * (norms[0] / units[0]))
        method = f"low-rank factors, {solution.method}, float64"
    zeros = count - len(values)
    spectrum = summarise(
        np.concatenate([values, np.zeros(zeros)]),
        structural_zeros=zeros,
        storage_floor=storage,
        computation_floor=floor,
        method=method,
        device=plan.device,
        keep_values=keep_values,
    )
    note = (
        "every entry is zero" if not len(values) else f"rank at most {len(values)} of {count} by construction"
    )
    return Measured(spectrum, (note,) if zeros else ())


def _factor(matrix: torch.Tensor) -> torch.Tensor:
    return torch.linalg.qr(matrix, mode="r").R


# Convolutions


def _convolution(convolution: ConvolutionMap, plan: Plan, keep_values: bool) -> Measured:
    kernel = convolution.kernel.to(plan.device).to(torch.float64)
    groups, out, inn = kernel.shape[:3]
    taps, aliases = prod(kernel.shape[3:]), convolution.aliases
    count = convolution.count

    found = scan(iter([kernel.reshape(groups * out, inn * taps)]), inn * taps, convolution.dtype)
    if found.nonfinite:
        live = (kernel != 0).flatten(3).any(-1)
        spectrum = unusable(count, found.nonfinite, plan.device)
        return Measured(spectrum, (found.describe_nonfinite(),), zero_channels(live))
    scale = harmless_scale(found.largest)
    kernel = kernel * scale if scale != 1.0 else kernel
    live = (kernel != 0).flatten(3).any(-1)  # (groups, out, in)

    values: list[NDArray[np.float64]] = []
    methods: list[str] = []
    lowest, floor = np.inf, 0.0
    limit = plan.block_bytes(8 * kernel.numel())
    for part in _without_dead_channels(kernel, live):
        rank = int(inputs_read(part, convolution.stride, convolution.dilation).max())
        for batch in fourier_blocks(convolution, part, limit):
            solution = singular_values(Batch(batch.blocks))
            methods.append(solution.method)
            found_values = solution.values[:, :rank]  # the others are zero by construction
            block, smallest = int(found_values[:, -1].argmin()), float(found_values[:, -1].min())
            if smallest < lowest:
                lowest, floor = smallest, float(solution.floor[block])
            values.append(found_values.repeat_interleave(batch.multiplicity, 0).flatten().numpy())
    computed = np.concatenate(values) / scale if values else np.zeros(0)
    zeros = count - len(computed)
    spectrum = summarise(
        np.concatenate([np.sort(computed)[::-1], np.zeros(zeros)]),
        structural_zeros=zeros,
        storage_floor=kernel_floor(found, kernel, aliases),
        computation_floor=floor / scale,
        method=f"Fourier blocks, {hardest(methods)}, float64" if values else "exact",
        device=plan.device,
        keep_values=keep_values,
    )
    notes = channel_notes(live)
    if zeros and not notes:
        notes = (
            f"the stride skips inputs: rank at most {len(computed):,} of {count:,} by construction, so that "
            "κ of W and D·W is infinite; their pseudo condition number is that of the rest",
        )
    return Measured(spectrum, notes, zero_channels(live))


def zero_channels(live: torch.Tensor) -> tuple[int, int]:
    """Return how many output and input channels are zero; `live` is (groups, out, in)."""
    return int((~live.any(2)).sum()), int((~live.any(1)).sum())


def kernel_floor(found: Scan, kernel: torch.Tensor, aliases: int) -> float:
    """Return the storage floor of a block of the operator.

    An entry of a Fourier block sums the rounding errors of all taps; the aliases, side by side, share a
    factor s^{-D/2}. Over groups the columns are averaged.
    """
    groups, _, inn = kernel.shape[:3]
    unit = float(found.column_ulps.amax()) or 1.0  # squares of ulps may leave float64
    per_channel = torch.linalg.vector_norm(found.column_ulps.reshape(inn, -1) / unit, dim=1)
    return storage_floor(found.row_ulp, unit * float(per_channel.amax()) / sqrt(groups * aliases))


def _without_dead_channels(kernel: torch.Tensor, live: torch.Tensor) -> list[torch.Tensor]:
    """Return the groups with their all-zero channels removed, equal patterns of zeros together.

    What is removed are exact zeros of the spectrum, unless the rest still has the full rank.
    """
    rows, columns = live.any(2), live.any(1)
    whole = rows.all(1) & columns.all(1)
    parts = [kernel[whole]] if bool(whole.any()) else []
    for g in (~whole).nonzero().flatten().tolist():
        alive = kernel[g][rows[g]][:, columns[g]]
        if alive.numel():
            parts.append(alive[None])
    return parts


def channel_notes(live: torch.Tensor) -> tuple[str, ...]:
    """Say which channels are zero; `live` is (groups, out, in)."""
    if not live.any():
        return ("every entry is zero",)
    notes = []
    for alive, what in ((live.any(2), "output channels"), (live.any(1), "input channels")):
        dead = int((~alive).sum())
        if dead:
            notes.append(f"{dead:,} of {alive.numel():,} {what} {'is' if dead == 1 else 'are'} zero")
    return tuple(notes)
