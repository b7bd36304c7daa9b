"""Bounds on residual blocks, against Jacobians by autograd and matrices made for the purpose."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from torch import Tensor, nn

import specinspect
from specinspect.bounds.blocks import check_block, checks
from specinspect.bounds.catalogue import CATALOGUE
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.network import BlockFactor, Extremes, block_checks
from specinspect.checkpoint import Checkpoint, from_state_dict
from specinspect.maps.blocks import build_branch, sample_inputs
from specinspect.report.assemble import assemble
from specinspect.report.model import Report
from specinspect.report.schema import schema_text
from specinspect.spectra.blocks import measure_block
from specinspect.spectra.blocks.quantities import _well_within, ends
from specinspect.spectra.plan import Plan
from specinspect.spectra.quantities import BlockPattern, BlockQuantities
from tests.architecture import nets
from tests.spectra.test_blocks import Found
from tests.test_jacobians import randomise

RNG = np.random.default_rng(0)
PAIRS = ((1.0, 1.0), (1.0, 0.2), (0.5, -1.5), (-2.0, 0.3))


def singular_values(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)[None]


def quantities(
    a: NDArray[np.float64],
    branches: list[NDArray[np.float64]],
    rho: float,
    beta: float,
    *,
    ends: bool = False,
) -> BlockQuantities:
    """What a block of dense matrices would be told of itself, by numpy."""
    low, high = np.linalg.svd(a, compute_uv=False)[[-1, 0]]
    isometric = high > 0 and high - low < 1e-9
    patterns = []
    for j in branches:
        h = (a.T @ j + j.T @ a if len(j) >= len(j.T) else a @ j.T + j @ a.T) / (high or 1.0)
        tau = np.linalg.eigvalsh(h)[::-1][None]
        tau = tau[:, [0, -1]] if ends else tau
        patterns.append(
            BlockPattern(
                singular_values(j),
                singular_values(rho * a + beta * j),
                tau if isometric else None,
            )
        )
    square = a.shape[0] == a.shape[1] and bool(np.allclose(a, np.eye(len(a))))
    once = np.ones(1, dtype=np.int64)
    return BlockQuantities(
        shape=(len(a), len(a.T)),
        identity=square,
        periodic=False,
        rho=rho,
        beta=beta,
        shortcut=(float(low), float(high)),
        multiplicity=once,
        patterns=tuple(patterns),
    )


def by_id(found: tuple[BoundCheck, ...]) -> dict[str, BoundCheck]:
    assert len({check.id for check in found}) == len(found)
    assert all(check.of == "skip" and check.id in CATALOGUE for check in found)
    return {check.id: check for check in found}


def shortcuts(m: int, n: int) -> dict[str, NDArray[np.float64]]:
    q = np.linalg.qr(RNG.standard_normal((max(m, n), min(m, n))))[0]
    return {
        "identity": np.eye(m, n),
        "isometry": q if m >= n else q.T,
        "multiple": 0.5 * (q if m >= n else q.T),
        "projection": RNG.standard_normal((m, n)) / n**0.5,
        "singular": np.diag(np.arange(max(m, n), dtype=float))[:m, :n],
    }


def test_no_block_of_any_kind_violates_a_bound() -> None:
    counts: Counter[str] = Counter()
    for m, n in ((1, 1), (2, 2), (5, 5), (7, 4), (4, 7), (12, 12)):
        for name, a in shortcuts(m, n).items():
            for scale in (0.0, 1e-6, 0.3, 1.0, 30.0):
                branches = [scale * RNG.standard_normal((m, n)) / n**0.5 for _ in range(2)]
                branches.append(-scale * a)
                for rho, beta in PAIRS:
                    for only_ends in (False, True):
                        if only_ends and min(m, n) <= 2:
                            continue
                        found = checks(quantities(a, branches, rho, beta, ends=only_ends))
                        wrong = [c for c in found if c.verdict == "violated"]
                        assert not wrong, (name, scale, rho, beta, wrong)
                        counts.update(c.verdict for c in found)
    assert counts["holds"] > 3000
    assert counts["vacuous"] > 1000


@pytest.mark.parametrize("kind", ["identity", "multiple", "projection"])
def test_a_guarantee_holds_at_every_pattern(kind: str) -> None:
    said = 0
    for _ in range(60):
        a = shortcuts(6, 6)[kind]
        if kind == "projection":
            a = np.eye(6) + 0.2 * a
        scales = RNG.uniform(0.01, 0.4, 5)
        branches = [s * RNG.standard_normal((6, 6)) / 6**0.5 for s in scales]
        found = by_id(checks(quantities(a, branches, 1.0, 1.0)))
        kappas = [np.linalg.cond(a + j) for j in branches]
        for id_ in ("r4.simple", "r4.best"):
            check = found[id_]
            if check.verdict == "holds":
                assert check.bound is not None
                assert max(kappas) <= check.bound * (1 + 1e-9)
                said += 1
                # No less for the best of patterns than for the worst.
                singles = [by_id(checks(quantities(a, [j], 1.0, 1.0)))[id_].bound for j in branches]
                assert check.bound == pytest.approx(max(b for b in singles if b is not None))
    assert said > 30


def test_a_projection_is_bounded_by_its_own_extremes() -> None:
    a, j = np.diag([3.0, 2.0]), np.array([[0.0, 0.5], [0.5, 0.0]])
    found = by_id(checks(quantities(a, [j], 1.0, 2.0)))
    assert found["r3.upper.simple"].bound == pytest.approx(3 + 1)
    assert found["r3.lower.simple"].bound == pytest.approx(2 - 1)
    assert found["r4.simple"].bound == pytest.approx(4)
    assert found["r3.lower.weyl"].verdict == "vacuous"
    assert found["r3.lower.best"].bound == pytest.approx(2 - 1)
    assert found["r4.best"].bound == pytest.approx(4)
    assert found["r4.sharp"].verdict == "not_applicable"
    assert "from 2 to 3" in found["r4.sharp"].why
    assert any("‖A‖ = 3" in a for a in found["r2"].assumptions)


def test_a_forged_value_is_violated_and_becomes_an_error() -> None:
    q = quantities(np.eye(4), [0.1 * RNG.standard_normal((4, 4)) for _ in range(3)], 1.0, 1.0)
    forged = BlockPattern(q.patterns[1].chain, 5 * q.patterns[1].skip, q.patterns[1].tau)
    wrong = replace(q, patterns=(q.patterns[0], forged, q.patterns[2]))
    found = checks(wrong)
    assert {"r1", "r2", "r3.upper.sharp", "r3.upper.simple"} <= {
        c.id for c in found if c.verdict == "violated"
    }
    report = inspect(mlp())
    (block, *_) = report.blocks
    data = assemble(
        empty_checkpoint(), {}, report.layers, (), blocks=[replace(block, bounds=found)], seconds=0.0
    )
    errors = [f for f in data.findings if f.rule == "bound_violated"]
    assert errors
    assert {(f.severity, f.layer) for f in errors} == {("error", block.block.name)}


def empty_checkpoint() -> Checkpoint:
    return from_state_dict({"a.weight": torch.ones(2, 2)})


def mlp(scale: float = 0.3) -> nn.Module:
    model = nets.ResidualMLP(3, 8)
    randomise(model)
    for parameter in model.parameters():
        parameter.data.mul_(scale)
    return model.eval()


def inspect(model: nn.Module, **settings: Any) -> Report:
    return specinspect.inspect(model, **{"device": "cpu", "cache": False, "patterns": 4, **settings})


def test_the_jacobians_of_a_network_obey_what_its_blocks_are_promised() -> None:
    model = mlp(0.6).double()
    found = Found(model)
    for name, block in found.blocks.items():
        branch = build_branch(block, found.layers, found.read, found.available(block), 1)
        inputs = sample_inputs(branch, name, 4, 0)
        answer = measure_block(
            block, found.layers, found.read, available=found.available(block), plan=Plan("cpu"),
            patterns=4, inputs=inputs, quantities=True,
        )  # fmt: skip
        assert answer.quantities is not None
        layer = model.layers[int(name.split(".")[1])]  # type: ignore[index]

        def inner(x: Tensor, layer: Any = layer) -> Tensor:
            return 0.5 * F.leaky_relu(layer(x), 0.1)

        kappas = []
        for x, pattern in zip(inputs, answer.quantities.patterns, strict=True):
            j = torch.autograd.functional.jacobian(inner, x).numpy()
            assert pattern.chain[0] == pytest.approx(np.linalg.svd(j, compute_uv=False), abs=1e-7)
            assert pattern.tau is not None
            assert pattern.tau[0] == pytest.approx(np.linalg.eigvalsh(j + j.T)[::-1], abs=1e-7)
            kappas.append(np.linalg.cond(np.eye(8) + j))
        checked = by_id(check_block(answer.spectra, answer.quantities))
        assert not [c for c in checked.values() if c.verdict == "violated"]
        best = checked["r4.best"]
        assert best.verdict == "holds"
        assert best.bound is not None
        assert max(kappas) <= best.bound * (1 + 1e-6)


@pytest.mark.parametrize(
    ("kind", "expansion", "name"),
    [
        *((nets.BasicBlock, 1, name) for name in ("layer1.0", "layer1.1", "layer2.0", "layer2.1")),
        (nets.Bottleneck, 4, "layer1.1"),
    ],
)
def test_quantities_of_convolutions_are_those_of_the_dense_operator(
    kind: type[nn.Module], expansion: int, name: str
) -> None:
    model = nets.ResNet(kind, expansion)
    randomise(model)
    found = Found(model.double())
    block, branch = found.blocks[name], found.branch(name, 6)
    constant = torch.randn(3, branch.channels, 1, 1, dtype=torch.float64)
    inputs = constant.expand(-1, -1, *branch.grid)
    answers = [
        measure_block(
            block, found.layers, found.read, available=found.available(block), plan=Plan("cpu"),
            patterns=3, grid=6, inputs=inputs, quantities=True, per_pixel=per_pixel, rho=0.8, beta=-0.3,
        )
        for per_pixel in (False, True)
    ]  # fmt: skip
    fast, dense = (answer.quantities for answer in answers)
    assert fast is not None
    assert dense is not None
    assert (fast.periodic, dense.periodic) == (True, False)
    assert fast.shortcut == pytest.approx(dense.shortcut, abs=1e-6)
    for mine, truth in zip(fast.patterns, dense.patterns, strict=True):
        for values, whole in ((mine.chain, truth.chain), (mine.skip, truth.skip)):
            flat = np.sort(np.repeat(values, fast.multiplicity, 0), axis=None)[::-1]
            assert flat == pytest.approx(whole[0], abs=1e-6)
        assert (mine.tau is None) == (truth.tau is None) == (block.shortcut.kind == "layers")
        if mine.tau is not None and truth.tau is not None:
            assert (mine.tau.min(), mine.tau.max()) == pytest.approx(
                (truth.tau.min(), truth.tau.max()), abs=1e-6
            )
    for answer in answers:
        checked = check_block(answer.spectra, answer.quantities)
        assert not [c for c in checked if c.verdict == "violated"]
        assert sum(c.verdict == "holds" for c in checked) >= 2


def test_ends_of_many_hermitian_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        h = torch.randn(40, 6, 6, generator=generator, dtype=torch.complex128)
        h = h + h.mH
        truth = torch.linalg.eigvalsh(h)
        expected = pytest.approx((float(truth.min()), float(truth.max())))
        assert ends(h, np.inf, -np.inf) == expected
        assert ends(h[20:], *ends(h[:20], np.inf, -np.inf)) == expected
        assert ends(h, -100.0, 1.0)[0] == -100.0
        assert ends(h, -1.0, 100.0)[1] == 100.0
    zeros = torch.zeros(40, 3, 3, dtype=torch.complex128)
    assert ends(zeros, np.inf, -np.inf) == (0.0, 0.0)


@pytest.mark.parametrize("n", [31, 40, 128])
@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e120])
def test_single_precision_hides_no_end_of_tau(n: int, scale: float) -> None:
    """An eigenvalue that is outside by a relative 1e-9 is found, whatever the basis, on either side."""
    generator = torch.Generator().manual_seed(n)
    passed = 0
    for _ in range(20):
        q = torch.linalg.qr(torch.randn(n, n, dtype=torch.complex128, generator=generator)).Q
        values = torch.rand(n, dtype=torch.float64, generator=generator) * 1.8 - 0.9
        for outside in (0.0, 1 + 1e-9, -1 - 1e-9):
            values[0] = outside
            h = scale * (q * values) @ q.mH
            h = (h + h.mH)[None] / 2
            low, high = ends(h, -scale, scale)
            assert low / scale == pytest.approx(min(-1, outside), rel=1e-11)
            assert high / scale == pytest.approx(max(1, outside), rel=1e-11)
            passed += bool(_well_within(h, -scale, scale))
    assert passed == (20 if n >= 32 else 0)  # where it is by far within, it is seen at once


def test_blocks_too_large_to_be_written_out_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specinspect.spectra.blocks.pixel.DENSE_COLUMNS", 8)
    model = nets.ResNet(nets.BasicBlock, 1)
    randomise(model)
    report = inspect(
        model, grid=4, patterns=1, conv_pattern="pixel", conv_operator="padded", layers=["layer1.0*"]
    )
    (block,) = report.blocks
    assert [(c.id, c.verdict) for c in block.bounds] == [
        ("r4.best", "not_applicable"),
        ("r26.branch", "not_applicable"),
    ]


def r26(report: Report) -> BoundCheck:
    (found,) = [check for check in report.network if check.id == "r26" and check.of == "block"]
    return found


def test_blocks_in_a_row_multiply() -> None:
    model = mlp(0.6).double()
    found, report = Found(model), inspect(model)
    check = r26(report)
    assert check.verdict == "holds"
    assert check.value is not None
    assert check.bound is not None
    assert not any("assumed" in a for a in check.assumptions)
    jacobians = []
    for name, block in found.blocks.items():
        branch = build_branch(block, found.layers, found.read, found.available(block), 1)
        inputs = sample_inputs(branch, name, 4, 0)
        layer = model.layers[int(name.split(".")[1])]  # type: ignore[index]

        def block_map(x: Tensor, layer: Any = layer) -> Tensor:
            return x + 0.5 * F.leaky_relu(layer(x), 0.1)

        jacobians.append([torch.autograd.functional.jacobian(block_map, x) for x in inputs])
    together = [torch.linalg.multi_dot(one[::-1]) for one in zip(*jacobians, strict=True)]
    assert check.value == pytest.approx(max(float(torch.linalg.cond(m)) for m in together), rel=1e-6)
    largest = 1.0
    for one in product(*jacobians):
        largest = max(largest, float(torch.linalg.cond(torch.linalg.multi_dot(one[::-1]))))
    assert 1.5 < check.value <= largest <= check.bound * (1 + 1e-6)
    worst = [max(float(torch.linalg.cond(j)) for j in each) for each in jacobians]
    assert check.bound == pytest.approx(float(np.prod(worst)), rel=1e-6)


def test_a_product_needs_blocks_that_follow_each_other() -> None:
    def factor(place: int, **other: Any) -> BlockFactor:
        kappa = other.pop("kappa", 3.0)
        places, extremes = (2 * place, 2 * place + 1), Extremes(kappa, 1.0, kappa)
        made = BlockFactor(f"b{place}", "", places, (8, 4, 4), "", extremes, assumed=True)
        return replace(made, **other)

    (held,) = block_checks([factor(0), factor(1), factor(2)])
    assert held.bound == pytest.approx(27)
    assert any("assumed" in a for a in held.assumptions)
    assert any("grid" in a for a in held.assumptions)
    for second, word in (
        (factor(2), "other layers"),
        (factor(1, size=(8, 2, 2)), "one size"),
        (factor(1, kappa=float("inf")), "singular"),
        (factor(1, why_not="its shortcut is not the identity"), "not the identity"),
    ):
        (check,) = block_checks([factor(0), second])
        assert check.verdict == "not_applicable"
        assert word in check.why
    (check,) = block_checks([factor(0, ends="relu"), factor(1)])
    assert "relu follows the sum of b0" in check.why
    assert [c.bound for c in block_checks([factor(i, ends="relu" if i == 1 else "") for i in range(4)])] == [
        pytest.approx(9),
        pytest.approx(9),
    ]
    (check,) = block_checks([factor(0, kappa=1e200), factor(1, kappa=1e200)])
    assert check.verdict == "vacuous"
    assert block_checks([]) == ()


def test_an_activation_after_the_sum_ends_a_product() -> None:
    model = nets.ResNet(nets.BasicBlock, 1)
    randomise(model)
    check = r26(inspect(model, grid=4, patterns=1))
    assert check.verdict == "not_applicable"


def test_the_report_has_them() -> None:
    report = inspect(mlp())
    assert all(block.bounds for block in report.blocks)
    data = json.loads(report.to_json())
    Draft202012Validator(json.loads(schema_text())).validate(data)
    (first, *_) = data["blocks"]
    assert first["bounds"][0]["source"]
    assert {"r2", "r4.best"} <= {c["id"] for c in first["bounds"]}
    assert not any(block.bounds for block in inspect(mlp(), bounds=False).blocks)


@pytest.mark.parametrize("rho", [0.001, 0.3])
def test_a_branch_that_is_zero_leaves_the_shortcut_to_the_last_digit(rho: float) -> None:
    """All singular values of ρI + βJ are |ρ| where J is zero by structure, in double precision."""
    state = {"a.weight": torch.ones(4, 4), "b.weight": torch.zeros(4, 4), "c.weight": torch.ones(4, 4)}
    report = specinspect.inspect(
        state, compose=["a:b:c"], activation="relu", rho=rho, device="cpu", patterns=2, spectra=True
    )
    (block,) = report.blocks
    assert block.skip is not None
    assert block.skip.singular_values is not None
    assert (block.skip.singular_values == rho).all()
    assert not [c for c in block.bounds if c.verdict == "violated"]
