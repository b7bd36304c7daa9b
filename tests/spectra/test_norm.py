"""σmax alone against numpy's full decomposition, and what the entries alone tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.maps import ConvolutionMap, DenseMap
from specinspect.maps.model import LowRankMap
from specinspect.spectra.compute import measure
from specinspect.spectra.norm import DIRECT, largest_singular_values, measure_part
from specinspect.spectra.plan import Plan

CPU = Plan("cpu")


def rotated(values: np.ndarray, rows: int, seed: int) -> torch.Tensor:
    """Return a (rows, len(values)) matrix with these singular values."""
    rng = np.random.default_rng(seed)
    n = len(values)
    left = np.linalg.qr(rng.standard_normal((rows, n)))[0]
    right = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return torch.from_numpy((left * values) @ right.T)


N = DIRECT + 40
SPECTRA = {
    "one far above": np.r_[100.0, np.linspace(1, 0.1, N - 1)],
    "flat": np.ones(N),
    "two equal at the top": np.r_[2.0, 2.0, np.linspace(1.9, 0.1, N - 2)],
    "crowded at the top": 1 - 1e-6 * np.arange(N),
    "rank one": np.r_[3.0, np.zeros(N - 1)],
    "rank five": np.r_[3.0, 2.9, 2.8, 2.7, 2.6, np.zeros(N - 5)],
    "twelve orders": 10.0 ** -np.linspace(0, 12, N),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rows", [N, N + 77, 9 * N])
def test_constructed_spectra(name: str, rows: int) -> None:
    values = SPECTRA[name]
    matrix = rotated(values, rows, 3)
    for turned in (matrix, matrix.T):
        found = measure_part(DenseMap(turned, "f64"), CPU, norm=True).spectrum
        assert found.sigma_max == pytest.approx(values[0], rel=2e-7)
        assert found.frobenius_norm == pytest.approx(np.linalg.norm(values), rel=1e-9)
        assert found.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-6)
        assert found.condition_number_status == "not_computed"
        assert found.sigma_min is None


@settings(max_examples=25)
@given(st.integers(DIRECT - 3, DIRECT + 60), st.integers(1, 300), st.integers(0, 999), st.booleans())
def test_random_batches(n: int, m: int, seed: int, imaginary: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if imaginary else torch.float64
    batch = torch.randn(3, m, n, generator=generator, dtype=dtype)
    batch[1] *= 1e-3
    expected = np.linalg.svd(batch.numpy(), compute_uv=False)[:, 0]
    found = largest_singular_values(batch).numpy()
    assert found == pytest.approx(expected, rel=2e-7)
    assert (found <= expected * (1 + 1e-12)).all()


def test_what_does_not_settle_is_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.spectra.norm.STEPS", 3)
    matrix = rotated(1 - 1e-3 * np.arange(N), N, 5)
    assert float(largest_singular_values(matrix[None])[0]) == pytest.approx(1.0, rel=1e-12)
    for linear, factor in ((matrix, 1.0), (matrix.T, 1.0), (matrix * 1e160, 1e160)):
        found = measure_part(DenseMap(linear, "f64"), CPU, norm=True).spectrum
        assert found.sigma_max == pytest.approx(factor, rel=1e-12)
        squares = ((1 - 1e-3 * np.arange(N)) ** 2).sum()
        assert found.frobenius_norm == pytest.approx(factor * squares**0.5, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_scales_whose_squares_leave_float64(scale: float) -> None:
    matrix = rotated(np.linspace(2, 1, N), N, 1) * scale
    found = measure_part(DenseMap(matrix, "f64"), CPU, norm=True).spectrum
    assert found.sigma_max == pytest.approx(2 * scale, rel=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [5, DIRECT + 8])
def test_convolutions_as_the_full_spectrum_has_them(stride: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    kernel = torch.randn(1, channels, channels, 3, generator=generator)
    linear = ConvolutionMap(kernel, (stride,), (1,), (8,), "f32")
    whole = measure([linear], CPU, keep_values=False)[0].spectrum
    part = measure_part(linear, CPU, norm=True).spectrum
    assert part.count == whole.count
    for name in ("sigma_max", "frobenius_norm", "stable_rank"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=1e-6)


def test_grouped_convolution_and_dead_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 2, 3, 3, generator=generator)
    kernel[2, 1] = 0
    kernel[0, :, 0] = 0
    linear = ConvolutionMap(kernel, (1, 1), (1, 1), (6, 6), "f32")
    whole = measure([linear], CPU, keep_values=False)[0]
    part = measure_part(linear, CPU, norm=True)
    assert whole.zeros == part.zeros == (1, 1)
    assert whole.notes == part.notes
    assert part.spectrum.sigma_max == pytest.approx(whole.spectrum.sigma_max, rel=1e-6)


def test_entries_alone() -> None:
    matrix = torch.ones(6, 5)
    matrix[1], matrix[3], matrix[:, 2] = 0, 0, 0
    found = measure_part(DenseMap(matrix, "f32"), CPU, norm=False)
    assert found.zeros == (2, 1)
    assert found.spectrum.sigma_max is None
    matrix[0, 0], matrix[0, 1] = torch.nan, torch.inf
    found = measure_part(DenseMap(matrix, "f32"), CPU, norm=True)
    assert found.zeros == (2, 1)
    assert found.spectrum.nonfinite == 2
    assert found.spectrum.condition_number_status == "nonfinite_weights"


def test_zero_matrix() -> None:
    for norm in (False, True):
        found = measure_part(DenseMap(torch.zeros(200, 150), "f32"), CPU, norm=norm)
        assert (found.spectrum.sigma_max, found.spectrum.stable_rank) == (0.0, None)
        assert found.zeros == (200, 150)


def test_adapters_are_measured_whole() -> None:
    linear = LowRankMap(torch.randn(20, 2), torch.randn(2, 30), 2.0, "f32")
    found = measure_part(linear, CPU, norm=True).spectrum
    expected = np.linalg.norm((linear.left @ linear.right * 2).double().numpy(), 2)
    assert found.sigma_max == pytest.approx(expected, rel=1e-5)
