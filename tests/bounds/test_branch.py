"""κ of a branch from κ of its layers: against dense products, where it fails, and in the report."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import specinspect
from specinspect.bounds.branch import Whole, check
from specinspect.bounds.model import BoundCheck
from specinspect.maps.blocks import points
from specinspect.report.assemble import assemble
from specinspect.report.model import Report
from specinspect.spectra.blocks.inside import branch_layers
from specinspect.spectra.blocks.question import PERIODIC
from specinspect.spectra.model import BranchLayer, BranchLayers
from tests.architecture import nets
from tests.spectra.test_blocks import Found
from tests.test_jacobians import randomise

Array = NDArray[np.float64]


def kappa(matrix: Array) -> float:
    """Over the singular values that are not zero."""
    values = np.linalg.svd(matrix, compute_uv=False)
    positive = values[values > 1e-12 * values[0]]
    return float(positive[0] / positive[-1])


def described(weights: list[Array], diagonals: list[Array]) -> BranchLayers:
    sizes = [weights[0].shape[1], *(len(w) for w in weights)]
    kept = [np.abs(d[d != 0]) for d in diagonals]
    return BranchLayers(
        tuple(BranchLayer(f"l{i}", (), (), padded=False) for i in range(len(weights))),
        tuple(sizes),
        tuple(i for i, d in enumerate(diagonals) if (d == 0).any()),
        float(np.prod([d.max() for d in kept])),
        float(np.prod([d.max() / d.min() for d in kept])),
    )


def judged(weights: list[Array], diagonals: list[Array]) -> tuple[BoundCheck | None, float]:
    j = np.diag(diagonals[0])
    for w, d in zip(weights, diagonals[1:], strict=True):
        j = d[:, None] * w @ j
    layers = {
        f"l{i}": Whole(float(np.linalg.norm(w, 2)), float(np.linalg.cond(w))) for i, w in enumerate(weights)
    }
    found = kappa(j)
    return check(described(weights, diagonals), Whole(float(np.linalg.norm(j, 2)), found), layers), found


def test_any_chain_that_narrows_and_widens_is_within_the_product() -> None:
    rng = np.random.default_rng(0)
    held = absent = 0
    for _ in range(3000):
        depth = int(rng.integers(2, 5))
        sizes = [int(n) for n in rng.integers(1, 7, depth + 1)]
        place = int(rng.integers(0, depth + 1))
        if rng.random() < 0.8:
            sizes[: place + 1] = sorted(sizes[: place + 1], reverse=True)
            sizes[place:] = sorted(sizes[place:])
        weights = [rng.standard_normal((m, n)) * 10 ** rng.uniform(-3, 3) for n, m in pairwise(sizes)]
        diagonals = [rng.choice([1.0, 0.3, -1.0, 2.0], n) for n in sizes]
        for i in {place, int(rng.integers(0, depth + 1))} if rng.random() < 0.3 else {place}:
            zero = rng.random(sizes[i]) < 0.4
            diagonals[i] = np.where(zero & ~zero.all(), 0.0, diagonals[i])
        found, truth = judged(weights, diagonals)
        assert found is not None
        assert found.verdict in {"holds", "not_applicable"}, (found, sizes)
        held += found.verdict == "holds"
        absent += found.verdict == "not_applicable"
        if found.verdict == "holds" and truth < 1e6:
            assert found.value == pytest.approx(truth)
            expected = np.prod([np.linalg.cond(w) for w in weights])
            for d in diagonals:
                alive = np.abs(d[d != 0])
                expected *= alive.max() / alive.min()
            assert found.bound == pytest.approx(expected)
    assert held > 1000
    assert absent > 300


def test_where_the_rule_fails_it_does_not_apply() -> None:
    """Isometries have κ = 1; a wide one between narrow ones, or two ReLUs around one, make any κ."""
    small = 1e-3
    a = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    up = a[:, :2]
    down = np.stack([a[:, 0], small * a[:, 1] + (1 - small**2) ** 0.5 * a[:, 2]])
    found, truth = judged([up, down], [np.ones(2), np.ones(3), np.ones(2)])
    assert truth == pytest.approx(1 / small)
    assert np.linalg.cond(up) == pytest.approx(1)
    assert np.linalg.cond(down) == pytest.approx(1)
    assert found is not None
    assert (found.verdict, found.bound) == ("not_applicable", None)
    assert "2 → 3 → 2" in found.why
    # Between two ReLUs: what is left of an orthogonal matrix is diag(1, small).
    middle = np.zeros((4, 4))
    middle[:2, :2] = np.diag([1, small])
    middle[2:, :2] = np.diag([0, (1 - small**2) ** 0.5])
    middle[:, 2:] = np.linalg.svd(middle[:, :2])[0][:, 2:]
    assert middle.T @ middle == pytest.approx(np.eye(4))
    relu = np.array([1.0, 1.0, 0.0, 0.0])
    found, truth = judged([np.eye(4), middle], [np.ones(4), relu, relu])
    assert truth == pytest.approx(1 / small)
    assert found is not None
    assert found.verdict == "not_applicable"
    assert "two places" in found.why


def test_a_single_layer_is_left_to_r9() -> None:
    assert judged([np.eye(3)], [np.ones(3), np.ones(3)])[0] is None


@pytest.mark.parametrize(
    ("change", "verdict", "word"),
    [
        ({"kappa": 7.0}, "violated", "κ(J) is 7, above"),
        ({"kappa": 6.0}, "holds", "at most"),
        ({"kappa": 2e6}, "holds", "above 1e6"),
        ({"kappa": 2e6, "high": 9.1}, "violated", "σmax(J) is 9.1, above"),
        ({"kappa": None}, "not_applicable", "not resolved"),
    ],
)
def test_forged_values(change: dict[str, Any], verdict: str, word: str) -> None:
    inside = BranchLayers(
        tuple(BranchLayer(name, (), (), padded=False) for name in "ab"), (3, 3, 3), (1,), 2.0, 1.5
    )
    layers = {"a": Whole(1.5, 2.0), "b": Whole(3.0, 2.0)}
    found = check(inside, replace(Whole(1.0, 3.0), **change), layers)
    assert found is not None
    assert found.verdict == verdict
    assert word in found.why
    wrong = {**layers, "b": Whole(3.0, 2.0, "on another grid")}
    found = check(inside, Whole(1.0, 3.0), wrong)
    assert found is not None
    assert (found.verdict, found.why) == ("not_applicable", "b: on another grid")
    found = check(inside, Whole(1.0, 3.0), {**layers, "a": Whole(1.5, None)})
    assert found is not None
    assert "κ of a is not resolved" in found.why
    found = check(inside, Whole(1.0, 3.0), {"a": Whole(1.0, 1e200), "b": Whole(1.0, 1e200)})
    assert found is not None
    assert found.verdict == "vacuous"


# In the report


def branches(report: Report) -> dict[str, BoundCheck]:
    return {b.block.name: c for b in report.blocks for c in b.bounds if c.id == "r26.branch"}


def inspect(source: Any, **settings: Any) -> Report:
    return specinspect.inspect(source, **{"device": "cpu", "cache": False, "patterns": 4, **settings})


def test_a_chain_without_activations_by_numpy() -> None:
    rng = np.random.default_rng(2)
    a, b, c = (rng.standard_normal(shape) for shape in ((5, 8), (5, 5), (7, 5)))
    state = {f"{name}.weight": torch.from_numpy(w) for name, w in (("a", a), ("b", b), ("c", c))}
    report = inspect(state, compose=["a:b:c"], activation="identity")
    (found,) = branches(report).values()
    assert found.verdict == "holds"
    assert found.of == "chain"
    assert found.value == pytest.approx(kappa(c @ b @ a), rel=1e-6)
    assert found.bound == pytest.approx(np.prod([np.linalg.cond(w) for w in (a, b, c)]), rel=1e-6)
    state["b.weight"][0] = 0
    (found,) = branches(inspect(state, compose=["a:b:c"], activation="identity")).values()
    assert found.verdict == "not_applicable"


def test_attention_and_mlps() -> None:
    model = nets.PreNormBlock().eval()
    randomise(model)
    found = branches(inspect(model))
    assert found["attn"].verdict == "holds"
    assert "8 → 16 → 8" in found["mlp"].why
    gated = nets.LlamaBlock().eval()
    randomise(gated)
    found = branches(inspect(gated))
    assert found["self_attn"].verdict == "holds"
    assert "gate" in found["mlp"].why


@pytest.mark.parametrize("settings", [{}, {"conv_operator": "padded", "grid": 4}])
def test_convolutions_in_a_residual_block(settings: dict[str, Any]) -> None:
    model = nets.ResNet(nets.BasicBlock, 1).eval()
    randomise(model)
    if settings:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.padding_mode = "zeros"
        settings["layers"] = ["layer1.*"]
    report = inspect(model, grid=8, **{k: v for k, v in settings.items() if k != "grid"})
    found = branches(report)
    assert found["layer1.0"].verdict == "holds"
    weights = {r.layer.name: r.maps["weight"].condition_number or 0 for r in report}
    bound = found["layer1.0"].bound
    assert bound is not None
    assert bound > weights["layer1.0.conv1"] * weights["layer1.0.conv2"]
    if not settings:
        assert found["layer2.0"].verdict == "holds"  # its first layer halves the grid
        assert len([c for c in found.values() if c.verdict == "violated"]) == 0


def test_two_relus_in_a_bottleneck() -> None:
    model = nets.ResNet(nets.Bottleneck, 4).eval()
    randomise(model)
    found = branches(inspect(model, grid=4))
    assert {c.verdict for c in found.values()} == {"not_applicable"}
    assert all("two places" in c.why or "grid" in c.why for c in found.values())


def test_the_diagonals_of_a_block_are_those_of_the_network() -> None:
    """Batch norms and ReLU, at images that are the same everywhere, by torch."""
    model = nets.ResNet(nets.BasicBlock, 1).double().eval()
    randomise(model)
    found, name = Found(model), "layer1.0"
    block, branch = found.blocks[name], found.branch(name, 6)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, branch.channels, 1, 1, generator=generator, dtype=torch.float64).expand(-1, -1, 6, 6)
    made = branch_layers(block, branch, points(branch.stages, x), PERIODIC)
    layer: Any = model.layer1[0]

    def scale(norm: nn.BatchNorm2d) -> Tensor:
        assert norm.running_var is not None
        return norm.weight.detach() / (norm.running_var + norm.eps).sqrt()

    inner, outer = scale(layer.bn1), scale(layer.bn2).abs()
    spreads, peaks = [], []
    for image in x:
        d = (layer.bn1(layer.conv1(image[None]))[0, :, 0, 0] > 0) * inner.abs()
        alive = d[d > 0]
        spreads.append(float(alive.max() / alive.min() * outer.max() / outer.min()))
        peaks.append(float(alive.max() * outer.max()))
    assert made.spread == pytest.approx(max(spreads))
    assert made.largest == pytest.approx(max(peaks))
    assert made.zeros == (1,)
    assert made.sizes == (8 * 36, 8 * 36, 8 * 36)
    assert [layer.sides for layer in made.layers] == [(6, 6), (6, 6)]


def test_a_violated_branch_is_an_error() -> None:
    state = {"a.weight": torch.eye(4) + 0.1, "b.weight": torch.eye(4) - 0.1}
    report = inspect(state, compose=["a:b"], activation="identity")
    (block,) = report.blocks
    assert block.chain is not None
    forged = replace(
        block, bounds=(), chain=replace(block.chain, pseudo_condition_number=1e4, condition_number=1e4)
    )
    checkpoint = specinspect.engine.open_source(state, specinspect.engine.settings_of({})).checkpoint
    data = assemble(checkpoint, {}, report.layers, (), blocks=[forged], seconds=0.0)
    (finding,) = [f for f in data.findings if f.rule == "bound_violated"]
    assert (finding.severity, finding.layer) == ("error", block.block.name)


def test_without_bounds_there_is_none() -> None:
    state = {"a.weight": torch.eye(4), "b.weight": torch.eye(4)}
    (block,) = inspect(state, compose=["a:b"], bounds=False).blocks
    assert (block.bounds, block.branch) == ((), None)
