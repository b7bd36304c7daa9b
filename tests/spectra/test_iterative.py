"""Extremes of an operator that is only applied, against its singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.maps import ConvolutionMap
from specinspect.maps.operator import (
    ConvolutionOperator,
    LayerOperator,
    dense,
    normal_probes,
    sample_pixel_diagonals,
    shortcut_beside,
)
from specinspect.spectra.iterative import RESOLVED, extremes
from tests.spectra.matrices import Array, with_spectrum


class Matrix:
    """An explicit matrix as an operator; counts its products."""

    def __init__(self, matrix: Array) -> None:
        self.matrix = torch.from_numpy(matrix)
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = self.matrix.device
        self.products = 0

    def matvec(self, x: torch.Tensor) -> torch.Tensor:
        self.products += 1
        return x @ self.matrix.T

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self.products += 1
        return y @ self.matrix


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), low=st.floats(1e-5, 1), seed=st.integers(0, 2**31)
)
def test_small_matrices_are_solved_exactly(rows: int, columns: int, low: float, seed: int) -> None:
    values = np.geomspace(1, low, min(rows, columns))
    found = extremes(Matrix(with_spectrum(values, rows, columns, seed)))
    assert found.sigma_max == pytest.approx(values.max(), rel=1e-9)
    assert found.sigma_min == pytest.approx(values.min(), rel=1e-6)


@pytest.mark.parametrize("shape", [(700, 500), (500, 700)])
def test_a_spectrum_with_room_below(shape: tuple[int, int]) -> None:
    values = np.linspace(3.0, 1.0, 500)
    values[-1] = 0.9
    found = extremes(Matrix(with_spectrum(values, *shape)))
    assert found.sigma_max == pytest.approx(3.0, rel=1e-6)
    assert found.sigma_min == pytest.approx(0.9, rel=1e-8)
    assert found.residual_min <= RESOLVED * 0.9
    assert found.reason == ""


def test_the_small_end_may_be_out_of_reach() -> None:
    operator = Matrix(with_spectrum(np.linspace(1e-4, 1, 400)[::-1], 400, 400))
    found = extremes(operator, products=50)
    assert found.products == 50
    assert operator.products <= 2 * 50 + 4
    assert found.sigma_min is None
    assert found.sigma_min_upper >= 1e-4
    assert "out of reach of 50 products" in found.reason
    assert found.sigma_max == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("low", [0.0, 1e-12, 1e-9])
def test_nothing_is_resolved_below_what_squaring_leaves(low: float) -> None:
    found = extremes(Matrix(with_spectrum(np.r_[np.linspace(1, 0.5, 29), low], 30, 30)))
    assert found.sigma_min is None
    assert found.sigma_min_upper <= 1e-7
    assert "squaring" in found.reason


def test_a_value_that_occurs_many_times() -> None:
    found = extremes(Matrix(np.eye(100) * 2))
    assert found.sigma_max == pytest.approx(2.0)
    assert found.sigma_min == pytest.approx(2.0)


def test_zero_rows_are_left_out() -> None:
    matrix = np.zeros((40, 30))
    matrix[::2] = with_spectrum(np.linspace(2, 1, 20), 20, 30)
    live = torch.arange(40) % 2 == 0, torch.ones(30, dtype=torch.bool)
    assert extremes(Matrix(matrix)).sigma_min is None
    found = extremes(Matrix(matrix), live=live)
    assert found.sigma_max == pytest.approx(2.0)
    assert found.sigma_min == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_bytes() -> None:
    operator = Matrix(with_spectrum(np.geomspace(1, 0.1, 200), 200, 200))
    assert extremes(operator, seed=3) == extremes(operator, seed=3)


@pytest.mark.parametrize(("rho", "per_pixel"), [(0, True), (1, True), (1, False)])
def test_convolutions_of_a_thousand_columns(rho: float, per_pixel: bool) -> None:
    kernel = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 12, 12, 3, 3))) / 108**0.5
    conv = ConvolutionOperator.of(ConvolutionMap(kernel, (1, 1), (1, 1), (10, 10), "f64", (1, 1)))
    probes, slope = normal_probes(conv, 1, 0), torch.zeros((), dtype=torch.float64)
    d = sample_pixel_diagonals(conv, None, None, ("relu", slope), probes).values[0] if per_pixel else None
    operator = LayerOperator(conv, d, shortcut_beside(conv, "identity") if rho else None, rho, 0.5)
    live = operator.live()
    count = min(int(side.sum()) for side in live)
    truth = np.linalg.svd(dense(operator).numpy(), compute_uv=False)
    found = extremes(operator, live=live)
    assert found.sigma_max == pytest.approx(truth[0], rel=1e-9)
    assert found.sigma_min == pytest.approx(truth[count - 1], rel=1e-5)
    assert found.sigma_min_upper >= truth[count - 1] * (1 - 1e-9)
