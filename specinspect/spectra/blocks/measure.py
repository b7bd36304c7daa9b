"""From a block to its spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from specinspect.errors import LayerError, SettingsError
from specinspect.layers.blocks import Apply, Block, Gate
from specinspect.layers.model import Layer
from specinspect.maps.blocks import (
    Branch,
    Elementwise,
    Gated,
    Stage,
    alike_at_all_pixels,
    build_branch,
    keeps_grid,
    points,
    sample_inputs,
)
from specinspect.maps.build import Read
from specinspect.maps.patterns import probe_seed
from specinspect.spectra.activated import over_patterns
from specinspect.spectra.model import BlockSpectra
from specinspect.spectra.plan import Plan
from specinspect.spectra.quantities import BlockQuantities
from specinspect.spectra.summary import unusable

if TYPE_CHECKING:
    from torch import Tensor
from specinspect.spectra.blocks.cost import affordable_grid
from specinspect.spectra.blocks.frequency import by_frequency
from specinspect.spectra.blocks.heads import head_spectra
from specinspect.spectra.blocks.pixel import by_pixel
from specinspect.spectra.blocks.question import PERIODIC, BlockQuestion, TooLargeError, value_count
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
    branch, how, assumptions = _built(block, layers, read, available, grid, patterns, zeros, per_pixel)
    bad, note = nonfinite_entries((*branch.stages, *(branch.shortcut or ())))
    if bad:
        result = unusable(value_count(branch), bad, plan.device)
        skip = None if block.shortcut.kind == "none" else result
        unknown = BlockSpectra(block, result, skip, branch.grid or None, (), tuple(assumptions), (note,))
        return BlockAnswer(unknown)
    at, sampled = _sampled(block, branch, inputs, entering, patterns, seed)
    assumptions += sampled
    exact = how != PERIODIC and bool(branch.grid)
    if branch.grid and branch.varies and "per pixel" not in how:
        assumptions.append("one diagonal per channel, that of one pixel")
        at = alike_at_all_pixels(at) if exact else at
    question = BlockQuestion(block, branch, rho, beta, plan, keep_values, how, quantities)
    notes: tuple[str, ...] = ()
    try:
        if not all(bool(x.isfinite().all()) for x in at):
            raise TooLargeError
        if exact:
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
    spectra = BlockSpectra(block, chain, skip, branch.grid or None, heads, unique, notes)
    return BlockAnswer(spectra, gathered)


def _built(
    block: Block,
    layers: Mapping[str, Layer],
    read: Read,
    available: frozenset[str],
    asked: int,
    patterns: int,
    zeros: bool,
    per_pixel: bool,
) -> tuple[Branch, str, list[str]]:
    """Return the block ready to be run, how it is measured, and what was assumed."""
    grid = affordable_grid(block, layers, asked, patterns)
    branch = build_branch(block, layers, read, available, grid, zeros=zeros)
    how = f"{'zero-padded, ' if zeros else ''}a diagonal per {'pixel' if per_pixel else 'channel'}"
    assumptions = [*block.assumptions, *branch.assumptions]
    if zeros and not keeps_grid(branch):
        branch, how = build_branch(block, layers, read, available, grid), PERIODIC
        assumptions.append("measured on a periodic grid: with its own zeros it does not keep the grid's size")
    if branch.grid:
        text = "×".join(map(str, branch.grid))
        smaller = f", smaller than {asked} to bound the work" if grid < asked else ""
        lead = f"{text} grid with zeros around it" if how.startswith("zero") else f"periodic {text} grid"
        assumptions.append(f"{lead}: the input size is not stored in the checkpoint{smaller}")
    return branch, how, assumptions


def _sampled(
    block: Block, branch: Branch, inputs: Tensor | None, entering: Tensor | None, patterns: int, seed: int
) -> tuple[list[Tensor], list[str]]:
    """Return what comes into each stage at the inputs given, or at random ones, and what was assumed."""
    assumptions = []
    if entering is not None and branch.varies:
        at, why = _from_first_layer(block, branch, entering, patterns, seed)
        if at is not None:
            return at, []
        assumptions.append(why)
    if inputs is None:
        inputs = sample_inputs(branch, block.name, patterns if branch.varies else 1, seed)
        if branch.varies:
            assumptions.append("activations sampled at standard normal inputs of the block")
    elif tuple(inputs.shape[1:]) != (branch.channels, *branch.grid):
        expected = "×".join(map(str, (branch.channels, *branch.grid)))
        raise LayerError(f"{block.name}: expected inputs of {expected}, got {tuple(inputs.shape[1:])}")
    return points(branch.stages, inputs.to(torch.float64)), assumptions


def _from_first_layer(
    block: Block, branch: Branch, entering: Tensor, patterns: int, seed: int
) -> tuple[list[Tensor] | None, str]:
    """Return what comes into each stage, given what comes into the first layer, or None and why not."""
    lead = next(i for i, factor in enumerate(block.factors) if isinstance(factor, Apply | Gate))
    if any(stage.varies for stage in branch.stages[:lead]):
        return None, "the inputs given are those of its first layer, not of the activation in front of it"
    x = entering.to(torch.float64)
    if branch.grid and tuple(x.shape[1:]) != (branch.channels, *branch.grid):
        sides = "×".join(map(str, x.shape[2:]))
        return None, f"the inputs given have sides {sides}, not those of its grid"
    if not branch.grid:
        x = x.reshape(-1, x.shape[-1])
    if x.shape[1] != branch.channels or not len(x):
        raise SettingsError(
            f"--inputs: block {block.name!r}: expected an array of shape (n, {branch.channels}), "
            f"got {tuple(entering.shape)}"
        )
    if not bool(x.isfinite().all()):
        raise SettingsError(f"--inputs: block {block.name!r}: NaN or infinite values in the inputs")
    generator = torch.Generator().manual_seed(probe_seed(seed, block.name))
    x = x[torch.randperm(len(x), generator=generator)[:patterns]]
    # The derivatives of what stands in front of the layer are the same at every input.
    before = [torch.zeros(len(x), branch.channels, *branch.grid, dtype=torch.float64)] * lead
    return [*before, *points(branch.stages[lead:], x)], ""


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
