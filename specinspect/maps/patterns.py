"""D, the diagonal that an activation puts on a layer, at sampled inputs (MATH §0)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specinspect.maps.activations import DERIVATIVES

if TYPE_CHECKING:
    import torch


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


def sample_diagonals(
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    affine: Affine | None,
    activation: tuple[str, torch.Tensor],
    patterns: int,
    seed: int,
) -> Diagonals:
    """Return D at standard normal inputs x: φ′(z) with z = scale·(W x + b) + shift.

    Args:
        matrix: (out, in) in any dtype; for a convolution the kernel with its taps flattened into `in`, so
            that x is one patch of independent pixels and D is per channel.
        bias: (out,) or None.
        affine: the normalisation in between, or None.
        activation: canonical name, and its slope as a tensor that broadcasts against (patterns, out).
        patterns: how many.
        seed: of the probes; the same seed gives the same bytes.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    probes = torch.randn(patterns, matrix.shape[1], generator=generator, dtype=torch.float64)
    z = torch.empty(patterns, matrix.shape[0], dtype=torch.float64)
    rows = max(1, (1 << 22) // matrix.shape[1])
    for start in range(0, matrix.shape[0], rows):
        z[:, start : start + rows] = probes @ matrix[start : start + rows].to(torch.float64).cpu().T
    if bias is not None:
        z += bias.to(torch.float64)
    if affine is not None:
        z = affine.scale * z + affine.shift
    name, slope = activation
    derivative = DERIVATIVES[name](z, slope)  # type: ignore[arg-type]
    smooth = not bool(((derivative == 0) | (derivative == 1)).all())
    active = (derivative.abs() > 0.5) if smooth else derivative != 0
    values = derivative if affine is None else derivative * affine.scale
    return Diagonals(values, active.to(torch.float64).mean(1))
