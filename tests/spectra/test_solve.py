"""The solver against spectra that are known, and against numpy's float64 decomposition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.spectra.solve import EPS, FEW, GRAM, INVERSE, SVD, Batch, Solution, Streamed, singular_values
from tests.spectra.matrices import Array, with_spectrum


def solve_both_ways(matrix: Array) -> list[Solution]:
    tensor = torch.from_numpy(matrix)
    return [singular_values(Batch(tensor[None])), singular_values(Streamed(tensor, 1.0, "cpu"))]


@pytest.mark.parametrize("kappa", [1.0, 1e2, 1e4, 1e6, 1e8, 1e9, 1e12])
@pytest.mark.parametrize(("rows", "columns"), [(60, 60), (200, 40), (40, 200), (130, 120)])
@pytest.mark.parametrize("shape", ["geometric", "one small", "half small"])
def test_recovers_a_constructed_spectrum(kappa: float, rows: int, columns: int, shape: str) -> None:
    k = min(rows, columns)
    truth = {
        "geometric": np.geomspace(1, 1 / kappa, k),
        "one small": np.r_[np.ones(k - 1), 1 / kappa],
        "half small": np.r_[np.linspace(2, 1, k // 2), np.linspace(2, 1, k - k // 2) / kappa],
    }[shape]
    truth = np.sort(truth)[::-1]
    for found in solve_both_ways(with_spectrum(truth, rows, columns)):
        values = found.values[0].numpy()
        assert np.abs(values - truth).max() <= 1e-7 * truth[0]
        if truth[-1] >= 0.99e-6 * truth[0]:
            assert values[-1] == pytest.approx(truth[-1], rel=1e-6)
        # The construction itself is only good to a few eps.
        assert abs(values[-1] - truth[-1]) <= float(found.floor[0]) + 40 * EPS * truth[0]
        assert np.all(np.diff(values) <= 0)


def test_chooses_the_cheapest_method_that_is_good_enough() -> None:
    methods = {
        kappa: singular_values(
            Streamed(torch.from_numpy(with_spectrum(np.geomspace(1, 1 / kappa, 64), 96, 64)), 1.0, "cpu")
        ).method
        for kappa in (1e2, 1e6, 1e13)
    }
    assert methods == {1e2: GRAM, 1e6: INVERSE, 1e13: SVD}


@pytest.mark.parametrize(
    "small", [[1e-5], [3e-5, 3e-5, 3e-5], [9e-5, 5e-5, 2e-6, 1.9e-6], [5e-5, 1e-8]], ids=str
)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("is_complex", [False, True])
def test_a_few_small_values_of_a_large_matrix_are_iterated(
    small: list[float], wide: bool, is_complex: bool
) -> None:
    generator = np.random.default_rng(0)
    n, m = 512, 600
    values = np.concatenate([np.geomspace(1, 1e-2, n - len(small)), small])

    def isometry(rows: int) -> Any:
        noise = generator.standard_normal((rows, n))
        whole = noise + 1j * generator.standard_normal((rows, n)) if is_complex else noise
        return np.linalg.qr(whole)[0]

    a = isometry(m) * values @ isometry(n).conj().T
    found = singular_values(Batch(torch.from_numpy(a.conj().T if wide else a)[None]))
    assert found.method == FEW
    error = np.abs(found.values[0].numpy() - values)
    assert error.max() <= 1e-7
    assert (error[-len(small) :] / values[-len(small) :]).max() <= 1e-6
    assert error[-1] <= float(found.floor[0])


def test_many_small_values_are_not() -> None:
    generator = np.random.default_rng(0)
    n = 512
    values = np.concatenate([np.linspace(1, 0.1, n - 20), np.geomspace(1e-4, 1e-6, 20)])
    u, v = (np.linalg.qr(generator.standard_normal((n, n)))[0] for _ in range(2))
    found = singular_values(Batch(torch.from_numpy(u * values @ v.T)[None]))
    assert found.method == INVERSE
    assert np.abs(found.values[0].numpy() / values - 1).max() <= 1e-6


def test_an_iteration_that_misses_a_value_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it finds must be what the Gram matrix says, within that one's errors."""
    values = torch.cat([torch.linspace(1, 0.1, 510), torch.tensor([1e-5, 5e-6])]).double()
    blind = torch.eye(512, 10).double()  # of a diagonal matrix this start knows ten large values alone
    monkeypatch.setattr(torch, "randn", lambda *_, **__: blind)
    found = singular_values(Batch(torch.diag(values)[None]))
    assert found.method == INVERSE
    assert found.values[0].numpy() == pytest.approx(values.numpy(), rel=1e-6)


def test_refines_only_the_members_of_a_batch_that_need_it() -> None:
    truths = [np.geomspace(1, 1 / kappa, 24) for kappa in (10.0, 1e7, 3.0, 1e14)]
    batch = torch.from_numpy(np.stack([with_spectrum(s, 32, 24, seed=i) for i, s in enumerate(truths)]))
    found = singular_values(Batch(batch))
    for values, truth in zip(found.values.numpy(), truths, strict=True):
        assert np.abs(values - truth).max() <= 1e-9
    assert found.values[1, -1].item() == pytest.approx(1e-7, rel=1e-6)
    assert found.method == SVD


def test_complex_blocks_agree_with_numpy() -> None:
    rng = np.random.default_rng(3)
    blocks = rng.standard_normal((5, 12, 20)) + 1j * rng.standard_normal((5, 12, 20))
    found = singular_values(Batch(torch.from_numpy(blocks)))
    assert np.abs(found.values.numpy() - np.linalg.svd(blocks, compute_uv=False)).max() < 1e-12


def test_a_streamed_matrix_is_read_in_more_than_one_block() -> None:
    rng = np.random.default_rng(4)
    matrix = rng.standard_normal((9000, 64)).astype(np.float32)  # blocks have 4096 rows
    matrix[:, 0] = matrix[:, 1] * (1 + 1e-5 * rng.standard_normal(9000))  # small σ: needs the factor too
    truth = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    for turned in (matrix, np.ascontiguousarray(matrix.T)):
        found = singular_values(Streamed(torch.from_numpy(turned), 1.0, "cpu"))
        assert np.abs(found.values[0].numpy() - truth).max() <= 1e-10 * truth[0]
        assert found.values[0, -1].item() == pytest.approx(truth[-1], rel=1e-8)
        assert found.method == INVERSE


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    low=st.floats(-16, 0),
    seed=st.integers(0, 2**32 - 1),
)
def test_stays_within_its_stated_floor(rows: int, columns: int, low: float, seed: int) -> None:
    truth = np.geomspace(1, 10.0**low, min(rows, columns))
    matrix = with_spectrum(truth, rows, columns, seed)
    reference = np.linalg.svd(matrix, compute_uv=False)
    for found in solve_both_ways(matrix):
        values = found.values[0].numpy()
        assert np.abs(values - reference).max() <= 1e-7 * reference[0]
        assert abs(values[-1] - reference[-1]) <= float(found.floor[0]) + 10 * EPS
