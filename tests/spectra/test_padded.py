"""Zero-padded convolutions: spectra against written-out matrices, and bounds that they never break."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.maps import ConvolutionMap, extent
from specinspect.maps.operator import (
    ConvolutionOperator,
    normal_probes,
    sample_pixel_diagonals,
    shortcut_beside,
)
from specinspect.maps.patterns import Diagonals
from specinspect.spectra import padded
from specinspect.spectra.compute import measure
from specinspect.spectra.model import Spectrum
from specinspect.spectra.padded import measure_padded, padded_tau
from specinspect.spectra.padding import padding_bounds
from specinspect.spectra.plan import Plan
from tests.spectra.matrices import Array

CPU = Plan("cpu")
CONVOLVE = {1: F.conv1d, 2: F.conv2d}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def convolution(
    kernel: torch.Tensor,
    grid: tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    groups: int = 1,
    dtype: str = "f64",
) -> ConvolutionMap:
    axes = len(grid)
    padding = dilation * (kernel.shape[-1] - 1) // 2 if padding is None else padding
    grouped = kernel.reshape(groups, -1, *kernel.shape[1:])
    return ConvolutionMap(grouped, (stride,) * axes, (dilation,) * axes, grid, dtype, (padding,) * axes)


def matrix_of(layer: ConvolutionMap) -> Array:
    """Return the zero-padded matrix, made by torch's own convolution."""
    groups = len(layer.kernel)
    channels = groups * layer.kernel.shape[2]
    inputs = torch.eye(channels * prod(layer.grid), dtype=torch.float64).reshape(-1, channels, *layer.grid)
    kernel = layer.kernel.double().flatten(0, 1)
    convolve = CONVOLVE[len(layer.grid)]
    y = convolve(inputs, kernel, None, layer.stride, layer.padding, layer.dilation, groups)
    return y.flatten(1).T.numpy()


def diagonals(values: torch.Tensor) -> Diagonals:
    return Diagonals(values, (values != 0).double().mean(1))


def assert_values(spectrum: Spectrum, dense: Array) -> None:
    truth = np.linalg.svd(dense, compute_uv=False)
    assert spectrum.singular_values is not None
    assert spectrum.count == len(truth)
    assert np.abs(spectrum.singular_values - truth).max() <= 1e-7 * (1 + truth[0])


