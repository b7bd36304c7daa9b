"""Spectra of dense and low-rank maps: truth, status, exact zeros, scales, dtypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from specinspect.maps import DenseMap, LowRankMap
from specinspect.spectra.compute import Measured, measure
from specinspect.spectra.plan import Plan
from tests.spectra.matrices import with_spectrum

CPU = Plan("cpu")
DTYPES = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f8_e4m3": torch.float8_e4m3fn,
    "f8_e5m2": torch.float8_e5m2,
}


def dense(matrix: torch.Tensor, dtype: str = "f64") -> Measured:
    return measure([DenseMap(matrix, dtype)], CPU, keep_values=True)[0]


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    dtype=st.sampled_from(sorted(DTYPES)),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1.0, 1e-2, 8.0]),
)
def test_every_dtype_and_shape_agrees_with_numpy(
    rows: int, columns: int, dtype: str, seed: int, scale: float
) -> None:
    entries = np.random.default_rng(seed).standard_normal((rows, columns)) * scale
    stored = torch.from_numpy(entries).to(DTYPES[dtype])
    exact = stored.double().numpy()
    assume(exact.any())  # small numbers may all round to zero
    truth = np.linalg.svd(exact, compute_uv=False)
    found = dense(stored, dtype).spectrum
    assert found.singular_values is not None
    assert found.sigma_max is not None
    assert found.sigma_min is not None
    assert np.abs(found.singular_values - truth).max() <= 1e-7 * truth[0]
    assert found.count == min(rows, columns)
    assert found.frobenius_norm == pytest.approx(np.linalg.norm(exact), rel=1e-7)
    assert found.stable_rank == pytest.approx((np.linalg.norm(exact) / truth[0]) ** 2, rel=1e-6)
    share = truth[truth > 0] / truth.sum()
    assert found.effective_rank == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-6)
    if found.condition_number_status == "resolved":
        assert found.condition_number == pytest.approx(truth[0] / truth[-1], rel=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e-30, 1e30, 1e170, 1e300])
def test_extreme_scales_neither_overflow_nor_vanish(scale: float) -> None:
    truth = np.geomspace(1, 1e-3, 20)
    found = dense(torch.from_numpy(with_spectrum(truth, 20, 30) * scale)).spectrum
    assert found.singular_values is not None
    assert np.abs(found.singular_values / scale - truth).max() < 1e-9
    assert found.condition_number == pytest.approx(1e3, rel=1e-6)
    assert found.stable_rank == pytest.approx((truth**2).sum(), rel=1e-6)
    assert found.frobenius_norm is not None
    assert math.isfinite(found.frobenius_norm)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "f8_e4m3", "f8_e5m2"])
def test_storage_floor_is_the_norm_of_the_real_rounding_error(dtype: str) -> None:
    exact = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 120)))
    stored = exact.to(DTYPES[dtype])
    error = np.linalg.norm((stored.double() - exact).numpy(), 2)
    floor = dense(stored, dtype).spectrum.storage_floor
    assert floor is not None
    assert 0.95 * error <= floor <= 1.4 * error


@pytest.mark.parametrize("outlier", [(0, slice(None)), (slice(None), 3)])
def test_storage_floor_sees_an_outlying_row_or_column(outlier: tuple[object, object]) -> None:
    entries = np.random.default_rng(0).standard_normal((300, 50))
    entries[outlier] *= 1e4  # type: ignore[index]
    exact = torch.from_numpy(entries)
    stored = exact.to(torch.bfloat16)
    error = np.linalg.norm((stored.double() - exact).numpy(), 2)
    floor = dense(stored, "bf16").spectrum.storage_floor
    assert floor is not None
    assert 0.8 * error <= floor <= 1.5 * error


def test_subnormal_entries_round_by_the_smallest_unit() -> None:
    exact = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 120)) * 1e-5)
    stored = exact.to(torch.float16)
    error = np.linalg.norm((stored.double() - exact).numpy(), 2)
    floor = dense(stored, "f16").spectrum.storage_floor
    assert floor is not None
    assert 0.95 * error <= floor <= 1.4 * error


def test_a_spectrum_that_the_dtype_cannot_hold_is_not_given_a_condition_number() -> None:
    truth = np.r_[np.geomspace(1, 0.1, 31), 1e-5]
    exact = torch.from_numpy(with_spectrum(truth, 32, 32))
    in_double = dense(exact).spectrum
    assert in_double.condition_number_status == "resolved"
    assert in_double.condition_number == pytest.approx(1e5, rel=1e-6)
    in_half = dense(exact.to(torch.bfloat16), "bf16").spectrum
    assert in_half.condition_number_status == "below_storage_precision"
    assert in_half.condition_number is None
    assert in_half.pseudo_condition_number is not None
    assert in_half.pseudo_condition_number < 1e4


def test_a_rank_deficient_matrix_is_recognised_in_float32() -> None:
    truth = np.r_[np.geomspace(1, 0.5, 20), np.zeros(12)]
    found = dense(torch.from_numpy(with_spectrum(truth, 40, 32)).float(), "f32").spectrum
    assert found.numerical_rank == 20
    assert found.condition_number_status == "below_storage_precision"
    assert found.pseudo_condition_number == pytest.approx(2.0, rel=1e-5)


def test_a_duplicated_row_in_float64_is_not_called_resolved() -> None:
    matrix = np.random.default_rng(0).standard_normal((16, 16))
    matrix[7] = matrix[3]
    found = dense(torch.from_numpy(matrix)).spectrum
    assert found.condition_number is None
    assert found.condition_number_status in {"below_storage_precision", "below_computation_precision"}
    assert found.numerical_rank == 15


def test_dead_rows_are_exact_zeros() -> None:
    matrix = np.random.default_rng(1).standard_normal((12, 12))
    matrix[[2, 5]] = 0
    found = dense(torch.from_numpy(matrix))
    spectrum = found.spectrum
    assert spectrum.condition_number_status == "infinite"
    assert spectrum.sigma_min == 0.0
    assert spectrum.singular_values is not None
    assert (spectrum.singular_values[-2:] == 0).all()
    truth = np.linalg.svd(matrix, compute_uv=False)
    assert np.abs(spectrum.singular_values - truth).max() < 1e-12
    assert spectrum.pseudo_condition_number == pytest.approx(truth[0] / truth[9], rel=1e-9)
    assert found.notes == ("2 of 12 rows are zero",)
    assert spectrum.histogram is not None
    assert spectrum.histogram.zeros == 2
    assert sum(spectrum.histogram.counts) == 10


def test_dead_rows_of_a_tall_matrix_cost_no_rank() -> None:
    matrix = np.random.default_rng(1).standard_normal((40, 12))
    matrix[:20] = 0
    found = dense(torch.from_numpy(matrix))
    assert found.spectrum.condition_number_status == "resolved"
    assert found.spectrum.numerical_rank == 12
    assert found.notes == ("20 of 40 rows are zero",)


def test_zero_matrix() -> None:
    found = dense(torch.zeros(4, 6))
    assert found.notes == ("every entry is zero",)
    spectrum = found.spectrum
    assert (spectrum.sigma_max, spectrum.condition_number_status, spectrum.numerical_rank) == (
        0,
        "infinite",
        0,
    )
    assert spectrum.stable_rank is None
    assert spectrum.histogram is not None
    assert spectrum.histogram.zeros == 4


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1)])
def test_vectors_have_one_singular_value(shape: tuple[int, int]) -> None:
    matrix = torch.full(shape, 2.0)
    spectrum = dense(matrix, "f32").spectrum
    assert spectrum.sigma_max == pytest.approx(2 * math.sqrt(max(shape)))
    assert spectrum.condition_number == 1.0
    assert spectrum.histogram is not None
    assert sum(spectrum.histogram.counts) == 1


def test_nan_and_infinite_entries_mark_only_their_own_matrix() -> None:
    good = torch.eye(3)
    bad = torch.eye(3)
    bad[0, 1], bad[1, 1], bad[2, 0] = math.nan, math.inf, -math.inf
    first, second, third = measure([DenseMap(m, "f32") for m in (good, bad, good)], CPU, keep_values=False)
    assert first.spectrum.condition_number == third.spectrum.condition_number == 1.0
    assert second.spectrum.condition_number_status == "nonfinite_weights"
    assert second.spectrum.nonfinite == 3
    assert second.spectrum.sigma_max is None
    assert second.notes == ("1 NaN and 2 infinite of 9 entries",)


def test_a_batch_of_equal_shapes_gives_what_each_gives_alone() -> None:
    rng = np.random.default_rng(5)
    matrices = [torch.from_numpy(rng.standard_normal((9, 6)) * 10.0**i) for i in range(5)]
    matrices.insert(2, torch.from_numpy(rng.standard_normal((6, 6))))
    together = measure([DenseMap(m, "f64") for m in matrices], CPU, keep_values=True)
    for matrix, found in zip(matrices, together, strict=True):
        truth = np.linalg.svd(matrix.numpy(), compute_uv=False)
        assert found.spectrum.singular_values is not None
        assert np.abs(found.spectrum.singular_values - truth).max() < 1e-12 * truth[0] + 1e-15


@pytest.mark.parametrize(("rows", "columns", "rank"), [(30, 20, 4), (20, 30, 1), (12, 12, 12)])
def test_low_rank_products(rows: int, columns: int, rank: int) -> None:
    rng = np.random.default_rng(6)
    left, right = rng.standard_normal((rows, rank)), rng.standard_normal((rank, columns))
    product = LowRankMap(torch.from_numpy(left), torch.from_numpy(right), 0.25, "f64")
    found = measure([product], CPU, keep_values=True)[0].spectrum
    truth = np.linalg.svd(0.25 * left @ right, compute_uv=False)
    assert found.singular_values is not None
    assert np.abs(found.singular_values - truth).max() < 1e-12 * truth[0]
    full = rank == min(rows, columns)
    assert found.condition_number_status == ("resolved" if full else "infinite")
    assert found.numerical_rank == rank
    assert found.pseudo_condition_number == pytest.approx(truth[0] / truth[rank - 1], rel=1e-8)


def test_a_fresh_adapter_is_the_zero_map() -> None:
    product = LowRankMap(torch.zeros(8, 2), torch.randn(2, 8), 1.0, "f32")
    found = measure([product], CPU, keep_values=False)[0]
    assert found.spectrum.sigma_max == 0
    assert found.notes == ("every entry is zero",)


def test_histogram_counts_every_positive_value_between_its_edges() -> None:
    truth = np.geomspace(3, 1e-5, 200)
    found = dense(torch.from_numpy(with_spectrum(truth, 200, 220))).spectrum
    assert found.histogram is not None
    edges = np.array(found.histogram.edges)
    assert sum(found.histogram.counts) == 200
    assert len(edges) == len(found.histogram.counts) + 1
    assert np.all(np.diff(np.log(edges)) > 0)
    assert edges[0] <= found.sigma_min
    assert edges[-1] >= found.sigma_max
    assert np.allclose(found.histogram.counts, np.histogram(truth, edges)[0], atol=1)
