"""Spectra of the maps that an activation and a skip make of a layer: D·W, ρA+βW and ρA+β·D·W."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, prod

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.layers.model import PROJECTIONS
from specinspect.maps.fourier import fourier_blocks, inputs_read
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap
from specinspect.maps.patterns import Diagonals
from specinspect.spectra.compute import kernel_floor
from specinspect.spectra.entries import entries
from specinspect.spectra.family import Family, RectangularIdentity
from specinspect.spectra.lean import LeanFamily
from specinspect.spectra.medians import over_patterns
from specinspect.spectra.model import Spectrum, Tau
from specinspect.spectra.plan import Plan
from specinspect.spectra.quantities import LayerQuantities, PatternQuantities, ProjectionQuantities
from specinspect.spectra.rounding import exact_dtype, scan
from specinspect.spectra.solve import Solution, extreme_values, hardest, row_blocks
from specinspect.spectra.summary import harmless_scale, summarise


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Which maps of a layer are wanted."""

    rho: float
    beta: float
    shortcut: str
    """The kind of A, as in `layers.model.Skip`."""
    diagonals: Diagonals | None
    """Sampled D; None where D is the identity, so that D·W is W."""
    projection: LinearMap | None = None
    """A, of W's shape and kind, on the CPU in float64; for the two projections."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The maps beside W, and the extreme eigenvalues of M + Mᵀ."""

    maps: Mapping[str, Spectrum]
    tau: Tau | None
    quantities: LayerQuantities | None = None
    """What bounds rest on, where asked for; its kind and activation are the caller's to fill in."""


def measure_maps(
    linear: LinearMap,
    weight: Spectrum,
    question: Question,
    plan: Plan,
    *,
    keep_values: bool,
    quantities: bool = False,
) -> Answer:
    """Return the spectra of chain, skip and skip_chain, as far as they make sense for a layer.

    Args:
        linear: W, dense or a convolution.
        weight: the spectrum of W, already known.
        question: ρ, β, the shortcut and D.
        plan: where to compute.
        keep_values: keep all singular values.
        quantities: also gather what bounds rest on; of a dense W its singular values must then be there.

    A low-rank map has neither (an adapter is added to another weight, not activated on its own).
    """
    if weight.nonfinite or not isinstance(linear, DenseMap | ConvolutionMap):
        names = ("chain",) if question.shortcut == "none" else ("chain", "skip", "skip_chain")
        return Answer(dict.fromkeys(names, weight) if weight.nonfinite else {}, None)
    collected = _Collection(without_dead_outputs(linear, question), _isometric(linear, question), quantities)
    if isinstance(linear, DenseMap) and question.projection is None:
        collected.add_dense(linear, weight, plan)
    elif isinstance(linear, DenseMap):
        for batch in dense_batches(linear, plan, question):
            collected.add(batch)
    else:
        for batch in fourier_batches(linear, question, plan):
            collected.add(batch)
    shown = weight if keep_values else replace(weight, singular_values=None)
    answer = collected.answer(shown, plan, keep_values)
    return replace(answer, quantities=collected.quantities(linear, weight)) if quantities else answer


def _isometric(linear: LinearMap, question: Question) -> bool:
    """Say whether AᴴA = I or AAᴴ = I: not for a pool that adds channels (MATH R33)."""
    if question.shortcut in {"none", *PROJECTIONS}:
        return False
    if isinstance(linear, ConvolutionMap) and question.shortcut == "average-pool":
        return linear.kernel.shape[1] <= linear.kernel.shape[2]
    return True


def without_dead_outputs(linear: LinearMap, question: Question) -> Question:
    """Let D be zero where W's row already is: the zeros of D·W are then structural, whatever D is."""
    rows = kernel_matrix(linear)
    if rows is None or question.diagonals is None:
        return question
    live = torch.cat([(part != 0).any(1) for part in torch.split(rows, 1024)]).cpu()
    values = question.diagonals.values * live
    return replace(question, diagonals=replace(question.diagonals, values=values))


@dataclass(frozen=True, slots=True, eq=False)
class LayerBatch:
    """Matrices (batch, out, in) of a layer times `scale`, and which of its outputs they have."""

    matrices: torch.Tensor
    shortcut: torch.Tensor | None
    multiplicity: torch.Tensor
    scale: float
    outputs: torch.Tensor
    """(out,), or (batch, out) where every member has its own: indices into D's diagonal."""
    square: bool
    """Whether the map goes from a space to itself, so that M + Mᵀ means something."""
    rank: int | None = None
    """What W can reach by its zeros and by the inputs that a stride skips, at most; None for not known."""


