"""The curve of ρA+βW along β against numpy's decomposition at every point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from specinspect.maps import ConvolutionMap, DenseMap, LinearMap, LowRankMap
from specinspect.spectra.curve import BETAS, SMALL, doubtful_places, joined, skip_curve
from specinspect.spectra.extremes import Extremes, nothing_outside, skip_extremes
from specinspect.spectra.family import Family, RectangularIdentity
from specinspect.spectra.model import SkipCurve
from specinspect.spectra.plan import Plan
from tests.spectra.matrices import Array, orthonormal, with_spectrum
from tests.spectra.test_activated import dense_convolution, dense_pool

CPU = Plan("cpu")
SIX_DIGITS = 1e-6


def curve_of(linear: LinearMap, shortcut: str, rho: float, betas: tuple[float, ...]) -> SkipCurve:
    found = skip_curve(linear, shortcut, rho, betas, CPU)
    assert found is not None
    return found


def assert_extremes(high: Array, low: Array, truths: Sequence[NDArray[np.floating[Any]]]) -> None:
    for top, bottom, truth in zip(high, low, truths, strict=True):
        assert top == pytest.approx(truth[0], rel=SIX_DIGITS)
        if truth[-1] >= 1e-6 * truth[0]:
            assert bottom == pytest.approx(truth[-1], rel=SIX_DIGITS)
        else:
            assert abs(bottom - truth[-1]) <= 1e-7 * truth[0]


def iterate(w: Array, a: Array, rho: float, betas: tuple[float, ...]) -> tuple[Extremes, int]:
    """Run the iteration whatever the size, and count how often it left a point to the full solver."""
    m, explicit = torch.from_numpy(w), torch.from_numpy(a)
    identity = bool((explicit == torch.eye(*w.shape)).all())
    calls = []

    def family() -> Family:
        calls.append(1)
        return Family.of(m[None], RectangularIdentity() if identity else explicit[None])

    return skip_extremes(m, None if identity else explicit, rho, betas, family), len(calls)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    extra=st.integers(0, 5),
    rho=st.sampled_from([1.0, 0.3, -1.0, 1e-3]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    complex_=st.booleans(),
    explicit=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_iteration_agrees_with_numpy(
    rows: int, extra: int, rho: float, scale: float, complex_: bool, explicit: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows + extra, rows)) * scale / np.sqrt(rows)
    a = orthonormal(rows + extra, rows, rng) if explicit else np.eye(rows + extra, rows)
    if complex_:
        w, a = w + 1j * rng.standard_normal(w.shape), a.astype(complex)
    betas = (-0.5, 0.0, 0.1, 0.9, 1.0, 2.0)
    found, _ = iterate(w, a, rho, betas)
    truths = [np.linalg.svd(rho * a + b * w, compute_uv=False) for b in betas]
    assert_extremes(found.high, found.low, truths)


def nearly_equal(gap: float) -> Callable[[int, np.random.Generator], Array]:
    """Two largest and two smallest singular values of I+W a relative `gap` apart."""

    def make(n: int, rng: np.random.Generator) -> Array:
        values = np.r_[3 * (1 + gap), 3.0, np.linspace(2, 0.5, n - 4), 1e-2 * (1 + gap), 1e-2]
        return with_spectrum(values, n, n, int(rng.integers(1 << 30))) - np.eye(n)

    return make


def crossing(n: int, rng: np.random.Generator) -> Array:
    """Symmetric: the |1 + βλ| cross along β at both ends."""
    q = orthonormal(n, n, rng)
    return (q * np.r_[-1.9, 0.9, 0.901, -0.97, -1.03, np.linspace(-0.3, 0.3, n - 5)]) @ q.T


def skew(n: int, rng: np.random.Generator) -> Array:
    w = rng.standard_normal((n, n)) / np.sqrt(n)
    return w - w.T


def defective(n: int, rng: np.random.Generator) -> Array:
    return np.eye(n, k=1) * 0.8 - 0.5 * np.eye(n)


def outlier(n: int, rng: np.random.Generator) -> Array:
    w = rng.standard_normal((n, n)) / np.sqrt(n)
    return w + 5 * np.outer(w[0], w[1]) / (np.linalg.norm(w[0]) * np.linalg.norm(w[1]))


ADVERSARIAL: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "zero": lambda n, rng: np.zeros((n, n)),
    "minus the identity": lambda n, rng: -np.eye(n),
    "half the identity": lambda n, rng: 0.5 * np.eye(n),
    "minus the identity and a little": lambda n, rng: -np.eye(n) + 1e-5 * rng.standard_normal((n, n)),
    "orthogonal": lambda n, rng: orthonormal(n, n, rng),
    "skew": skew,
    "symmetric": lambda n, rng: skew(n, rng) @ skew(n, rng),
    "defective": defective,
    "rank one": lambda n, rng: np.outer(rng.standard_normal(n), rng.standard_normal(n)) / n,
    "an outlier": outlier,
    "crossing": crossing,
    "huge": lambda n, rng: 1e4 * rng.standard_normal((n, n)),
    "tiny": lambda n, rng: 1e-9 * rng.standard_normal((n, n)),
    "uniform": lambda n, rng: rng.uniform(-1, 1, (n, n)) / np.sqrt(n),
    "He": lambda n, rng: rng.standard_normal((n, n)) * np.sqrt(2 / n),
    "positive": lambda n, rng: rng.uniform(0, 1, (n, n)) / n,
    **{f"nearly equal, {gap:g}": nearly_equal(gap) for gap in (1e-3, 1e-4, 1e-5, 3e-6, 1e-6, 1e-8, 0.0)},
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_iteration_on_adversarial_families(name: str) -> None:
    n = 80
    w = ADVERSARIAL[name](n, np.random.default_rng(5))
    betas = BETAS[1:]
    found, _ = iterate(w, np.eye(n), 1.0, betas)
    truths = [np.linalg.svd(np.eye(n) + b * w, compute_uv=False) for b in betas]
    assert_extremes(found.high, found.low, truths)


@pytest.mark.parametrize("kappa", [1.0, 10.0, 1e4])
def test_nothing_outside_is_a_proof(kappa: float) -> None:
    matrix = torch.from_numpy(with_spectrum(np.linspace(kappa, 1, 60), 70, 60))
    assert nothing_outside(matrix, 1.0, kappa)
    assert not nothing_outside(matrix, 1.0 + 2e-5, kappa)  # as if the smallest one had been missed
    assert not nothing_outside(matrix, 1.0, kappa * (1 - 2e-5))  # as if the largest one had been


@pytest.mark.parametrize("complex_", [False, True])
def test_the_proof_knows_a_hessenberg_form(complex_: bool) -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((70, 70)) + 1j * complex_ * rng.standard_normal((70, 70))
    h = np.triu(w, -1) / 9 + 3 * np.eye(70)
    matrix = torch.from_numpy(h if complex_ else h.real.copy())
    truth = np.linalg.svd(matrix.numpy(), compute_uv=False)
    for low, high, holds in ((1, 1, True), (1.001, 1, False), (1, 0.999, False)):
        assert nothing_outside(matrix, low * truth[-1], high * truth[0], below=1) == holds


def test_a_smallest_value_that_was_missed_goes_to_the_full_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every Lanczos process had missed the smallest value by a tenth: the worst point is proved."""
    from specinspect.spectra import extremes

    real = extremes.extreme_eigenvalues

    def wrong(*args: Any, **options: Any) -> tuple[Array, Array]:
        low, high = real(*args, **options)
        return (np.full_like(low, np.nan), high) if options.get("low_end", True) else (low, high / 1.2)

    monkeypatch.setattr(extremes, "extreme_eigenvalues", wrong)
    w = np.random.default_rng(0).standard_normal((50, 50)) / np.sqrt(50)
    found, full = iterate(w, np.eye(50), 1.0, (0.5, 1.0, 1.5))
    truth = [np.linalg.svd(np.eye(50) + b * w, compute_uv=False)[-1] for b in (0.5, 1.0, 1.5)]
    assert full == 1
    worst = int(np.argmin(truth))
    assert found.low[worst] == pytest.approx(truth[worst], rel=SIX_DIGITS)


