"""Residual blocks that follow each other, multiplied: the extremes of Π(ρI + βJ_l) (MATH R26)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from specinspect.maps.blocks import Branch, Kernel, Matrix, Piece, dense_jacobian, pieces, to_device
from specinspect.spectra.blocks.pixel import DENSE_COLUMNS
from specinspect.spectra.blocks.product import chunks_of, multiply
from specinspect.spectra.blocks.question import PERIODIC
from specinspect.spectra.model import ProductExtremes
from specinspect.spectra.plan import Plan
from specinspect.spectra.product import BEYOND, Running

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """One block of a row, made ready: see `ready`."""

    branch: Branch
    how: str
    at: Sequence[Tensor]
    """What comes into each stage."""

    @property
    def patterns(self) -> int:
        """Number of sampled inputs."""
        return len(self.at[0])


def blocks_product(blocks: Sequence[RowBlock], rho: float, beta: float, plan: Plan) -> ProductExtremes:
    """Return the extremes of the product of ρI + βJ over some blocks, at every sampled input.

    The p-th inputs of all go together; those of a block with fewer begin again.

    Args:
        blocks: in the order in which data meets them, each from a space to itself.
        rho: weight of the identity.
        beta: weight of the branch.
        plan: where to compute.
    """
    first = blocks[0].branch
    dense = bool(first.grid) and blocks[0].how != PERIODIC
    if len({(block.how, block.branch.grid, block.branch.channels) for block in blocks}) > 1:
        return ProductExtremes((), "the blocks are not measured on one grid in one way")
    if dense and first.channels * prod(first.grid) > DENSE_COLUMNS:
        return ProductExtremes((), "of so large blocks only the extreme singular values are computed")
    found = []
    for p in range(max(block.patterns for block in blocks)):
        parts = []
        for jacobians in _dense(blocks, p) if dense else _periodic(blocks, p, plan):
            running = Running()
            for j in jacobians:
                n = beta * j
                n.diagonal(dim1=-2, dim2=-1).add_(rho)
                running.multiply(n)
            parts.append(running.extremes())
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return BEYOND
        found.append((max(top for top, _ in known), min(low for _, low in known)))
    return ProductExtremes(tuple(found))


def _dense(blocks: Sequence[RowBlock], pattern: int) -> Iterator[Iterable[Tensor]]:
    """Yield the Jacobians, one after the other, written out."""

    def jacobian(block: RowBlock) -> Tensor:
        p = pattern % block.patterns
        here = [x[p : p + 1] for x in block.at]
        return dense_jacobian(block.branch.stages, here[0][0], here)[None]

    yield map(jacobian, blocks)


def _periodic(blocks: Sequence[RowBlock], pattern: int, plan: Plan) -> Iterator[Iterable[Tensor]]:
    """Yield the Jacobians, one after the other, at each chunk of frequencies."""
    found: list[list[Piece]] = []
    for block in blocks:
        here = pieces(block.branch, block.at, pattern % block.patterns)
        found.append([to_device(piece, plan.device) for piece in here])
    bytes_each = 16 * max(1, *(sum(map(_entries, one)) for one in found))
    for chunk in chunks_of(blocks[0].branch, bytes_each, plan):
        products = (multiply(one, chunk, {}) for one in found)
        yield (product.right(len(product.matrices)) for product in products)


def _entries(piece: Piece) -> int:
    if isinstance(piece, Kernel):
        groups, out, inn = piece.kernel.shape[:3]
        return groups * groups * out * inn
    return piece.matrix.numel() if isinstance(piece, Matrix) else 0
