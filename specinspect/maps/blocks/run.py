"""Running a block's stages at inputs, and multiplying with their derivatives there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from specinspect.maps.blocks.build import Branch
from specinspect.maps.blocks.linear import Convolution, Dense
from specinspect.maps.blocks.stage import Piece, Stage
from specinspect.maps.patterns import probe_seed

if TYPE_CHECKING:
    from torch import Tensor


def sample_inputs(branch: Branch, name: str, patterns: int, seed: int) -> Tensor:
    """Return standard normal inputs (patterns, channels, *grid); the same seed gives the same bytes."""
    generator = torch.Generator().manual_seed(probe_seed(seed, name))
    shape = (patterns, branch.channels, *branch.grid)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def points(stages: Sequence[Stage], x: Tensor) -> list[Tensor]:
    """Return what comes into each stage when x (batch, channels, *grid) runs through them."""
    found = []
    for stage in stages:
        found.append(x)
        x = stage.run(x)
    return found


def tangent(stages: Sequence[Stage], at: Sequence[Tensor], v: Tensor) -> Tensor:
    """Return the Jacobian of the stages, at inputs of batch size 1 as `points` gives them, times every v."""
    for stage, x in zip(stages, at, strict=True):
        v = stage.tangent(x, v)
    return v


def cotangent(stages: Sequence[Stage], at: Sequence[Tensor], w: Tensor) -> Tensor:
    """Return the adjoint Jacobian times every w."""
    for stage, x in zip(reversed(stages), reversed(at), strict=True):
        w = stage.cotangent(x, w)
    return w


def shortcut_stages(branch: Branch) -> tuple[Stage, ...]:
    """Return the shortcut as stages, the identity between the first channels written out."""
    if branch.shortcut is not None:
        return branch.shortcut
    return (Dense(torch.eye(branch.outputs, branch.channels, dtype=torch.float64), None),)


def dense_jacobian(stages: Sequence[Stage], x: Tensor, at: Sequence[Tensor] | None = None) -> Tensor:
    """Return the exact Jacobian of some stages at one input, every pixel with its own diagonal.

    Args:
        stages: of a branch or a shortcut.
        x: (channels, *grid) float64.
        at: what comes into each stage, (1, …) each; None to run x through them.

    Returns:
        (outputs·pixels, channels·pixels), both in row-major order of (channel, *grid).
    """
    identity = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)
    return tangent(stages, points(stages, x[None]) if at is None else at, identity).flatten(1).T


def jacobian(branch: Branch, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact Jacobians J of the branch and A of the shortcut at one input.

    Convolutions are periodic; A is an identity where the block has no shortcut of its own.
    """
    return dense_jacobian(branch.stages, x), dense_jacobian(shortcut_stages(branch), x)


def meets(branch: Branch) -> bool:
    """Say whether branch and shortcut end on one grid that is certain, with the zeros around the first."""
    ends = []
    for stages in (branch.stages, branch.shortcut):
        sides = branch.grid
        for stage in stages or ():
            if isinstance(stage, Convolution):
                if not stage.certain(sides):
                    return False
                sides = stage.places(sides)
        ends.append(sides)
    return ends[0] == ends[1] or branch.alone


def alike_at_all_pixels(at: Sequence[Tensor]) -> list[Tensor]:
    """Return the same points with the middle pixel's values everywhere: one diagonal per channel."""
    middle = []
    for x in at:
        centre = x
        for axis in range(2, x.ndim):
            centre = centre.narrow(axis, x.shape[axis] // 2, 1)
        middle.append(centre.expand_as(x))
    return middle


def pieces(branch: Branch, at: Sequence[Tensor], pattern: int) -> tuple[Piece, ...]:
    """Return the derivative of every stage, that of the first pixel taken to hold at all of them.

    Args:
        branch: what was run.
        at: what came into each stage, from `points`.
        pattern: which member of the batch.
    """
    return tuple(
        stage.piece(x[pattern].flatten(1)[:, 0] if branch.grid else x[pattern])
        for stage, x in zip(branch.stages, at, strict=True)
    )
