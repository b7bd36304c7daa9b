"""MATH E: formulas against other ways to them, and coverage by simulation."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad, solve_ivp
from scipy.special import airy, itairy

from specinspect.bounds import random_matrix as rm
from specinspect.bounds.tracy_widom import tail, upper_quantile
from tests.bounds.layers import eigenvalues_of_symmetric_part, relu_patterns, sigma

Array = NDArray[np.float64]


# Tracy-Widom


@lru_cache(maxsize=1)
def painleve() -> Callable[[float], float]:
    """Return F1 by way of Painlevé II: F1(s) = exp(-½∫(q + (x-s)q²)dx), q'' = sq + 2q³, q ~ Ai."""
    start, end = 10.0, -4.0
    ai, slope, _, _ = airy(start)
    state = [ai, slope, 0.0, slope**2 - start * ai**2, 1 / 3 - itairy(start)[0]]

    def step(s: float, y: Array) -> list[float]:
        q, dq, _, square, _ = y
        return [dq, s * q + 2 * q**3, -square, -(q**2), -q]

    found = solve_ivp(step, (start, end), state, method="DOP853", rtol=1e-12, atol=1e-30, dense_output=True)
    assert found.success
    return lambda s: float(np.exp(-0.5 * (found.sol(s)[4] + found.sol(s)[2])))


@pytest.mark.parametrize("s", [-3.5, -2.0, -1.26857, 0.0, 0.45014, 2.0, 4.0])
def test_tracy_widom_by_the_determinant_and_by_painleve(s: float) -> None:
    assert 1 - tail(s) == pytest.approx(painleve()(s), abs=1e-8)


@pytest.mark.parametrize(
    ("probability", "quantile"),
    [(0.5, -1.26857), (0.9, 0.45014), (0.95, 0.97932), (0.99, 2.02345), (0.995, 2.42233), (0.999, 3.27220)],
)
def test_tracy_widom_quantiles(probability: float, quantile: float) -> None:
    assert upper_quantile(1 - probability) == pytest.approx(quantile, abs=6e-6)
    assert painleve()(quantile) == pytest.approx(probability, abs=5e-6)


def test_the_far_tail_keeps_its_digits() -> None:
    """1 - F1(s) ~ e^{-⅔s^{3/2}}/(4√π s^{3/4}): ½∫Ai, the trace of the determinant's kernel."""
    for s in (8.0, 20.0, 60.0):
        trace = quad(lambda x: airy(x)[0] / 2, s, s + 30 / np.sqrt(s), epsabs=0, epsrel=1e-10)[0]
        assert tail(s) == pytest.approx(trace, rel=1e-6)
        assert upper_quantile(tail(s)) == pytest.approx(s, abs=1e-6)
    assert upper_quantile(1e-300) < 100
    assert upper_quantile(1 - 1e-13) == -8.0


# Limits


def test_limits_at_known_scales() -> None:
    assert float(rm.limit_121(0.25)) == pytest.approx(2.585, abs=5e-4)
    assert float(rm.limit_122(0.25)) == pytest.approx(2.772, abs=5e-4)
    assert float(rm.limit_nr(0.25)) == pytest.approx(2.164, abs=5e-4)
    assert float(rm.limit_kappa(0.25)) == pytest.approx(2.061, abs=5e-4)
    assert float(rm.limit_kappa(0.3)) == pytest.approx(2.404, abs=5e-4)
    # MATH prints 6.52, the quotient of its rounded 1.886 and 0.289: it is 6.532.
    assert float(rm.limit_kappa(1 / np.sqrt(3))) == pytest.approx(6.532, abs=5e-4)
    high, low = rm.limit_extremes(1 / np.sqrt(3))
    assert (float(high), float(low)) == pytest.approx((1.886, 0.289), abs=5e-4)


def test_limits_end_where_they_end() -> None:
    assert np.isinf(rm.limit_121(np.array([1 / np.sqrt(8), 0.5, 2]))).all()
    assert np.isinf(rm.limit_nr(np.array([1 / np.sqrt(2), 2]))).all()
    assert np.isinf(rm.limit_kappa(np.array([1.0, 1.5]))).all()
    high, low = rm.limit_extremes(np.array([0.0, 1 - 1e-9, 1.0, 1 + 1e-9, 3.0]))
    assert (high[0], low[0]) == pytest.approx((1, 1), abs=1e-7)
    assert high[1:4] == pytest.approx(np.sqrt(6.75), rel=1e-6)
    assert (low[1:] < 1e-3).all()
    assert high[4] > 2 * 3.0
    assert rm.limit_extremes(np.array([1e6, 1e60, 1e90]))[0] == pytest.approx(np.array([2e6, 2e60, 2e90]))


def test_no_limit_lies_below_the_exact_one() -> None:
    c = np.linspace(0.01, 0.99, 99)
    exact = rm.limit_kappa(c)
    for bound in (rm.limit_121(c), rm.limit_122(c), rm.limit_nr(c)):
        assert (bound >= exact * (1 - 1e-12)).all()