def test_most_points_of_an_ordinary_layer_need_no_full_solver() -> None:
    w = np.random.default_rng(0).standard_normal((200, 200)) / np.sqrt(200)
    assert iterate(w, np.eye(200), 1.0, BETAS[1:])[1] <= 2


@pytest.mark.parametrize("shape", [(SMALL + 20, SMALL + 20), (SMALL + 50, SMALL + 1), (5, 9), (9, 5), (1, 1)])
def test_dense_layers(shape: tuple[int, int]) -> None:
    w = np.random.default_rng(1).standard_normal(shape) / np.sqrt(shape[1])
    betas = (0.0, 0.5, 1.0, 2.0)
    for matrix in (w, w.T.copy()):
        found = curve_of(DenseMap(torch.from_numpy(matrix), "f64"), "rectangular-identity", 0.7, betas)
        truths = [np.linalg.svd(0.7 * np.eye(*matrix.shape) + b * matrix, compute_uv=False) for b in betas]
        assert_extremes(np.array(found.sigma_max), np.array(found.sigma_min), truths)
        assert (found.sigma_max[0], found.sigma_min[0], found.condition_number[0]) == (0.7, 0.7, 1.0)
        for top, low, kappa in zip(found.sigma_max, found.sigma_min, found.condition_number, strict=True):
            assert kappa == pytest.approx(top / low)


