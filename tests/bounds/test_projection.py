"""Bounds of layers beside a shortcut that is a layer of the checkpoint, against dense matrices."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from specinspect.bounds.catalogue import CATALOGUE
from specinspect.bounds.checks import check_layer
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.projection import layer_checks
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap
from specinspect.maps.patterns import Diagonals
from specinspect.spectra.activated import Question, measure_maps
from specinspect.spectra.compute import measure
from specinspect.spectra.plan import Plan
from specinspect.spectra.quantities import LayerQuantities

Matrix = NDArray[np.float64]
CPU = Plan("cpu")
GRID = 4


def quantities(
    linear: LinearMap, beside: LinearMap, d: Matrix | None, rho: float, beta: float, kind: str
) -> LayerQuantities:
    diagonals = None if d is None else Diagonals(torch.from_numpy(d), torch.ones(len(d)))
    weight = measure([linear], CPU, keep_values=True)[0].spectrum
    question = Question(rho, beta, kind, diagonals, beside)
    answer = measure_maps(linear, weight, question, CPU, keep_values=True, quantities=True)
    assert answer.quantities is not None
    return replace(answer.quantities, kind="linear")


def by_map(found: tuple[BoundCheck, ...]) -> dict[tuple[str, str], BoundCheck]:
    assert len({(check.of, check.id) for check in found}) == len(found)
    assert all(check.id in CATALOGUE for check in found)
    return {(check.of, check.id): check for check in found}


def assert_true(q: LayerQuantities, w: Matrix, a: Matrix, d: Matrix | None, counts: Counter[str]) -> None:
    """Compare every bound with the dense maps, and with its formula."""
    found = by_map(layer_checks(q))
    norm, low = np.linalg.svd(q.rho * a, compute_uv=False)[[0, -1]]
    rows = [("skip", [w])]
    if d is not None:
        each = len(w) // d.shape[1]
        rows.append(("skip_chain", [np.repeat(row, each)[:, None] * w for row in d]))
    assert {of for of, _ in found} == {of for of, _ in rows}
    for of, branches in rows:
        maps = [np.linalg.svd(q.rho * a + q.beta * m, compute_uv=False) for m in branches]
        s = [np.linalg.svd(q.beta * m, compute_uv=False) for m in branches]
        top, bottom = max(n[0] for n in maps), min(n[-1] for n in maps)
        slack = 1e-8 * (norm + max(x[0] for x in s))
        upper = max(norm + x[0] for x in s)
        lower = {"simple": min(low - x[0] for x in s), "weyl": min(x[-1] - norm for x in s)}
        best = min(max(low - x[0], x[-1] - norm) for x in s)
        kappa = max((norm + x[0]) / b if (b := max(low - x[0], x[-1] - norm)) > slack else np.inf for x in s)
        assert found[of, "r2"].verdict in {"holds", "vacuous"}
        assert found[of, "r3.upper.simple"].bound == pytest.approx(upper)
        assert top <= upper + slack
        for form, bound in (*lower.items(), ("best", best)):
            check = found[of, f"r3.lower.{form}"]
            counts[check.verdict] += 1
            assert check.verdict != "violated"
            if check.verdict == "holds":
                assert check.bound == pytest.approx(bound, abs=slack)
                assert bottom >= bound - slack
            elif len(branches) == 1:
                assert bound <= slack
        check = found[of, "r4.best"]
        counts[check.verdict] += 1
        assert check.verdict in {"holds", "vacuous"}
        if check.verdict == "holds" and np.isfinite(kappa) and kappa < 1e5:
            assert check.bound == pytest.approx(kappa, rel=1e-6)
            assert max(n[0] / n[-1] for n in maps) <= kappa * (1 + 1e-6)
        assert found[of, "r4.sharp"].verdict == "not_applicable"


PAIRS = [(1.0, 1.0), (0.7, -1.3), (-2.0, 0.05), (1.0, 20.0), (0.0, 1.0), (3.0, 0.0)]


def test_dense_layers_beside_any_matrix() -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=120, deadline=None, database=None)
    @given(
        shape=st.sampled_from([(1, 1), (4, 4), (6, 3), (3, 6)]),
        pair=st.sampled_from(PAIRS),
        scale=st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
        plus=st.booleans(),
        singular=st.booleans(),
        relu=st.booleans(),
        seed=st.integers(0, 2**31),
    )
    def tried(
        shape: tuple[int, int],
        pair: tuple[float, float],
        scale: float,
        plus: bool,
        singular: bool,
        relu: bool,
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        w, a = scale * rng.standard_normal(shape), rng.standard_normal(shape)
        if singular:
            a[0] = 0
        d = rng.standard_normal((3, shape[0]))
        d = np.maximum(d, 0) if relu else 1 + 0.1 * d
        kind = "projection-plus-identity" if plus else "projection"
        linear, beside = (DenseMap(torch.from_numpy(x), "f64") for x in (w, a))
        rho, beta = pair
        q = quantities(linear, beside, d, rho, beta, kind)
        assert_true(q, w, a + np.eye(*shape) if plus else a, d, counts)

    tried()
    assert counts["holds"] > 100
    assert counts["vacuous"] > 100


def written(kernel: torch.Tensor, stride: int) -> Matrix:
    """Return the matrix of torch's convolution on a periodic grid."""
    size = kernel.shape[-1]
    images = torch.eye(kernel.shape[1] * GRID**2, dtype=torch.float64).reshape(
        -1, kernel.shape[1], GRID, GRID
    )
    images = F.pad(images, [size // 2] * 4, mode="circular") if size > 1 else images
    return F.conv2d(images, kernel, stride=stride).flatten(1).T.numpy()


@pytest.mark.parametrize(("inn", "out", "stride"), [(3, 3, 1), (2, 4, 1), (2, 4, 2), (3, 12, 2), (4, 2, 1)])
@pytest.mark.parametrize("scale", [0.02, 1.0, 20.0])
def test_convolutions_beside_a_1x1(inn: int, out: int, stride: int, scale: float) -> None:
    rng = np.random.default_rng(1)
    w = torch.from_numpy(scale * rng.standard_normal((out, inn, 3, 3)))
    a = torch.from_numpy(rng.standard_normal((out, inn, 1, 1)))
    maps = [
        ConvolutionMap(kernel[None], (stride,) * 2, (1, 1), (GRID, GRID), "f64", (kernel.shape[-1] // 2,) * 2)
        for kernel in (w, a)
    ]
    d = rng.uniform(0.5, 1.0, (2, out))
    q = quantities(maps[0], maps[1], d, 0.9, -0.5, "projection")
    assert_true(q, written(w, stride), written(a, stride), d, Counter())


def test_a_dominant_projection_guarantees_kappa_in_a_report() -> None:
    """The guarantee stands in a report beside κ(skip), and everything else is said not to apply."""
    import specinspect
    from specinspect.layers.rules import Rule

    rng = np.random.default_rng(0)
    w, a = 0.01 * rng.standard_normal((6, 6)), np.diag([1.0, 1.5, 2.0, 1.2, 1.1, 1.3])
    state = {"branch.weight": torch.from_numpy(w), "down.weight": torch.from_numpy(a)}
    rule = Rule("branch", skip="projection", shortcut="down")
    report = specinspect.inspect(state, rules=(rule,), layers=("branch",), activation="relu", patterns=4)
    layer = report.layers[0]
    found = {(check.of, check.id): check for check in layer.bounds}
    best, norm = found["skip", "r4.best"], np.linalg.norm(w, 2)
    assert best.verdict == "holds"
    assert best.bound is not None
    assert best.bound == pytest.approx((2 + norm) / (1 - norm))
    assert layer.maps["skip"].condition_number is not None
    assert layer.maps["skip"].condition_number <= best.bound
    assert any("σmin(A) = 1" in sentence for sentence in best.assumptions)
    assert "from 1 to 2" in found["skip", "r4.sharp"].why
    assert found["skip_chain", "r4.best"].verdict == "holds"
    assert not [check for check in layer.bounds if check.verdict == "violated"]


def test_a_forged_value_is_violated() -> None:
    rng = np.random.default_rng(0)
    w, a = 0.1 * rng.standard_normal((5, 5)), rng.standard_normal((5, 5))
    linear, beside = (DenseMap(torch.from_numpy(x), "f64") for x in (w, a))
    q = quantities(linear, beside, None, 1.0, 1.0, "projection")
    assert q.projection is not None
    forged = replace(q, projection=replace(q.projection, skip=5 * q.projection.skip))
    assert "violated" not in {check.verdict for check in check_layer(q, None, {})}
    wrong = {check.id for check in check_layer(forged, None, {}) if check.verdict == "violated"}
    assert {"r2", "r3.upper.simple"} <= wrong
