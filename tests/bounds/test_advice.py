"""Advice is a consequence: each number satisfies what it promises, and the next larger one does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from specinspect.bounds import advice
from specinspect.bounds import random_matrix as rm
from specinspect.bounds.catalogue import CATALOGUE
from specinspect.bounds.entries import kappa_from_norm, largest_sigma
from specinspect.bounds.model import Advice
from specinspect.bounds.random_skip import guaranteed
from specinspect.spectra.quantities import LayerQuantities
from tests.bounds.layers import adversarial, layer_of, relu_patterns, sigma

Array = NDArray[np.float64]


def one(layer: LayerQuantities, bound: str, quantity: str, target: float = 10.0) -> Advice | None:
    found = [a for a in advice.advise(layer, target) if (a.bound, a.quantity) == (bound, quantity)]
    assert len(found) <= 1
    return found[0] if found else None


def guaranteed_kappa(w: Array, rho: float, beta: float) -> float:
    """Return MATH R4.best by its formulas, written down once more, for one dense matrix."""
    s, tau = sigma(w), np.linalg.eigvalsh(w + w.T)
    g = rho * beta
    low, high = sorted((g * tau[0], g * tau[-1]))
    upper = min(np.sqrt(max(rho**2 + beta**2 * s[0] ** 2 + high, 0)), abs(rho) + abs(beta) * s[0])
    lower = max(
        np.sqrt(max(rho**2 + beta**2 * s[-1] ** 2 + low, 0)),
        np.sqrt(max(rho**2 + low, 0)),
        abs(rho) + low / (2 * abs(rho)),
        abs(rho) - abs(beta) * s[0],
        abs(beta) * s[-1] - abs(rho),
    )
    return float(upper / lower) if lower > 0 else np.inf


@pytest.mark.parametrize("target", [1.5, 10.0, 1e4])
@pytest.mark.parametrize(("rho", "beta"), [(1.0, 1.0), (0.3, -2.0), (-1.0, 0.5)])
def test_the_largest_beta(rho: float, beta: float, target: float) -> None:
    rng = np.random.default_rng(1)
    finite = 0
    for _ in range(4):
        for n in (2, 6):
            for name, w in adversarial(n, rng):
                if name == "zero":
                    assert advice.advise(layer_of(w, rho=rho, beta=beta)) == ()
                    continue
                found = one(layer_of(w, rho=rho, beta=beta), "r4.best", "beta", target)
                assert found is not None
                if np.isinf(found.value):
                    farthest = np.copysign(1e3 * abs(rho) / sigma(w)[0], beta)
                    assert guaranteed_kappa(w, rho, farthest) <= target * (1 + 1e-9)
                    continue
                finite += 1
                assert np.sign(found.value) == np.sign(beta)
                assert guaranteed_kappa(w, rho, found.value) <= target * (1 + 1e-9)
                assert guaranteed_kappa(w, rho, found.value * (1 + 1e-6)) > target
                # And so do the maps themselves, all the way.
                for share in (0.2, 0.7, 1.0):
                    values = sigma(rho * np.eye(n) + share * found.value * w)
                    assert values[0] <= target * values[-1] * (1 + 1e-7)
    assert finite > 40


def test_every_fourier_block_counts() -> None:
    rng = np.random.default_rng(2)
    tame, wild = 0.1 * rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    blocks = [layer_of(tame), layer_of(wild)]

    def stack(name: str) -> Array:
        return np.concatenate([getattr(b, name) for b in blocks])

    both = replace(
        blocks[0], kind="conv2d", weight=stack("weight"), skip=stack("skip"), tau=stack("tau"),
        multiplicity=np.array([1, 2]),
    )  # fmt: skip
    found, alone = one(both, "r4.best", "beta"), one(blocks[1], "r4.best", "beta")
    assert found is not None
    assert alone is not None
    assert 0 < found.value <= alone.value
    assert "periodic grid" in found.sentence


def test_shrinking() -> None:
    rng = np.random.default_rng(3)
    for name, w in adversarial(7, rng):
        if name == "zero":
            continue
        w *= 5
        layer = layer_of(w, rho=0.7, beta=1.3)
        simple, entry = (one(layer, name, "shrink_factor") for name in ("r4.simple", "r11"))
        assert simple is not None
        assert entry is not None
        norm = 1.3 / 0.7 * simple.value * sigma(w)[0]
        assert float(kappa_from_norm(norm)) == pytest.approx(10)
        values = sigma(0.7 * np.eye(7) + 1.3 * simple.value * w)
        assert values[0] <= 10 * values[-1] * (1 + 1e-9)
        largest = one(layer, "r11", "largest_entry")
        assert largest is not None
        assert largest.value == pytest.approx(entry.value * np.abs(w).max())
        norm = 1.3 / 0.7 * float(largest_sigma(largest.value, 7, 7))
        assert float(kappa_from_norm(norm)) == pytest.approx(10)
        # Any matrix of such entries meets the target, the worst one exactly.
        worst = sigma(0.7 * np.eye(7) - 1.3 * np.full((7, 7), largest.value))
        assert worst[0] <= 10 * worst[-1]
    small = layer_of(np.full((4, 4), 0.1))
    assert one(small, "r4.simple", "shrink_factor") is None
    assert one(small, "r11", "largest_entry") is None


@pytest.mark.parametrize("shape", [(64, 64), (200, 30), (30, 200)])
@pytest.mark.parametrize("target", [1.2, 10.0, 1e3])
def test_the_scale_of_fresh_layers(shape: tuple[int, int], target: float) -> None:
    for low, high in ((1.0, 1.0), (0.0, 1.0), (-0.13, 1.13)):
        c = advice.guaranteed_scale(shape, target, 0.001, low, high)
        assert guaranteed(shape, c, 0.001, low, high).kappa == pytest.approx(target, rel=1e-9)
        assert guaranteed(shape, c * (1 + 1e-6), 0.001, low, high).kappa > target
    c = advice.expected_scale(target)
    assert float(rm.limit_kappa(c)) <= target < float(rm.limit_kappa(c * (1 + 1e-9)))


def test_fresh_layers_of_that_scale_are_as_promised() -> None:
    rng = np.random.default_rng(4)
    n, target = 64, 4.0
    layer = layer_of(rng.standard_normal((n, n)), diagonals=relu_patterns(n, 2, rng), activation="relu")
    scales = {a.bound: a.value for a in advice.advise(layer, target) if a.quantity == "scale"}
    assert scales["r21.alld"] < scales["r21.gauss"] < scales["r23"]
    for name, value in scales.items():
        found = []
        for _ in range(40):
            w = value / np.sqrt(n) * rng.standard_normal((n, n))
            d = np.where(w @ rng.standard_normal(n) > 0, 1.0, 0.0) if name == "r21.alld" else np.ones(n)
            values = sigma(np.eye(n) + d[:, None] * w)
            found.append(values[0] / values[-1])
        if name == "r23":
            assert np.median(found) == pytest.approx(target, rel=0.2)
        else:
            assert max(found) <= target


def test_zeroed_rows() -> None:
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(40):
        n = 8
        w = rng.uniform(0.02, 0.3) * rng.standard_normal((n, n))
        layer = layer_of(w, diagonals=relu_patterns(n, 2, rng), activation="relu")
        for item in advice.advise(layer, 6.0):
            if item.quantity != "zeroed_rows":
                continue
            seen.add(item.bound)
            rows = int(item.value)
            for _ in range(20):
                d = np.ones(n)
                d[rng.permutation(n)[:rows]] = 0
                dw, before = d[:, None] * w, sigma(w)
                if item.bound == "r25":
                    values = sigma(np.eye(n) + dw)
                    assert values[0] <= 6 * values[-1]
                elif item.bound == "r7":
                    assert sigma(dw)[0] >= before[0] / 2 * (1 - 1e-9)
                else:
                    left = sigma(w[d == 1])
                    assert left[0] / left[-1] <= before[0] / before[-1] * (1 + 1e-9)
    assert seen == {"r25", "r7", "r9"}


def test_no_word_of_relu_where_there_is_none() -> None:
    rng = np.random.default_rng(6)
    w = 0.1 * rng.standard_normal((8, 8))
    smooth = layer_of(w, diagonals=[rng.uniform(0, 1, 8)], activation="gelu")
    assert not any("ReLU" in item.sentence for item in advice.advise(smooth))
    assert not any("ReLU" in item.sentence for item in advice.advise(layer_of(w)))


def test_every_advice_names_its_bound() -> None:
    rng = np.random.default_rng(7)
    layer = layer_of(rng.standard_normal((8, 8)), diagonals=relu_patterns(8, 2, rng), activation="relu")
    found = advice.advise(layer)
    assert len({(a.bound, a.quantity) for a in found}) == len(found) >= 6
    assert {a.bound for a in found} <= set(CATALOGUE)


def test_without_a_skip_there_is_little_to_say() -> None:
    rng = np.random.default_rng(8)
    layer = layer_of(
        rng.standard_normal((8, 8)), rho=0.0, diagonals=relu_patterns(8, 2, rng), activation="relu"
    )
    assert {a.bound for a in advice.advise(layer)} <= {"r7", "r9"}