def test_default_grid() -> None:
    assert len(BETAS) == 33
    assert (BETAS[0], BETAS[16], BETAS[-1]) == (0.0, 1.0, 2.0)


@pytest.mark.parametrize("n", [8, SMALL + 8])
def test_a_singular_point_has_no_condition_number(n: int) -> None:
    found = curve_of(DenseMap(-torch.eye(n, dtype=torch.float64), "f64"), "identity", 1.0, (2.0, 0.5, 1.0))
    assert found.beta == (0.5, 1.0, 2.0)
    assert found.sigma_min == pytest.approx((0.5, 0.0, 1.0), abs=1e-12)
    assert found.condition_number[1] is None
    assert found.condition_number[0] == pytest.approx(1.0)
    assert found.condition_number[2] == pytest.approx(1.0)


def test_what_is_below_the_storage_floor_has_no_condition_number() -> None:
    rng = np.random.default_rng(0)
    w = torch.from_numpy(with_spectrum(np.r_[np.linspace(2, 1, 19), 1e-4], 20, 20) - np.eye(20))
    stored = w + 1e-4 * torch.from_numpy(rng.standard_normal((20, 20)))
    found = curve_of(DenseMap(stored.to(torch.bfloat16), "bf16"), "identity", 1.0, (0.5, 1.0))
    assert found.condition_number[0] is not None
    assert found.condition_number[1] is None


def test_without_the_skip_only_the_scale_changes() -> None:
    w = np.random.default_rng(2).standard_normal((6, 6))
    found = curve_of(DenseMap(torch.from_numpy(w), "f64"), "identity", 0.0, (0.0, 0.5, 2.0))
    truth = np.linalg.svd(w, compute_uv=False)
    assert found.sigma_max == pytest.approx((0, truth[0] / 2, truth[0] * 2))
    assert found.condition_number[0] is None
    assert found.condition_number[1] == pytest.approx(truth[0] / truth[-1])


