"""Derivatives φ′ of the activations that D is made of (MATH §0)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Derivative = Callable[["torch.Tensor", float], "torch.Tensor"]
"""(z, slope) → φ′(z), elementwise, float64. At a kink the value to the left is taken, as torch does."""


def _step(z: torch.Tensor, below: float, above: float = 1.0) -> torch.Tensor:
    import torch

    return torch.where(z > 0, above, below).to(z.dtype)


def _between(z: torch.Tensor, low: float, high: float, height: float = 1.0) -> torch.Tensor:
    return ((z > low) & (z < high)).to(z.dtype) * height


def _elu(z: torch.Tensor, alpha: float) -> torch.Tensor:
    import torch

    return torch.where(z > 0, 1.0, alpha * z.clamp_max(0).exp())


def _celu(z: torch.Tensor, alpha: float) -> torch.Tensor:
    import torch

    return torch.where(z > 0, 1.0, (z.clamp_max(0) / alpha).exp())


def _selu(z: torch.Tensor, _: float) -> torch.Tensor:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return scale * _elu(z, alpha)


def _gelu(z: torch.Tensor, _: float) -> torch.Tensor:
    import torch

    return torch.special.ndtr(z) + z * (-z * z / 2).exp() / sqrt(2 * pi)


def _gelu_tanh(z: torch.Tensor, _: float) -> torch.Tensor:
    c = sqrt(2 / pi)
    t = (c * (z + 0.044715 * z**3)).tanh()
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * c * (1 + 3 * 0.044715 * z * z)


def _silu(z: torch.Tensor, sharpness: float) -> torch.Tensor:
    s = (sharpness * z).sigmoid()
    return s * (1 + sharpness * z * (1 - s))


def _mish(z: torch.Tensor, _: float) -> torch.Tensor:
    import torch

    t = torch.nn.functional.softplus(z).tanh()
    return t + z * (1 - t * t) * z.sigmoid()


def _sigmoid(z: torch.Tensor, _: float) -> torch.Tensor:
    s = z.sigmoid()
    return s * (1 - s)


def _hardswish(z: torch.Tensor, _: float) -> torch.Tensor:
    import torch

    return torch.where(z >= 3, 1.0, torch.where(z <= -3, 0.0, z / 3 + 0.5))


DERIVATIVES: Mapping[str, Derivative] = {
    "identity": lambda z, _: z.new_ones(z.shape),
    "relu": lambda z, _: _step(z, 0.0),
    "leaky_relu": _step,
    "prelu": _step,
    "abs": lambda z, _: _step(z, -1.0),
    "relu6": lambda z, _: _between(z, 0.0, 6.0),
    "hardtanh": lambda z, _: _between(z, -1.0, 1.0),
    "hardsigmoid": lambda z, _: _between(z, -3.0, 3.0, 1 / 6),
    "hardswish": _hardswish,
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": lambda z, _: _silu(z, 1.702),
    "silu": lambda z, _: _silu(z, 1.0),
    "mish": _mish,
    "tanh": lambda z, _: 1 - z.tanh() ** 2,
    "sigmoid": _sigmoid,
    "softplus": lambda z, _: z.sigmoid(),
}
"""Canonical name → derivative. The slope is leaky_relu's and prelu's below zero, and elu's and celu's α."""
