"""A block made ready: its stages, how it is measured, and what comes into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from specinspect.errors import LayerError, SettingsError
from specinspect.layers.blocks import Apply, Block, Gate
from specinspect.layers.model import Layer
from specinspect.maps.blocks import (
    Branch,
    alike_at_all_pixels,
    build_branch,
    meets,
    points,
    ruled_side,
    sample_inputs,
)
from specinspect.maps.build import Read
from specinspect.maps.patterns import probe_seed
from specinspect.spectra.blocks.cost import affordable_grid, own_sides
from specinspect.spectra.blocks.question import PERIODIC

if TYPE_CHECKING:
    from torch import Tensor


def built(
    block: Block,
    layers: Mapping[str, Layer],
    read: Read,
    available: frozenset[str],
    asked: int,
    patterns: int,
    zeros: bool,
    per_pixel: bool,
    entering: Tensor | None = None,
) -> tuple[Branch, str, list[str]]:
    """Return the block ready to be run, how it is measured, and what was assumed.

    On the sides of what comes into its first layer, where that is given and can be done.
    """
    given = None if entering is None else entering.shape
    smaller = affordable_grid(block, layers, asked, patterns)
    how = f"{'zero-padded, ' if zeros else ''}a diagonal per {'pixel' if per_pixel else 'channel'}"
    own = own_sides(block, layers, given, patterns, zeros=zeros, per_pixel=per_pixel)
    branch = build_branch(block, layers, read, available, own or smaller, zeros=zeros)
    assumptions = [*block.assumptions, *branch.assumptions]
    if zeros and not meets(branch):
        own = own_sides(block, layers, given, patterns, zeros=False, per_pixel=per_pixel)
        branch, how = build_branch(block, layers, read, available, own or smaller), PERIODIC
        assumptions.append("measured on a periodic grid: with its own zeros it does not keep the grid's size")
    if branch.grid:
        text = "×".join(map(str, branch.grid))
        lead = f"{text} grid with zeros around it" if how.startswith("zero") else f"periodic {text} grid"
        why = (
            ": the sides of the inputs given"
            if own
            else _why(branch, ruled_side(block, layers), asked, smaller)
        )
        assumptions.append(f"{lead}{why}")
    return branch, how, assumptions


def _why(branch: Branch, ruled: int | None, asked: int, smaller: int) -> str:
    """Say why a block is measured on its grid, where no inputs are given."""
    side = asked if ruled is None else ruled
    if smaller < asked:
        return f": the input size is not stored in the checkpoint, smaller than {asked} to bound the work"
    if any(n != side for n in branch.grid):
        return f" instead of side {side}, to hold the kernels and divide by the strides"
    return ": the input size is not stored in the checkpoint" if ruled is None else ", as a rule says"


def sampled(
    block: Block,
    branch: Branch,
    inputs: Tensor | None,
    entering: Tensor | None,
    patterns: int,
    seed: int,
    how: str,
) -> tuple[list[Tensor], list[str]]:
    """Return what comes into each stage at the inputs given, or at random ones, and what was assumed."""
    at, assumptions = _points(block, branch, inputs, entering, patterns, seed)
    if branch.grid and branch.varies and "per pixel" not in how:
        assumptions.append("one diagonal per channel, that of one pixel")
        at = alike_at_all_pixels(at) if how != PERIODIC else at
    return at, assumptions


def _points(
    block: Block, branch: Branch, inputs: Tensor | None, entering: Tensor | None, patterns: int, seed: int
) -> tuple[list[Tensor], list[str]]:
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
            f"--inputs: block {block.name!r}: expected an array of shape (n, {branch.channels}) with "
            f"at least one example, got {tuple(entering.shape)}"
        )
    if not bool(x.isfinite().all()):
        raise SettingsError(f"--inputs: block {block.name!r}: NaN or infinite values in the inputs")
    generator = torch.Generator().manual_seed(probe_seed(seed, block.name))
    x = x[torch.randperm(len(x), generator=generator)[:patterns]]
    # The derivatives of what stands in front of the layer are the same at every input.
    before = [torch.zeros(len(x), branch.channels, *branch.grid, dtype=torch.float64)] * lead
    return [*before, *points(branch.stages[lead:], x)], ""
