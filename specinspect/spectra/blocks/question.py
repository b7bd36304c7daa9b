"""What is asked of a block, and how it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from specinspect.layers.blocks import Block
from specinspect.maps.blocks import Branch
from specinspect.spectra.plan import Plan

LARGEST = 1e140
"""Product of the norms of a block's layers that can still be squared."""

PERIODIC = "a diagonal per channel"
"""How a block is measured that falls apart into Fourier blocks."""


class TooLargeError(Exception):
    """The product of the norms is too large to be squared."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockQuestion:
    """A block that is ready to be run, and what is wanted of it."""

    block: Block
    branch: Branch
    rho: float
    beta: float
    plan: Plan
    keep_values: bool
    how: str = "a diagonal per pixel"
    quantities: bool = False
    """Whether what bounds rest on is gathered too."""

    @property
    def with_skip(self) -> bool:
        """Whether the block has a shortcut."""
        return self.block.shortcut.kind != "none"


def value_count(branch: Branch) -> int:
    """Return the number of singular values of the block's maps."""
    return min(branch.channels * prod(branch.grid), branch.outputs * prod(branch.coarse))
