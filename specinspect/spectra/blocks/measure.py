"""From a block to its spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from specinspect.layers.blocks import Block
from specinspect.layers.model import Layer
from specinspect.maps.blocks import (
    Elementwise,
    Gated,
    Stage,
)
from specinspect.maps.build import Read
from specinspect.spectra.medians import over_patterns
from specinspect.spectra.model import BlockSpectra
from specinspect.spectra.plan import Plan
from specinspect.spectra.quantities import BlockQuantities
from specinspect.spectra.summary import unusable

if TYPE_CHECKING:
    from torch import Tensor
from specinspect.spectra.blocks.cost import affordable_patterns
from specinspect.spectra.blocks.frequency import by_frequency
from specinspect.spectra.blocks.heads import head_spectra
from specinspect.spectra.blocks.inside import branch_layers
from specinspect.spectra.blocks.pixel import by_pixel
from specinspect.spectra.blocks.question import PERIODIC, BlockQuestion, TooLargeError, value_count
from specinspect.spectra.blocks.ready import built, sampled
from specinspect.spectra.blocks.rounding import nonfinite_entries


@dataclass(frozen=True, slots=True, eq=False)
class BlockAnswer:
    """What was measured of a block."""

    spectra: BlockSpectra
    quantities: BlockQuantities | None = None
    """What bounds rest on, where asked for; None without a shortcut, and where only extremes are known."""


def measure_block(
    block: Block,
    layers: Mapping[str, Layer],
    read: Read,
    *,
    available: frozenset[str],
    plan: Plan,
    rho: float = 1.0,
    beta: float = 1.0,
    patterns: int = 8,
    seed: int = 0,
    grid: int = 16,
    keep_values: bool = False,
    per_pixel: bool = False,
    zeros: bool = False,
    inputs: Tensor | None = None,
    entering: Tensor | None = None,
    quantities: bool = False,
) -> BlockAnswer:
    """Measure a block.

    Args:
        block: what to measure.
        layers: name → layer, those of the block at least.
        read: name → tensor on the CPU.
        available: names that can be read, as `layers.blocks.block_tensors` lists them.
        plan: where to compute.
        rho: weight of the shortcut.
        beta: weight of the branch.
        patterns: how many sampled inputs.
        seed: of the inputs.
        grid: side of the periodic grid for convolutions.
        keep_values: keep all singular values.
        per_pixel: give every pixel its own diagonal: exact, but dense or, above 4096 columns, extremes only.
        zeros: convolutions have zeros around their grid instead of being periodic: as `per_pixel`, exact.
        inputs: (patterns, channels, *grid) to take instead of sampled ones.
        entering: (n, …, channels), or (n, channels, *grid): what comes into the block's first layer, behind
            the normalisation in front; `patterns` of them are taken, where they fit.
        quantities: also gather what bounds rest on.

    Raises:
        LayerError: the tensors do not fit together.
    """
    branch, how, assumptions = built(
        block, layers, read, available, grid, patterns, zeros, per_pixel, entering
    )
    fewer = affordable_patterns(block, layers, branch.grid, patterns)
    if fewer < patterns and branch.varies and inputs is None and not (zeros or per_pixel):
        assumptions.append(f"{fewer} of {patterns} activation patterns, to bound the work")
        patterns = fewer
    bad, note = nonfinite_entries((*branch.stages, *(branch.shortcut or ())))
    if bad:
        result = unusable(value_count(branch), bad, plan.device)
        skip = None if block.shortcut.kind == "none" else result
        unknown = BlockSpectra(block, result, skip, branch.grid or None, (), tuple(assumptions), (note,))
        return BlockAnswer(unknown)
    at, sentences = sampled(block, branch, inputs, entering, patterns, seed, how)
    assumptions += sentences
    question = BlockQuestion(block, branch, rho, beta, plan, keep_values, how, quantities)
    notes: tuple[str, ...] = ()
    try:
        if not all(bool(x.isfinite().all()) for x in at):
            raise TooLargeError
        if how != PERIODIC and branch.grid:
            chains, skips, notes, gathered = by_pixel(question, at)
        else:
            chains, skips, gathered = by_frequency(question, at)
    except TooLargeError:
        notes = ("not measured: squares of its values leave float64",)
        return BlockAnswer(
            BlockSpectra(block, None, None, branch.grid or None, (), tuple(assumptions), notes)
        )
    active = [_active_fraction(branch.stages, at, p) for p in range(len(at[0]))]
    chain = over_patterns(chains, active) if branch.varies else chains[0]
    skip = None
    if skips:
        skip = over_patterns(skips, active) if branch.varies else skips[0]
    heads = head_spectra(question) if block.heads is not None and block.heads.count > 1 else ()
    unique = tuple(dict.fromkeys(assumptions))
    inside = branch_layers(block, branch, at, how) if quantities else None
    spectra = BlockSpectra(block, chain, skip, branch.grid or None, heads, unique, notes, inside)
    return BlockAnswer(spectra, gathered)


def _active_fraction(stages: Sequence[Stage], at: Sequence[Tensor], pattern: int) -> float:
    """Return the share of units that all activations of a branch let through, at all pixels."""
    found = []
    for stage, x in zip(stages, at, strict=True):
        one = x[pattern : pattern + 1]
        if isinstance(stage, Elementwise):
            found.append(stage.derivative(one).flatten())
        elif isinstance(stage, Gated):
            found.append(stage.activation.derivative(stage.gate.run(one)).flatten())
    if not found:
        return 1.0
    d = torch.cat(found)
    smooth = not bool(((d == 0) | (d == 1)).all())
    return float(((d.abs() > 0.5) if smooth else (d != 0)).to(torch.float64).mean())
