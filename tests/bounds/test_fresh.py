"""The test whether weights could be fresh: how often it cries wolf, and what it catches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from specinspect.bounds.fresh import FALSE_ALARM, Freshness, freshness, initial_std, scale_of
from tests.bounds.layers import entries_of, sigma

Array = NDArray[np.float64]


def outcome(w: Array) -> Freshness:
    return freshness(entries_of(w), sigma(w))


def draw(rng: np.random.Generator, shape: tuple[int, int], family: str) -> Array:
    return rng.standard_normal(shape) if family == "gaussian" else rng.uniform(-1, 1, shape)


@pytest.mark.parametrize("family", ["gaussian", "uniform"])
@pytest.mark.parametrize(
    ("shape", "trials", "times"),
    [((16, 16), 2000, 4), ((16, 200), 600, 2), ((48, 32), 1200, 2), ((128, 128), 80, 2)],
)
def test_false_alarms(shape: tuple[int, int], trials: int, times: int, family: str) -> None:
    """At most about FALSE_ALARM of fresh layers, a few times that for the smallest; the family is right."""
    rng = np.random.default_rng([7, *shape])
    found = [outcome(0.3 * draw(rng, shape, family)) for _ in range(trials)]
    expected = times * FALSE_ALARM * trials
    assert sum(f.family != family for f in found) <= expected + 3 * np.sqrt(expected) + 1
    assert all((f.family is None) == bool(f.doubt) for f in found)


def trained(kind: str, n: int, rng: np.random.Generator) -> Array:
    w = rng.standard_normal((n, n)) / np.sqrt(n)
    match kind:
        case "low-rank update":
            w += 3.5 * np.outer(*(v / np.linalg.norm(v) for v in rng.standard_normal((2, n))))
        case "outlier columns":
            w[:, :2] *= 3
        case "decayed rows":
            w *= np.linspace(0.5, 1.5, n)[:, None]
        case "orthogonal":
            w = np.linalg.qr(w)[0]
        case "weight-normed rows":
            w /= np.linalg.norm(w, axis=1, keepdims=True)
        case "heavy tails":
            w = rng.standard_t(3, (n, n))
        case "mean":
            w += 6 / n**1.5
        case "skewed":
            w = rng.exponential(size=(n, n)) - 1
        case "pruned":
            w[rng.random((n, n)) < 0.5] = 0
        case "repeated rows":
            w[n // 2 :] = w[: n - n // 2]
    return w


KINDS = (
    "low-rank update", "outlier columns", "decayed rows", "orthogonal", "weight-normed rows", "heavy tails",
    "mean", "skewed", "pruned", "repeated rows",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [64, 128])
def test_power(kind: str, n: int) -> None:
    rng = np.random.default_rng([n, 3])
    caught = sum(outcome(trained(kind, n, rng)).family is None for _ in range(25))
    assert caught >= 23


def test_what_it_says() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((128, 128))
    w[:, 5] *= 20
    assert "column norms vary" in outcome(w).doubt
    assert "row norms vary only" in outcome(np.linalg.qr(w)[0]).doubt
    signs = rng.choice([-1.0, 1.0], (2, 128))
    flat = rng.standard_normal((128, 128)) + 0.35 * np.outer(*signs)  # changes all norms alike
    assert "singular values spread more" in outcome(flat).doubt
    assert "too small" in outcome(w[:8]).doubt
    assert outcome(np.zeros((20, 20))).doubt == "every entry is zero"
    assert outcome(np.ones((20, 20))).family is None


def test_without_singular_values() -> None:
    """A convolution: its Fourier blocks are not the matrix of its entries."""
    rng = np.random.default_rng(1)
    assert freshness(entries_of(rng.standard_normal((32, 90))), None) == Freshness("gaussian")


def test_scale_from_the_entries() -> None:
    rng = np.random.default_rng(2)
    w = 0.2 * rng.standard_normal((50, 80))
    scale = scale_of(entries_of(w), None)
    assert scale.std == pytest.approx(np.sqrt((w**2).mean()))
    assert scale.doubt == ""
    assert "estimated from the entries" in scale.sentence


@pytest.mark.parametrize("init", ["kaiming", "xavier", "pytorch-default", "std:0.02"])
def test_initialisations_are_those_of_torch(init: str) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    convolution = nn.Conv2d(32, 40, 3)
    for weight in (layer.weight, convolution.weight):
        match init:
            case "kaiming":
                nn.init.kaiming_normal_(weight, nonlinearity="relu")
            case "xavier":
                nn.init.xavier_uniform_(weight)
            case "std:0.02":
                nn.init.normal_(weight, std=0.02)
        w = weight.detach().double().flatten(1).numpy()
        entries = entries_of(w)
        if weight.ndim == 4:
            from dataclasses import replace

            entries = replace(entries, taps=9)
        std = initial_std(init, entries)
        assert std == pytest.approx(entries.standard_deviation, rel=0.02)
        assert scale_of(entries, init).doubt == ""
        wrong = scale_of(entries_of(1.1 * w), init) if weight.ndim == 2 else None
        assert wrong is None or f"not those of {init}" in wrong.doubt
