"""The periodic operator against dense matrices made by torch's own convolutions."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.maps import ConvolutionMap
from specinspect.maps.patterns import Diagonals
from specinspect.spectra.activated import Question, measure_maps
from specinspect.spectra.compute import Measured, measure
from specinspect.spectra.plan import Plan
from tests.spectra.matrices import Array

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def dense_operator(
    kernel: torch.Tensor,
    grid: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Array:
    """Return the matrix of torch's convolution on a periodic grid, one column per input entry."""
    channels = kernel.shape[1] * groups
    inputs = torch.eye(channels * prod(grid), dtype=torch.float64).reshape(-1, channels, *grid)
    # Wrapping by hand: the far side of each axis is repeated as often as the kernel reaches.
    for axis, (n, k, d) in enumerate(zip(grid, kernel.shape[2:], dilation, strict=True), start=2):
        reach = d * (k - 1)
        index = torch.arange(n + reach) % n
        inputs = inputs.index_select(axis, index)
    convolve = CONVOLVE[len(grid)]
    return convolve(inputs, kernel, stride=stride, dilation=dilation, groups=groups).flatten(1).T.numpy()


def spectrum_of(
    kernel: torch.Tensor,
    grid: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int = 1,
    dtype: str = "f64",
) -> Measured:
    grouped = kernel.reshape(groups, -1, *kernel.shape[1:])
    return measure([ConvolutionMap(grouped, stride, dilation, grid, dtype)], Plan("cpu"), keep_values=True)[0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_agrees_with_the_dense_operator(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    per_axis = [
        (
            data.draw(st.integers(1, 3)),  # kernel
            data.draw(st.integers(1, 3 if axes < 3 else 2)),  # stride
            data.draw(st.integers(1, 2)),  # dilation
            data.draw(st.integers(1, 3 if axes < 3 else 1)),  # output positions
        )
        for _ in range(axes)
    ]
    kernel_size, stride, dilation, coarse = (tuple(column) for column in zip(*per_axis, strict=True))
    grid = tuple(n * s for n, s in zip(coarse, stride, strict=True))
    groups = data.draw(st.sampled_from([1, 2, 3]))
    out, inn = (data.draw(st.integers(1, 3)) for _ in range(2))
    seed = data.draw(st.integers(0, 2**31))
    kernel = torch.from_numpy(np.random.default_rng(seed).standard_normal((groups * out, inn, *kernel_size)))

    truth = np.linalg.svd(dense_operator(kernel, grid, stride, dilation, groups), compute_uv=False)
    found = spectrum_of(kernel, grid, stride, dilation, groups).spectrum
    assert found.singular_values is not None
    assert found.count >= len(truth)  # groups may each lack columns where the whole does not
    padded = np.r_[truth, np.zeros(found.count - len(truth))]
    assert np.abs(found.singular_values - padded).max() <= 1e-7 * truth[0]


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_a_larger_layer(stride: tuple[int, int]) -> None:
    kernel = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 6, 3, 3)))
    truth = np.linalg.svd(dense_operator(kernel, (12, 8), stride, (1, 1), 1), compute_uv=False)
    found = spectrum_of(kernel, (12, 8), stride, (1, 1)).spectrum
    assert found.singular_values is not None
    assert found.count == len(truth)
    assert np.abs(found.singular_values - truth).max() <= 1e-9 * truth[0]
    assert found.condition_number == pytest.approx(truth[0] / truth[-1], rel=1e-6)


