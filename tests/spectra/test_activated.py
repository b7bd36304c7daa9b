"""D·W, ρA+βW and ρA+β·D·W of dense layers and convolutions against matrices that are written out."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.maps import ConvolutionMap, DenseMap, LinearMap
from specinspect.maps.patterns import Affine, Diagonals, diagonals_at, outputs_at
from specinspect.spectra.activated import Answer, Question, measure_maps
from specinspect.spectra.compute import measure
from specinspect.spectra.model import Spectrum
from specinspect.spectra.plan import Plan
from tests.spectra.matrices import Array

CPU = Plan("cpu")
CONVOLVE = {1: F.conv1d, 2: F.conv2d}


def diagonals(values: Array) -> Diagonals:
    tensor = torch.from_numpy(values)
    return Diagonals(tensor, (tensor != 0).double().mean(1))


def ask(linear: LinearMap, shortcut: str, d: Array | None, rho: float = 1.0, beta: float = 1.0) -> Answer:
    weight = measure([linear], CPU, keep_values=True)[0].spectrum
    question = Question(rho, beta, shortcut, None if d is None else diagonals(d))
    return measure_maps(linear, weight, question, CPU, keep_values=True)


def assert_values(spectrum: Spectrum, dense: Array, size: float) -> None:
    truth = np.linalg.svd(dense, compute_uv=False)
    assert spectrum.singular_values is not None
    assert len(spectrum.singular_values) >= len(truth)
    padded = np.r_[truth, np.zeros(len(spectrum.singular_values) - len(truth))]
    assert np.abs(spectrum.singular_values - padded).max() <= 1e-7 * size


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 10),
    columns=st.integers(1, 10),
    rho=st.sampled_from([1.0, 0.5, -1.0, 0.0]),
    beta=st.sampled_from([1.0, 0.1, -2.0]),
    slope=st.sampled_from([0.0, 0.1, -1.0]),
    seed=st.integers(0, 2**31),
)
def test_dense_layers(rows: int, columns: int, rho: float, beta: float, slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows, columns))
    d = np.where(rng.random((1, rows)) < 0.5, slope, 1.0)
    answer = ask(DenseMap(torch.from_numpy(w), "f64"), "rectangular-identity", d, rho, beta)
    dw, identity = d[0][:, None] * w, np.eye(rows, columns)
    size = abs(rho) + abs(beta) * float(np.linalg.norm(w))
    assert_values(answer.maps["chain"], dw, size)
    assert_values(answer.maps["skip"], rho * identity + beta * w, size)
    assert_values(answer.maps["skip_chain"], rho * identity + beta * dw, size)
    if rows == columns:
        tau = np.linalg.eigvalsh(w + w.T)
        assert answer.tau is not None
        assert (answer.tau.min, answer.tau.max) == (pytest.approx(tau[0]), pytest.approx(tau[-1]))
    else:
        assert answer.tau is None


def dense_convolution(
    kernel: torch.Tensor, grid: tuple[int, ...], stride: int, padding: int, groups: int = 1
) -> Array:
    """Return the matrix of a circularly padded convolution, made by torch's own."""
    channels = kernel.shape[1] * groups
    inputs = torch.eye(channels * prod(grid), dtype=torch.float64).reshape(-1, channels, *grid)
    for axis, (n, k) in enumerate(zip(grid, kernel.shape[2:], strict=True), start=2):
        inputs = inputs.index_select(axis, (torch.arange(n + k - 1) - padding) % n)
    return CONVOLVE[len(grid)](inputs, kernel, stride=stride, groups=groups).flatten(1).T.numpy()


def dense_pool(out: int, inn: int, grid: tuple[int, ...], stride: int) -> Array:
    """Return stride^{D/2} times the average pool, with channels cut or zero-padded."""
    window = torch.full((inn, 1, *(stride,) * len(grid)), stride ** (-len(grid) / 2), dtype=torch.float64)
    inputs = torch.eye(inn * prod(grid), dtype=torch.float64).reshape(-1, inn, *grid)
    pooled = CONVOLVE[len(grid)](inputs, window, stride=stride, groups=inn)
    matched = pooled[:, :out]
    if out > inn:
        zeros = torch.zeros(len(pooled), out - inn, *pooled.shape[2:], dtype=torch.float64)
        matched = torch.cat([matched, zeros], 1)
    return matched.flatten(1).T.numpy()


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(("grid", "kernel_size"), [((6, 5), (3, 3)), ((7,), (3,)), ((4, 4), (1, 1))])
def test_a_convolution_beside_its_skip_needs_the_phase_of_its_padding(
    grid: tuple[int, ...], kernel_size: tuple[int, ...], padding: int
) -> None:
    rng = np.random.default_rng(0)
    kernel = torch.from_numpy(rng.standard_normal((3, 3, *kernel_size)))
    d = rng.choice([0.0, 1.0, 0.3], (1, 3))
    ones = (1,) * len(grid)
    linear = ConvolutionMap(kernel[None], ones, ones, grid, "f64", (padding,) * len(grid))
    answer = ask(linear, "identity", d, 0.7, 1.3)
    dense = dense_convolution(kernel, grid, 1, padding)
    dw = np.repeat(d[0], prod(grid))[:, None] * dense
    identity = np.eye(len(dense))
    assert_values(answer.maps["chain"], dw, 5)
    assert_values(answer.maps["skip"], 0.7 * identity + 1.3 * dense, 5)
    assert_values(answer.maps["skip_chain"], 0.7 * identity + 1.3 * dw, 5)
    tau = np.linalg.eigvalsh(dense + dense.T)
    assert answer.tau is not None
    assert (answer.tau.min, answer.tau.max) == (pytest.approx(tau[0]), pytest.approx(tau[-1]))


