"""κ of a block's branch beside κ of its layers: what both results say, put together. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from specinspect.bounds import branch
from specinspect.report.model import BlockResult, LayerResult
from specinspect.spectra.model import BranchLayer, Spectrum


def with_branch(block: BlockResult, results: Mapping[str, LayerResult]) -> BlockResult:
    """Add to a block's bounds what κ of its layers says of κ(J) (MATH R26), where all of them are there.

    Args:
        block: as it was measured.
        results: layer → its result.
    """
    inside = block.branch
    if inside is None or block.chain is None or block.chain.nonfinite:
        return block
    if any(layer.name and layer.name not in results for layer in inside.layers):
        return block
    layers = {layer.name: _layer(layer, results[layer.name]) for layer in inside.layers if layer.name}
    found = branch.check(inside, _jacobian(block.chain), layers)
    return block if found is None else replace(block, bounds=(*block.bounds, found))


def with_branches(blocks: Sequence[BlockResult], results: Sequence[LayerResult]) -> tuple[BlockResult, ...]:
    """Return the blocks with what κ of their layers says of them."""
    by_name = {result.layer.name: result for result in results}
    return tuple(with_branch(block, by_name) for block in blocks)


def _jacobian(chain: Spectrum) -> branch.Whole:
    """Return the worst over the patterns."""
    if chain.patterns is None:
        return branch.Whole(chain.sigma_max, chain.pseudo_condition_number)
    scalars = chain.patterns.scalars
    return branch.Whole(scalars["sigma_max"].max, scalars["pseudo_condition_number"].max)


def _layer(on_branch: BranchLayer, result: LayerResult) -> branch.Whole:
    """Return what a layer's own result says of it as it acts on the branch."""
    weight, conv = result.maps["weight"], result.layer.conv
    why_not = ""
    if conv is not None:
        grid = result.grid or ()
        padded = result.boundary == "zeros"
        if tuple(conv.stride.value) != on_branch.stride:
            why_not = "its stride is not the one that it has in the block"
        elif on_branch.padded != padded:
            why_not = "on its own it is measured with another border than in the block"
        elif padded and grid != on_branch.sides:
            why_not = "with its zeros it is measured on a grid of another size"
        elif any(n % m for n, m in zip(grid, on_branch.sides, strict=True)):
            why_not = "on its own it is measured on another grid"
    elif on_branch.sides and conv is None:
        why_not = "it has no grid of its own"
    return branch.Whole(weight.sigma_max, weight.condition_number, why_not)
