"""MATH C, D, R25 and R26 against dense matrices, over every family that has ever broken a bound."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from specinspect.bounds import data, entries, network
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.random_skip import two_pattern_checks
from tests.bounds.layers import adversarial, layer_of, relu_patterns, sigma

Array = NDArray[np.float64]
SIZES = (1, 2, 3, 5, 8, 13)


def kappa(matrix: Array) -> float:
    """Return σ_1 over the smallest σ above rounding (MATH §0)."""
    values = sigma(matrix)
    positive = values[values > 1e-10 * max(values[0], 1e-300)]
    return float(positive[0] / positive[-1]) if len(positive) else 1.0


def small(rng: np.random.Generator, n: int) -> tuple[Array, float]:
    """Return a matrix of a family, scaled so that n times its largest entry c is below 1, and c."""
    families = [w for _, w in adversarial(n, rng) if np.abs(w).max() > 0]
    w = families[int(rng.integers(len(families)))]
    c = rng.uniform(0, 1 / n) ** rng.choice([1.0, 1.5])
    return w / np.abs(w).max() * c, float(c)


def test_r10_norm_from_the_largest_entry() -> None:
    rng = np.random.default_rng(1)
    compared = 0
    for repeat in range(15):
        for n in SIZES:
            for _, w in adversarial(n, rng):
                c = np.abs(w).max()
                assert sigma(w)[0] <= entries.largest_sigma(c, n, n) * (1 + 1e-12) + 1e-300
                part = w[: 1 + repeat % n]
                part_c = np.abs(part).max()
                assert sigma(part)[0] <= entries.largest_sigma(part_c, *part.shape) * (1 + 1e-12) + 1e-300
                # A product with patterns in between, as large as the largest entry allows.
                d = rng.uniform(-1, 1, n)
                assert (
                    sigma(w @ (d[:, None] * w))[0] <= entries.largest_sigma(c, n, n, 2) * (1 + 1e-12) + 1e-300
                )
                compared += 3
    assert compared >= 1000
    assert sigma(np.full((4, 9), 0.3))[0] == pytest.approx(float(entries.largest_sigma(0.3, 4, 9)))  # tight


def test_r11_to_r13_beside_a_skip() -> None:
    """κ((I+W)D) for every pattern, and the order of the bounds: r9 with r11 is never above r12 and r13."""
    rng = np.random.default_rng(2)
    compared = dict.fromkeys(("r11", "r12", "r13"), 0)
    for _ in range(1500):
        n = int(rng.choice(SIZES))
        w, c = small(rng, n)
        n_map = np.eye(n) + w
        hard = float(entries.kappa_from_norm(entries.largest_sigma(c, n, n)))
        values = sigma(n_map)
        a = n * c
        assert 1 - a - 1e-12 <= values[-1]
        assert values[0] <= 1 + a + 1e-12
        d = (rng.random(n) < rng.random()) * 1.0
        signs = rng.choice([-1.0, 1.0], n)
        assert kappa(n_map) <= hard * (1 + 1e-9)
        assert kappa(n_map * signs) <= hard * (1 + 1e-9)
        assert kappa(n_map * d) <= hard * (1 + 1e-9)  # by R9
        compared["r11"] += 5
        zeros = int((d == 0).sum())
        first, second = (float(b) for b in entries.kappa_relu(n, c, zeros))
        assert hard <= second * (1 + 1e-12) <= first * (1 + 1e-11)
        assert kappa(n_map * d) <= second * (1 + 1e-9)
        # (89) and (90) rest on this energy.
        lost = ((sigma(n_map) - sigma(n_map * d)) ** 2).sum()
        assert lost <= zeros * (1 + 2 * c + n * c**2) + 1e-9
        compared["r12"] += 3
        eta = float(rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]))
        leaky = np.where(d == 0, eta, 1.0)
        bound = float(entries.kappa_leaky(n, c, eta, zeros))
        if eta > 0:
            assert kappa(n_map * leaky) <= bound * (1 + 1e-9)
            if zeros:
                assert hard / eta <= bound * (1 + 1e-9)
            compared["r13"] += 2
    assert min(compared.values()) >= 1000


def test_r12_and_r13_say_something_somewhere() -> None:
    first, second = entries.kappa_relu(10, 0.001, 3)
    assert 1 < float(second) < float(first) < 2
    assert float(entries.kappa_leaky(10, 0.001, 0.95, 1)) < 1.2
    assert np.isinf(entries.kappa_relu(10, 0.11, 0)[0])
    assert np.isinf(entries.kappa_leaky(10, 0.001, 0.0, 5))


@pytest.mark.parametrize(("rho", "beta"), [(1.0, 1.0), (0.5, 2.0), (-1.0, 1.0), (2.0, -0.3), (1e-3, 1e3)])
def test_checks_of_layers_are_never_violated(rho: float, beta: float) -> None:
    rng = np.random.default_rng(3)
    seen: dict[tuple[str, str], int] = {}
    for _ in range(60):
        for n in (2, 5, 9):
            w, c = small(rng, n)
            if rng.random() < 0.3:
                w, c = w[: n // 2 + 1], c
            w *= abs(rho / beta) * rng.choice([1.0, 1.0, 1.0, 1.0, 30.0])
            slope = float(rng.choice([0.0, 0.2]))
            layer = layer_of(w, rho=rho, beta=beta, diagonals=relu_patterns(len(w), 3, rng, slope))
            for check in (*entries.checks(layer), *two_pattern_checks(layer)):
                assert check.verdict != "violated", (check, w)
                key = (check.id, check.verdict)
                seen[key] = seen.get(key, 0) + 1
    for name in ("r10", "r11", "r12.90", "r25"):
        assert seen[name, "holds"] > 0
    assert {"r11", "r12.89", "r25"} <= {name for name, verdict in seen if verdict == "vacuous"}


def by_id(checks: tuple[BoundCheck, ...], name: str) -> list[BoundCheck]:
    return [check for check in checks if check.id == name]


def test_r11_by_hand() -> None:
    w = np.full((4, 4), 0.1)
    skip, chain = by_id(entries.checks(layer_of(w, diagonals=[np.array([1.0, 0, 0, 1])])), "r11")
    assert skip.verdict == chain.verdict == "holds"
    assert (skip.value, skip.bound) == (pytest.approx(1.4), pytest.approx(1.4 / 0.6))
    assert skip.slack == pytest.approx(0.4)
    assert (chain.of, chain.bound) == ("skip_chain", pytest.approx(1.4 / 0.6))
    (wide,) = by_id(entries.checks(layer_of(3 * w)), "r11")
    assert (wide.verdict, wide.bound) == ("vacuous", None)
    assert "it is 1.2" in wide.why


def test_a_layer_without_a_skip_map_is_not_asked_about_one() -> None:
    layer = layer_of(np.eye(3), rho=0.0)
    assert {c.verdict for c in by_id(entries.checks(layer), "r11")} == {"not_applicable"}


def test_r25_sure_step_over_all_families() -> None:
    """σ_i(ρI+βDW) >= σ_n(ρI+βW) - |β|·√(Σ(1-d_j)²‖w_j‖²), any diagonal, every i."""
    rng = np.random.default_rng(4)
    compared = 0
    for _ in range(14):
        for n in SIZES:
            for _, w in adversarial(n, rng):
                rho, beta = rng.normal(size=2)
                d = rng.normal(size=n) if rng.random() < 0.5 else (rng.random(n) < 0.8) * 1.0
                gap = abs(beta) * np.linalg.norm((1 - d)[:, None] * w)
                before, after = (sigma(rho * np.eye(n) + beta * m) for m in (w, d[:, None] * w))
                scale = abs(rho) + abs(beta) * np.linalg.norm(w)
                assert after[-1] >= before[-1] - gap - 1e-12 * scale
                compared += 1
    assert compared >= 1000


# The data factor


def given(inputs: Array, dtype: torch.dtype = torch.float64) -> data.LayerInputs:
    return data.LayerInputs.of(torch.from_numpy(np.asarray(inputs, float)).to(dtype))


def jacobian(m: Array, inputs: Array) -> Array:
    """Return d(M W z)/d vec(W), row-wise, for all inputs under each other."""
    return np.concatenate([np.kron(m, z[None]) for z in inputs])


def test_r14_is_exact_and_the_paper_s_formula_is_not() -> None:
    rng = np.random.default_rng(5)
    wrong = agreed = compared = 0
    for _ in range(400):
        k, m, n, count = (int(x) for x in rng.integers(1, 5, 4))
        head = rng.standard_normal((k, m))
        inputs = rng.standard_normal((count, n)) * rng.uniform(0.1, 3, n)
        exact = kappa(jacobian(head, inputs))
        assert exact == pytest.approx(kappa(head) * given(inputs).factor, rel=1e-7)
        single = jacobian(head, inputs[:1])
        assert kappa(single) == pytest.approx(kappa(head), rel=1e-7)  # one sample has no data factor
        assert sigma(single)[0] == pytest.approx(sigma(head)[0] * np.linalg.norm(inputs[0]))
        assert given(inputs[:1]).factor == 1
        compared += 3
        if n > 1:
            proxy = kappa(head) * given(inputs[:1]).proxy
            wrong += abs(proxy / kappa(single) - 1) > 1e-3
            agreed += 1
    assert compared >= 1000
    assert wrong >= 0.99 * agreed  # P0 (8), (54): refuted by generic inputs


def test_r14_bounds_different_maps() -> None:
    rng = np.random.default_rng(6)
    for _ in range(1000):
        k, n, count = int(rng.integers(2, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 5))
        m = int(rng.integers(1, k + 1))
        heads = [rng.standard_normal((k, m)) * rng.uniform(0.2, 5) for _ in range(count)]
        inputs = rng.standard_normal((count, n))
        whole = np.concatenate([np.kron(h, z[None]) for h, z in zip(heads, inputs, strict=True)])
        top, bottom = max(sigma(h)[0] for h in heads), min(sigma(h)[-1] for h in heads)
        assert kappa(whole) <= top / bottom * given(inputs).factor * (1 + 1e-7)


def test_the_proxy_agrees_where_features_are_orthogonal() -> None:
    inputs = np.diag([3.0, 1.0, 0.5])
    assert given(inputs).factor == pytest.approx(6)
    assert given(inputs).proxy == pytest.approx(6)


def test_factor_and_rank_of_inputs_of_every_scale_and_rank() -> None:
    rng = np.random.default_rng(15)
    for _ in range(200):
        rows, columns = (int(x) for x in rng.integers(1, 12, 2))
        rank = int(rng.integers(1, min(rows, columns) + 1))
        left, right = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in (rows, columns))
        values = np.sort(10 ** rng.uniform(-5, 0, rank))[::-1]
        inputs = left * values @ right.T * 10.0 ** rng.choice([-200, -3, 0, 5, 200])
        found = given(inputs)
        assert (found.count, found.size, found.rank) == (rows, columns, rank)
        assert found.factor == pytest.approx(values[0] / values[-1], rel=1e-6)


def test_what_is_within_the_rounding_of_the_inputs_is_no_direction() -> None:
    """float32 noise of a rank-deficient batch is not taken for a feature that is hard to learn."""
    rng = np.random.default_rng(16)
    inputs = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 9))
    found = given(inputs, torch.float32)
    assert found.rank == 6
    assert found.factor == pytest.approx(kappa(inputs), rel=1e-5)
    noisy = given(inputs.astype(np.float32))  # the same numbers, taken to be exact
    assert noisy.rank == 9
    assert noisy.factor > 1e5
    assert "above the rounding of bfloat16" in given(np.ones((200, 3)), torch.bfloat16).why_not


def test_data_checks() -> None:
    assert data.checks(None) == ()
    inputs = np.array([[1.0, 1.0], [1.0, 1.001]])
    exact, proxy = data.checks(given(inputs))
    assert (exact.id, exact.verdict) == ("r14", "holds")
    assert exact.value == pytest.approx(np.linalg.cond(inputs))
    assert (proxy.id, proxy.verdict) == ("r14.proxy", "not_applicable")
    assert proxy.bound == pytest.approx(1, abs=1e-3)
    assert "P0 diagonal-feature proxy" in proxy.why
    (zero,) = data.checks(given(np.zeros((3, 2))))
    assert (zero.verdict, zero.why) == ("not_applicable", "every input is zero")
    (nan,) = data.checks(given(np.array([[1.0, np.nan]])))
    assert (nan.verdict, nan.value) == ("not_applicable", None)
    (few, _) = data.checks(given(np.ones((3, 2))))
    assert "3 inputs of this layer (of rank 1, the rest within rounding)" in few.why


# A stack of residual layers


def test_r26_over_all_families() -> None:
    rng = np.random.default_rng(7)
    compared = 0
    for _ in range(400):
        n, depth = int(rng.choice(SIZES)), int(rng.integers(2, 6))
        families = [w for _, w in adversarial(n, rng)]
        factors = []
        for _ in range(depth):
            w = families[int(rng.integers(len(families)))] * rng.uniform(0, 1)
            d = rng.choice([0.0, 0.3, 1.0, -1.0], n)
            factors.append(np.eye(n) + d[:, None] * w)
        kappas = [np.linalg.cond(f) for f in factors]
        if not all(k < 1e4 for k in kappas):
            continue
        product = np.linalg.multi_dot(factors)
        bound = network.product_bound(kappas)
        assert np.linalg.cond(product) <= bound * (1 + 1e-8)
        assert sigma(product)[-1] >= np.prod([sigma(f)[-1] for f in factors]) * (1 - 1e-8)
        d0 = (rng.random(n) < 0.6) * 1.0
        assert kappa(product * d0) <= np.linalg.cond(product) * (1 + 1e-8)
        compared += 3
    assert compared >= 1000


def test_r26_speaks_of_real_skips_only() -> None:
    def factor(name: str, width: int | None = 8, real: bool = True, kappa: float = 2.0) -> network.Factor:
        return network.Factor(name, width, real, network.Extremes(kappa, 1.0, kappa))

    (check,) = network.checks([factor("a"), factor("b", kappa=3.0), factor("c")])
    assert (check.id, check.verdict, check.bound) == ("r26", "holds", pytest.approx(12))
    assert "a … c" in check.why
    (check,) = network.checks([factor("a", real=False), factor("b", real=False)])
    assert (check.verdict, check.bound) == ("not_applicable", None)
    assert "no model or configuration" in check.why
    (check,) = network.checks([factor("a"), factor("b", real=False), factor("c", width=9), factor("d")])
    assert check.verdict == "not_applicable"
    assert "no two consecutive" in check.why
    two = network.checks([factor("a"), factor("b"), factor("c", width=4), factor("d", width=4)])
    assert [c.bound for c in two] == [pytest.approx(4), pytest.approx(4)]
    (check,) = network.checks([factor("a"), factor("b", kappa=inf)])
    assert (check.verdict, check.bound) == ("not_applicable", None)
    assert "b is singular" in check.why
    (check,) = network.checks([factor(str(i), kappa=1e300) for i in range(3)])
    assert check.verdict == "vacuous"
