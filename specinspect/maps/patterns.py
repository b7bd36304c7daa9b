"""D, the diagonal that an activation puts on a layer, at sampled inputs (MATH §0)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specinspect.maps.activations import DERIVATIVES

if TYPE_CHECKING:
    import torch


VANISHING = 1e-150
"""Entries of D below this are taken as zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """The eval-mode batch normalisation z → scale·z + shift between a layer and its activation."""

    scale: torch.Tensor
    """(out,) float64: γ/√(variance + ε)."""
    shift: torch.Tensor
    """(out,) float64: its bias less scale·mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Diagonals:
    """Sampled diagonals of one layer."""

    values: torch.Tensor
    """(patterns, out) float64: φ′ times the folded normalisation's scale."""
    active_fraction: torch.Tensor
    """(patterns,): share of outputs with φ′ ≠ 0 (for smooth activations |φ′| > ½)."""


def probe_seed(seed: int, layer: str) -> int:
    """Return a seed that depends on the layer's name but not on the order in which layers are computed."""
    return (
        int.from_bytes(hashlib.sha256(f"{seed}:{layer}".encode("utf-8", "surrogatepass")).digest()[:8], "big")
        >> 1
    )


def probe_outputs(matrix: torch.Tensor, patterns: int, seed: int) -> torch.Tensor:
    """Return W x at standard normal inputs x, (patterns, out) float64.

    Args:
        matrix: (out, in) in any dtype; for a convolution the kernel with its taps flattened into `in`, so
            that x is one patch of independent pixels and D is per channel.
        patterns: how many.
        seed: of the probes; the same seed gives the same bytes.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    probes = torch.randn(patterns, matrix.shape[1], generator=generator, dtype=torch.float64)
    return outputs_at(matrix, probes)


def outputs_at(matrix: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return W x for inputs (n, in) as (n, out) float64, a block of rows of W at a time."""
    import torch

    z = torch.empty(inputs.shape[0], matrix.shape[0], dtype=torch.float64)
    rows = max(1, (1 << 22) // matrix.shape[1])
    for start in range(0, matrix.shape[0], rows):
        z[:, start : start + rows] = inputs @ matrix[start : start + rows].to(torch.float64).cpu().T
    return z


def slopes_at(z: torch.Tensor, name: str, slope: torch.Tensor) -> torch.Tensor:
    """Return φ′(z), NaN where z is NaN: a step would make a number of it."""
    derivative = DERIVATIVES[name](z, slope)  # type: ignore[arg-type]
    return derivative.masked_fill(z.isnan(), float("nan"))


def diagonals_at(
    outputs: torch.Tensor, affine: Affine | None, activation: tuple[str, torch.Tensor]
) -> Diagonals:
    """Return D: φ′(z) with z = scale·output + shift, times that scale.

    Args:
        outputs: (patterns, out) float64: W x + b.
        affine: the normalisation in between, or None.
        activation: canonical name, and its slope as a tensor that broadcasts against (patterns, out).
    """
    z = outputs if affine is None else affine.scale * outputs + affine.shift
    name, slope = activation
    derivative = slopes_at(z, name, slope)
    smooth = not bool(((derivative == 0) | (derivative == 1)).all())
    active = (derivative.abs() > 0.5) if smooth else derivative != 0
    values = derivative if affine is None else derivative * affine.scale
    # The far tail of a smooth activation, whose squares and inverses leave float64.
    values = values.masked_fill(values.abs() < VANISHING, 0.0)
    return Diagonals(values, active.double().mean(1))