@pytest.mark.parametrize(("out", "inn"), [(4, 4), (2, 3), (4, 2), (9, 2)])
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("grid", [(4, 6), (8,)])
def test_a_strided_convolution_beside_an_average_pool(
    out: int, inn: int, kernel_size: int, grid: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    axes = len(grid)
    kernel = torch.from_numpy(rng.standard_normal((out, inn, *(kernel_size,) * axes)))
    d = rng.choice([0.0, 1.0], (1, out))
    padding = kernel_size // 2
    linear = ConvolutionMap(kernel[None], (2,) * axes, (1,) * axes, grid, "f64", (padding,) * axes)
    answer = ask(linear, "average-pool", d, 1.0, 0.5)
    dense, pool = dense_convolution(kernel, grid, 2, padding), dense_pool(out, inn, grid, 2)
    if out <= inn:  # MATH R33: an isometry as long as no channels are added
        assert np.allclose(np.linalg.svd(pool, compute_uv=False), 1)
    dw = np.repeat(d[0], prod(grid) // 2**axes)[:, None] * dense
    assert_values(answer.maps["chain"], dw, 5)
    assert_values(answer.maps["skip"], pool + 0.5 * dense, 5)
    assert_values(answer.maps["skip_chain"], pool + 0.5 * dw, 5)
    assert answer.tau is None


@pytest.mark.parametrize(("groups", "width"), [(4, 1), (2, 3)])
def test_grouped_convolutions(groups: int, width: int) -> None:
    rng = np.random.default_rng(2)
    kernel = torch.from_numpy(rng.standard_normal((groups * width, width, 3)))
    d = rng.choice([0.0, 1.0], (1, groups * width))
    linear = ConvolutionMap(kernel.reshape(groups, width, width, 3), (1,), (1,), (8,), "f64", (1,))
    answer = ask(linear, "identity", d)
    dense = dense_convolution(kernel, (8,), 1, 1, groups)
    dw = np.repeat(d[0], 8)[:, None] * dense
    assert_values(answer.maps["chain"], dw, 5)
    assert_values(answer.maps["skip"], np.eye(len(dense)) + dense, 5)
    assert_values(answer.maps["skip_chain"], np.eye(len(dense)) + dw, 5)


def test_rows_that_relu_zeroes_leave_the_pseudo_condition_number_alone() -> None:
    w = torch.from_numpy(np.diag([4.0, 3.0, 2.0, 1.0]))
    answer = ask(DenseMap(w, "f64"), "identity", np.array([[1.0, 0.0, 1.0, 0.0]]))
    chain = answer.maps["chain"]
    assert chain.condition_number_status == "infinite"
    assert chain.pseudo_condition_number == pytest.approx(2.0)
    assert chain.numerical_rank == 2
    assert answer.maps["skip_chain"].condition_number == pytest.approx(5.0)


def test_medians_over_patterns() -> None:
    w = torch.eye(4, dtype=torch.float64)
    d = np.array([[1.0, 1, 1, 1], [1, 1, 1, 0.5], [1, 1, 0.25, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    chain = ask(DenseMap(w, "f64"), "identity", d).maps["chain"]
    assert chain.condition_number == pytest.approx(2.0)
    assert chain.patterns is not None
    assert chain.patterns.n == 5
    kappa = chain.patterns.scalars["condition_number"]
    assert (kappa.min, kappa.median, kappa.max) == (pytest.approx(1.0), pytest.approx(2.0), None)
    assert chain.patterns.active_fraction.min == 0.75
    assert chain.patterns.scalars["pseudo_condition_number"].max == pytest.approx(4.0)


def test_all_outputs_inactive() -> None:
    answer = ask(DenseMap(torch.eye(3, dtype=torch.float64), "f64"), "identity", np.zeros((2, 3)))
    assert answer.maps["chain"].sigma_max == 0
    assert answer.maps["chain"].condition_number_status == "infinite"
    assert answer.maps["skip_chain"].condition_number == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_scales(scale: float) -> None:
    rng = np.random.default_rng(3)
    w = rng.standard_normal((5, 5))
    answer = ask(DenseMap(torch.from_numpy(w * scale), "f64"), "identity", np.ones((1, 5)) * [1, 1, 0, 1, 1])
    truth = np.linalg.svd(np.diag([1, 1, 0, 1, 1]) @ w, compute_uv=False)
    assert answer.maps["chain"].sigma_max == pytest.approx(truth[0] * scale)
    assert answer.maps["chain"].pseudo_condition_number == pytest.approx(truth[0] / truth[3])
    expected = 1.0 if scale < 1 else np.linalg.norm(w, 2) * scale
    assert answer.maps["skip"].sigma_max == pytest.approx(expected)


ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.2),
    "abs": torch.abs,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "elu": lambda z: F.elu(z, 0.2),
    "celu": lambda z: F.celu(z, 0.2),
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "quick_gelu": lambda z: z * torch.sigmoid(1.702 * z),
    "silu": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "identity": lambda z: z,
    "prelu": lambda z: F.prelu(z, torch.tensor([0.2], dtype=z.dtype)),
}


def test_derivatives_are_those_of_autograd() -> None:
    from specinspect.maps.activations import DERIVATIVES

    assert set(DERIVATIVES) == set(ACTIVATIONS)
    for name, function in ACTIVATIONS.items():
        z = torch.linspace(-8, 8, 1001, dtype=torch.float64, requires_grad=True)
        function(z).sum().backward()
        found = DERIVATIVES[name](z.detach(), torch.tensor(0.2, dtype=torch.float64))  # type: ignore[arg-type]
        assert z.grad is not None
        smooth = (z.detach().abs() - torch.tensor([[0.0], [1], [3], [6]])).abs().amin(0) > 1e-6  # kinks
        assert torch.allclose(found[smooth], z.grad[smooth], atol=1e-10), name


def test_sampled_diagonals_are_the_jacobian_of_the_layer() -> None:
    """D·S·W equals autograd's Jacobian of relu(batch_norm(Wx + b)) at the same probe."""
    torch.manual_seed(0)
    linear: Any = torch.nn.Linear(6, 5).double()
    norm: Any = torch.nn.BatchNorm1d(5).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.data.normal_()
    norm.running_var.uniform_(0.5, 2)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    affine = Affine(scale.detach(), (norm.bias - scale * norm.running_mean).detach())
    slope = torch.tensor(0.1, dtype=torch.float64)
    probes = torch.randn(4, 6, dtype=torch.float64)
    outputs = outputs_at(linear.weight.detach(), probes) + linear.bias.detach()
    found = diagonals_at(outputs, affine, ("leaky_relu", slope))
    for x, d in zip(probes, found.values, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda v: F.leaky_relu(norm(linear(v[None])), 0.1)[0], x
        )
        assert torch.allclose(d[:, None] * linear.weight.detach(), jacobian, atol=1e-12)


@pytest.mark.parametrize(("groups", "width"), [(3, 1), (2, 2)])
def test_a_strided_grouped_convolution_beside_an_average_pool(groups: int, width: int) -> None:
    """A depthwise convolution that halves the grid, as MobileNets have them."""
    rng = np.random.default_rng(4)
    kernel = torch.from_numpy(rng.standard_normal((groups * width, width, 3)))
    d = rng.choice([0.0, 1.0, 0.5], (1, groups * width))
    linear = ConvolutionMap(kernel.reshape(groups, width, width, 3), (2,), (1,), (8,), "f64", (1,))
    answer = ask(linear, "average-pool", d, 1.0, 0.5)
    dense = dense_convolution(kernel, (8,), 2, 1, groups)
    pool = dense_pool(groups * width, groups * width, (8,), 2)
    dw = np.repeat(d[0], 4)[:, None] * dense
    assert_values(answer.maps["skip"], pool + 0.5 * dense, 5)
    assert_values(answer.maps["skip_chain"], pool + 0.5 * dw, 5)


def test_the_far_tail_of_a_smooth_activation_is_zero() -> None:
    outputs = torch.tensor([[-40.0, -38.0, -2.0, 1.0]], dtype=torch.float64)
    d = diagonals_at(outputs, None, ("gelu", torch.tensor(0.0)))
    assert d.values[0, :2].tolist() == [0, 0]
    assert (d.values[0, 2:] != 0).all()
    weight = np.random.default_rng(5).standard_normal((4, 4))
    answer = ask(DenseMap(torch.from_numpy(weight), "f64"), "identity", d.values.numpy(), 0.0, 1.0)
    assert_values(answer.maps["skip_chain"], d.values.numpy()[0][:, None] * weight, 5)