@pytest.mark.parametrize("c", [0.1, 0.3, 1 / np.sqrt(3), 0.8, 1.5])
def test_the_exact_limit_is_where_large_matrices_are(c: float) -> None:
    n = 600
    rng = np.random.default_rng(5)
    values = sigma(np.eye(n) + c / np.sqrt(n) * rng.standard_normal((n, n)))
    high, low = rm.limit_extremes(c)
    # The edges of a finite spectrum are off by about n^{-2/3} = 0.014 of its width, times a few.
    assert values[0] == pytest.approx(float(high), abs=0.04 * (1 + c))
    assert values[-1] == pytest.approx(float(low), abs=0.04 * (1 + c))


def test_constants_of_all_patterns() -> None:
    assert float(rm.pattern_constant(0.0, 1.0)) == pytest.approx(1.51136, abs=5e-6)
    assert float(rm.pattern_constant(-1.0, 1.0)) == pytest.approx(1.80921, abs=5e-6)
    assert float(rm.pattern_constant(1.0, 1.0)) == pytest.approx(np.sqrt(2))
    # a² = E max_d (g + dh)², by sampling.
    rng = np.random.default_rng(3)
    g, h = rng.standard_normal((2, 400_000))
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.1, 1.0), (-0.3, 0.4)):
        sampled = float(np.maximum((g + low * h) ** 2, (g + high * h) ** 2).mean())
        assert float(rm.pattern_constant(low, high)) ** 2 == pytest.approx(sampled, rel=0.01)
    # Beyond 1, D = 2·(D/2).
    twice = rm.tau_all_patterns(64, 0.5, 0.01, 0.0, 2.0)
    assert float(twice) == pytest.approx(2 * float(rm.tau_all_patterns(64, 0.5, 0.01, 0.0, 1.0)))


# Coverage

DELTA = 0.1


@lru_cache(maxsize=8)
def simulated(n: int, uniform: bool) -> tuple[Array, Array, Array, Array]:
    """Return τmax(W), -τmin(W), σ_1(W), κ(I+W/4) of W with c = 1."""
    rng = np.random.default_rng([n, uniform, 1])
    trials = {32: 1000, 128: 300, 512: 24}[n]
    found = []
    for _ in range(trials):
        w = rng.uniform(-np.sqrt(3), np.sqrt(3), (n, n)) if uniform else rng.standard_normal((n, n))
        w /= np.sqrt(n)
        tau = eigenvalues_of_symmetric_part(w)
        # Extremes by the Gram matrix: these matrices are well-conditioned.
        plus = np.eye(n) + w / 4
        gram = np.linalg.eigvalsh(plus.T @ plus)
        found.append(
            (tau[0], -tau[-1], np.sqrt(np.linalg.eigvalsh(w.T @ w)[-1]), np.sqrt(gram[-1] / gram[0]))
        )
    columns = np.array(found).T
    return columns[0], columns[1], columns[2], columns[3]


def allowed(delta: float, trials: int) -> float:
    """Return how many failures a coverage of 1 - δ allows, three standard errors included."""
    return delta * trials + 3 * np.sqrt(delta * (1 - delta) * trials)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("n", [32, 128, 512])
def test_coverage(n: int, uniform: bool) -> None:
    """Uniform entries are not covered by R17, R19 and R21's proofs, and hold in simulation."""
    tmax, minus_tmin, top, kappa = simulated(n, uniform)
    trials, few = len(tmax), allowed(DELTA, len(tmax))
    for tau in (tmax, minus_tmin):
        assert (tau > rm.tau_tracy_widom(n, 1.0, DELTA)).sum() <= few  # R16
        assert (tau > rm.tau_gaussian(n, 1.0, DELTA)).sum() <= few  # R17
        assert (tau > rm.tau_all_patterns(n, 1.0, DELTA, 0.0, 1.0)).sum() <= few
    std = 1 / np.sqrt(n)
    assert (top > rm.largest(n, n, std, DELTA)).sum() <= few  # R19
    assert (top > rm.johnstone(n, n, std, DELTA)).sum() <= few  # R20
    third = DELTA / 3
    rigorous = rm.kappa_skip(rm.tau_gaussian(n, 0.25, third), rm.largest(n, n, std / 4, third))
    asymptotic = rm.kappa_skip(rm.tau_tracy_widom(n, 0.25, third), rm.johnstone(n, n, std / 4, third))
    assert asymptotic < rigorous
    assert (kappa > rigorous).sum() <= few  # R21
    assert (kappa > asymptotic).sum() <= few
    # The asymptotic ones are no mere upper bounds: about δ of all fresh layers exceed them.
    if trials >= 200:
        assert (np.maximum(tmax, minus_tmin) > rm.tau_tracy_widom(n, 1.0, 0.3)).mean() > 0.1
        assert (top > rm.johnstone(n, n, std, 0.3)).mean() > 0.1


