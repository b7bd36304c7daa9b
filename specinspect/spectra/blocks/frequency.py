"""Blocks with the same diagonal at every pixel: one small problem per output frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from specinspect.maps.blocks import (
    Branch,
    Kernel,
    Matrix,
    Piece,
    pieces,
    points,
    to_device,
)
from specinspect.spectra.family import ExplicitShortcut, Family, RectangularIdentity, Shortcut
from specinspect.spectra.model import Spectrum
from specinspect.spectra.quantities import BlockQuantities
from specinspect.spectra.solve import Batch, Solution, singular_values

if TYPE_CHECKING:
    from torch import Tensor
from specinspect.spectra.blocks.gather import Floors, Values
from specinspect.spectra.blocks.product import Product, chunks_of, multiply
from specinspect.spectra.blocks.quantities import Gathered
from specinspect.spectra.blocks.question import BlockQuestion, value_count


def by_frequency(
    question: BlockQuestion, at: Sequence[Tensor]
) -> tuple[list[Spectrum], list[Spectrum], BlockQuantities | None]:
    """Return chain and skip for every pattern, and what bounds rest on where that is wanted."""
    branch, plan = question.branch, question.plan
    gathered = Gathered.of(question, len(at[0]))
    n = len(at[0])
    found = [[to_device(piece, plan.device) for piece in pieces(branch, at, p)] for p in range(n)]
    beside: list[Piece] = []
    if branch.shortcut is not None:
        zero = torch.zeros(1, branch.channels, *branch.grid, dtype=torch.float64)
        still = points(branch.shortcut, zero)
        pixel = Branch(branch.shortcut, None, branch.channels, branch.outputs, branch.grid, branch.coarse)
        beside = [to_device(piece, plan.device) for piece in pieces(pixel, still, 0)]
    chains = [Values(rows=[] if gathered else None) for _ in range(n)]
    skips = [Values(rows=[] if gathered else None) for _ in range(n)]
    floors: Floors | None = None
    shortcut_floors = Floors()
    for chunk in chunks_of(branch, _bytes_each(found[0], beside, branch), plan):
        symbols: dict[int, Tensor] = {}
        shortcut: _Beside | RectangularIdentity | None = RectangularIdentity() if question.with_skip else None
        if beside:
            side = multiply(beside, chunk, {})
            shortcut = _Beside.of(side)
            if gathered:
                gathered.add_shortcut(shortcut.matrices, shortcut.rank)
            if floors is None and branch.shortcut is not None:
                shortcut_floors = Floors.of(side, branch.shortcut, still, 0)
        for p in range(n):
            product = multiply(found[p], chunk, symbols)
            if floors is None:
                floors = Floors.of(product, branch.stages, at, p)
            h = _solve(question, product, shortcut, chunk.multiplicity, chains[p], skips[p], gathered)
            if gathered and h is not None:
                gathered.add_symmetric(p, h, min(product.shape))
        if gathered:
            gathered.add_chunk(product.shape, chunk.multiplicity)
    floors = floors or Floors()
    count = value_count(branch)
    lead = "Fourier blocks of the product" if branch.grid else "product"
    rho, beta = abs(question.rho), abs(question.beta)
    both = [
        beta * own + rho * other
        for own, other in (
            (floors.storage, shortcut_floors.storage),
            (floors.computation, shortcut_floors.computation),
        )
    ]
    return (
        [v.spectrum(question, count, floors.storage, floors.computation, lead) for v in chains],
        [v.spectrum(question, count, both[0], both[1], lead) for v in skips] if question.with_skip else [],
        gathered.quantities(question, chains, skips, periodic=bool(branch.grid)) if gathered else None,
    )


def _bytes_each(found: Sequence[Piece], beside: Sequence[Piece], branch: Branch) -> int:
    """Return the bytes of all symbols at one output frequency."""
    entries = 0
    for piece in (*found, *beside):
        if isinstance(piece, Kernel):
            groups, out, inn = piece.kernel.shape[:3]
            entries += groups * groups * out * inn
        elif isinstance(piece, Matrix):
            entries += piece.matrix.numel()
    ratio = prod(branch.grid) // max(1, prod(branch.coarse)) if branch.grid else 1
    return 16 * max(1, entries * ratio)


@dataclass(slots=True, eq=False)
class _Beside:
    """A shortcut that is written out."""

    matrices: Tensor
    """(frequencies, out, in)."""
    rank: int
    """At most, by its exact zeros and narrow places."""
    _factors: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, product: Product) -> _Beside:
        return cls(product.right(len(product.matrices)), min(product.rank(), *product.shape))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A as (out × rank) times (rank × in)."""
        if self._factors is None:
            u, s, vh = torch.linalg.svd(self.matrices, full_matrices=False)
            self._factors = u[..., : self.rank] * s[:, None, : self.rank], vh[:, : self.rank]
        return self._factors


