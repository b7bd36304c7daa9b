"""Every kind of layer against the matrix that torch's own modules apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import specinspect
from tests.comparison.truth import Matrix

GRID = 4


def _columns(apply: Callable[[torch.Tensor], torch.Tensor], *shape: int) -> Matrix:
    """Return the matrix of a linear function by feeding it the identity."""
    size = int(np.prod(shape))
    with torch.no_grad():
        images = apply(torch.eye(size, dtype=torch.float64).reshape(size, *shape))
    return images.reshape(size, -1).T.numpy()


def _convolution(module: Any) -> Matrix:
    """Return the module's operator on the periodic grid, by torch's own circular padding."""
    twin = type(module)(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=False,
        padding_mode="circular",
        dtype=torch.float64,
    )
    twin.weight.data = module.weight.data.double()
    sides = [GRID] * len(module.kernel_size)
    return _columns(twin, module.in_channels, *sides)


def _stored(weight: torch.Tensor) -> Matrix:
    return weight.detach().double().numpy()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], dict[str, Matrix]]]] = {
    "linear": (lambda: nn.Linear(11, 3), lambda m: {"0": _stored(m.weight)}),
    "embedding": (lambda: nn.Embedding(20, 7), lambda m: {"0": _stored(m.weight).T}),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(9, 8)),
        lambda m: {"0": _stored(m.weight)},
    ),
    "grouped": (lambda: nn.Conv2d(8, 8, 3, groups=4, padding=1), lambda m: {"0": _convolution(m)}),
    "depthwise": (lambda: nn.Conv1d(5, 5, 3, groups=5, padding=1), lambda m: {"0": _convolution(m)}),
    "dilated": (lambda: nn.Conv2d(3, 3, 2, dilation=2, padding=1), lambda m: {"0": _convolution(m)}),
    "strided": (lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1), lambda m: {"0": _convolution(m)}),
    "3d": (lambda: nn.Conv3d(2, 3, 3, padding=1), lambda m: {"0": _convolution(m)}),
    "attention": (
        lambda: nn.MultiheadAttention(12, 3),
        lambda m: {
            **{
                f"0.in_proj.{name}": _stored(part)
                for name, part in zip("qkv", m.in_proj_weight.chunk(3), strict=True)
            },
            "0.out_proj": _stored(m.out_proj.weight),
        },
    ),
    "recurrent": (
        lambda: nn.GRU(6, 5),
        lambda m: {
            f"0.{which}.{gate}": _stored(part)
            for which in ("weight_ih_l0", "weight_hh_l0")
            for gate, part in zip("rzn", getattr(m, which).chunk(3), strict=True)
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_against_torch(kind: str) -> None:
    make, truth = CASES[kind]
    torch.manual_seed(0)
    a, b = nn.Sequential(make()), nn.Sequential(make())
    found = {layer.name: layer for layer in specinspect.compare(a, b, grid=GRID, device="cpu")}
    expected_a, expected_b = truth(a[0]), truth(b[0])
    assert found.keys() == expected_a.keys()
    for name, layer in found.items():
        one, other = expected_a[name], expected_b[name]
        moved = other - one
        difference = layer.difference
        assert difference.spectral_norm == pytest.approx(np.linalg.norm(moved, 2), rel=1e-8)
        assert difference.frobenius_norm == pytest.approx(np.linalg.norm(moved), rel=1e-8)
        s, t = (np.linalg.svd(w, compute_uv=False) for w in (one, other))
        apart = float(np.linalg.norm(s - t) / np.linalg.norm(s))
        assert layer.spectral_distance["weight"] == pytest.approx(apart, abs=1e-7)
