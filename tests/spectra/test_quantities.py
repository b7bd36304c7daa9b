"""What bounds rest on, gathered while the spectra are computed, against matrices that are written out."""

from __future__ import annotations

from dataclasses import fields
from math import prod

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from specinspect.maps import ConvolutionMap, DenseMap, LinearMap
from specinspect.spectra.activated import Question, measure_maps
from specinspect.spectra.compute import measure
from specinspect.spectra.entries import entries
from specinspect.spectra.plan import Plan
from specinspect.spectra.quantities import LayerQuantities
from tests.bounds.families import quantities as truth_of
from tests.spectra.matrices import Array
from tests.spectra.test_activated import dense_convolution, dense_pool, diagonals

CPU = Plan("cpu")


def gather(
    linear: LinearMap, shortcut: str, d: Array | None, rho: float = 1.0, beta: float = 1.0
) -> LayerQuantities:
    weight = measure([linear], CPU, keep_values=True)[0].spectrum
    question = Question(rho, beta, shortcut, None if d is None else diagonals(d))
    answer = measure_maps(linear, weight, question, CPU, keep_values=False, quantities=True)
    assert answer.maps["chain"].singular_values is None
    assert answer.quantities is not None
    return answer.quantities


def everything(values: Array | None, times: NDArray[np.int64]) -> Array:
    assert values is not None
    return np.sort(np.repeat(values, times, 0), axis=None)[::-1]


@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (4, 9), (9, 4), (7, 1)])
def test_dense_layers(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal(shape)
    d = rng.choice([0.0, 1.0, 0.3, -1.0], (3, shape[0]))
    d[1] = 0.0
    found = gather(DenseMap(torch.from_numpy(w), "f64"), "rectangular-identity", d, 0.7, -1.3)
    truth = truth_of(w, 0.7, -1.3, d)
    assert (found.shape, found.rho, found.beta) == (shape, 0.7, -1.3)
    for name in ("weight", "skip", "tau"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), abs=1e-7), name
    middle = int(np.argsort((d != 0).mean(1), kind="stable")[1])
    for p, (mine, theirs) in enumerate(zip(found.patterns, truth.patterns, strict=True)):
        assert mine.chain == pytest.approx(theirs.chain, abs=1e-7)
        assert mine.skip_chain == pytest.approx(theirs.skip_chain, abs=1e-7)
        if p == middle:
            assert mine.tau == pytest.approx(theirs.tau, abs=1e-9)
        else:
            assert mine.tau is None
    assert found.entries is not None
    assert truth.entries is not None
    assert found.entries.taps is None
    for field in (f for f in fields(found.entries) if f.name != "taps"):
        mine, theirs = getattr(found.entries, field.name), getattr(truth.entries, field.name)
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12), field.name


@pytest.mark.parametrize(("groups", "width"), [(1, 3), (4, 1), (2, 3)])
@pytest.mark.parametrize("size", [1, 3])
def test_convolutions(groups: int, width: int, size: int) -> None:
    rng = np.random.default_rng(1)
    kernel = torch.from_numpy(rng.standard_normal((groups * width, width, size)))
    d = rng.choice([0.0, 1.0], (1, groups * width))
    linear = ConvolutionMap(kernel.reshape(groups, width, width, size), (1,), (1,), (8,), "f64", (size // 2,))
    found = gather(linear, "identity", d, 0.7, 1.3)
    dense = dense_convolution(kernel, (8,), 1, size // 2, groups)
    dw = np.repeat(d[0], 8)[:, None] * dense
    identity = np.eye(len(dense))
    times = found.multiplicity
    assert times.sum() == groups * 8
    assert found.shape == (width, width)
    for mine, matrix in (
        (found.weight, dense),
        (found.skip, 0.7 * identity + 1.3 * dense),
        (found.patterns[0].chain, dw),
        (found.patterns[0].skip_chain, 0.7 * identity + 1.3 * dw),
    ):
        assert everything(mine, times) == pytest.approx(np.linalg.svd(matrix, compute_uv=False), abs=1e-7)
    tau = np.linalg.eigvalsh(dense + dense.T)[::-1]
    assert everything(found.tau, times) == pytest.approx(tau, abs=1e-9)
    pattern = found.patterns[0].tau
    assert pattern is not None
    truth = np.linalg.eigvalsh(dw + dw.T)
    assert (pattern.min(), pattern.max()) == (pytest.approx(truth[0]), pytest.approx(truth[-1]))


@pytest.mark.parametrize(("out", "inn"), [(4, 4), (2, 3), (4, 2), (9, 2)])
def test_beside_an_average_pool(out: int, inn: int) -> None:
    rng = np.random.default_rng(2)
    grid, stride = (4, 6), 2
    kernel = torch.from_numpy(rng.standard_normal((out, inn, 3, 3)))
    d = rng.choice([0.0, 1.0], (1, out))
    linear = ConvolutionMap(kernel[None], (2, 2), (1, 1), grid, "f64", (1, 1))
    found = gather(linear, "average-pool", d)
    dense, pool = dense_convolution(kernel, grid, stride, 1), dense_pool(out, inn, grid, stride)
    if out > inn:  # no isometry
        assert found.tau is None
        assert found.patterns[0].tau is None
        return
    dw = np.repeat(d[0], prod(grid) // stride**2)[:, None] * dense
    for mine, m in ((found.tau, dense), (found.patterns[0].tau, dw)):
        h = pool @ m.T
        truth = np.linalg.eigvalsh(h + h.T)
        assert mine is not None
        assert (mine.min(), mine.max()) == (pytest.approx(truth[0]), pytest.approx(truth[-1]))


def test_moments_of_entries() -> None:
    rng = np.random.default_rng(3)
    w = rng.exponential(1.0, (700, 900)) - 0.2
    found = entries(DenseMap(torch.from_numpy(w), "f64"))
    assert found.skewness == pytest.approx(stats.skew(w, axis=None))
    assert found.excess_kurtosis == pytest.approx(stats.kurtosis(w, axis=None))
    half = torch.from_numpy(w).to(torch.bfloat16)
    again = entries(DenseMap(half, "bf16"))
    assert again.largest == float(half.float().abs().max())
    assert again.row_norms == pytest.approx(np.linalg.norm(half.double().numpy(), axis=1))
    constant = entries(DenseMap(torch.full((3, 4), 1e-200, dtype=torch.float64), "f64"))
    assert constant.standard_deviation == pytest.approx(1e-200)
    assert (constant.skewness, constant.excess_kurtosis) == (0, 0)


def test_numbers_at_the_edge_of_float64() -> None:
    w = np.random.default_rng(4).standard_normal((5, 5))
    for scale in (1e-200, 1e200):
        found = gather(DenseMap(torch.from_numpy(w * scale), "f64"), "identity", np.ones((1, 5)) * 0.5)
        assert found.weight / scale == pytest.approx(np.linalg.svd(w, compute_uv=False)[None])
        assert found.tau is not None
        assert found.tau / scale == pytest.approx(np.linalg.eigvalsh(w + w.T)[None, ::-1])