def test_where_there_is_no_curve() -> None:
    w = torch.ones(3, 3)
    assert skip_curve(DenseMap(w, "f32"), "none", 1.0, BETAS, CPU) is None
    assert skip_curve(LowRankMap(w, w, 1.0, "f32"), "identity", 1.0, BETAS, CPU) is None
    for bad in (torch.nan, torch.inf):
        broken = w.clone()
        broken[1, 2] = bad
        assert skip_curve(DenseMap(broken, "f32"), "identity", 1.0, BETAS, CPU) is None


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_scales(scale: float) -> None:
    w = np.random.default_rng(3).standard_normal((6, 6))
    found = curve_of(DenseMap(torch.from_numpy(w * scale), "f64"), "identity", 1.0, (1.0,))
    expected = 1.0 if scale < 1 else np.linalg.norm(w, 2) * scale
    assert found.sigma_max[0] == pytest.approx(expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("small", [0, SMALL], ids=["iterated", "direct"])
def test_convolutions(small: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.spectra.curve.SMALL", small)
    rng = np.random.default_rng(4)
    width, grid, betas = 3, (5, 4), (0.0, 0.4, 1.0, 2.0)
    kernel = torch.from_numpy(rng.standard_normal((groups * width, width, 3, 3)) / 5)
    linear = ConvolutionMap(kernel.reshape(groups, width, width, 3, 3), (1, 1), (1, 1), grid, "f64", (1, 1))
    found = curve_of(linear, "identity", 1.0, betas)
    dense = dense_convolution(kernel, grid, 1, 1, groups)
    truths = [np.linalg.svd(np.eye(len(dense)) + b * dense, compute_uv=False) for b in betas]
    assert_extremes(np.array(found.sigma_max), np.array(found.sigma_min), truths)


@pytest.mark.parametrize(("out", "inn"), [(3, 3), (2, 3), (4, 2), (9, 2)])
@pytest.mark.parametrize("small", [0, SMALL], ids=["iterated", "direct"])
def test_strided_convolutions(small: int, out: int, inn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.spectra.curve.SMALL", small)
    rng = np.random.default_rng(6)
    grid, betas = (4, 6), (0.0, 0.4, 1.0)
    kernel = torch.from_numpy(rng.standard_normal((out, inn, 3, 3)) / 5)
    linear = ConvolutionMap(kernel[None], (2, 2), (1, 1), grid, "f64", (1, 1))
    found = curve_of(linear, "average-pool", 1.0, betas)
    dense, pool = dense_convolution(kernel, grid, 2, 1), dense_pool(out, inn, grid, 2)
    truths = [np.linalg.svd(pool + b * dense, compute_uv=False) for b in betas]
    assert len(truths[0]) == out * prod(grid) // 4 or out > 4 * inn
    assert_extremes(np.array(found.sigma_max), np.array(found.sigma_min), truths)
    if out <= inn:
        assert (found.sigma_max[0], found.sigma_min[0]) == (1.0, 1.0)


def _sharpened(w: Array) -> tuple[SkipCurve, SkipCurve]:
    """Return κ of I + βW on the grid of β, and with up to 64 more points where a peak may be hidden."""
    linear = DenseMap(torch.from_numpy(w), "f64")
    coarse = skip_curve(linear, "identity", 1.0, BETAS, Plan("cpu"))
    assert coarse is not None
    norm, curve = float(np.linalg.norm(w, 2)), coarse
    while len(curve.beta) < 97 and (places := doubtful_places(curve, norm, 8, 2 / 1024)):
        more = skip_curve(linear, "identity", 1.0, places, Plan("cpu"))
        assert more is not None
        curve = joined(curve, more)
    return coarse, curve


@pytest.mark.parametrize("pole", [0.53, 1.22, 1.97])
def test_a_peak_between_two_points_is_found(pole: float) -> None:
    q = orthonormal(12, 12, np.random.default_rng(1))
    values = np.append(np.linspace(0.2, 1.0, 11), -1 / pole)
    w = q @ np.diag(values) @ q.T  # I + βW is singular at β = pole, and well conditioned elsewhere
    coarse, fine = _sharpened(w)
    known = [kappa for kappa in coarse.condition_number if kappa is not None]
    assert max(known) < 250
    lowest = int(np.argmin(fine.sigma_min))
    assert fine.beta[lowest] == pytest.approx(pole, abs=2 / 1024)
    assert fine.sigma_min[lowest] < 0.1 * min(coarse.sigma_min)
    assert set(coarse.beta) < set(fine.beta)
    assert list(fine.beta) == sorted(set(fine.beta))
    for beta, top, low in zip(fine.beta, fine.sigma_max, fine.sigma_min, strict=True):
        truth = np.linalg.svd(np.eye(12) + beta * w, compute_uv=False)
        assert (top, low) == pytest.approx((truth[0], truth[-1]), rel=1e-6, abs=1e-9)


def test_no_point_is_added_where_no_peak_can_be() -> None:
    w = with_spectrum(
        np.linspace(0.1, 0.3, 10), 10, 10, seed=2
    )  # ‖W‖ = 0.3: σmin is at least 0.4 up to β = 2
    coarse, fine = _sharpened(w)
    assert fine == coarse
    assert doubtful_places(coarse, 0.0, 8, 0.001) == ()