@pytest.mark.parametrize("per_pixel", [False, True])
@pytest.mark.parametrize(
    ("grid", "stride", "size"), [((5, 4), 1, 3), ((4, 6), 2, 3), ((9,), 1, 5), ((6,), 3, 2)]
)
@pytest.mark.parametrize(("out", "inn", "groups"), [(3, 3, 1), (2, 3, 1), (4, 2, 1), (4, 4, 2), (3, 3, 3)])
def test_the_four_maps_against_written_out_matrices(
    per_pixel: bool, grid: tuple[int, ...], stride: int, size: int, out: int, inn: int, groups: int
) -> None:
    layer = convolution(
        normal(out, inn // groups, *(size,) * len(grid)),
        grid,
        stride=stride,
        padding=(size - 1) // 2,
        groups=groups,
    )
    w = matrix_of(layer)
    d = normal(1, len(w) if per_pixel else out, seed=1).relu()
    dw = (d[0] if per_pixel else d[0].repeat_interleave(len(w) // out)).numpy()[:, None] * w
    found = measure_padded(
        layer,
        CPU,
        diagonals=diagonals(d),
        shortcut="average-pool" if stride > 1 else "rectangular-identity",
        rho=0.7,
        beta=-1.3,
        keep_values=True,
    )
    assert_values(found["weight"], w)
    assert_values(found["chain"], dw)
    assert np.linalg.norm(w) == pytest.approx(found["weight"].frobenius_norm)
    window = torch.full((inn, 1, *(stride,) * len(grid)), stride ** (-len(grid) / 2), dtype=torch.float64)
    inputs = torch.eye(w.shape[1], dtype=torch.float64).reshape(-1, inn, *grid)
    pooled = CONVOLVE[len(grid)](inputs, window, stride=stride, groups=inn)
    a = F.pad(pooled, [0, 0] * len(grid) + [0, out - inn]).flatten(1).T.numpy()
    assert_values(found["skip"], 0.7 * a - 1.3 * w)
    assert_values(found["skip_chain"], 0.7 * a - 1.3 * dw)


@pytest.mark.parametrize("dead", ["output", "input", "none"])
@pytest.mark.parametrize(("stride", "out", "inn"), [(1, 4, 4), (1, 6, 3), (2, 6, 3), (2, 16, 3), (1, 3, 5)])
def test_structural_zeros_beside_shortcuts_of_every_shape(dead: str, stride: int, out: int, inn: int) -> None:
    """Zeroed channels of W and of D, beside a shortcut that leaves some of them alone."""
    kernel = normal(out, inn, 3, 3)
    if dead == "output":
        kernel[1] = 0
    if dead == "input":
        kernel[:, 0] = 0
    layer = convolution(kernel, (6, 4), stride=stride)
    w = matrix_of(layer)
    d = torch.stack([normal(out, seed=seed).relu() for seed in range(3)] + [torch.ones(out).double()] * 2)
    d[:3, -1] = 0  # beyond the channels that the shortcut has, where there are any
    operator = shortcut_beside(ConvolutionOperator.of(layer), "average-pool")
    assert operator is not None
    a = np.zeros(w.shape)
    operator.add_to(torch.from_numpy(a), 1.0)
    for rho, beta in ((0.6, -1.2), (1.0, 1.0), (0.0, 2.0), (0.5, 0.0)):
        found = measure_padded(
            layer, CPU, diagonals=diagonals(d), shortcut="average-pool", rho=rho, beta=beta, keep_values=True
        )
        assert_values(found["weight"], w)
        assert_values(found["skip"], rho * a + beta * w)
        for name, scale in (("chain", 0.0), ("skip_chain", rho)):
            spectrum, factor = found[name], beta if scale or name == "skip_chain" else 1.0
            truths = [
                np.linalg.svd(
                    scale * a + factor * row.repeat_interleave(len(w) // out).numpy()[:, None] * w,
                    compute_uv=False,
                )
                for row in d
            ]
            assert spectrum.singular_values is not None
            error = min(float(np.abs(spectrum.singular_values - truth).max()) for truth in truths)
            assert error <= 1e-7 * (1 + truths[0][0])
            assert spectrum.patterns is not None
            most = max(truth[0] for truth in truths)
            assert spectrum.patterns.scalars["sigma_max"].max == pytest.approx(most)


def test_patterns_that_coincide_are_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from specinspect.spectra.written import Written

    solved = []
    solve = Written.solve

    def counted(self: Written, *arguments: Any) -> Any:
        solved.append(arguments)
        return solve(self, *arguments)

    monkeypatch.setattr(Written, "solve", counted)
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.5], [1.0, 0.0]], dtype=torch.float64)
    layer = convolution(normal(2, 2, 3), (6,))
    found = measure_padded(layer, CPU, diagonals=diagonals(rows), shortcut="identity")
    assert len(solved) == 2 * (1 + 2)  # W and skip, and two patterns of each
    patterns = found["skip_chain"].patterns
    assert patterns is not None
    assert patterns.n == 3


def test_a_transposed_layer_has_d_on_the_finer_side() -> None:
    layer = convolution(normal(2, 3, 3, 3), (6, 6), stride=2)
    d = normal(2, 3 * 36, seed=1).relu()
    found = measure_padded(layer, CPU, diagonals=diagonals(d[:1]), transposed=True, keep_values=True)
    w = matrix_of(layer).T
    assert_values(found["weight"], w)
    assert_values(found["chain"], d[0].numpy()[:, None] * w)
    assert "skip" not in found


def test_pixels_that_relu_zeroes_are_structural() -> None:
    layer = convolution(normal(3, 3, 3), (8,))
    d = (normal(3, 24, seed=1) > 0).double()
    found = measure_padded(layer, CPU, diagonals=diagonals(d), keep_values=True)["chain"]
    assert found.condition_number_status == "infinite"
    assert found.patterns is not None
    assert found.patterns.n == 3
    pseudo = []
    for row in d.numpy():
        truth = np.linalg.svd(row[:, None] * matrix_of(layer), compute_uv=False)
        pseudo.append(truth[0] / truth[int(row.sum()) - 1])
    assert found.pseudo_condition_number == pytest.approx(np.median(pseudo))


def test_a_shortcut_that_does_not_fit_is_left_out() -> None:
    unpadded = convolution(normal(3, 3, 3), (8,), padding=0)
    assert set(measure_padded(unpadded, CPU, shortcut="identity")) == {"weight", "chain"}
    with pytest.raises(ValueError, match="both zero"):
        measure_padded(unpadded, CPU, shortcut="identity", rho=0, beta=0)


def test_without_a_diagonal_the_chain_is_the_weight() -> None:
    found = measure_padded(convolution(normal(3, 3, 3), (8,)), CPU, shortcut="identity")
    assert found["chain"] is found["weight"]
    assert found["skip_chain"] is found["skip"]
    assert found["weight"].singular_values is None


@pytest.mark.parametrize("side", [1024, 1], ids=["full", "iterated"])
@pytest.mark.parametrize("groups", [1, 2])
def test_tau(groups: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.spectra.padded.TAU_SIDE", side)
    kernel = normal(4, 4 // groups, 3, 3, seed=3)
    layer = ConvolutionMap(
        kernel.reshape(groups, 4 // groups, 4 // groups, 3, 3), (1, 1), (1, 1), (6, 5), "f64", (1, 1)
    )
    found = padded_tau(layer, Plan("cpu"))
    identity = torch.eye(4 * 30, dtype=torch.float64).reshape(-1, 4, 6, 5)
    t = torch.nn.functional.conv2d(identity, kernel, padding=1, groups=groups).flatten(1).numpy()
    ends = np.linalg.eigvalsh(t + t.T)[[0, -1]]
    assert found is not None
    assert (found.min, found.max) == pytest.approx(tuple(ends), rel=1e-7)


def test_tau_needs_a_square_finite_map() -> None:
    wide = ConvolutionMap(normal(1, 3, 2, 3, 3), (1, 1), (1, 1), (4, 4), "f64", (1, 1))
    strided = ConvolutionMap(normal(1, 2, 2, 3, 3), (2, 2), (1, 1), (4, 4), "f64", (1, 1))
    broken = ConvolutionMap(normal(1, 2, 2, 3, 3) * torch.inf, (1, 1), (1, 1), (4, 4), "f64", (1, 1))
    assert [padded_tau(layer, Plan("cpu")) for layer in (wide, strided, broken)] == [None] * 3


def test_nonfinite_weights() -> None:
    kernel = torch.ones(2, 2, 3)
    kernel[0, 0, 0] = torch.inf
    layer = convolution(kernel, (8,), dtype="f32")
    found = measure_padded(layer, CPU, shortcut="identity")
    assert {s.condition_number_status for s in found.values()} == {"nonfinite_weights"}
    assert set(found) == {"weight", "chain", "skip", "skip_chain"}
    bounds = padding_bounds(layer, CPU)
    assert bounds.same_grid_reason == bounds.enlarged_reason == "NaN or infinite weights"
    assert bounds.sigma_max_upper is None


@pytest.mark.parametrize("limit", [4096, 0])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_scales(scale: float, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extent, "DENSE_SIDE", limit)
    layer = convolution(normal(2, 2, 3), (6,))
    d = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    scaled = ConvolutionMap(layer.kernel * scale, (1,), (1,), (6,), "f64", (1,))
    found = measure_padded(scaled, CPU, diagonals=diagonals(d), shortcut="identity")
    truth = np.linalg.svd(matrix_of(layer), compute_uv=False)
    assert found["weight"].sigma_max == pytest.approx(truth[0] * scale)
    assert found["weight"].condition_number == pytest.approx(truth[0] / truth[-1], rel=1e-6)
    assert found["weight"].frobenius_norm == pytest.approx(float(np.linalg.norm(truth)) * scale)
    assert found["skip"].sigma_max == pytest.approx(1.0 if scale < 1 else truth[0] * scale)
    bounds = padding_bounds(scaled, CPU)
    plain = padding_bounds(layer, CPU)
    assert bounds.frobenius_distance == pytest.approx((plain.frobenius_distance or 0) * scale)
    assert bounds.sigma_max_upper == pytest.approx((plain.sigma_max_upper or 0) * scale)


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_iterated_extremes_agree_with_the_full_spectrum(
    stride: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = convolution(normal(4, 4 // groups, 3, 3) / 8, (8, 8), stride=stride, groups=groups)
    whole = ConvolutionOperator.of(layer)
    slope = torch.zeros((), dtype=torch.float64)
    d = sample_pixel_diagonals(whole, None, None, ("relu", slope), normal_probes(whole, 3, 0))
    shortcut = "identity" if stride == 1 else "average-pool"

    def measured() -> dict[str, Spectrum]:
        return measure_padded(layer, CPU, diagonals=d, shortcut=shortcut, beta=0.5)

    full = measured()
    monkeypatch.setattr(extent, "DENSE_SIDE", 0)
    found = measured()
    for name, truth in full.items():
        spectrum = found[name]
        assert spectrum.method == "zero-padded, extremes by Lanczos, float64"
        assert spectrum.count == truth.count
        assert spectrum.condition_number_status == truth.condition_number_status
        assert spectrum.sigma_max == pytest.approx(truth.sigma_max, rel=1e-9)
        assert spectrum.sigma_min == pytest.approx(truth.sigma_min, rel=1e-6)
        assert spectrum.pseudo_condition_number == pytest.approx(truth.pseudo_condition_number, rel=1e-6)
        assert spectrum.frobenius_norm == pytest.approx(truth.frobenius_norm, rel=1e-9)
        assert spectrum.stable_rank == pytest.approx(truth.stable_rank, rel=1e-9)
        assert spectrum.storage_floor == truth.storage_floor
        assert spectrum.numerical_rank is spectrum.effective_rank is None
        assert spectrum.histogram is None


def test_a_small_end_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = convolution(normal(4, 4, 3, 3) / 6, (10, 10))
    truth = measure_padded(layer, CPU)["weight"]
    monkeypatch.setattr(extent, "DENSE_SIDE", 0)
    monkeypatch.setattr(padded, "PRODUCTS", (40, 40))
    found = measure_padded(layer, CPU)["weight"]
    assert found.sigma_min is found.condition_number is found.pseudo_condition_number is None
    assert found.condition_number_status == "below_computation_precision"
    assert found.sigma_max == pytest.approx(truth.sigma_max, rel=1e-4)
    assert found.computation_floor is not None
    assert truth.sigma_min is not None
    assert truth.sigma_min <= found.computation_floor < 0.5


def test_storage_floor_is_the_norm_of_the_real_rounding_error() -> None:
    exact = normal(16, 12, 3, 3)
    stored = exact.to(torch.bfloat16)
    error = np.linalg.norm(matrix_of(convolution(stored.double() - exact, (8, 8))), 2)
    found = measure_padded(convolution(stored, (8, 8), dtype="bf16"), CPU)["weight"]
    assert found.storage_floor == pytest.approx(error, rel=0.4)


# Bounds from the periodic grid


@pytest.mark.parametrize("n", [8, 12, 16])
def test_a_circular_sigma_min_says_nothing_of_the_padded_one(n: int) -> None:
    """MATH R64: taps (0, 1, 2) have |1 + 2e^{iω}| >= 1 on the circle, but 1 + 2·shift has σ_min near 2^-n."""
    layer = convolution(torch.tensor([[[0.0, 1.0, 2.0]]], dtype=torch.float64), (n,))
    circular = measure([layer], CPU, keep_values=True)[0].spectrum
    padded_spectrum = measure_padded(layer, CPU)["weight"]
    assert circular.sigma_min == pytest.approx(1.0)
    assert padded_spectrum.sigma_min == pytest.approx(1.5 * 2.0**-n, rel=0.01)
    bounds = padding_bounds(layer, CPU, circular=circular)
    assert bounds.rank == 2
    assert bounds.sigma_min_upper is not None
    assert bounds.sigma_min_upper >= 2.0**-n


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_bounds_are_never_violated(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 2))
    size, dilation = data.draw(st.sampled_from([(1, 1), (2, 2), (3, 1), (3, 2), (5, 1)]))
    reach = dilation * (size - 1)
    least = 2 if axes == 1 else max(2, reach // 2)
    grid = tuple(data.draw(st.integers(least, least + 5)) for _ in range(axes))
    groups = data.draw(st.sampled_from([1, 1, 2]))
    out, inn = (data.draw(st.integers(1, 3)) for _ in range(2))
    inn = out if data.draw(st.booleans()) else inn
    centred = data.draw(st.sampled_from([True, True, False]))
    stride = data.draw(st.sampled_from([1, 1, 1, 2]))
    padding = reach // 2 if centred else data.draw(st.integers(0, 3))
    padding = max(padding, *(-(-(reach + 1 - n) // 2) for n in grid), 0)
    rho, beta = data.draw(st.sampled_from([(1.0, 1.0), (1.0, 0.1), (0.5, -0.2), (-1.0, 0.3), (0.0, 1.0)]))
    kernel = normal(groups * out, inn, *(size,) * axes, seed=data.draw(st.integers(0, 2**31)))
    kernel = kernel * data.draw(st.sampled_from([1.0, 0.1]))
    if data.draw(st.booleans()):
        kernel = (kernel * 3).round()
    layer = convolution(kernel, grid, stride=stride, dilation=dilation, padding=padding, groups=groups)
    t = matrix_of(layer)
    s = np.linalg.svd(t, compute_uv=False)
    bounds = padding_bounds(layer, CPU, rho=rho, beta=beta)
    slack = 1e-7 * (1 + s[0])

    assert bounds.sigma_max_upper is not None
    assert s[0] <= bounds.sigma_max_upper + slack
    if not bounds.same_grid_reason:
        assert stride == 1
        assert t.shape[1] * out == t.shape[0] * inn
        c = circular_matrix(layer)
        assert bounds.frobenius_distance == pytest.approx(np.linalg.norm(c - t), abs=1e-9)
        assert bounds.frobenius_norm == pytest.approx(np.linalg.norm(t), abs=1e-9)
        assert bounds.rank is not None
        assert np.linalg.matrix_rank(c - t) <= bounds.rank
        assert bounds.sigma_max_lower is not None
        assert bounds.sigma_max_upper_same_grid is not None
        assert bounds.sigma_max_lower - slack <= s[0] <= bounds.sigma_max_upper_same_grid + slack
        if bounds.sigma_min_upper is not None:
            assert s[-1] <= bounds.sigma_min_upper + slack
    if not bounds.square_reason:
        tau = np.linalg.eigvalsh(t + t.T)
        assert bounds.tau_min is not None
        assert bounds.tau_max is not None
        assert bounds.tau_min - slack <= tau[0]
        assert tau[-1] <= bounds.tau_max + slack
        skip = np.linalg.svd(rho * np.eye(len(t)) + beta * t, compute_uv=False)
        assert bounds.skip_sigma_max_upper is not None
        assert skip[0] <= bounds.skip_sigma_max_upper + slack
        if rho > 0 and beta > 0:
            assert bounds.skip_sigma_min_lower == pytest.approx(rho + beta * bounds.tau_min / 2)
        assert (bounds.skip_sigma_min_lower is None) == (rho == 0)
        if bounds.skip_sigma_min_lower is not None:
            assert skip[-1] >= bounds.skip_sigma_min_lower - slack
        if bounds.skip_condition_number_upper is not None:
            assert skip[0] / skip[-1] <= bounds.skip_condition_number_upper * (1 + 1e-6)


def circular_matrix(layer: ConvolutionMap) -> Array:
    from specinspect.maps.operator import dense

    return dense(ConvolutionOperator.of(layer, "circular")).numpy()


def test_the_bounds_are_close_for_a_tame_residual_layer() -> None:
    layer = convolution(normal(4, 4, 3, 3) / 6 / 4, (8, 8))
    skip = measure_padded(layer, CPU, shortcut="identity")["skip"]
    bounds = padding_bounds(layer, CPU)
    assert skip.sigma_min is not None
    assert bounds.skip_sigma_min_lower is not None
    assert 0.7 * skip.sigma_min < bounds.skip_sigma_min_lower <= skip.sigma_min
    assert bounds.skip_condition_number_upper is not None
    assert skip.condition_number is not None
    assert skip.condition_number <= bounds.skip_condition_number_upper < 1.6 * skip.condition_number
    assert bounds.enlarged_grid == (10, 10)


def test_reasons() -> None:
    strided = padding_bounds(convolution(normal(2, 2, 3), (8,), stride=2), CPU)
    assert strided.same_grid_reason == "strided"
    assert strided.square_reason == "strided: only σmax is bounded"
    assert strided.sigma_max_upper is not None
    assert strided.frobenius_distance is strided.tau_min is strided.skip_sigma_min_lower is None
    unpadded = padding_bounds(convolution(normal(2, 2, 3), (8,), padding=0), CPU)
    assert unpadded.same_grid_reason == "the padding does not keep the grid's size"
    assert unpadded.square_reason == "the padding does not keep the grid's size: only σmax is bounded"
    small = padding_bounds(convolution(normal(2, 2, 3), (2,)), CPU)
    assert small.same_grid_reason == "the kernel wraps onto itself on this grid"
    assert small.square_reason == ""
    flat = padding_bounds(convolution(normal(3, 2, 3), (8,)), CPU)
    assert flat.same_grid_reason == ""
    assert flat.square_reason == "not square: only σmax is bounded"


def test_even_kernels_with_one_more_zero_above() -> None:
    layer = convolution(normal(2, 2, 4), (9,), padding=1)
    found = measure_padded(layer, CPU, shortcut="identity", high=(2,), keep_values=True)
    inputs = F.pad(torch.eye(18, dtype=torch.float64).reshape(-1, 2, 9), [1, 2])
    t = F.conv1d(inputs, layer.kernel[0]).flatten(1).T.numpy()
    assert_values(found["skip"], np.eye(18) + t)
    bounds = padding_bounds(layer, CPU, high=(2,))
    assert bounds.same_grid_reason == bounds.square_reason == ""
    assert bounds.frobenius_distance == pytest.approx(np.linalg.norm(circular_matrix(layer) - t))
    assert bounds.sigma_max_upper is not None
    assert np.linalg.norm(t, 2) <= bounds.sigma_max_upper


def test_rms_error_shrinks_with_the_grid() -> None:
    """MATH R64: the root mean square difference of singular values is O(√(k/n))."""
    kernel = normal(2, 2, 3)
    for n in (8, 32, 128):
        layer = convolution(kernel, (n,))
        circular = measure([layer], CPU, keep_values=True)[0].spectrum.singular_values
        true = measure_padded(layer, CPU, keep_values=True)["weight"].singular_values
        bounds = padding_bounds(layer, CPU)
        assert circular is not None
        assert true is not None
        assert bounds.frobenius_distance is not None
        assert np.linalg.norm(circular - true) <= bounds.frobenius_distance
        assert bounds.frobenius_distance / sqrt(2 * n) <= float(kernel.norm()) * sqrt(2 / n)
