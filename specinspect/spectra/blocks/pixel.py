"""Blocks written out, or iterated: with a diagonal at every pixel, or with zeros around the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.maps.blocks import (
    Branch,
    Stage,
    cotangent,
    dense_jacobian,
    pieces,
    points,
    shortcut_stages,
    tangent,
)
from specinspect.spectra.family import RectangularIdentity
from specinspect.spectra.model import Spectrum, Status
from specinspect.spectra.quantities import BlockQuantities
from specinspect.spectra.solve import GRAM, Batch, Solution, singular_values

if TYPE_CHECKING:
    from torch import Tensor
from specinspect.spectra.blocks.frequency import family_beside, triangle
from specinspect.spectra.blocks.gather import Floors, Values
from specinspect.spectra.blocks.product import Chunk, multiply
from specinspect.spectra.blocks.quantities import Gathered
from specinspect.spectra.blocks.question import BlockQuestion
from specinspect.spectra.blocks.written import Jacobians

DENSE_COLUMNS = 4096
"""Largest operator that is written out, in columns, where every pixel has its own diagonal."""

WORK = 4e10
"""Floating-point operations that each end of a spectrum is worth where it must be iterated."""

NOTHING = Solution(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), GRAM)
"""What is left of a branch that lets nothing through."""

REACHED = 1e-3
"""Relative residual of σ_min up to which an iterative solver is believed."""


def by_pixel(
    question: BlockQuestion, at: Sequence[Tensor]
) -> tuple[list[Spectrum], list[Spectrum], tuple[str, ...], BlockQuantities | None]:
    """Return chain and skip for every pattern: dense where the operator is small, else its extremes.

    And notes, and what bounds rest on: nothing where only extremes are known.
    """
    branch = question.branch
    if branch.channels * prod(branch.grid) <= DENSE_COLUMNS:
        return _written_out(question, at)
    beside, jacobians = shortcut_stages(branch), Jacobians(branch.stages)
    columns = branch.channels * prod(branch.grid)
    chains: list[Spectrum] = []
    skips: list[Spectrum] = []
    notes: dict[str, None] = {}
    for p in range(len(at[0])):
        here = [x[p : p + 1] for x in at]
        floors = _pixel_floors(question, at, p)
        side = points(beside, here[0])
        out = branch.outputs * prod(branch.coarse)
        # Fewer units that anything passes than σ's: the others are structural zeros.
        narrow = min(jacobians.passing(here), default=columns) < min(out, columns)
        chain, why = _extremes(
            *_operators(branch, here, beside, side, 0.0, 1.0), (out, columns), question, floors, zeros=narrow
        )
        chains.append(chain)
        notes.update(dict.fromkeys(why))
        if question.with_skip:
            skip, why = _extremes(
                *_operators(branch, here, beside, side, question.rho, question.beta),
                (out, columns),
                question,
                floors,
            )
            skips.append(skip)
            notes.update(dict.fromkeys(why))
    return chains, skips, tuple(notes), None


def _written_out(
    question: BlockQuestion, at: Sequence[Tensor]
) -> tuple[list[Spectrum], list[Spectrum], tuple[str, ...], BlockQuantities | None]:
    """Return what `by_pixel` does for a block that is small enough to be written out.

    Where a narrow place limits the rank to r, as a ReLU does, J = UV with r columns in U: its singular values
    are those of R_U·R_Vᵀ, and the others are structural zeros.
    """
    branch = question.branch
    rows, columns = branch.outputs * prod(branch.coarse), branch.channels * prod(branch.grid)
    once = torch.ones(1, dtype=torch.int64)
    gathered = Gathered.of(question, len(at[0]))
    jacobians = Jacobians(branch.stages)
    shortcut: Tensor | RectangularIdentity | None = RectangularIdentity() if question.with_skip else None
    if branch.shortcut is not None and question.with_skip:  # it is linear: the same at every input
        shortcut = dense_jacobian(branch.shortcut, at[0][0])[None]
        if gathered:
            gathered.add_shortcut(shortcut, min(rows, columns))
    chains, skips = ([Values(rows=[] if gathered else None) for _ in at[0]] for _ in range(2))
    floors: list[Floors] = []
    for p in range(len(at[0])):
        here = [x[p : p + 1] for x in at]
        floors.append(_pixel_floors(question, at, p))
        factors, weight = jacobians.factors(here, (rows, columns)), None
        if factors is None:
            j, rank = jacobians.whole(here), min(rows, columns)
        else:
            (u, v), rank = factors, factors[0].shape[1]
            j = u @ v
            weight = NOTHING if not rank else singular_values(Batch((triangle(u) @ triangle(v.T).T)[None]))
        if weight is not None and not question.with_skip:
            family = None
        else:
            family = family_beside(j[None], shortcut, weight)
            weight = family.weight
        if rank:
            chains[p].add(weight, once, rank)
        else:
            chains[p].add_none(once)
        if family is None or not question.with_skip:
            continue
        if gathered and gathered.isometric:
            gathered.add_symmetric(p, family.symmetric(), min(rows, columns))
        skips[p].add(family.skip(question.rho, question.beta), once, min(rows, columns))
    if gathered:
        gathered.add_chunk((rows, columns), once)

    def spectra(found: Sequence[Values], scale: float) -> list[Spectrum]:
        count, lead = min(rows, columns), f"dense, {question.how}"
        pairs = zip(found, floors, strict=True)
        return [v.spectrum(question, count, f.storage * scale, f.computation, lead) for v, f in pairs]

    quantities = gathered.quantities(question, chains, skips, periodic=False) if gathered else None
    beside = spectra(skips, abs(question.beta)) if question.with_skip else []
    return spectra(chains, 1.0), beside, (), quantities


def _pixel_floors(question: BlockQuestion, at: Sequence[Tensor], pattern: int) -> Floors:
    """Return the floors at the frequency zero, with the first pixel's diagonals."""
    axes = len(question.branch.grid)
    turns = torch.zeros(1, question.branch.strides, axes, dtype=torch.float64)
    chunk = Chunk(turns, torch.ones(1, dtype=torch.int64))
    product = multiply(pieces(question.branch, at, pattern), chunk, {})
    return Floors.of(product, question.branch.stages, at, pattern)


