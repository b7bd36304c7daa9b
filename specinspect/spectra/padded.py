"""Zero-padded convolutions: their true spectra; of large ones the extremes.

A periodic σ_min may be off by any factor for the zero-padded layer (MATH R64), so it is never quoted for one;
`padding` bounds what can be bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot, prod, sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.maps.extent import is_written_out
from specinspect.maps.model import ConvolutionMap
from specinspect.maps.operator import (
    ConvolutionOperator,
    LayerOperator,
    shortcut_beside,
    spread_diagonal,
)
from specinspect.maps.patterns import Diagonals
from specinspect.maps.written import written_out
from specinspect.spectra.iterative import extremes
from specinspect.spectra.medians import over_patterns
from specinspect.spectra.model import Spectrum, Status, Tau
from specinspect.spectra.plan import Plan
from specinspect.spectra.rounding import scan, storage_floor
from specinspect.spectra.solve import EPS, hardest
from specinspect.spectra.summary import harmless_scale, summarise, unusable
from specinspect.spectra.written import Written

TAU_SIDE = 1024
"""The side up to which the eigenvalues of T + Tᵀ are all solved for; above it the outermost are iterated."""
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
    or is large and Lanczos does not settle.
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

    def solved() -> tuple[float, float]:
        matrix = written_out(operator)
        values = torch.linalg.eigvalsh(matrix + matrix.T)
        return float(values[0]), float(values[-1])

    if n <= TAU_SIDE:
        return solved()

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
        return solved() if is_written_out(n, n) else None
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
            rows = group.shape[0]
            beside = shortcut_beside(group, self.shortcut)
            written = Written.of(group, beside) if is_written_out(*group.shape) else None
            known: dict[tuple[bytes | None, float, float], _Part] = {}
            for case, collected in zip(cases, parts, strict=True):
                d = None if case.diagonal is None else case.diagonal[g * rows : (g + 1) * rows]
                key = (None if d is None else d.cpu().numpy().tobytes(), case.rho, case.beta)
                if key not in known:  # patterns may coincide
                    d = None if d is None else d.to(group.device)
                    operator = LayerOperator(group, d, beside if case.rho else None, case.rho, case.beta)
                    known[key] = (
                        self._iterate(operator) if written is None else self._solve(operator, written)
                    )
                collected.append(known[key])
        return [self._merge(case, found) for case, found in zip(cases, parts, strict=True)]

    def _solve(self, operator: LayerOperator, written: Written) -> _Part:
        """Solve one map in full, without its structural zeros."""
        live = operator.live()
        count = min(int(side.sum()) for side in live)
        zeros = min(operator.shape) - count
        if not count:
            return _Part(np.zeros(0), zeros, 0.0, 0.0, 0.0, 0.0, "exact")
        solution = written.solve(operator, live)
        values, floor = solution.values[0].numpy(), float(solution.floor[0])
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