def worst_pattern_tau(w: Array, low: float, high: float, rng: np.random.Generator) -> float:
    """Return a large τmax(DW) over D with entries in [low, high], by alternating in x and D."""
    best = -np.inf
    for start in (np.ones(len(w)), *relu_patterns(len(w), 2, rng)):
        d = start
        for _ in range(12):
            dw = d[:, None] * w
            values, vectors = np.linalg.eigh(dw + dw.T)
            best = max(best, float(values[-1]))
            x = vectors[:, -1]
            d = np.where(x * (w @ x) > 0, high, low)
    return best


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.1, 1.0)])
def test_no_pattern_escapes_the_bound_on_all(low: float, high: float) -> None:
    rng = np.random.default_rng(11)
    n, trials = 32, 60
    bound = float(rm.tau_all_patterns(n, 1.0, DELTA, low, high))
    fixed = float(rm.tau_tracy_widom(n, 1.0, DELTA))
    found = np.array(
        [worst_pattern_tau(rng.standard_normal((n, n)) / np.sqrt(n), low, high, rng) for _ in range(trials)]
    )
    assert (found > bound).sum() <= allowed(DELTA, trials)
    # Chosen by looking at W, D does escape what holds for a fixed one (a fixed ±1 keeps the law of W).
    if low == -1:
        assert (found > fixed).mean() > 0.5


def test_extremes_of_rectangular_weights() -> None:
    rng = np.random.default_rng(13)
    for m, n in ((64, 16), (16, 64)):
        found = np.array([sigma(rng.standard_normal((m, n)))[[0, -1]] for _ in range(300)])
        few = allowed(DELTA, 300)
        assert 0 < rm.smallest(m, n, 1.0, DELTA) < rm.largest(m, n, 1.0, DELTA)
        assert (found[:, 0] > rm.largest(m, n, 1.0, DELTA)).sum() <= few
        assert (found[:, 0] > rm.johnstone(m, n, 1.0, DELTA)).sum() <= few
        assert (found[:, 1] < rm.smallest(m, n, 1.0, DELTA)).sum() <= few


def test_edelman() -> None:
    rng = np.random.default_rng(17)
    for n, trials in ((32, 800), (96, 150)):
        values = [sigma(rng.standard_normal((n, n))) for _ in range(trials)]
        kappa = np.array([v[0] / v[-1] for v in values])
        for k in (2 * n, 5 * n, 20 * n):
            expected = float(rm.edelman(n, k))
            error = 3 * np.sqrt(expected * (1 - expected) / trials)
            assert (kappa <= k).mean() == pytest.approx(expected, abs=error + 1 / n)


def test_a_skip_beats_the_plain_layer_in_probability_only() -> None:
    """R24: nearly always where the branch is small, and often not where it is large or the layer tiny."""
    rng = np.random.default_rng(19)

    def wins(n: int, c: float) -> int:
        count = 0
        for _ in range(400):
            w = c / np.sqrt(n) * rng.standard_normal((n, n))
            plain, skip = sigma(w), sigma(np.eye(n) + w)
            count += bool(skip[0] / skip[-1] < plain[0] / plain[-1])
        return count

    assert wins(32, 0.25) == 400
    assert (
        400 - wins(4, 2.0) > 100
    )  # the paper's inequality, read as a deterministic one, fails a third of the time


@pytest.mark.parametrize("zeros", [(0, 5), (7, 0), (6, 9)])
def test_excess_of_two_patterns(zeros: tuple[int, int]) -> None:
    """R25: ‖B - N‖_F² = r0 + Y + Z exactly, and Y + Z stays below its bound."""
    rng = np.random.default_rng(23)
    n, c, trials = 24, 0.5, 400
    r0, r1 = zeros
    found = []
    for _ in range(trials):
        w = c / np.sqrt(n) * rng.standard_normal((n, n))
        d0, d1 = np.ones(n), np.ones(n)
        d0[rng.permutation(n)[:r0]] = 0
        d1[rng.permutation(n)[:r1]] = 0
        b, network = np.eye(n) + w, (d1[:, None] * w + np.eye(n)) * d0
        found.append(np.linalg.norm(b - network) ** 2 - r0)
        hit = np.outer(d1, d0) == 0
        # Columns that D0 takes lose all of I + W, others the rows that D1 takes.
        assert found[-1] == pytest.approx(2 * np.diag(w)[d0 == 0].sum() + (w[hit] ** 2).sum(), abs=1e-10)
        assert hit.sum() == n * (r0 + r1) - r0 * r1
        falls = sigma(b)[-1] - max(r0 + float(found[-1]), 0.0) ** 0.5
        kept = sigma(network)[: n - r0]
        assert kept[-1] >= falls - 1e-10
    bound = rm.two_pattern_excess(n, c, zeros, DELTA / 2)
    assert (np.array(found) > bound).sum() <= allowed(DELTA, trials)