Operator = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]


def _operators(
    branch: Branch,
    at: Sequence[Tensor],
    beside: Sequence[Stage],
    side: Sequence[Tensor],
    rho: float,
    beta: float,
) -> tuple[Operator, Operator]:
    """Return x ↦ (ρA + βJ)x and its adjoint on flat vectors."""

    def forward(x: NDArray[np.float64]) -> NDArray[np.float64]:
        v = torch.from_numpy(np.ascontiguousarray(x)).reshape(1, branch.channels, *branch.grid)
        total = beta * tangent(branch.stages, at, v)
        if rho:
            total = total + rho * tangent(beside, side, v)
        return total.flatten().numpy()

    def backward(y: NDArray[np.float64]) -> NDArray[np.float64]:
        w = torch.from_numpy(np.ascontiguousarray(y)).reshape(1, branch.outputs, *branch.coarse)
        total = beta * cotangent(branch.stages, at, w)
        if rho:
            total = total + rho * cotangent(beside, side, w)
        return total.flatten().numpy()

    return forward, backward


def _restarts(question: BlockQuestion) -> int:
    """Return how often the iteration may start over, twenty products each: what is cheap may take longer."""
    pixels = prod(question.branch.grid)
    each = 4.0 * pixels * sum(s.entries.numel() for stage in question.branch.stages for s in stage.stored)
    return int(min(max(WORK / (20 * each), 5), 60))


def _extremes(
    forward: Operator,
    backward: Operator,
    shape: tuple[int, int],
    question: BlockQuestion,
    floors: Floors,
    *,
    zeros: bool = False,
) -> tuple[Spectrum, tuple[str, ...]]:
    """Return the largest singular value and the smallest, and why not where that is out of reach.

    With structural `zeros` the smallest is one of them, and nothing is known of those above.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    wide = shape[0] < shape[1]
    first, second = (backward, forward) if wide else (forward, backward)
    n = min(shape)
    start = np.random.default_rng(0).standard_normal(n)

    def square(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return second(first(x.ravel()))

    gram = LinearOperator((n, n), matvec=square, dtype=np.float64)
    found: dict[str, tuple[float, float]] = {}
    most = _restarts(question)
    for which, tries in (("LA", most),) if zeros else (("LA", most), ("SA", most)):
        try:
            values, vectors = eigsh(gram, k=1, which=which, v0=start, tol=1e-8, maxiter=tries, ncv=min(n, 40))
        except ArpackNoConvergence as error:
            values, vectors = error.eigenvalues, error.eigenvectors
        if len(values):
            vector = vectors[:, 0]
            residual = float(np.linalg.norm(square(vector) - values[0] * vector))
            sigma = sqrt(max(float(values[0]), 0.0))
            found[which] = sigma, residual / sigma if sigma else sqrt(residual)
    top, top_floor = found.get("LA", (None, inf))
    low, low_floor = found.get("SA", (None, inf))
    if zeros:
        low, low_floor = 0.0, 0.0
    reached = low is not None and low_floor <= REACHED * low and low > floors.computation
    notes: tuple[str, ...] = ()
    if not reached and not zeros:
        notes = ("smallest singular value out of reach of the iterative solver: no condition number",)
    status: Status = "resolved" if reached and top is not None else "below_computation_precision"
    status = "infinite" if zeros else status
    return (
        Spectrum(
            count=n,
            sigma_max=top,
            sigma_min=low if reached or zeros else None,
            condition_number=top / low if reached and top is not None and low is not None else None,
            condition_number_status=status,
            pseudo_condition_number=None,
            numerical_rank=None,
            stable_rank=None,
            effective_rank=None,
            frobenius_norm=None,
            storage_floor=floors.storage,
            computation_floor=max(floors.computation, low_floor if reached else top_floor),
            method=f"extremes by Lanczos, {question.how}, float64",
            device="cpu",
            histogram=None,
        ),
        notes,
    )
