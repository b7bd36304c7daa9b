"""What the stored dtypes of a block leave open, and estimates of norms."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING

import torch

from specinspect.maps.blocks import (
    Gated,
    Kernel,
    Stage,
    Stored,
)
from specinspect.spectra.rounding import MANTISSA_BITS, SMALLEST_EXPONENT, exact_dtype, powers_of_two

if TYPE_CHECKING:
    from torch import Tensor


def nonfinite_entries(stages: Sequence[Stage]) -> tuple[int, str]:
    """Return how many entries of the block are NaN or infinite, and a sentence."""
    weights = sum(int((~s.entries.isfinite()).sum()) for stage in stages for s in stage.stored)
    others = 0
    inner = [s for stage in stages if isinstance(stage, Gated) for s in (stage.gate, stage.up)]
    for stage in (*stages, *inner):
        for name in ("bias", "scale", "shift", "gain", "slope"):
            vector = getattr(stage, name, None)
            if isinstance(vector, torch.Tensor):
                others += int((~vector.isfinite()).sum())
    where = "weights" if weights else "biases or normalisations"
    return weights + others, f"{weights + others:,} NaN or infinite entries in its {where}"


def entry_error(stored: Stored) -> float:
    """Return the standard deviation of the rounding error of an entry: rms(ulp)/√12 (MATH R19's model)."""
    if stored.dtype not in MANTISSA_BITS:
        return 0.0
    magnitude = stored.entries.to(exact_dtype(stored.entries.dtype)).abs()
    power = powers_of_two(magnitude, 2.0 ** SMALLEST_EXPONENT[stored.dtype])
    peak = float(power.max()) if power.numel() else 0.0
    if peak == 0:
        return 0.0
    rms = float(torch.linalg.vector_norm(power / peak)) / sqrt(power.numel())
    return rms * peak * 2.0 ** -MANTISSA_BITS[stored.dtype] / sqrt(12)


def piece_error(stage: Stage, x: Tensor) -> float:
    """Return the standard deviation of the error of an entry of a stage's matrix or symbol."""
    errors = [entry_error(stored) for stored in stage.stored]
    if not errors:
        return 0.0
    if isinstance(stage, Gated):
        on_up, on_gate = stage.factors(x)
        return sqrt(
            errors[1] ** 2 * float(on_up.square().mean()) + errors[0] ** 2 * float(on_gate.square().mean())
        )
    kernel = getattr(stage, "kernel", None)
    taps = prod(kernel.kernel.shape[3:]) / prod(kernel.stride) if isinstance(kernel, Kernel) else 1.0
    return errors[0] * sqrt(taps)


def spectral_norms(batch: Tensor) -> Tensor:
    """Return estimates of the spectral norms of a batch of matrices, by the power method."""
    peak = float(batch.abs().amax()) if batch.numel() else 0.0
    if peak == 0:
        return torch.zeros(len(batch), dtype=torch.float64)
    batch = batch / peak  # whatever the scale, squares then stay within float64
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(batch.shape[-1], 1, generator=generator, dtype=torch.float64).to(batch)
    v = v.expand(len(batch), -1, -1)
    for _ in range(8):
        v = batch.mH @ (batch @ v)
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-300)
    return torch.linalg.vector_norm(batch @ v, dim=(1, 2)) * peak