def _solve(
    question: BlockQuestion,
    product: Product,
    shortcut: _Beside | RectangularIdentity | None,
    multiplicity: Tensor,
    chain: Values,
    skip: Values,
    gathered: Gathered | None,
) -> Tensor | None:
    """Solve one pattern at the frequencies of one chunk, and return what τ is of, where it is wanted.

    Where a narrow place limits the rank to r, J = UV with r columns in U: its singular values are those of
    R_U·R_Vᴴ, and beside an identity all but 2r values are |ρ|, since ρI + βJ leaves the span of U and Vᴴ
    and its complement to themselves. Beside a shortcut of low rank, such as a strided 1×1 convolution that
    skips pixels, the factors of both stand side by side.

    Returns:
        AᴴJ + JᴴA on the smaller side, without what is zero outside of the span above; None where A is no
        isometry.
    """
    rank, place = product.rank(), product.narrowest()
    last = len(product.matrices)
    rows, columns = product.shape
    rho, beta = question.rho, question.beta
    weight: Solution | None = None
    if place is None:
        j = product.right(last)
        u = v = None
    else:
        alive = product.alive[place]
        identity = torch.eye(len(alive), dtype=product.matrices[0].dtype, device=alive.device)
        u = (product.left(place) if place < last else identity[None])[..., alive]
        v = (product.right(place) if place > 0 else identity[None])[:, alive]
        u, v = u.expand(product.size, -1, -1), v.expand(product.size, -1, -1)
        j = u @ v if 0 < place < last else product.right(last)
        if rank:
            core = v if place == last else u if place == 0 else triangle(u) @ triangle(v.mH).mH
            weight = singular_values(Batch(core))
            chain.add(weight, multiplicity, rank)
        else:
            chain.add_none(multiplicity)
    if not question.with_skip and place is not None:
        return None
    r = 0 if u is None else u.shape[-1]
    if (
        u is not None
        and v is not None
        and isinstance(shortcut, RectangularIdentity)
        and 2 * r < columns == rows
    ):
        q = torch.linalg.qr(torch.cat([u, v.mH], -1)).Q
        core = (q.mH @ u) @ (v @ q)
        inner = beta * core
        inner.diagonal(dim1=-2, dim2=-1).add_(rho)
        none = torch.zeros(product.size, 0, dtype=torch.float64)
        solution = singular_values(Batch(inner)) if r else Solution(none, none.sum(1), "gram")
        skip.add(solution, multiplicity, 2 * r, (abs(rho), rows - 2 * r))
        if gathered is None:
            return None
        return core + core.mH
    together = min(rows, columns)
    if isinstance(shortcut, _Beside):
        together = min(together, shortcut.rank + rank)
        if u is not None and v is not None and shortcut.rank + r < min(rows, columns):
            left, right = shortcut.factors()
            whole = triangle(torch.cat([beta * u, rho * left], -1))
            solution = singular_values(Batch(whole @ triangle(torch.cat([v, right], -2).mH).mH))
            skip.add(solution, multiplicity, together)
            return None
    family = family_beside(j, shortcut.matrices if isinstance(shortcut, _Beside) else shortcut, weight)
    if place is None:
        chain.add(family.weight, multiplicity, rank)
    if not question.with_skip:
        return None
    skip.add(family.skip(rho, beta), multiplicity, together)
    return family.symmetric() if gathered and gathered.isometric else None


def triangle(matrices: Tensor) -> Tensor:
    """Return R of A = QR for each member of a batch."""
    return torch.linalg.qr(matrices, mode="r").R


def family_beside(
    j: Tensor, shortcut: Tensor | RectangularIdentity | None, weight: Solution | None
) -> Family:
    """Form what chain and skip share, without solving what is solved already."""
    if weight is None:
        return Family.of(j, shortcut)
    turned = j.shape[-2] < j.shape[-1]
    m = j.mH if turned else j
    a: Shortcut | None = None
    if isinstance(shortcut, torch.Tensor):
        a = ExplicitShortcut(shortcut.mH if turned else shortcut)
    elif shortcut is not None:
        a = shortcut
    return Family(m, a, turned, m.mH @ m, None if a is None else a.cross(m), weight)
