"""Convolutions as operators against torch's own modules: forwards, by adjoint and written out."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.maps import ConvolutionMap
from specinspect.maps.operator import (
    Boundary,
    ConvolutionOperator,
    LayerOperator,
    dense,
    normal_probes,
    sample_pixel_diagonals,
    shortcut_beside,
    spread_diagonal,
)
from specinspect.maps.patterns import Affine
from specinspect.maps.written import written_out

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def operator(
    kernel: torch.Tensor,
    grid: tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
    groups: int = 1,
    boundary: Boundary = "zeros",
    transposed: bool = False,
) -> ConvolutionOperator:
    axes = len(grid)
    grouped = kernel.reshape(groups, -1, *kernel.shape[1:])
    convolution = ConvolutionMap(
        grouped, (stride,) * axes, (dilation,) * axes, grid, "f64", (padding,) * axes
    )
    return ConvolutionOperator.of(convolution, boundary, transposed=transposed)


def assert_is_the_matrix(found: LayerOperator | ConvolutionOperator, truth: torch.Tensor) -> None:
    """From the left, from the right, by adjoint, and written out."""
    assert found.shape == tuple(truth.shape)
    x, y = normal(3, found.shape[1], seed=1), normal(2, found.shape[0], seed=2)
    kept = y.clone()
    assert torch.allclose(found.matvec(x), x @ truth.T, atol=1e-11)
    assert torch.allclose(found.adjoint(y), y @ truth, atol=1e-11)
    assert torch.equal(y, kept)
    assert torch.allclose(found.matvec(x) @ y.T, x @ found.adjoint(y).T, atol=1e-10)
    assert torch.allclose(dense(found), truth, atol=1e-11)
    if isinstance(found, ConvolutionOperator) and found.boundary == "zeros" and len(found.kernel) == 1:
        assert torch.allclose(written_out(found), truth, atol=1e-11)


@settings(max_examples=80, deadline=None)
@given(
    axes=st.integers(1, 3),
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 2, 3]),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    extra=st.integers(0, 3),
    transposed=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_zero_padded_convolutions_are_those_of_torch(
    axes: int,
    size: int,
    stride: int,
    dilation: int,
    padding: int,
    groups: int,
    channels: tuple[int, int],
    extra: int,
    transposed: bool,
    seed: int,
) -> None:
    extra = min(extra, 1) if axes == 3 else extra
    n = max(1, dilation * (size - 1) + 1 - 2 * padding) + extra
    grid = tuple(range(n, n + axes))
    kernel = normal(groups * channels[0], channels[1], *(size,) * axes, seed=seed)
    found = operator(
        kernel,
        grid,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        transposed=transposed,
    )
    inputs = torch.eye(prod(found.inputs), dtype=torch.float64).reshape(-1, *found.inputs)
    if transposed:
        # What torch calls output_padding: the places that the stride leaves over.
        reached = [(m - 1) * stride - 2 * padding + dilation * (size - 1) + 1 for m in found.inputs[1:]]
        truth = TRANSPOSE[axes](
            inputs,
            kernel,
            stride=stride,
            padding=padding,
            output_padding=[n - r for n, r in zip(grid, reached, strict=True)],
            groups=groups,
            dilation=dilation,
        )
    else:
        truth = CONVOLVE[axes](inputs, kernel, None, stride, padding, dilation, groups)
    assert tuple(truth.shape[1:]) == found.outputs
    assert_is_the_matrix(found, truth.flatten(1).T)
    assert LayerOperator(found).squared_norm() == pytest.approx(float(truth.square().sum()))


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (3, 1), (3, 2), (5, 1)])
def test_circular_convolutions_are_those_of_torch(axes: int, size: int, dilation: int) -> None:
    kernel, grid = normal(4, 3, *(size,) * axes), (7, 6)[:axes]
    padding = dilation * (size - 1) // 2
    module = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d}[axes](
        3, 4, size, padding=padding, dilation=dilation, padding_mode="circular", bias=False
    ).double()
    module.weight.data = kernel
    found = operator(kernel, grid, dilation=dilation, padding=padding, boundary="circular")
    inputs = torch.eye(prod(found.inputs), dtype=torch.float64).reshape(-1, *found.inputs)
    assert_is_the_matrix(found, module(inputs).detach().flatten(1).T)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_periodic_operator_has_the_fourier_spectrum(transposed: bool) -> None:
    from specinspect.spectra.compute import measure
    from specinspect.spectra.plan import Plan

    kernel = normal(4, 3, 3, 3)
    found = operator(kernel, (6, 8), stride=2, padding=1, boundary="circular", transposed=transposed)
    convolution = ConvolutionMap(kernel[None], (2, 2), (1, 1), (6, 8), "f64", (1, 1))
    values = measure([convolution], Plan("cpu"), keep_values=True)[0].spectrum.singular_values
    assert values is not None
    assert_is_the_matrix(found, dense(found))
    assert np.abs(np.linalg.svd(dense(found).numpy(), compute_uv=False) - values).max() < 1e-7


def test_an_even_kernel_with_one_more_place_above() -> None:
    convolution = ConvolutionMap(normal(3, 2, 4)[None], (1,), (1,), (6,), "f64", (1,))
    found = ConvolutionOperator.of(convolution, high=(2,))
    inputs = F.pad(torch.eye(12, dtype=torch.float64).reshape(-1, 2, 6), [1, 2])  # padding='same'
    assert_is_the_matrix(found, F.conv1d(inputs, convolution.kernel[0]).flatten(1).T)


def test_a_grid_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="at least the kernel's reach"):
        operator(normal(1, 1, 5), (4,))


def pool_matrix(out: int, inn: int, grid: tuple[int, ...], stride: int) -> torch.Tensor:
    window = torch.full((inn, 1, *(stride,) * len(grid)), stride ** (-len(grid) / 2), dtype=torch.float64)
    inputs = torch.eye(inn * prod(grid), dtype=torch.float64).reshape(-1, inn, *grid)
    pooled = CONVOLVE[len(grid)](inputs, window, stride=stride, groups=inn)
    return F.pad(pooled, [0, 0] * len(grid) + [0, out - inn]).flatten(1).T


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("out", "inn"), [(3, 3), (2, 4), (4, 2)])
@pytest.mark.parametrize(
    ("grid", "stride", "size"), [((5, 6), 1, 3), ((4, 6), 2, 3), ((8,), 2, 2), ((6,), 3, 1)]
)
@pytest.mark.parametrize("per_pixel", [False, True])
def test_the_four_maps(
    transposed: bool,
    out: int,
    inn: int,
    grid: tuple[int, ...],
    stride: int,
    size: int,
    per_pixel: bool,
) -> None:
    kernel = normal(out, inn, *(size,) * len(grid))
    conv = operator(kernel, grid, stride=stride, padding=(size - 1) // 2, transposed=transposed)
    channels, places = conv.outputs[0], prod(conv.outputs[1:])
    d = normal(channels * places if per_pixel else channels, seed=3).relu()
    diagonal = spread_diagonal(d, conv.outputs)
    if not per_pixel:
        assert torch.equal(diagonal.reshape(channels, -1)[:, -1], d)
    a = shortcut_beside(conv, "average-pool")
    assert a is not None
    w, pool = dense(conv), pool_matrix(out, inn, grid, stride)
    pool = pool.T if transposed else pool
    if out <= inn:  # MATH R33
        assert np.allclose(np.linalg.svd(pool.numpy(), compute_uv=False), 1)
    for rho, beta, used, shortcut in (
        (0.0, 1.0, None, None),
        (0.0, -2.0, diagonal, None),
        (0.5, 1.5, None, a),
        (-1.0, 0.5, diagonal, a),
    ):
        layer = LayerOperator(conv, used, shortcut, rho, beta)
        truth = beta * (w if used is None else used[:, None] * w) + rho * pool
        assert_is_the_matrix(layer, truth)
        assert layer.squared_norm() == pytest.approx(float(truth.square().sum()))
        live = layer.live()
        assert torch.equal(live[0], (truth != 0).any(1))
        assert torch.equal(live[1], (truth != 0).any(0))
        written = beta * (w if used is None else used[:, None] * w)
        if shortcut is not None:
            shortcut.add_to(written, rho)
        assert torch.allclose(written, truth)


def test_which_shortcuts_fit() -> None:
    square = operator(normal(3, 3, 3), (8,), padding=1)
    assert shortcut_beside(square, "identity") is not None
    assert shortcut_beside(square, "none") is None
    assert shortcut_beside(operator(normal(3, 3, 3), (8,)), "identity") is None  # two places are lost
    assert shortcut_beside(operator(normal(4, 3, 3), (8,), padding=1), "identity") is None
    assert shortcut_beside(operator(normal(4, 3, 3), (8,), padding=1), "rectangular-identity") is not None
    assert shortcut_beside(operator(normal(4, 3, 3), (7,), padding=1, stride=2), "average-pool") is None


def test_diagonals_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 or 12 entries of D, got 4"):
        spread_diagonal(torch.ones(4), (3, 2, 2))


@pytest.mark.parametrize("stride", [1, 2])
def test_pixel_diagonals_are_the_jacobian_at_the_same_image(stride: int) -> None:
    """D·S·W equals autograd's Jacobian of leaky_relu(batch_norm(conv(x) + b)) at the same x."""
    torch.manual_seed(0)
    module = torch.nn.Conv2d(2, 3, 3, padding=1, stride=stride).double()
    norm = torch.nn.BatchNorm2d(3).double().eval()
    scale, shift = normal(3, seed=4), normal(3, seed=5)
    norm.weight.data, norm.bias.data = scale * (1 + norm.eps) ** 0.5, shift
    conv = operator(module.weight.detach(), (4, 6), padding=1, stride=stride)
    slope = torch.tensor(0.1, dtype=torch.float64)
    probes = normal_probes(conv, 3, 7)
    assert torch.equal(probes, normal_probes(conv, 3, 7))
    bias = module.bias.detach()  # type: ignore[union-attr]
    found = sample_pixel_diagonals(conv, bias, Affine(scale, shift), ("leaky_relu", slope), probes)
    assert found.values.shape == (3, conv.shape[0])
    for x, d in zip(probes, found.values, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda v: F.leaky_relu(norm(module(v.reshape(1, *conv.inputs))), 0.1).flatten(), x
        )
        assert torch.allclose(dense(LayerOperator(conv, d)), jacobian, atol=1e-12)


def test_pixel_diagonals_of_relu_and_prelu() -> None:
    conv, bias = operator(normal(3, 2, 3), (6,), padding=1), normal(3, seed=1)
    probes = normal_probes(conv, 5, 0)
    z = F.conv1d(probes.reshape(-1, 2, 6), normal(3, 2, 3), bias, padding=1)
    relu = sample_pixel_diagonals(conv, bias, None, ("relu", torch.zeros(())), probes)
    assert torch.equal(relu.values, (z > 0).double().flatten(1))
    assert torch.equal(relu.active_fraction, (z > 0).double().flatten(1).mean(1))
    slopes = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    prelu = sample_pixel_diagonals(conv, bias, None, ("prelu", slopes), probes)
    assert torch.equal(prelu.values, torch.where(z > 0, 1.0, slopes[:, None]).flatten(1))


@pytest.mark.parametrize(("boundary", "groups"), [("circular", 1), ("zeros", 2)])
def test_only_one_group_with_zeros_around_it_is_written_out(boundary: Boundary, groups: int) -> None:
    with pytest.raises(ValueError, match="one group with zeros"):
        written_out(operator(normal(2, 2 // groups, 3), (5,), padding=1, groups=groups, boundary=boundary))
