"""A block as stages that can be run, and whose derivatives at a point can be multiplied with (MATH §0)."""

from specinspect.maps.blocks.build import Branch, Grid, block_grid, build_branch, ruled_side
from specinspect.maps.blocks.functions import FUNCTIONS, Function
from specinspect.maps.blocks.linear import Affine, Convolution, Dense
from specinspect.maps.blocks.nonlinear import Elementwise, Gated, Normalizer
from specinspect.maps.blocks.run import (
    alike_at_all_pixels,
    cotangent,
    dense_jacobian,
    jacobian,
    meets,
    pieces,
    points,
    sample_inputs,
    shortcut_stages,
    tangent,
)
from specinspect.maps.blocks.stage import Diagonal, Kernel, Matrix, Piece, Stage, Stored, to_device

__all__ = [
    "FUNCTIONS",
    "Affine",
    "Branch",
    "Convolution",
    "Dense",
    "Diagonal",
    "Elementwise",
    "Function",
    "Gated",
    "Grid",
    "Kernel",
    "Matrix",
    "Normalizer",
    "Piece",
    "Stage",
    "Stored",
    "alike_at_all_pixels",
    "block_grid",
    "build_branch",
    "cotangent",
    "dense_jacobian",
    "jacobian",
    "meets",
    "pieces",
    "points",
    "ruled_side",
    "sample_inputs",
    "shortcut_stages",
    "tangent",
    "to_device",
]
