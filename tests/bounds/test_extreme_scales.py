"""No bound is violated and no number is NaN at any scale, rank and sign; and the cases that once were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from specinspect.bounds.advice import advise
from specinspect.bounds.checks import check_layer
from specinspect.bounds.model import BoundCheck
from specinspect.maps.model import DenseMap
from specinspect.spectra.entries import entries
from specinspect.spectra.quantities import LayerQuantities
from tests.bounds.families import matrices
from tests.bounds.layers import adversarial, eigenvalues_of_symmetric_part, layer_of, relu_patterns, sigma

Array = NDArray[np.float64]
SCALES = (0, 0, 0, -1, 1, -3, 3, -8, 8, -20, 20, -60, 60, -120, 120, 150, -300)


def layer(w: Array, **known: object) -> LayerQuantities:
    """As `layer_of`, with entries as they are measured: at these scales squares leave float64."""
    scale = float(np.abs(w).max()) or 1.0
    made = layer_of(w / scale, **{**known, "rho": 1.0, "beta": 1.0})  # type: ignore[arg-type]
    rho, beta = float(known.get("rho", 1.0)), float(known.get("beta", 1.0))  # type: ignore[arg-type]
    identity = np.eye(*w.shape)

    def beside(m: Array) -> Array:
        return sigma(rho * identity + beta * m)[None]

    patterns = tuple(
        replace(p, chain=p.chain * scale, skip_chain=beside(p.diagonal[:, None] * w), tau=p.tau * scale)
        for p in made.patterns
        if p.tau is not None
    )
    return replace(
        made,
        rho=rho,
        beta=beta,
        weight=made.weight * scale,
        skip=beside(w),
        tau=eigenvalues_of_symmetric_part(w / scale)[None] * scale,
        floor=made.floor * scale,
        entries=entries(DenseMap(torch.from_numpy(w), "f64")),
        patterns=patterns,
    )


def wrong(checks: Iterable[BoundCheck]) -> list[BoundCheck]:
    def numbers(check: BoundCheck) -> list[float]:
        found = (check.value, check.bound, check.slack, check.probability)
        return [number for number in found if number is not None]

    return [
        check
        for check in checks
        if check.verdict == "violated"
        or not all(map(isfinite, numbers(check)))
        or (check.verdict == "holds" and (check.slack or 0.0) < 0)
        or "nan" in check.why
    ]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_violated_at_any_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    verdicts: Counter[str] = Counter()
    for _ in range(250):
        m, n = (int(size) for size in rng.integers(1, 6, 2))
        n = m if rng.random() < 0.6 else n
        families = [*matrices(m, n, rng), *(adversarial(m, rng) if m == n else ())]
        name, w = families[int(rng.integers(len(families)))]
        scale = 10.0 ** rng.choice(SCALES)
        w = np.round(w, 1) * scale if rng.random() < 0.3 else w * scale
        if rng.random() < 0.2:
            w[int(rng.integers(m))] = 0
        rho = float(rng.choice([1, 0.5, -1, 0, 3, 1e-3, -2e3, 1e-9, 1e9]))
        beta = float(rng.choice([1, 0.1, -2, 0.7, 1e3, -1e-6])) / (scale if rng.random() < 0.4 else 1)
        if rng.random() < 0.2 and m == n:  # -ρ/β is an eigenvalue: N is singular
            real = [value.real for value in np.linalg.eigvals(w / scale) if value.imag == 0]
            rho = -beta * scale * real[0] if real else rho
        if rho == beta == 0 or not abs(beta) * np.abs(w).max() < 1e300:
            continue
        diagonals = [
            *relu_patterns(m, int(rng.integers(0, 3)), rng, float(rng.choice([0.0, 0.2, -1.0]))),
            *([rng.normal(size=m) * 10.0 ** rng.uniform(-4, 4)] if rng.random() < 0.3 else []),
        ]
        q = layer(w, rho=rho, beta=beta, diagonals=diagonals, activation=str(rng.choice(["relu", "gelu"])))
        found = check_layer(q, None, {}, delta=float(rng.choice([0.01, 1e-300])))
        assert not wrong(found), (name, rho, beta, w, wrong(found))
        advice = advise(q, float(rng.choice([10.0, 1.0001, 1e30])))
        assert not [a for a in advice if np.isnan(a.value) or "nan" in a.sentence]
        verdicts.update(c.verdict for c in found)
    assert verdicts["holds"] > 3000
    assert verdicts["vacuous"] > 300


def test_a_skip_that_cancels_the_largest_entry_is_no_violation() -> None:
    """|β/ρ|·n·c is 1 but for rounding, and N is zero: 1/(1-nc) is then no number to hold anything against."""
    for w in (0.7, 13.924293573413404, 0.1, 1 / 3):
        for beta in (1.0, 0.7, -3.0, 1e-6):
            q = layer(np.full((1, 1), w), rho=-beta * w, beta=beta)
            assert not wrong(check_layer(q, None, {}))


def test_a_slope_near_zero_costs_r13_digits_and_is_no_violation() -> None:
    for slope in (1e-3, 1.54863e-4, 9.97206e-7, 1e-9):
        q = layer(np.zeros((1, 1)), rho=1e-3, beta=-1e-6, diagonals=[np.array([slope])])
        found = [c for c in check_layer(q, None, {}) if c.id == "r13"]
        assert [c.verdict for c in found] in (["holds"], ["vacuous"])


def test_r5b_is_silent_where_rounding_decides() -> None:
    skew = np.array([[0.0, 1, 2], [-1, 0, 3], [-2, -3, 0]])  # singular
    q = layer(skew, rho=1e-24, beta=1e-6)
    q = replace(q, skip=np.array([[q.weight.max() * 1e-6, q.weight.max() * 1e-6, 0.0]]))
    (found,) = [c for c in check_layer(q, None, {}) if c.id == "r5b"]
    assert found.verdict == "not_applicable"
    (found,) = [c for c in check_layer(layer(skew, rho=1.0), None, {}) if c.id == "r5b"]
    assert found.verdict == "holds"
