"""The stages of blocks: functions, derivatives, symbols, grids."""

from __future__ import annotations

from math import prod

import pytest
import torch

from specinspect.layers.blocks import Activate, Apply, Block, Shortcut
from specinspect.layers.model import Activation, ConvGeometry, Fact, Layer, Stored
from specinspect.maps.activations import DERIVATIVES
from specinspect.maps.blocks import (
    FUNCTIONS,
    Affine,
    Convolution,
    Dense,
    Elementwise,
    Gated,
    Kernel,
    Matrix,
    Normalizer,
    Stage,
    block_grid,
    build_branch,
    dense_jacobian,
    sample_inputs,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_derivative_has_its_function() -> None:
    assert set(FUNCTIONS) == set(DERIVATIVES)
    slope = torch.tensor(0.3, dtype=torch.float64)
    z = torch.linspace(-7.3, 7.4, 400, dtype=torch.float64)
    for name, function in FUNCTIONS.items():
        x = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x, slope).sum(), x)
        torch.testing.assert_close(DERIVATIVES[name](z, slope), gradient, msg=name)  # type: ignore[arg-type]


def stages() -> dict[str, tuple[Stage, tuple[int, ...]]]:
    kernel = Kernel(random(2, 3, 2, 3, 2), (2, 1), (1, 2), (1, 0))
    gate, up = Dense(random(5, 4), random(5)), Dense(random(5, 4, seed=1), random(5, seed=2))
    silu = Elementwise("silu", torch.tensor(0.0, dtype=torch.float64))
    return {
        "dense": (Dense(random(3, 4), random(3)), (4,)),
        "dense at each pixel": (Dense(random(3, 4), random(3)), (4, 2, 3)),
        "convolution": (Convolution(kernel, random(6)), (4, 4, 5)),
        "affine": (Affine(random(4), random(4), 4), (4, 3)),
        "activation": (Elementwise("prelu", random(4)), (4, 3)),
        "gate": (Gated(gate, up, silu), (4,)),
        "layer norm": (Normalizer(centred=True, gain=random(4), shift=random(4), eps=1e-5), (4, 3)),
        "rms norm": (Normalizer(centred=False, gain=random(4), shift=None, eps=1e-2), (4,)),
    }


@pytest.mark.parametrize("name", stages())
def test_tangent_and_adjoint_are_those_of_autograd(name: str) -> None:
    stage, shape = stages()[name]
    x = random(*shape, seed=3)
    truth = torch.autograd.functional.jacobian(lambda v: stage.run(v[None])[0].flatten(), x)
    truth = truth.reshape(-1, x.numel())
    torch.testing.assert_close(dense_jacobian([stage], x), truth)
    out = stage.run(x[None]).shape[1:]
    rows = torch.eye(prod(out), dtype=torch.float64).reshape(-1, *out)
    torch.testing.assert_close(stage.cotangent(x[None], rows).flatten(1), truth)


def test_symbols_have_the_singular_values_of_the_operator() -> None:
    kernel = Kernel(random(2, 2, 3, 3), (1,), (2,), (1,))
    grid = 7
    turns = torch.arange(grid, dtype=torch.float64)[:, None] / grid
    symbols = kernel.symbol(turns)
    assert symbols.shape == (grid, 4, 6)
    operator = dense_jacobian([Convolution(kernel, None)], random(6, grid))
    expected = torch.linalg.svdvals(operator)
    torch.testing.assert_close(torch.linalg.svdvals(symbols).flatten().sort(descending=True).values, expected)


def test_the_phase_of_the_padding_matters_beside_an_identity() -> None:
    """MATH R63: K̂ + I has the singular values of K + I only with the centring phase."""
    for padding in (0, 1):
        kernel = Kernel(random(1, 3, 3, 3, 3), (1, 1), (1, 1), (padding, padding))
        sides = torch.arange(4, dtype=torch.float64) / 4
        symbols = kernel.symbol(torch.cartesian_prod(sides, sides)) + torch.eye(3)
        operator = dense_jacobian([Convolution(kernel, None)], random(3, 4, 4))
        expected = torch.linalg.svdvals(operator + torch.eye(48, dtype=torch.float64))
        found = torch.linalg.svdvals(symbols).flatten().sort(descending=True).values
        torch.testing.assert_close(found, expected)


def convolution(name: str, size: int, stride: int, dilation: int = 1, grid: int | None = None) -> Layer:
    geometry = ConvGeometry(
        (size, size),
        Fact((stride, stride), "model"),
        Fact((dilation, dilation), "model"),
        Fact(1, "shape"),
    )
    return Layer(
        name,
        "conv2d",
        (f"{name}.weight",),
        (4, 4, size, size),
        (4, 4),
        "f32",
        Stored(f"{name}.weight"),
        conv=geometry,
        grid=grid,
    )


@pytest.mark.parametrize(("side", "expected"), [(1, 12), (12, 12), (13, 16), (16, 16)])
def test_the_grid_holds_every_kernel_and_every_stride(side: int, expected: int) -> None:
    layers = {
        layer.name: layer
        for layer in (convolution("a", 3, 2), convolution("b", 3, 2, 1), convolution("c", 3, 1))
    }
    block = Block("x", "composed", tuple(map(Apply, layers)), Shortcut("none", "assumed"), "config")
    assert block_grid(block, layers, side) == (expected, expected)


def test_a_rule_sets_the_grid() -> None:
    layers = {"a": convolution("a", 3, 1, grid=5)}
    block = Block("x", "composed", (Apply("a"),), Shortcut("identity", "assumed"), "config")
    assert block_grid(block, layers, 16) == (5, 5)


def test_the_same_seed_gives_the_same_inputs() -> None:
    layers = {"a": convolution("a", 3, 1)}
    relu = Activate(Activation("relu", "model"))
    block = Block("x", "composed", (Apply("a"), relu), Shortcut("identity", "assumed"), "config")
    branch = build_branch(block, layers, lambda _: random(4, 4, 3, 3), frozenset({"a.weight"}), 4)
    first = sample_inputs(branch, "x", 2, 0)
    assert first.shape == (2, 4, 4, 4)
    assert torch.equal(first, sample_inputs(branch, "x", 2, 0))
    assert not torch.equal(first, sample_inputs(branch, "y", 2, 0))
    assert not torch.equal(first, sample_inputs(branch, "x", 2, 1))
    assert isinstance(Dense(torch.eye(2), None).piece(torch.zeros(2)), Matrix)
