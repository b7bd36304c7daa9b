"""R1 to R5b against dense numpy, over adversarial families; and the papers' claims that are false."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from specinspect.bounds import skip
from specinspect.bounds.model import BoundCheck
from tests.bounds.families import RECTANGULAR, Array, eigenvalues, layers, quantities, values

A_SHAPES = {"square": None, "rectangular": RECTANGULAR}
PAIR_IDS = [f"r3.lower.{name}" for name in skip.LOWER] + [f"r4.{name}" for name in skip.FORMS]


def by_id(checks: tuple[BoundCheck, ...], of: str = "skip") -> dict[str, BoundCheck]:
    return {check.id: check for check in checks if check.of == of}


@pytest.mark.parametrize("shapes", A_SHAPES.values(), ids=A_SHAPES)
def test_no_theorem_is_violated(shapes: tuple[tuple[int, int], ...] | None) -> None:
    rng = np.random.default_rng(1)
    compared: Counter[str] = Counter()
    for round_ in range(3):
        for name, w, rho, beta in layers(shapes):
            scale = float(rng.choice([1.0, 0.3, 1.7]))
            slope = float(rng.choice([0.0, 0.1, -1.0]))
            d = np.where(rng.random((2, len(w))) < 0.5, slope, 1.0)
            for check in skip.checks(quantities(w * scale, rho, beta, d)):
                assert check.verdict != "violated", (name, round_, rho, beta, check)
                if check.verdict == "holds":
                    # R1, R2 compare both sides of all singular values.
                    compared[check.id] += 2 * min(w.shape) if check.id in {"r1", "r1p", "r1pp", "r2"} else 1
    square = shapes is None
    expected = {"r1" if square else "r1pp", "r1p", "r2", "r5", "r3.upper.sharp", "r3.upper.simple", *PAIR_IDS}
    assert set(compared) == expected | ({"r5b"} if square else set())
    if square:
        assert min(compared[id_] for id_ in ("r1", "r1p", "r2", "r3.upper.sharp", "r5", "r5b")) >= 1000
    else:
        assert min(compared[id_] for id_ in ("r1pp", "r1p", "r2")) >= 1000


def test_the_formulas_bound_dense_truth() -> None:
    """The vectorised formulas, apart from the checks: every candidate, every form, at least 1,000 each."""
    rng = np.random.default_rng(2)
    compared: Counter[str] = Counter()
    for _ in range(4):
        for name, w, rho, _beta in layers():
            n = len(w)
            w *= rng.choice([0.01, 0.2, 1.0])
            s, tau = values(w), eigenvalues(np.eye(n), w)
            betas = np.array([-1.5, -0.3, 0.0, 0.1, 0.5, 1.0, 2.0])
            upper = skip.sigma_max_upper(rho, betas, s[0], tau[-1], tau[0])
            lower = skip.sigma_min_lower(rho, betas, s[0], s[-1], tau[-1], tau[0])
            kappa = skip.guaranteed_kappa(rho, betas, s[0], s[-1], tau[-1], tau[0])
            for i, beta in enumerate(betas):
                truth = values(rho * np.eye(n) + beta * w)
                tolerance = 1e-9 * (rho**2 + beta**2 * s[0] ** 2)
                for key in skip.UPPER:
                    assert truth[0] ** 2 <= upper[key][i] ** 2 + tolerance, (name, rho, beta, key)
                    compared[f"upper.{key}"] += 1
                for key in skip.LOWER:
                    assert truth[-1] ** 2 >= lower[key][i] ** 2 - tolerance, (name, rho, beta, key)
                    compared[f"lower.{key}"] += lower[key][i] > 0
                    assert lower["best"][i] >= lower[key][i]
                assert lower["nr"][i] >= max(lower["simple"][i], lower["drop"][i]) * (1 - 1e-12) - 1e-12
                # Where all cancels, the bound keeps room for what rounding may hide.
                unit = max(abs(rho), abs(beta) * s[0]) or 1.0
                assert upper["sharp"][i] <= upper["simple"][i] * (1 + 1e-12) + 4e-7 * unit
                for form, (above, below) in skip.FORMS.items():
                    if lower[below][i] > 1e-3 * upper[above][i]:
                        ratio = upper[above][i] / lower[below][i]
                        assert truth[0] / truth[-1] <= ratio * (1 + 1e-6), (name, rho, beta, form)
                        compared[f"r4.{form}"] += 1
                if np.isfinite(kappa[i]) and kappa[i] < 1e6:
                    assert truth[0] / truth[-1] <= kappa[i] * (1 + 1e-6)
    assert min(compared.values()) >= 1000
    assert set(compared) == {
        *(f"upper.{key}" for key in skip.UPPER),
        *(f"lower.{key}" for key in skip.LOWER),
        *(f"r4.{form}" for form in skip.FORMS),
    }


def test_the_guarantee_along_beta() -> None:
    s1, sn, low, high = 2.0, 0.5, -1.0, 3.0
    betas = np.array([0.0, 0.5, 1.0, 3.0])
    found = skip.guaranteed_kappa(1.0, betas, s1, sn, low, high)
    # By hand: √(1+β²4+3β) over the best of √(1+β²/4-β), √(1-β), 1-β/2, 1-2β, β/2-1.
    by_hand = [1.0, np.sqrt(3.5) / 0.75, np.sqrt(8) / 0.5, np.sqrt(46) / 0.5]
    assert found == pytest.approx(by_hand)
    assert np.isinf(skip.guaranteed_kappa(1.0, [1.0], 2.0, 0.1, -2.0, 3.0))
    assert skip.guaranteed_kappa(0.0, [1.0], s1, sn, low, high) == pytest.approx(4.0)
    huge = skip.guaranteed_kappa(1e-150, [1e-100], 1e250, 1e250, -1e250, 1e250)
    assert huge == pytest.approx(1.0)


def test_exact_cases_are_tight() -> None:
    rng = np.random.default_rng(3)
    g = rng.standard_normal((6, 6))
    skew = by_id(skip.checks(quantities(g - g.T)))  # σ_i² = s_i² + 1
    assert skew["r1"].slack == pytest.approx(0, abs=1e-9)
    assert skew["r4.sharp"].slack == pytest.approx(0, abs=1e-6)
    identity = by_id(skip.checks(quantities(0.25 * np.eye(4))))
    for name in ("r1", "r1p", "r2", "r3.upper.sharp", "r3.upper.simple", "r3.lower.sharp", "r4.sharp"):
        assert identity[name].slack == pytest.approx(0, abs=1e-12)
    assert identity["r3.lower.nr"].bound == pytest.approx(1.25)
    negative = by_id(skip.checks(quantities(-0.5 * np.eye(4))))
    assert negative["r3.lower.nr"].slack == pytest.approx(0, abs=1e-12)
    assert negative["r3.lower.simple"].bound == pytest.approx(0.5)


def test_every_sentence_has_the_numbers_that_decide() -> None:
    w = np.diag([-1.55, 0.5])  # τ: -3.1, 1
    found = by_id(skip.checks(quantities(w)))
    assert found["r4.nr"].verdict == "vacuous"
    assert found["r4.nr"].why == "needs τmin > -2: τmin is -3.1"
    assert found["r4.drop"].why == "needs τmin > -1: τmin is -3.1"
    assert found["r4.sharp"].why == "needs τmin > -1.25: τmin is -3.1"
    assert found["r4.simple"].why == "needs |β|σmax < |ρ|: 1.55 is not below 1"
    flipped = by_id(skip.checks(quantities(-w, 1.0, -1.0)))
    assert flipped["r4.nr"].why == "needs τmax < 2: τmax is 3.1"
    assert flipped["r4.sharp"].why == "needs τmax < 1.25: τmax is 3.1"
    assert by_id(skip.checks(quantities(w, 0.0, 1.0)))["r4.nr"].why == "needs ρ ≠ 0"
    assert "[-1.55, 0.5]" in found["r5b"].why
    assert found["r5b"].verdict == "not_applicable"
    two = by_id(skip.checks(quantities(w, diagonals=np.array([[1.0, 0], [0, 1]]))), "skip_chain")
    assert two["r2"].why.endswith("(worst of 2 patterns)")


def test_where_each_form_stops() -> None:
    """The verdict turns exactly where the assumption does."""
    for t, verdicts in {-0.9: "hhh", -1.1: "vhh", -1.9: "vhh", -2.1: "vvh"}.items():
        w = np.array([[t / 2, 2.0], [-2.0, t / 2]])  # normal, τ = t twice, s = √(t²/4+4)
        found = by_id(skip.checks(quantities(w)))
        order = ("r4.drop", "r4.nr", "r4.sharp")
        assert "".join(found[name].verdict[0] for name in order) == verdicts, t


def forge(w: Array, **changes: Array) -> dict[str, BoundCheck]:
    return by_id(skip.checks(replace(quantities(w), **changes)))  # type: ignore[arg-type]


def test_forged_numbers_are_found() -> None:
    rng = np.random.default_rng(4)
    w = 0.1 * rng.standard_normal((6, 6))
    true = quantities(w)
    assert true.skip is not None
    assert all(check.verdict != "violated" for check in skip.checks(true))
    high = forge(w, skip=true.skip * 3)
    low = forge(w, skip=true.skip * np.r_[np.ones(5), 1e-2])
    for name in ("r1", "r1p", "r2", "r3.upper.sharp", "r3.upper.simple", "r5"):
        assert high[name].verdict == "violated", name
        assert "precision was lost" in high[name].why
    assert high["r3.upper.sharp"].slack is not None
    assert high["r3.upper.sharp"].slack < 0
    for name in ("r1", "r1p", *(f"r4.{form}" for form in skip.FORMS)):
        assert low[name].verdict == "violated", name
    for name in ("sharp", "drop", "nr", "simple", "best"):
        assert low[f"r3.lower.{name}"].verdict == "violated", name
    dominant = forge(10 * w + 5 * np.eye(6), skip=np.zeros((1, 6)))
    assert {dominant[name].verdict for name in ("r2", "r3.lower.weyl")} == {"violated"}
    assert forge(w, skip=true.skip * np.r_[np.ones(5), 0])["r5b"].verdict == "violated"
    nan = forge(w, skip=np.full((1, 6), np.nan))
    assert {nan[name].verdict for name in ("r1", "r2", "r3.upper.sharp", "r5", "r4.best")} == {"violated"}
    tall = quantities(0.1 * rng.standard_normal((7, 3)))
    assert tall.skip is not None
    forged = by_id(skip.checks(replace(tall, skip=tall.skip * 2)))
    assert forged["r1pp"].verdict == "violated"


def test_r5_derivatives() -> None:
    """(65) and (66) themselves, by differences."""
    rng = np.random.default_rng(5)
    count = 0
    for n in (2, 3, 5, 8, 13):
        for _ in range(40):
            w, rho, h = rng.standard_normal((n, n)), float(rng.uniform(-1, 1)), 1e-6
            u, s, vt = np.linalg.svd(w + rho * np.eye(n))
            slope = (values(w + (rho + h) * np.eye(n)) - values(w + (rho - h) * np.eye(n))) / (2 * h)
            for i in range(n):
                gap = min([abs(s[i] - s[j]) for j in range(n) if j != i])
                if gap < 1e-2 * s[0] or s[i] < 1e-2 * s[0]:
                    continue
                assert slope[i] == pytest.approx(u[:, i] @ vt[i], abs=1e-5)
                assert 2 * s[i] * slope[i] == pytest.approx(2 * rho + vt[i] @ (w + w.T) @ vt[i], abs=1e-4)
                count += 1
    assert count >= 1000


def test_r5b_away_from_zero_and_its_counterexample_at_zero() -> None:
    # The paper's claim fails at t = 0: e1 stays an eigenvector, but is no right singular vector of M + ρI.
    m, e1, rho = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([1.0, 0.0]), 0.5
    assert np.allclose(m @ e1, 0)
    assert np.allclose(m.T @ m @ e1, 0)  # an eigenvector, and a right singular vector, for t = 0
    n = m + rho * np.eye(2)
    assert np.allclose(n @ e1, rho * e1)
    gram = n.T @ n @ e1
    assert abs(gram[1]) > 0.1  # not a multiple of e1
    # With t ≠ 0 it holds: M v = t v and v a right singular vector.
    rng = np.random.default_rng(6)
    count = 0
    for _ in range(1000):
        k, t = 4, float(rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 2))
        q = np.linalg.qr(rng.standard_normal((k, k)))[0]
        inner = np.zeros((k, k))
        inner[0, 0], inner[1:, 1:] = t, rng.standard_normal((k - 1, k - 1))
        m, v, rho = q @ inner @ q.T, q[:, 0], float(rng.uniform(-1, 1))
        n = m + rho * np.eye(k)
        assert np.allclose(n @ v, (t + rho) * v)
        assert np.allclose(n.T @ n @ v, (t + rho) ** 2 * v)
        count += 1
    assert count >= 1000


def test_r5b_singular_exactly_at_real_eigenvalues() -> None:
    m = np.array([[0.0, -2.0], [2.0, 0.0]])  # no real eigenvalue: never singular
    for rho in np.linspace(-3, 3, 13):
        if rho:
            assert values(m + rho * np.eye(2))[-1] > 1.9
    w = np.diag([-1.0, 3.0])
    assert values(w + np.eye(2))[-1] == 0
    assert by_id(skip.checks(quantities(w)))["r5b"].verdict == "not_applicable"


def test_a_skip_does_not_shift_singular_values() -> None:
    """P3 (8) rests on σ_i(W+βI) = σ_i(W)+β, true only for positive semidefinite W (MATH R42)."""
    rng = np.random.default_rng(7)
    w = rng.standard_normal((5, 5))
    assert not np.allclose(values(w + np.eye(5)), values(w) + 1, atol=1e-2)
    positive = w @ w.T
    assert np.allclose(values(positive + np.eye(5)), values(positive) + 1)


def test_a_skip_is_not_always_better() -> None:
    """MATH R42, R24: κ(I+W) > κ(W) for many a W of norm above one, and at W = -I the skip is all lost."""
    w = np.diag([-1.0, -1.5])
    assert values(np.eye(2) + w)[-1] == 0
    rng = np.random.default_rng(8)
    draws = [rng.standard_normal((4, 4)) for _ in range(400)]
    worse = sum(np.linalg.cond(np.eye(4) + w) > np.linalg.cond(w) for w in draws)
    assert 100 <= worse <= 220


def test_a_shortcut_that_adds_channels_is_told_apart() -> None:
    q = replace(quantities(np.eye(6, 3)), tau=None, shortcut="average-pool")
    found = by_id(skip.checks(q))
    assert found["r2"].verdict == "holds"
    rest = {check.verdict for name, check in found.items() if name != "r2"}
    assert rest == {"not_applicable"}
    assert "adds channels" in found["r4.best"].why


def test_without_a_skip_there_is_nothing_to_say() -> None:
    assert skip.checks(replace(quantities(np.eye(3)), skip=None, shortcut="none")) == ()


def test_huge_and_tiny_numbers() -> None:
    rng = np.random.default_rng(9)
    w = rng.standard_normal((4, 4))
    for scale in (1e-200, 1e200):
        base = quantities(w)
        assert base.skip is not None
        assert base.tau is not None
        q = replace(base, rho=scale, weight=base.weight * scale, skip=base.skip * scale, tau=base.tau * scale)
        found = by_id(skip.checks(q))
        plain = by_id(skip.checks(base))
        assert {k: c.verdict for k, c in found.items()} == {k: c.verdict for k, c in plain.items()}
        assert found["r4.best"].bound == pytest.approx(plain["r4.best"].bound)
