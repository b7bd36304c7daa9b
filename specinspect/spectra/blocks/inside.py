"""What a branch is made of, as far as κ of its Jacobian follows from κ of its layers (MATH R9, R26)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import TYPE_CHECKING

from specinspect.layers.blocks import Apply, Block, Factor, Repeat
from specinspect.maps.blocks import Affine, Branch, Convolution, Elementwise, Stage
from specinspect.maps.blocks.stage import along
from specinspect.spectra.blocks.question import PERIODIC
from specinspect.spectra.model import BranchLayer, BranchLayers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class _Diagonals:
    """The diagonals of one pattern while the stages come in."""

    place: int = 0
    now: Tensor | None = None
    zeros: set[int] = field(default_factory=set)
    largest: float = 1.0
    smallest: float = 1.0

    def add(self, d: Tensor) -> None:
        self.now = d if self.now is None else self.now * d

    def close(self) -> None:
        """Go on to the next place: a layer follows, or the end."""
        if self.now is not None:
            sizes = self.now.abs().flatten()
            alive = sizes[sizes > 0]
            if len(alive) < len(sizes):
                self.zeros.add(self.place)
            self.largest *= float(sizes.max())
            self.smallest *= float(alive.min()) if len(alive) else 0.0
        self.place, self.now = self.place + 1, None


def branch_layers(block: Block, branch: Branch, at: Sequence[Tensor], how: str) -> BranchLayers:
    """Return the layers of a branch, their sizes, and the extremes of the diagonals between them.

    Args:
        block: what it is made of.
        branch: its stages.
        at: what comes into each, (patterns, channels, *grid).
        how: it is measured: with the first pixel's diagonals on a periodic grid, or with those of all.
    """
    odd = [word for factor, stage in _pairs(block, branch) if (word := _unlike(factor, stage))]
    if odd:
        return BranchLayers((), (), (), 0.0, 0.0, odd[0])
    first = how == PERIODIC and bool(branch.grid)
    patterns = []
    for p in range(len(at[0]) if branch.varies else 1):
        found = _Diagonals()
        for stage, x in zip(branch.stages, at, strict=True):
            if isinstance(stage, Elementwise | Affine):
                here = x[p : p + 1]
                found.add(
                    _diagonal(stage, here[(...,) + (slice(0, 1),) * len(branch.grid)] if first else here)
                )
            else:
                found.close()
        found.close()
        patterns.append(found)
    sides, layers, sizes, repeated = branch.grid, [], [branch.channels * prod(branch.grid)], 1.0
    widths = [*(x.shape[1] for x in at[1:]), branch.outputs]
    for (factor, stage), width in zip(_pairs(block, branch), widths, strict=True):
        if isinstance(stage, Elementwise | Affine):
            continue
        stride = stage.kernel.stride if isinstance(stage, Convolution) else (1,) * len(sides)
        padded = isinstance(stage, Convolution) and stage.zeros
        layers.append(BranchLayer(factor.layer if isinstance(factor, Apply) else "", sides, stride, padded))
        sides = tuple(n // s for n, s in zip(sides, stride, strict=True))
        sizes.append(width * prod(sides))
        repeated *= factor.times**0.5 if isinstance(factor, Repeat) else 1.0
    return BranchLayers(
        tuple(layers),
        tuple(sizes),
        tuple(sorted(set.union(*(found.zeros for found in patterns)))),
        repeated * max(found.largest for found in patterns),
        max(found.largest / found.smallest if found.smallest else inf for found in patterns),
    )


def _pairs(block: Block, branch: Branch) -> list[tuple[Factor, Stage]]:
    return list(zip(block.factors, branch.stages, strict=True))


def _unlike(factor: Factor, stage: Stage) -> str:
    """Return what keeps a branch from being layers with diagonals between them, '' where nothing does."""
    if isinstance(stage, Elementwise | Affine) or isinstance(factor, Repeat):
        return ""
    if isinstance(factor, Apply):
        return "" if factor.rows is None else f"only some rows of {factor.layer} are in it"
    names = {"Gate": "a gate adds two products", "Pool": "a pool is among its layers"}
    return names.get(type(factor).__name__, "the Jacobian of its normalisation is singular")


def _diagonal(stage: Elementwise | Affine, x: Tensor) -> Tensor:
    """Return (channels, *grid), or with ones for the grid where all pixels are alike."""
    if isinstance(stage, Elementwise):
        return stage.derivative(x)[0]
    return along(stage.scale.expand(stage.channels), x)
