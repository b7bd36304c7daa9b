"""R6 to R9 against dense numpy, over adversarial families; and where the papers' claims stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from specinspect.bounds import activation
from specinspect.bounds.model import BoundCheck
from tests.bounds.families import RECTANGULAR, WEIGHTS, Array, layers, matrices, quantities, values

SHAPES = ((1, 1), (2, 2), (5, 5), (8, 8), (13, 13), *RECTANGULAR)


def by_key(checks: tuple[BoundCheck, ...]) -> dict[tuple[str, str], BoundCheck]:
    return {(check.id, check.of): check for check in checks}


def diagonals(rows: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield patterns of ReLU, leaky, abs, smooth, enlarging and scaled activations, none and all active."""
    hit = rng.random(rows) < 0.5
    for slope in (0.0, 0.1, -1.0, 3.0):
        yield np.where(hit, slope, 1.0)
    yield rng.uniform(-0.13, 1.13, rows)
    yield rng.standard_normal(rows) * 5
    yield np.where(hit, 0.0, 0.3)
    yield np.ones(rows)
    yield np.zeros(rows)


def test_no_theorem_is_violated() -> None:
    rng = np.random.default_rng(1)
    compared: Counter[tuple[str, str]] = Counter()
    for shape in SHAPES:
        for name, w in matrices(*shape, rng):
            for d in diagonals(shape[0], rng):
                rho, beta = WEIGHTS[int(rng.integers(len(WEIGHTS)))]
                for check in activation.checks(quantities(w, rho, beta, d[None])):
                    assert check.verdict in {"holds", "vacuous", "not_applicable"}, (name, shape, d, check)
                    if check.verdict == "holds":
                        sides = 2 * min(shape) if check.id == "r7" else 1
                        compared[check.id, check.of] += sides
    expected = {("r6", "chain"), ("r6", "skip"), ("r6", "skip_chain")}
    assert set(compared) == expected | {(f"r{i}", "chain") for i in (7, 8, 9)}
    assert min(n for key, n in compared.items() if key != ("r9", "chain")) >= 1000
    assert compared["r9", "chain"] >= 500


def test_the_formulas_bound_dense_truth() -> None:
    """Apart from the checks: R7 as MATH states it, R8's equality, R9 with its count of zeros."""
    rng = np.random.default_rng(2)
    compared: Counter[str] = Counter()
    for name, w, _, _ in layers():
        n = len(w)
        for slope in (0.0, 0.2, -1.0, 2.5):
            r = int(rng.integers(n + 1))
            d = np.ones(n)
            d[rng.permutation(n)[:r]] = slope
            s, sigma = values(w), values(d[:, None] * w)
            tolerance = 1e-9 * max(1.0, slope**2) * s[0] ** 2
            lower, upper = activation.interlacing(s[None], d)
            size = abs(slope)
            padded = np.r_[s, np.zeros(n)]
            if size <= 1:
                stated = np.maximum(size * s, padded[r : r + n])
                assert np.all(lower[0] >= stated * (1 - 1e-12)), (name, slope, r)
            assert np.all(sigma**2 >= lower[0] ** 2 - tolerance)
            assert np.all(sigma**2 <= upper[0] ** 2 + tolerance)
            compared["r7"] += 2 * n
            rows = np.linalg.norm(w, axis=1)
            energy = float((rows[d == slope] ** 2).sum())
            lost = activation.energy_lost(d, rows)
            assert lost == pytest.approx((1 - slope**2) * energy, rel=1e-9, abs=1e-12)
            assert np.sum(s**2 - sigma**2) == pytest.approx(lost, abs=n * tolerance + 1e-15)
            if size <= 1:
                stated_move = min(1 - slope**2, (1 - slope) ** 2) * energy
                assert activation.movement(d, rows) == pytest.approx(stated_move, rel=1e-9, abs=1e-12)
            assert np.sum((s - sigma) ** 2) <= activation.movement(d, rows) + n * tolerance
            compared["r8"] += 1
            if s[-1] > 1e-6 * s[0] and (slope or r < n):
                kept = n if slope else n - r
                factor = max(1, size) / min(1, size) if slope and r else 1.0
                for x in (d[:, None] * w, w * d):  # DM, and MD
                    found = values(x)
                    assert np.all(found[kept:] <= 1e-12 * s[0])
                    assert found[0] / found[kept - 1] <= s[0] / s[-1] * factor * (1 + 1e-6)
                    compared["r9"] += 1
    assert min(compared.values()) >= 1000
    assert set(compared) == {"r7", "r8", "r9"}


def test_hoffman_wielandt() -> None:
    rng = np.random.default_rng(3)
    count = 0
    for rows, columns in SHAPES:
        pairs = list(matrices(rows, columns, rng))
        for name, a in pairs:
            for other, b in pairs:
                scale = np.linalg.norm(a) ** 2 + np.linalg.norm(b) ** 2
                moved = np.sum((values(a) - values(b)) ** 2)
                assert moved <= np.linalg.norm(a - b) ** 2 + 1e-9 * scale, (name, other)
                count += 1
    assert count >= 1000


