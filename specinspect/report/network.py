"""Layers and blocks in a row, from their results: what MATH R26 multiplies. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

from specinspect.bounds import network
from specinspect.layers.blocks import Normalize

if TYPE_CHECKING:
    from specinspect.bounds.model import BoundCheck
    from specinspect.report.model import BlockResult, LayerResult
    from specinspect.spectra.model import Spectrum

Names = tuple[str, ...]


def network_bounds(
    results: Sequence[LayerResult],
    blocks: Sequence[BlockResult],
    products: network.Products | None = None,
) -> tuple[BoundCheck, ...]:
    """Return what follows for layers and blocks in a row (MATH R26), where bounds were computed.

    Args:
        results: in checkpoint order.
        blocks: what was measured of blocks.
        products: of each row; None where none was formed.
    """
    if not any(result.bounds for result in results):
        return ()
    layers = network.checks([_factor(result) for result in results], products)
    return (*layers, *network.block_checks(_block_factors(results, blocks), products))


def layer_runs(results: Sequence[LayerResult]) -> tuple[Names, ...]:
    """Return the names of the layers of every row whose product R26 bounds."""
    return _bounded(network.runs([_factor(result) for result in results]))


def block_runs(results: Sequence[LayerResult], blocks: Sequence[BlockResult]) -> tuple[Names, ...]:
    """Return the names of the blocks of every row whose product R26 bounds."""
    return _bounded(network.block_runs(_block_factors(results, blocks)))


def _bounded(runs: Sequence[Sequence[network.Factor | network.BlockFactor]]) -> tuple[Names, ...]:
    return tuple(tuple(f.name for f in run) for run in runs if all(f.extremes.kappa < inf for f in run))


def _factor(result: LayerResult) -> network.Factor:
    """Return a layer's own residual map; a convolution's κ on a periodic grid is not the network's."""
    layer = result.layer
    rows, columns = layer.matrix_shape
    return network.Factor(
        layer.name,
        rows if rows == columns and layer.conv is None else None,
        layer.skip.kind == "identity" and layer.skip.source in {"model", "config"},
        _extremes(result.maps.get("skip_chain") or result.maps.get("skip")),
    )


def _block_factors(
    results: Sequence[LayerResult], blocks: Sequence[BlockResult]
) -> tuple[network.BlockFactor, ...]:
    places = {result.layer.name: place for place, result in enumerate(results)}
    found = [_block_factor(block, places, results) for block in blocks if block.block.kind != "composed"]
    return tuple(factor for factor in found if factor is not None)


def _block_factor(
    result: BlockResult, places: Mapping[str, int], results: Sequence[LayerResult]
) -> network.BlockFactor | None:
    """Return a block's map as a factor, None where its layers are not among the results."""
    block, spectrum = result.block, result.skip
    found = sorted(places[name] for name in block.layers if name in places)
    if len(found) < len(block.layers) or not found:
        return None
    why_not = ""
    if block.shortcut.kind != "identity" or spectrum is None:
        why_not = "its shortcut is not the identity"
    elif block.kind == "attention-vo":
        why_not = "its attention weights are left out of what was measured"
    elif any(isinstance(factor, Normalize) and factor.gain_only for factor in block.factors):
        why_not = "the Jacobian of its normalisation is left out of what was measured"
    elif block.kind != "residual" and block.source == "assumed":
        why_not = "its name does not tell what normalises its sum"
    elif found[-1] - found[0] >= len(found):
        why_not = "other layers stand between its own"
    channels = results[places[block.layers[0]]].layer.matrix_shape[1]
    return network.BlockFactor(
        block.name,
        why_not,
        (found[0], found[-1]),
        (channels, *(result.grid or ())),
        "" if block.after is None else block.after.name,
        _extremes(spectrum),
        block.source == "assumed" or block.shortcut.source == "assumed",
    )


def _extremes(spectrum: Spectrum | None) -> network.Extremes:
    """Return the worst over the patterns, infinite and zero where one is not resolved."""
    if spectrum is None:
        return network.UNRESOLVED
    high, low, kappa = spectrum.sigma_max, spectrum.sigma_min, spectrum.condition_number
    if spectrum.patterns is not None:
        scalars = spectrum.patterns.scalars
        high, low = scalars["sigma_max"].max, scalars["sigma_min"].min
        kappa = scalars["condition_number"].max
    if high is None or low is None or kappa is None:
        return network.UNRESOLVED
    return network.Extremes(high, low, kappa)
