"""The activations as functions, elementwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[["Tensor", "Tensor"], "Tensor"]
"""(z, slope) → φ(z), elementwise."""

FUNCTIONS: Mapping[str, Function] = {
    "identity": lambda z, _: z,
    "relu": lambda z, _: z.relu(),
    "leaky_relu": lambda z, slope: torch.where(z > 0, z, slope * z),
    "prelu": lambda z, slope: torch.where(z > 0, z, slope * z),
    "abs": lambda z, _: z.abs(),
    "relu6": lambda z, _: F.relu6(z),
    "hardtanh": lambda z, _: F.hardtanh(z),
    "hardsigmoid": lambda z, _: F.hardsigmoid(z),
    "hardswish": lambda z, _: F.hardswish(z),
    "elu": lambda z, alpha: torch.where(z > 0, z, alpha * z.clamp_max(0).expm1()),
    "celu": lambda z, alpha: torch.where(z > 0, z, alpha * (z.clamp_max(0) / alpha).expm1()),
    "selu": lambda z, _: F.selu(z),
    "gelu": lambda z, _: F.gelu(z),
    "gelu_tanh": lambda z, _: F.gelu(z, approximate="tanh"),
    "quick_gelu": lambda z, _: z * (1.702 * z).sigmoid(),
    "silu": lambda z, _: F.silu(z),
    "mish": lambda z, _: F.mish(z),
    "tanh": lambda z, _: z.tanh(),
    "sigmoid": lambda z, _: z.sigmoid(),
    "softplus": lambda z, _: F.softplus(z),
}
"""The activations whose derivatives `maps.activations` knows."""
