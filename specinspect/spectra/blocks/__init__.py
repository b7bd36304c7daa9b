"""Spectra of a block: the branch J, and the branch beside its shortcut, ρA + βJ.

The Jacobian is that of the block at sampled inputs, which run through the whole branch: every diagonal in it
belongs to the same input. Convolutions act on a periodic grid. With one diagonal per channel, that of one
pixel, J falls apart into one small matrix per output frequency, strides included: a product of symbols at
each of the input frequencies that fold onto it (MATH R60, R61, R63).
"""

from specinspect.spectra.blocks.cost import (
    affordable_grid,
    affordable_patterns,
    block_operations,
    exact_cost,
    own_sides,
)
from specinspect.spectra.blocks.measure import BlockAnswer, measure_block

__all__ = [
    "BlockAnswer",
    "affordable_grid",
    "affordable_patterns",
    "block_operations",
    "exact_cost",
    "measure_block",
    "own_sides",
]