def dense_batches(dense: DenseMap, plan: Plan, question: Question | None = None) -> Iterator[LayerBatch]:
    """Yield a matrix in float64, as a batch of one, and its shortcut where that is a projection."""
    matrix = dense.matrix.to(plan.device).to(torch.float64)
    scale = harmless_scale(float(matrix.abs().max()))
    matrix = matrix * scale if scale != 1.0 else matrix
    once, outputs = torch.ones(1, dtype=torch.int64), torch.arange(len(matrix))
    shortcut = None
    if question is not None and isinstance(question.projection, DenseMap):
        shortcut = question.projection.matrix.to(plan.device)[None]
        if question.shortcut == "projection-plus-identity":
            shortcut = shortcut + torch.eye(*matrix.shape, dtype=matrix.dtype, device=matrix.device)
    yield LayerBatch(matrix[None], shortcut, once, scale, outputs, square=len(matrix) == matrix.shape[1])


def fourier_batches(convolution: ConvolutionMap, question: Question, plan: Plan) -> Iterator[LayerBatch]:
    """Yield the Fourier blocks of a convolution, and of its shortcut where it is written out."""
    kernel = convolution.kernel.to(plan.device).to(torch.float64)
    scale = harmless_scale(float(kernel.abs().max()))
    kernel = kernel * scale if scale != 1.0 else kernel
    groups, out, inn = kernel.shape[:3]
    square = out == inn and convolution.aliases == 1
    outputs = torch.arange(groups * out).reshape(groups, out)
    limit = plan.block_bytes(8 * kernel.numel()) // 2
    # Groups of a single output go together, each with its own entry of D; others one at a time.
    parts = [slice(None)] if out == 1 else [slice(g, g + 1) for g in range(groups)]
    for part in parts:
        # Without a stride the pool is the (rectangular) identity.
        pool = question.shortcut in {"average-pool", "projection-plus-identity"}
        beside = question.projection if isinstance(question.projection, ConvolutionMap) else None
        rank = int(inputs_read(kernel[part], convolution.stride, convolution.dilation).max())
        for batch in fourier_blocks(convolution, kernel[part], limit, pool=pool, beside=beside):
            mine = outputs[part]
            chosen = mine.repeat(len(batch.blocks) // len(mine), 1) if out == 1 else mine[0]
            yield LayerBatch(batch.blocks, batch.shortcut, batch.multiplicity, scale, chosen, square, rank)


@dataclass(slots=True)
class _Values:
    """Singular values of one map, gathered batch by batch."""

    values: list[NDArray[np.float64]] = field(default_factory=list)
    """(batch, k) each, without what is structurally zero."""
    multiplicity: list[NDArray[np.int64]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    lowest: float = float("inf")
    floor: float = 0.0

    def add(
        self, solution: Solution, scale: float, multiplicity: torch.Tensor, rank: int | None = None
    ) -> None:
        """Take the `rank` largest of each member, None for all: the others are structurally zero."""
        values = solution.values[:, :rank] / scale
        if not values.shape[1]:
            self.add_none(multiplicity)
            return
        member = int(values[:, -1].argmin())
        low = float(values[member, -1])
        if low < self.lowest:
            self.lowest, self.floor = low, float(solution.floor[member]) / scale
        self.methods.append(solution.method)
        self._append(values.numpy(), multiplicity)

    def add_none(self, multiplicity: torch.Tensor) -> None:
        """Add a batch of maps that are structurally zero."""
        self._append(np.zeros((len(multiplicity), 0)), multiplicity)

    def _append(self, values: NDArray[np.float64], multiplicity: torch.Tensor) -> None:
        self.values.append(values)
        self.multiplicity.append(multiplicity.numpy())

    def all(self) -> NDArray[np.float64]:
        """Return every singular value as often as it occurs, in no order."""
        pairs = zip(self.values, self.multiplicity, strict=True)
        parts = [np.repeat(values, times, 0).ravel() for values, times in pairs]
        return np.concatenate(parts) if parts else np.zeros(0)

    def blocks(self, count: int) -> NDArray[np.float64]:
        """Return (blocks, count), the structural zeros put back."""
        return np.concatenate([np.pad(v, ((0, 0), (0, count - v.shape[1]))) for v in self.values])


class _Collection:
    """The maps of one layer while its batches come in."""

    def __init__(self, question: Question, isometric: bool, quantities: bool) -> None:
        self.question = question
        self.patterns = 0 if question.diagonals is None else len(question.diagonals.values)
        self.weight = _Values()
        self.skip = _Values()
        self.chain = [_Values() for _ in range(self.patterns)]
        self.skip_chain = [_Values() for _ in range(self.patterns)]
        self.square = False
        self.isometric = isometric
        self.gathering = quantities
        self.tau: list[NDArray[np.float64]] = []
        """(batch, k) each, descending."""
        self.pattern_tau: list[NDArray[np.float64]] = []
        """(batch, 2) each, of the pattern `middle`."""
        self.beside: list[tuple[float, float]] = []
        """Extreme singular values of a projection, batch by batch."""
        self.middle = _middle(question.diagonals)

    def add(self, batch: LayerBatch) -> None:
        """Solve all maps of one batch."""
        q = self.question
        shortcut: torch.Tensor | RectangularIdentity | None = None
        if q.shortcut != "none":
            shortcut = RectangularIdentity() if batch.shortcut is None else batch.shortcut
        family = Family.of(batch.matrices, shortcut)
        self.square = batch.square
        if batch.square and q.projection is not None:  # τ is of M + Mᴴ, whatever A is
            tau = torch.linalg.eigvalsh(batch.matrices + batch.matrices.mH).flip(-1).cpu()
            self.tau.append((tau / batch.scale).numpy())
        if self.gathering and q.shortcut in PROJECTIONS and batch.shortcut is not None:
            self.beside.append(extreme_values(batch.shortcut, min(batch.shortcut.shape[-2:])))
        if self.gathering:
            self.weight.add(family.weight, batch.scale, batch.multiplicity, batch.rank)
        device = batch.matrices.device
        diagonals = [] if q.diagonals is None else list(q.diagonals.values.to(device))
        chosen = [d[batch.outputs] for d in diagonals]
        self._solve(family, chosen, batch.scale, batch.multiplicity, batch.rank)

    def add_dense(self, dense: DenseMap, weight: Spectrum, plan: Plan) -> None:
        """Solve all maps of a matrix, which may be the largest of all: see `lean`."""
        top = weight.sigma_max or 0.0
        scale = harmless_scale(top)
        family = LeanFamily.of(dense.matrix, scale, plan.device, top * scale)
        self.square = dense.shape[0] == dense.shape[1]
        q = self.question
        diagonals = [] if q.diagonals is None else list(q.diagonals.values.to(plan.device))
        self._solve(family, diagonals, scale, torch.ones(1, dtype=torch.int64))

    def _solve(
        self,
        family: Family | LeanFamily,
        diagonals: Sequence[torch.Tensor],
        scale: float,
        multiplicity: torch.Tensor,
        rank: int | None = None,
    ) -> None:
        q = self.question
        rho = q.rho * scale
        # With ρ = 0 the skip maps are W and D·W again, and as singular.
        if q.projection is None and (self.square or (self.gathering and self.isometric)):
            self.tau.append((family.tau() / scale).numpy())
        if q.shortcut != "none":
            self.skip.add(family.skip(rho, q.beta), scale, multiplicity, None if rho else rank)
        for p, diagonal in enumerate(diagonals):
            chain: Solution | None
            skip: Solution | None = None
            if isinstance(family, LeanFamily):
                shared = None if q.shortcut == "none" else family.shared(diagonal)
                if q.shortcut != "none":
                    skip = family.skip(rho, q.beta, diagonal, shared)
                chain = family.chain(diagonal, shared)
                del shared
            else:
                scalar = diagonal.ndim == 2
                chain = _scalar_chain(family, diagonal) if scalar else family.chain(diagonal)
                if q.shortcut != "none":
                    skip = family.skip(rho, q.beta, diagonal)
            if chain is not None:
                self.chain[p].add(chain, scale, multiplicity, rank)
            else:
                self.chain[p].add_none(multiplicity)
            if skip is not None:
                left = None if rho or diagonal.ndim == 2 else int((diagonal != 0).sum())
                lowest = min((k for k in (left, rank) if k is not None), default=None)
                self.skip_chain[p].add(skip, scale, multiplicity, None if rho else lowest)
            if p == self.middle and self.gathering and self.isometric:
                self.pattern_tau.append((family.tau(diagonal)[:, [-1, 0]] / scale).numpy())

    def quantities(self, linear: DenseMap | ConvolutionMap, weight: Spectrum) -> LayerQuantities:
        """Return what bounds rest on."""
        q = self.question
        if isinstance(linear, DenseMap):
            if weight.singular_values is None:
                raise AssertionError("a dense weight is measured with its values")
            shape, values = linear.shape, weight.singular_values[None]
            multiplicity = np.ones(1, dtype=np.int64)
        else:
            shape = linear.kernel.shape[1], linear.aliases * linear.kernel.shape[2]
            values = self.weight.blocks(min(shape))
            multiplicity = np.concatenate(self.weight.multiplicity)
        # Most of theory speaks of isometries: for it a projection is as no skip map.
        k, with_skip = min(shape), q.shortcut != "none" and q.projection is None
        diagonals = [] if q.diagonals is None else list(q.diagonals.values.cpu().numpy())
        return LayerQuantities(
            kind="",
            shape=shape,
            rho=q.rho,
            beta=q.beta,
            shortcut=q.shortcut if with_skip else "none",
            weight=values,
            multiplicity=multiplicity,
            skip=self.skip.blocks(k) if with_skip else None,
            tau=np.concatenate(self.tau) if self.tau and q.projection is None else None,
            floor=weight.computation_floor or 0.0,
            entries=entries(linear),
            patterns=tuple(
                PatternQuantities(
                    diagonal,
                    self.chain[p].blocks(k),
                    self.skip_chain[p].blocks(k) if with_skip else None,
                    np.concatenate(self.pattern_tau) if p == self.middle and self.pattern_tau else None,
                )
                for p, diagonal in enumerate(diagonals)
            ),
            activation="",
            projection=None
            if not self.beside
            else ProjectionQuantities(
                (min(low for low, _ in self.beside), max(high for _, high in self.beside)),
                self.skip.blocks(k),
                tuple(found.blocks(k) for found in self.skip_chain),
            ),
        )

    def answer(self, weight: Spectrum, plan: Plan, keep_values: bool) -> Answer:
        """Summarise every map."""
        q = self.question
        storage = weight.storage_floor or 0.0
        maps: dict[str, Spectrum] = {}

        def spectrum(found: _Values, floor: float, *, drop_zeros: bool = False) -> Spectrum:
            # Zeros that D's own zeros make are dropped: structural, as are those of W.
            values = found.all()
            values = values[values > 0] if drop_zeros else values
            zeros = weight.count - len(values)
            return summarise(
                np.concatenate([np.sort(values)[::-1], np.zeros(zeros)]),
                structural_zeros=zeros,
                storage_floor=floor,
                computation_floor=found.floor,
                method=f"{hardest(found.methods)}, float64" if found.methods else "exact",
                device=plan.device,
                keep_values=keep_values,
            )

        with_skip = q.shortcut != "none"
        beside = abs(q.rho) * shortcut_floor(q.projection) if with_skip else 0.0
        if q.diagonals is None:
            maps["chain"] = weight
        else:
            peaks = [float(d.abs().max()) for d in q.diagonals.values]
            active = q.diagonals.active_fraction.tolist()
            chains = [
                spectrum(v, storage * peak, drop_zeros=True)
                for v, peak in zip(self.chain, peaks, strict=True)
            ]
            maps["chain"] = over_patterns(chains, active)
        if with_skip:
            maps["skip"] = spectrum(self.skip, beside + storage * abs(q.beta))
            if q.diagonals is None:
                maps["skip_chain"] = maps["skip"]
            else:
                skips = [
                    spectrum(v, beside + storage * peak * abs(q.beta), drop_zeros=q.rho == 0)
                    for v, peak in zip(self.skip_chain, peaks, strict=True)
                ]
                maps["skip_chain"] = over_patterns(skips, active)
        tau = None
        if self.square:
            tau = Tau(min(float(t.min()) for t in self.tau), max(float(t.max()) for t in self.tau))
            if not (isfinite(tau.min) and isfinite(tau.max)):
                raise OverflowError("eigenvalues beyond float64")
        return Answer(maps, tau)


def shortcut_floor(projection: LinearMap | None) -> float:
    """Return what the stored dtype leaves open of a shortcut that is a layer, 0 for an exact isometry."""
    kernel = None if projection is None else kernel_matrix(projection)
    if projection is None or kernel is None:
        return 0.0
    blocks = row_blocks(kernel, kernel.shape[1], 1.0, "cpu", exact_dtype(kernel.dtype))
    found = scan(blocks, kernel.shape[1], projection.dtype)
    if isinstance(projection, ConvolutionMap):
        return kernel_floor(found, projection.kernel, projection.aliases)
    return found.floor


def _middle(diagonals: Diagonals | None) -> int:
    """Return the pattern of median activity: the one whose τ is computed, known before anything is solved."""
    if diagonals is None:
        return -1
    order = diagonals.active_fraction.sort(stable=True).indices
    return int(order[(len(order) - 1) // 2])


def _scalar_chain(family: Family, diagonal: torch.Tensor) -> Solution:
    """Return D·M where every member has a single output: σ times |d|."""
    factor = diagonal[:, 0].abs().cpu()
    weight = family.weight
    return Solution(weight.values * factor[:, None], weight.floor * factor, weight.method)


def kernel_matrix(linear: LinearMap) -> torch.Tensor | None:
    """Return the matrix whose product with one random patch gives the layer's outputs, (out, in·taps)."""
    if isinstance(linear, DenseMap):
        return linear.matrix
    if isinstance(linear, ConvolutionMap):
        groups, out = linear.kernel.shape[:2]
        return linear.kernel.reshape(groups * out, prod(linear.kernel.shape[2:]))
    return None