def test_transposed_convolution_is_the_adjoint() -> None:
    kernel = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 2, 3, 3)))  # (in, out, k, k)
    forward = dense_operator(kernel, (6, 6), (2, 2), (1, 1), 1)
    inputs = torch.eye(3 * 9, dtype=torch.float64).reshape(-1, 3, 3, 3)
    full = F.conv_transpose2d(inputs, kernel, stride=2)  # 7 × 7: the last row and column wrap round
    wrapped = full[:, :, :6, :6].clone()
    wrapped[:, :, 0] += full[:, :, 6, :6]
    wrapped[:, :, :, 0] += full[:, :, :6, 6]
    wrapped[:, :, 0, 0] += full[:, :, 6, 6]
    assert np.allclose(wrapped.flatten(1).T.numpy(), forward.T)
    found = spectrum_of(kernel, (6, 6), (2, 2), (1, 1)).spectrum
    truth = np.linalg.svd(wrapped.flatten(1).numpy(), compute_uv=False)
    assert found.singular_values is not None
    assert np.abs(found.singular_values - truth).max() < 1e-10


def test_a_single_tap_is_the_channel_matrix_repeated() -> None:
    matrix = np.random.default_rng(2).standard_normal((4, 5))
    found = spectrum_of(torch.from_numpy(matrix)[:, :, None, None], (6, 4), (2, 2), (1, 1)).spectrum
    truth = np.repeat(np.linalg.svd(matrix, compute_uv=False), 6)
    assert found.singular_values is not None
    assert np.abs(found.singular_values - truth).max() < 1e-12


