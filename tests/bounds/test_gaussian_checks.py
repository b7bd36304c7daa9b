"""Verdicts on random weights: what is claimed of fresh layers, and what is not claimed of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from specinspect.bounds import gaussian
from specinspect.bounds import random_matrix as rm
from specinspect.bounds.catalogue import CATALOGUE
from specinspect.bounds.judge import Claim, judge
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.random_layer import pattern_range
from specinspect.spectra.quantities import LayerQuantities
from tests.bounds.layers import layer_of, relu_patterns

Array = NDArray[np.float64]
GAUSSIAN_ONLY = {"r17", "r18", "r19.max", "r21.gauss", "r21.alld", "r24"}
ASYMPTOTIC = {"r16", "r20", "r21.tw", "r22.121", "r22.122", "r22.nr", "r23"}


def fresh(
    n: int = 128, c: float = 0.2, seed: int = 0, *, uniform: bool = False, **options: float
) -> LayerQuantities:
    rng = np.random.default_rng(seed)
    w = rng.uniform(-np.sqrt(3), np.sqrt(3), (n, n)) if uniform else rng.standard_normal((n, n))
    diagonals = relu_patterns(n, 2, rng)
    return layer_of(c / np.sqrt(n) * w, diagonals=diagonals, activation="relu", **options)


def verdicts(layer: LayerQuantities, **options: object) -> dict[str, BoundCheck]:
    found = gaussian.checks(layer, **options)  # type: ignore[arg-type]
    assert len({c.id for c in found}) == len(found)
    assert {c.id for c in found} <= set(CATALOGUE)
    return {c.id: c for c in found}


def test_a_fresh_gaussian_layer() -> None:
    found = verdicts(fresh(), delta=0.05)
    for name in GAUSSIAN_ONLY | ASYMPTOTIC:
        assert found[name].verdict == "holds", found[name]
    assert {found[name].probability for name in GAUSSIAN_ONLY - {"r24"}} == {0.95}
    assert found["r19.min"].verdict == "vacuous"
    for name, check in found.items():
        if check.verdict == "holds" and name != "r25":
            assert check.value is not None, name
            assert check.bound is not None
            assert check.value <= check.bound
            assert check.slack == pytest.approx(1 - check.value / check.bound)


def test_uniform_entries_are_not_proven() -> None:
    found = verdicts(fresh(uniform=True))
    for name in GAUSSIAN_ONLY:
        assert found[name].verdict == "not_applicable"
        assert "not proven for uniform" in found[name].why
        assert found[name].probability is None
        if name != "r24":
            assert "a fresh Gaussian layer would have at most" in found[name].why
            assert found[name].bound is not None
    for name in ASYMPTOTIC:
        assert found[name].verdict == "holds", found[name]


def test_trained_weights_get_a_reference_and_no_guarantee() -> None:
    rng = np.random.default_rng(1)
    w = 0.02 * rng.standard_normal((96, 96))
    w[:, 7] *= 14
    found = verdicts(layer_of(w, diagonals=relu_patterns(96, 2, rng), activation="relu"))
    for name in GAUSSIAN_ONLY | ASYMPTOTIC:
        assert found[name].verdict == "not_applicable"
        assert "column norms vary" in found[name].why
    std = np.sqrt((w**2).mean())
    assert found["r20"].bound == pytest.approx(float(rm.johnstone(96, 96, std, 0.01)))


def test_nothing_asymptotic_is_ever_violated() -> None:
    """With δ near 1 fresh layers exceed even the rigorous bounds: those say so, with the probability."""
    exceeded = set()
    for seed in range(12):
        for check in verdicts(fresh(seed=seed, n=48, c=0.25), delta=0.9).values():
            if check.id in ASYMPTOTIC:
                assert check.verdict in {"holds", "not_applicable", "vacuous"}
                if "exceeds the asymptotic value" in check.why:
                    exceeded.add(check.id)
                    assert check.probability is None
    assert {"r16", "r20", "r23"} <= exceeded
    rigorous = judge(Claim("r17", "weight", "τ", 2.0, 1.0, probability=0.99))
    assert rigorous.verdict == "violated"
    assert "with probability at most 0.01" in rigorous.why


@pytest.mark.parametrize("uniform", [False, True])
def test_what_is_promised_of_fresh_layers_is_kept(uniform: bool) -> None:
    """The whole way, test of freshness included: each guarantee fails with probability δ at most.

    D is a ReLU's own at a random input, so that it depends on W.
    """
    rng = np.random.default_rng([29, uniform])
    n, trials, delta = 32, 250, 0.1
    failed = dict.fromkeys(GAUSSIAN_ONLY | ASYMPTOTIC, 0)
    for _ in range(trials):
        w = rng.uniform(-np.sqrt(3), np.sqrt(3), (n, n)) if uniform else rng.standard_normal((n, n))
        w *= 0.25 / np.sqrt(n)
        d: Array = np.where(w @ rng.standard_normal(n) > 0, 1.0, 0.0)
        for check in gaussian.checks(layer_of(w, diagonals=[d], activation="relu"), delta=delta):
            if check.id in failed and check.value is not None and check.bound is not None:
                failed[check.id] += check.value > check.bound
    few = delta * trials + 3 * np.sqrt(delta * (1 - delta) * trials)
    for name in GAUSSIAN_ONLY | {"r16", "r20", "r21.tw"}:
        assert failed[name] <= few, name
    assert failed["r20"] > 0  # asymptotic, and sharp
    assert failed["r21.alld"] == 0


def test_large_scales_are_vacuous() -> None:
    found = verdicts(fresh(c=np.sqrt(2)))
    for name in ("r21.gauss", "r21.alld", "r21.tw", "r22.121", "r22.nr", "r23"):
        assert (found[name].verdict, found[name].bound) == ("vacuous", None)
        assert "needs" in found[name].why
    assert "c = 1.4" in found["r21.gauss"].why


def test_rho_and_beta_scale_c() -> None:
    found = verdicts(fresh(c=0.1, rho=-0.5, beta=2.0))
    assert found["r22.nr"].bound == pytest.approx(float(rm.limit_nr(0.4)), rel=0.02)
    assert found["r21.gauss"].verdict == "holds"
    nothing = verdicts(fresh(rho=0.0))
    assert nothing["r21.gauss"].why == "there is no skip: ρ is 0"


def test_rectangular_layers() -> None:
    rng = np.random.default_rng(5)
    for shape in ((128, 40), (40, 128)):
        found = verdicts(layer_of(0.02 * rng.standard_normal(shape)))
        for name in ("r16", "r17", "r19.max", "r19.min", "r20", "r21.gauss", "r21.tw"):
            assert found[name].verdict == "holds", found[name]
        assert found["r23"].why == "speaks of square layers"


def test_normalisation_in_the_pattern() -> None:
    layer = fresh()
    scaled = [replace(p, diagonal=1.7 * p.diagonal) for p in layer.patterns]
    found = verdicts(replace(layer, patterns=tuple(scaled)))
    assert "a normalisation is folded into it" in found["r18"].why
    assert "a normalisation is folded into it" in found["r21.alld"].why
    assert found["r17"].verdict == "holds"


def test_an_initialisation_that_is_not_this_layer_s() -> None:
    layer = fresh(c=np.sqrt(2))
    assert verdicts(layer, init="kaiming")["r17"].verdict == "holds"
    other = verdicts(layer, init="xavier")["r17"]
    assert other.verdict == "not_applicable"
    assert "not those of xavier" in other.why
    assert verdicts(layer, init=f"std:{np.sqrt(2 / 128):.6f}")["r17"].verdict == "holds"


def test_convolutions_get_limits_alone() -> None:
    """Fourier blocks of a kernel of independent entries: complex, of variance taps·s² (MATH R52)."""
    rng = np.random.default_rng(6)
    channels, side, std = 64, 6, 0.25 / (3 * 8)
    kernel = std * rng.standard_normal((channels, channels, 3, 3))
    blocks: NDArray[np.complex128] = (
        np.fft.fft2(kernel, s=(side, side)).transpose(2, 3, 0, 1).reshape(-1, channels, channels)
    )
    phase = np.exp(2j * np.pi * np.add.outer(np.arange(side), np.arange(side)) / side).reshape(-1, 1, 1)
    values: Array = np.asarray(np.linalg.svd(blocks, compute_uv=False), float)
    skip: Array = np.asarray(np.linalg.svd(np.eye(channels) + phase * blocks, compute_uv=False), float)
    layer = layer_of(kernel.reshape(channels, -1))
    assert layer.entries is not None
    conv = replace(
        layer, kind="conv2d", shape=(channels, channels), shortcut="identity", weight=values,
        multiplicity=np.ones(len(values), dtype=np.int64), skip=skip, tau=None,
        entries=replace(layer.entries, taps=9),
    )  # fmt: skip
    found = verdicts(conv)
    assert "not for convolutions" in found["r17"].why
    # The shortcut counts as no isometry without its τ; with it the limits speak, at c = 0.25.
    assert found["r23"].verdict == "not_applicable"
    phased = phase * blocks
    tau: Array = np.asarray(np.linalg.eigvalsh(phased + phased.conj().transpose(0, 2, 1))[:, ::-1], float)
    found = verdicts(replace(conv, tau=tau))
    assert found["r23"].bound == pytest.approx(float(rm.limit_kappa(0.25)), rel=0.02)
    assert found["r23"].value == pytest.approx(found["r23"].bound, rel=0.15)
    assert found["r22.nr"].verdict == "holds"


def test_the_range_of_elu_is_not_that_of_its_samples() -> None:
    """R18 speaks of all D at once: φ′ of ELU comes as near to 0 as one likes, whatever was sampled."""
    rng = np.random.default_rng(9)
    w = rng.standard_normal((32, 32))
    for activation in ("elu", "celu"):
        layer = layer_of(w, diagonals=[rng.uniform(0.4, 1, 32).round(1)], activation=activation)
        assert pattern_range(layer) == (0.0, 1.0, "")
    steep = layer_of(w, diagonals=[np.linspace(0, 2, 32)], activation="elu")  # α = 2
    assert pattern_range(steep)[2]
