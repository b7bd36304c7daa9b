"""The numbers of one pair of layers against dense numpy and constructed truth."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specinspect.comparison import leading as leading_module
from specinspect.comparison.leading import largest, leading
from specinspect.comparison.measure import PairJob, compare_layers, run_pair
from specinspect.comparison.model import LayerComparison
from specinspect.comparison.order import kappa_change, movement
from specinspect.engine import Job, layers_job, open_source, run_job
from specinspect.report.model import LayerResult
from specinspect.settings import Settings
from specinspect.spectra.plan import Plan
from tests.comparison.truth import Matrix, build, circular, compared, orthogonal, pair

RNG = np.random.default_rng


def check_against_numpy(found: LayerComparison, a: Matrix, b: Matrix) -> None:
    """Compare norms and distances with full decompositions."""
    d, s_a, s_b = b - a, *(np.linalg.svd(w, compute_uv=False) for w in (a, b))
    of = float(np.linalg.norm(a, 2))
    difference = found.difference
    assert difference.status == "computed"
    assert difference.spectral_norm == pytest.approx(np.linalg.norm(d, 2), rel=1e-8, abs=1e-14 * of)
    assert difference.relative_spectral_norm == pytest.approx(np.linalg.norm(d, 2) / of, rel=1e-8, abs=1e-14)
    assert difference.frobenius_norm == pytest.approx(np.linalg.norm(d), rel=1e-9, abs=1e-14 * of)
    assert difference.relative_frobenius_norm == pytest.approx(
        np.linalg.norm(d) / np.linalg.norm(a), rel=1e-9, abs=1e-14
    )
    apart = np.linalg.norm(s_a - s_b) / np.linalg.norm(s_a)
    assert found.spectral_distance["weight"] == pytest.approx(apart, abs=1e-7)


@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    seed=st.integers(0, 2**16),
    size=st.sampled_from([1e-9, 1e-3, 1.0, 30.0]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
@settings(max_examples=25)
def test_any_pair(m: int, n: int, seed: int, size: float, dtype: Any) -> None:
    rng = RNG(seed)
    a = rng.standard_normal((m, n)).astype(dtype)
    b = (a + size * rng.standard_normal((m, n))).astype(dtype)
    if np.array_equal(a, b):
        b[0, 0] += 1
    found = pair(a, b)
    check_against_numpy(found, a.astype(np.float64), b.astype(np.float64))
    relative = found.difference.relative_frobenius_norm
    distance = found.spectral_distance["weight"]
    assert relative is not None and distance is not None  # noqa: PT018
    assert distance <= relative * (1 + 1e-9) + 1e-12  # MATH R6


@pytest.mark.parametrize("shape", [(700, 400), (400, 700), (500, 500)])
def test_large_layers_take_the_krylov_path(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = leading_module.leading

    def counted(gram: torch.Tensor, k: int, tolerance: float, seed: int = 0) -> Any:
        found = original(gram, k, tolerance, seed)
        calls.append(k)
        assert found is not None
        return found

    monkeypatch.setattr(leading_module, "leading", counted)
    rng = RNG(1)
    a = rng.standard_normal(shape)
    b = a + 0.05 * rng.standard_normal(shape)
    found = pair(a, b)
    assert sorted(calls) == [1, 8, 8]
    check_against_numpy(found, a, b)
    check_overlap(found, a, b)


def check_overlap(found: LayerComparison, a: Matrix, b: Matrix) -> None:
    """Compare with the singular vectors of full decompositions."""
    (u_a, _, v_a), (u_b, _, v_b) = np.linalg.svd(a), np.linalg.svd(b)
    k = found.overlap.k
    assert found.overlap.status == "computed"
    assert k is not None
    left = np.linalg.norm(u_a[:, :k].T @ u_b[:, :k]) ** 2 / k
    right = np.linalg.norm(v_a[:k] @ v_b[:k].T) ** 2 / k
    assert found.overlap.left == pytest.approx(left, abs=1e-6)
    assert found.overlap.right == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize(("m", "n"), [(30, 20), (20, 30), (24, 24), (5, 9), (2, 2), (300, 7)])
def test_overlap_is_that_of_full_decompositions(m: int, n: int) -> None:
    rng = RNG(m * 100 + n)
    a = rng.standard_normal((m, n))
    b = a + 0.4 * rng.standard_normal((m, n))
    check_overlap(pair(a, b), a, b)


@pytest.mark.parametrize("angle", [0.01, 0.3, 1.0, np.pi / 2])
@pytest.mark.parametrize("n", [20, 300])
def test_rotated_singular_vectors_have_the_overlap_of_their_angle(angle: float, n: int) -> None:
    u, v = orthogonal(n, 1), orthogonal(n, 2)
    values = np.concatenate([np.linspace(10, 5, 8), np.linspace(1, 0.5, n - 8)])
    # One of the eight leading left vectors turns towards one that is not leading.
    turned = u.copy()
    turned[:, 3] = np.cos(angle) * u[:, 3] + np.sin(angle) * u[:, 12]
    turned[:, 12] = np.cos(angle) * u[:, 12] - np.sin(angle) * u[:, 3]
    found = pair(build(n, n, values, u, v), build(n, n, values, turned, v))
    assert found.overlap.k == 8
    assert found.overlap.left == pytest.approx((7 + np.cos(angle) ** 2) / 8, abs=1e-9)
    assert found.overlap.right == pytest.approx(1.0, abs=1e-9)
    assert found.overlap.gap_a == pytest.approx(0.4, abs=1e-9)
    assert found.spectral_distance["weight"] == pytest.approx(0.0, abs=1e-9)


def test_vectors_that_turn_among_themselves_span_the_same() -> None:
    u, v = orthogonal(20, 1), orthogonal(20, 2)
    values = np.concatenate([np.linspace(10, 5, 8), np.linspace(1, 0.5, 12)])
    mixed = u.copy()
    mixed[:, :8] = u[:, :8] @ orthogonal(8, 3)
    found = pair(build(20, 20, values, u, v), build(20, 20, values, mixed, v))
    assert found.overlap.left == pytest.approx(1.0, abs=1e-9)


def test_no_overlap_without_a_gap() -> None:
    u, v = orthogonal(20, 1), orthogonal(20, 2)
    values = np.linspace(10, 1, 20)
    values[8] = values[7]
    a = build(20, 20, values, u, v)
    found = pair(a, a + 1e-3 * RNG(0).standard_normal((20, 20)))
    assert found.overlap.status == "no_gap"
    assert (found.overlap.left, found.overlap.right, found.overlap.least) == (None, None, None)
    assert found.overlap.k == 8


def test_a_gap_below_the_rounding_of_the_stored_dtype_is_none() -> None:
    u, v = orthogonal(64, 1), orthogonal(64, 2)
    values = np.linspace(10, 1, 64)
    values[8] = values[7] * (1 - 1e-4)  # bfloat16 has eight bits
    a = torch.from_numpy(build(64, 64, values, u, v))
    b = a + 1e-4 * torch.from_numpy(RNG(0).standard_normal((64, 64)))
    assert pair(a, b).overlap.status == "computed"
    assert pair(a, b.to(torch.bfloat16)).overlap.status == "no_gap"


def test_steep_leading_values_are_still_told_apart() -> None:
    n = 300  # beyond what the Gram matrix resolves: the decomposition takes over
    u, v = orthogonal(n, 1), orthogonal(n, 2)
    values = np.concatenate([10.0 ** -np.arange(8), np.full(n - 8, 1e-9)])
    turned = u.copy()
    turned[:, [7, 20]] = turned[:, [20, 7]]
    found = pair(build(n, n, values, u, v), build(n, n, values, turned, v))
    assert found.overlap.left == pytest.approx(7 / 8, abs=1e-5)
    assert found.overlap.right == pytest.approx(1.0, abs=1e-5)


def test_k_is_the_lower_rank() -> None:
    rng = RNG(5)
    a = rng.standard_normal((30, 3)) @ rng.standard_normal((3, 20))
    b = a + 0.1 * rng.standard_normal((30, 3)) @ rng.standard_normal((3, 20))
    found = pair(a, b)
    assert found.overlap.k == 3
    check_overlap(found, a, b)


def test_a_low_rank_update_shows_as_one() -> None:
    rng = RNG(0)
    a = rng.standard_normal((60, 40))
    b = a + build(60, 40, [2.0, 1.0], orthogonal(60, 1), orthogonal(40, 2))
    found = pair(a, b)
    assert found.difference.spectral_norm == pytest.approx(2.0)
    assert found.difference.frobenius_norm == pytest.approx(5**0.5)
    assert found.difference.stable_rank == pytest.approx(1.25)


def test_a_large_low_rank_update() -> None:
    rng = RNG(0)
    a = rng.standard_normal((400, 300))
    b = a + build(400, 300, [2.0, 1.0], orthogonal(400, 1), orthogonal(300, 2))
    assert pair(a, b).difference.spectral_norm == pytest.approx(2.0, rel=1e-9)


def test_pruning_that_kills_a_row_makes_kappa_infinite() -> None:
    a = RNG(0).standard_normal((20, 20))
    b = a.copy()
    b[3] = 0
    found = pair(a, b)
    check_against_numpy(found, a, b)
    change = kappa_change(found.a.maps["weight"], found.b.maps["weight"])
    assert change == ("became_infinite", None, None)
    assert kappa_change(found.b.maps["weight"], found.a.maps["weight"]).status == "became_resolved"
    assert movement(found).level == 2
    assert found.b.maps["weight"].numerical_rank == 19


def test_resolved_kappas_are_subtracted() -> None:
    u, v = orthogonal(10, 1), orthogonal(10, 2)
    a, b = (build(10, 10, np.linspace(1, low, 10), u, v) for low in (0.5, 0.25))
    change = kappa_change(*(s.maps["weight"] for s in (pair(a, b).a, pair(a, b).b)))
    assert change.status == "resolved"
    assert change.delta == pytest.approx(2.0)
    assert change.ratio == pytest.approx(2.0)


def test_a_cast_to_bfloat16() -> None:
    a = torch.from_numpy(RNG(0).standard_normal((64, 64))).float()
    b = a.to(torch.bfloat16)
    found = pair(a, b)
    check_against_numpy(found, a.double().numpy(), b.double().numpy())
    assert found.dtype_changed
    assert not found.identical
    # Every entry is off by at most half a unit in the last of eight bits.
    relative = found.difference.relative_frobenius_norm
    assert relative is not None
    assert 0 < relative <= 2.0**-8


def test_equal_values_in_another_dtype_are_zero_and_not_identical() -> None:
    a = torch.from_numpy(RNG(0).standard_normal((16, 16))).to(torch.bfloat16)
    found = pair(a, a.float())
    assert not found.identical
    assert found.difference.spectral_norm == 0.0
    assert found.spectral_distance["weight"] == 0.0
    assert found.overlap.left == found.overlap.right == 1.0


def test_equal_weights_are_exactly_zero_and_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(job: Job) -> tuple[LayerResult, ...]:
        calls.append("run")
        return run_job(job)

    monkeypatch.setattr("specinspect.comparison.measure.run_job", counted)
    a = RNG(0).standard_normal((16, 16))
    found = pair(a, a.copy())
    assert found.identical
    assert calls == ["run"]
    assert found.difference.spectral_norm == found.difference.relative_spectral_norm == 0.0
    assert found.spectral_distance == {"weight": 0.0}
    assert movement(found) == (0, 0.0)


def test_one_bit_is_not_identical() -> None:
    a = RNG(0).standard_normal((16, 16))
    b = a.copy()
    b[3, 4] = np.nextafter(b[3, 4], 9)
    found = pair(a, b)
    assert not found.identical
    assert found.difference.spectral_norm == pytest.approx(abs(b[3, 4] - a[3, 4]), rel=1e-12)


def test_negative_zero_differs_in_bits_not_in_value() -> None:
    a = np.eye(4)
    b = a.copy()
    b[0, 1] = -0.0
    found = pair(a, b)
    assert not found.identical
    assert found.difference.spectral_norm == 0.0


@pytest.mark.parametrize("side", ["A", "B", "both", "same"])
def test_nan(side: str) -> None:
    a, b = np.eye(4), 2 * np.eye(4)
    if side in {"A", "both", "same"}:
        a[0, 0] = np.nan
    if side in {"B", "both"}:
        b[1, 1] = np.nan
    found = pair(a, a.copy() if side == "same" else b)
    assert found.difference.status == "nonfinite_weights"
    assert found.difference.spectral_norm is None
    assert found.overlap.status == "nonfinite_weights"
    assert found.spectral_distance["weight"] is None
    assert found.identical == (side == "same")
    assert movement(found).level == (0 if side == "same" else 4)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_extreme_scales(scale: float) -> None:
    rng = RNG(0)
    a, d = rng.standard_normal((12, 9)), rng.standard_normal((12, 9))
    found = pair(a * scale, (a + d) * scale)
    expected = np.linalg.norm(d, 2) * scale
    assert found.difference.spectral_norm == pytest.approx(expected, rel=1e-9)
    of = found.difference.relative_spectral_norm
    assert of == pytest.approx(np.linalg.norm(d, 2) / np.linalg.norm(a, 2), rel=1e-9)


def test_a_tiny_difference_does_not_vanish_in_squares() -> None:
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[0, 0] = b[0, 0] = 1.0
    b[2, 2] = 1e-200
    assert pair(a, b).difference.spectral_norm == pytest.approx(1e-200, rel=1e-12)


def test_a_pair_can_be_sent_to_another_process(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name, factor in (("a", 1.0), ("b", 3.0)):
        save_file({"fc.weight": factor * torch.eye(4)}, tmp_path / f"{name}.safetensors")
    plan = Plan("cpu")
    sides = [open_source(str(tmp_path / f"{n}.safetensors"), Settings(maps=("weight",))) for n in "ab"]
    a, b = (layers_job(side, side.discovery.layers, plan) for side in sides)
    found = pickle.loads(pickle.dumps(run_pair(pickle.loads(pickle.dumps(PairJob(a, b))))))
    assert found.difference.relative_spectral_norm == 2.0
    assert found.difference == compare_layers(a, b).difference


def test_from_and_to_zero() -> None:
    found = pair(np.zeros((4, 4)), np.eye(4))
    assert found.difference.spectral_norm == 1.0
    assert found.difference.relative_spectral_norm is None
    assert found.spectral_distance["weight"] is None
    assert found.overlap.status == "rank_zero"
    assert movement(found).value == np.inf
    back = pair(np.eye(4), np.zeros((4, 4)))
    assert back.difference.relative_spectral_norm == 1.0
    assert back.spectral_distance["weight"] == 1.0


def test_another_shape() -> None:
    found = pair(np.eye(4, 6), np.eye(4, 7))
    assert found.shape_changed
    assert found.difference.status == found.overlap.status == "shape_changed"
    assert found.spectral_distance["weight"] == 0.0  # four singular values of 1 on both sides
    assert movement(found).level == 3


# Convolutions


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("channels", [(3, 5), (5, 3), (4, 4)])
def test_convolutions_against_the_written_out_operator(k: int, channels: tuple[int, int]) -> None:
    rng = RNG(k)
    a = rng.standard_normal((*channels, k, k))
    b = a + 0.3 * rng.standard_normal(a.shape)
    found = pair(a, b, grid=4)
    assert found.a.layer.kind == "conv2d"
    check_against_numpy(found, circular(a, (4, 4)), circular(b, (4, 4)))
    assert found.overlap.status == "convolution"


def test_strided_convolutions() -> None:
    from specinspect.layers.rules import Rule

    rng = RNG(0)
    a = rng.standard_normal((3, 2, 3, 3))
    b = a + 0.3 * rng.standard_normal(a.shape)
    found = pair(a, b, grid=4, rules=(Rule("layer", stride=(2, 2)),))
    assert found.a.layer.conv is not None
    assert found.a.layer.conv.stride.value == (2, 2)
    check_against_numpy(found, circular(a, (4, 4), 2), circular(b, (4, 4), 2))


def test_kernels_that_differ_far_below_their_scale() -> None:
    a = RNG(0).standard_normal((3, 3, 3, 3))
    b = a.copy()
    b[0, 0, 0, 0] += 1e-9
    found = pair(a, b, grid=4)
    assert found.difference.spectral_norm == pytest.approx(b[0, 0, 0, 0] - a[0, 0, 0, 0], rel=1e-7)


def test_identical_kernels() -> None:
    a = RNG(0).standard_normal((3, 3, 3, 3))
    assert pair(a, a.copy(), grid=4).identical


# Low-rank adapters


def test_adapters_are_compared_as_products() -> None:
    rng = RNG(0)
    names = ("base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight")
    down, up = rng.standard_normal((4, 30)), rng.standard_normal((20, 4))
    moved = up + 0.2 * rng.standard_normal(up.shape)
    (layer,) = compared(
        dict(zip(names, (down, up), strict=True)), dict(zip(names, (down, moved), strict=True))
    ).layers
    assert layer.a.layer.kind == "lora"
    scale = np.linalg.norm(up @ down, 2) / layer.a.maps["weight"].sigma_max
    a, b = up @ down / scale, moved @ down / scale
    assert layer.difference.spectral_norm == pytest.approx(np.linalg.norm(b - a, 2), rel=1e-9)
    assert layer.overlap.k == 4
    check_overlap(layer, a, b)
    assert layer.overlap.right == pytest.approx(1.0)


# The solver


@pytest.mark.parametrize("rank", [0, 1, 5, 40, 400])
def test_leading_pairs_of_any_rank(rank: int) -> None:
    factor = torch.from_numpy(RNG(rank).standard_normal((400, max(rank, 1)))) * (rank > 0)
    gram = factor @ factor.T
    expected = torch.linalg.eigvalsh(gram).flip(0)
    found = leading(gram, 8, 1e-6 * max(1.0, float(expected[0])))
    assert found is not None
    assert torch.allclose(found[0], expected[:8], rtol=1e-6, atol=1e-9)
    assert torch.allclose(found[1].T @ found[1], torch.eye(8, dtype=torch.float64), atol=1e-12)
    assert largest(gram) == pytest.approx(float(expected[0].clamp_min(0)), rel=1e-9, abs=1e-9)


def test_a_spectrum_without_any_gap_still_has_a_largest_value() -> None:
    n = 600
    values = np.linspace(1, 0.999, n)
    q = orthogonal(n, 3)
    gram = torch.from_numpy((q * values) @ q.T)
    assert largest(gram) == pytest.approx(1.0, rel=1e-9)