def test_a_kernel_smaller_than_its_stride_loses_rank_by_construction() -> None:
    kernel = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 4, 1, 1)))
    found = spectrum_of(kernel, (6, 4), (2, 2), (1, 1))
    truth = np.linalg.svd(dense_operator(kernel, (6, 4), (2, 2), (1, 1), 1), compute_uv=False)
    assert found.spectrum.singular_values is not None
    assert np.abs(found.spectrum.singular_values - truth).max() < 1e-12
    assert found.spectrum.condition_number_status == "infinite"
    assert np.count_nonzero(found.spectrum.singular_values) == 24
    assert found.notes == (
        "the stride skips inputs: rank at most 24 of 30 by construction, so that κ of W and D·W is infinite; "
        "their pseudo condition number is that of the rest",
    )


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "out", "inn"),
    [(1, 2, 1, 5, 4), (1, 2, 1, 3, 4), (2, 3, 1, 7, 1), (2, 2, 2, 5, 3), (2, 3, 1, 3, 2), (3, 2, 1, 9, 2)],
)
@pytest.mark.parametrize("padding", [0, 1])
def test_what_a_stride_skips_is_structural_in_every_map(
    size: int, stride: int, dilation: int, out: int, inn: int, padding: int
) -> None:
    """κ of W and D·W is infinite where the kernel's taps leave out residues of the stride (MATH R61)."""
    kernel = torch.from_numpy(np.random.default_rng(0).standard_normal((out, inn, size, size)))
    side, axes = 2 * 6, 2
    layer = ConvolutionMap(kernel[None], (stride,) * 2, (dilation,) * 2, (side,) * 2, "f64", (padding,) * 2)
    w = dense_operator(kernel, (side,) * 2, (stride,) * 2, (dilation,) * 2, 1)
    weight = measure([layer], Plan("cpu"), keep_values=True)[0].spectrum
    d = torch.from_numpy(np.random.default_rng(1).standard_normal((1, out))).relu()
    d[0, 0] = 1.5
    question = Question(0.0, -0.7, "average-pool", Diagonals(d, (d != 0).double().mean(1)))
    answer = measure_maps(layer, weight, question, Plan("cpu"), keep_values=True).maps
    dw = d[0].repeat_interleave(len(w) // out).numpy()[:, None] * w
    alone = (weight, w), (answer["chain"], dw), (answer["skip"], -0.7 * w), (answer["skip_chain"], -0.7 * dw)
    for found, matrix in alone:
        truth = np.linalg.svd(matrix, compute_uv=False)
        rank = int(np.linalg.matrix_rank(matrix))
        assert found.singular_values is not None
        assert np.abs(found.singular_values - truth).max() < 1e-7 * truth[0]
        expected = "infinite" if rank < min(matrix.shape) else "resolved"
        assert found.condition_number_status == expected
        assert (found.condition_number is None) == (expected == "infinite")
        assert found.numerical_rank == rank == np.count_nonzero(found.singular_values)
        assert found.pseudo_condition_number == pytest.approx(truth[0] / truth[rank - 1], rel=1e-6)
    read = len({tap * dilation % stride for tap in range(size)}) ** axes
    assert np.linalg.matrix_rank(w) == min(out, read * inn) * (side // stride) ** 2


def test_dead_channels_are_exact_zeros_per_group() -> None:
    kernel = torch.from_numpy(np.random.default_rng(3).standard_normal((8, 2, 3)))
    kernel[1] = 0  # one of two outputs of the first of four groups
    kernel[4:6] = 0  # the third group altogether
    found = spectrum_of(kernel, (8,), (1,), (1,), groups=4)
    truth = np.linalg.svd(dense_operator(kernel, (8,), (1,), (1,), 4), compute_uv=False)
    assert found.spectrum.singular_values is not None
    assert np.abs(found.spectrum.singular_values - truth).max() < 1e-12
    assert np.count_nonzero(found.spectrum.singular_values == 0) == 8 + 16
    assert found.spectrum.condition_number_status == "infinite"
    assert found.notes == ("3 of 8 output channels are zero", "2 of 8 input channels are zero")


def test_small_end_keeps_six_digits() -> None:
    # Taps (1, -a) have |K̂(0)| = 1 - a: the smallest singular value is known exactly.
    for gap in (1e-3, 1e-6):
        kernel = torch.tensor([[[1.0, -(1 - gap)]]], dtype=torch.float64)
        found = spectrum_of(kernel, (16,), (1,), (1,)).spectrum
        assert found.sigma_min == pytest.approx(gap, rel=1e-6)


def test_storage_floor_is_the_norm_of_the_real_rounding_error() -> None:
    exact = torch.from_numpy(np.random.default_rng(0).standard_normal((16, 12, 3, 3)))
    stored = exact.to(torch.bfloat16)
    for stride in ((1, 1), (2, 2)):
        error = spectrum_of(stored.double() - exact, (8, 8), stride, (1, 1)).spectrum.sigma_max
        floor = spectrum_of(stored, (8, 8), stride, (1, 1), dtype="bf16").spectrum.storage_floor
        assert error is not None
        assert floor is not None
        assert 0.9 * error <= floor <= 1.5 * error


def test_blocks_are_the_same_however_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 3, 3, 3)))
    whole = spectrum_of(kernel, (6, 6), (1, 1), (1, 1)).spectrum.singular_values
    monkeypatch.setattr(Plan, "block_bytes", lambda self, layer_bytes: 1)
    one_by_one = spectrum_of(kernel, (6, 6), (1, 1), (1, 1)).spectrum.singular_values
    assert whole is not None
    assert one_by_one is not None
    assert np.allclose(whole, one_by_one, rtol=1e-12, atol=1e-14)


def test_nonfinite_kernel() -> None:
    kernel = torch.ones(2, 2, 3)
    kernel[0, 0, 0] = torch.nan
    found = spectrum_of(kernel, (8,), (1,), (1,), dtype="f32")
    assert found.spectrum.condition_number_status == "nonfinite_weights"
    assert found.notes == ("1 NaN and 0 infinite of 12 entries",)


def test_frequencies_stand_for_the_whole_grid() -> None:
    from specinspect.maps.fourier import frequencies

    for sides in itertools.product([1, 2, 3, 4, 5], [1, 4, 5]):
        chosen = frequencies(sides)
        covered = {omega for omega, _ in chosen} | {
            tuple(-w % n for w, n in zip(omega, sides, strict=True)) for omega, _ in chosen
        }
        assert len(covered) == prod(sides) == sum(count for _, count in chosen)