def test_two_sided_relu_is_not_covered() -> None:
    """R9 is for one side only: between two ReLUs a permutation is lost, though κ of it is 1."""
    m, d = np.array([[0.0, 1.0], [1.0, 0.0]]), np.diag([1.0, 0.0])
    assert np.linalg.cond(m) == 1
    assert np.all(d @ m @ d == 0)
    # Well inside, κ over the rest can grow without limit.
    c, s = 1e-4, np.sqrt(1 - 1e-8)
    m, e = np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]]), np.diag([1.0, 1, 0])
    one_sided, inside = values(e @ m), values(e @ m @ e)
    assert one_sided[0] / one_sided[1] == pytest.approx(1)
    assert inside[0] / inside[1] == pytest.approx(1e4)
    # (D1·W+I)·D0 is one-sided, with M = D1·W+I.
    rng = np.random.default_rng(4)
    for _ in range(100):
        w = 0.1 * rng.standard_normal((6, 6))
        n = np.diag((rng.random(6) < 0.5) * 1.0) @ w + np.eye(6)
        kept = np.r_[True, rng.random(5) < 0.5]
        found = values(n * kept)
        assert found[0] / found[kept.sum() - 1] <= np.linalg.cond(n) * (1 + 1e-9)


def test_relu_can_worsen_a_tall_map() -> None:
    """Rows of a tall matrix may all be needed: R9 says it does not apply."""
    w = np.array([[1.0, 0], [0, 1], [0, 1e-3]])
    d = np.array([1.0, 0.0, 1.0])
    check = by_key(activation.checks(quantities(w, diagonals=d[None])))["r9", "chain"]
    assert check.verdict == "not_applicable"
    assert check.why == "needs at most as many rows as columns: a block is 3×2, and D acts on the rows"
    assert np.linalg.cond(d[:, None] * w) > 100 * np.linalg.cond(w)


def test_exact_cases_and_sentences() -> None:
    d = np.array([[1.0, 0, 1, 0]])
    found = by_key(activation.checks(quantities(np.eye(4), diagonals=d)))
    assert found["r9", "chain"].value == pytest.approx(1)
    assert found["r9", "chain"].bound == pytest.approx(1)
    assert found["r8", "chain"].slack == pytest.approx(0, abs=1e-12)
    assert found["r6", "skip"].slack == pytest.approx(0, abs=1e-12)
    singular = quantities(np.diag([1.0, 1, 1, 0]), diagonals=d)
    assert "needs W of full rank: σmin is 0" in by_key(activation.checks(singular))["r9", "chain"].why
    dead = quantities(np.eye(4), diagonals=np.zeros((1, 4)))
    assert by_key(activation.checks(dead))["r9", "chain"].why == "D is zero"
    unread = by_key(activation.checks(replace(quantities(np.eye(4), diagonals=d), entries=None)))
    assert unread["r8", "chain"].verdict == "not_applicable"
    assert [c.of for c in activation.checks(quantities(np.eye(4)))] == ["skip"]


def test_the_worst_of_several_patterns() -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((6, 6))
    d = np.array([[1.0, 1, 1, 1, 1, 0.1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    one = by_key(activation.checks(quantities(w, diagonals=d[1:2])))["r9", "chain"]
    every = by_key(activation.checks(quantities(w, diagonals=d)))["r9", "chain"]
    assert one.slack == pytest.approx(0, abs=1e-6)
    assert every.bound == one.bound  # without activation it is tight: the worst of the three
    assert every.why.endswith("(worst of 3 patterns)")


def test_forged_numbers_are_found() -> None:
    rng = np.random.default_rng(6)
    w, d = rng.standard_normal((6, 6)), np.array([[1.0, 0.2, 0, 1, 1, 1]])
    true = quantities(w, diagonals=d)
    assert true.skip is not None
    pattern = true.patterns[0]
    assert pattern.skip_chain is not None

    def verdict(key: tuple[str, str], forged: object) -> str:
        return by_key(activation.checks(forged))[key].verdict  # type: ignore[arg-type]

    larger = replace(true, patterns=(replace(pattern, chain=pattern.chain * 4),))
    assert {verdict((f"r{i}", "chain"), larger) for i in (6, 7, 8)} == {"violated"}
    lower = replace(true, patterns=(replace(pattern, chain=pattern.chain * [1, 1, 1, 1, 1e-3, 0]),))
    assert {verdict((f"r{i}", "chain"), lower) for i in (7, 8, 9)} == {"violated"}
    slightly = replace(true, patterns=(replace(pattern, chain=pattern.chain * 1.0001),))
    assert verdict(("r8", "chain"), slightly) == "violated"
    extra = replace(true, patterns=(replace(pattern, chain=pattern.chain + 0.05 * pattern.chain[0, 4]),))
    assert verdict(("r9", "chain"), extra) == "violated"  # a zero too few
    assert verdict(("r6", "skip"), replace(true, skip=true.skip * 5)) == "violated"
    beside = replace(true, patterns=(replace(pattern, skip_chain=pattern.skip_chain + 9),))
    assert verdict(("r6", "skip_chain"), beside) == "violated"
    moved = replace(true, entries=replace(true.entries, row_norms=true.entries.row_norms * 0.99))  # type: ignore[type-var, union-attr]
    assert verdict(("r8", "chain"), moved) == "violated"
