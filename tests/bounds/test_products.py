"""The product of maps in a row, and R26 on it, against dense matrices, autograd and forged numbers."""

from __future__ import annotations

from math import inf, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import specinspect
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.network import Extremes, Factor, checks
from specinspect.engine import products
from specinspect.layers.rules import Rule
from specinspect.maps.blocks import points
from specinspect.report.assemble import assemble
from specinspect.report.model import Report
from specinspect.spectra.blocks.question import PERIODIC
from specinspect.spectra.blocks.row import RowBlock, blocks_product
from specinspect.spectra.model import ProductExtremes
from specinspect.spectra.plan import Plan
from specinspect.spectra.product import layers_product
from tests.architecture import nets
from tests.bounds.layers import adversarial
from tests.spectra.test_blocks import Found
from tests.test_jacobians import randomise

Array = NDArray[np.float64]


def extremes(matrices: list[Array]) -> list[tuple[float, float]]:
    values = [np.linalg.svd(m, compute_uv=False) for m in matrices]
    return [(float(v[0]), float(v[-1])) for v in values]


def factors_of(rows: list[list[Array]]) -> list[Factor]:
    """What is known of each factor, given its matrix at every pattern."""
    found = []
    for i, patterns in enumerate(rows):
        ends = extremes(patterns)
        kappa = max(top / low if low > 1e-13 * top else inf for top, low in ends)
        made = Extremes(max(t for t, _ in ends), min(low for _, low in ends), kappa)
        found.append(Factor(f"l{i}", len(patterns[0]), real=True, extremes=made))
    return found


def same(name: str, high: float, low: float) -> Factor:
    return Factor(name, 3, real=True, extremes=Extremes(high, low, high / low))


def key(factors: list[Factor]) -> tuple[str, tuple[str, ...]]:
    return "skip_chain", tuple(f.name for f in factors)


def test_the_product_of_any_layers_is_within_its_bound() -> None:
    rng = np.random.default_rng(0)
    held = resolved = 0
    for _ in range(400):
        n, depth, patterns = int(rng.integers(1, 7)), int(rng.integers(2, 6)), int(rng.integers(1, 4))
        rho, beta = float(rng.normal()), float(rng.normal())
        families = [w for _, w in adversarial(n, rng)]
        chosen = [families[int(rng.integers(len(families)))] * 10 ** rng.uniform(-3, 3) for _ in range(depth)]
        diagonals = [rng.choice([0.0, 0.3, 1.0, -1.0], (patterns, n)) for _ in range(depth)]
        found = layers_product(
            [torch.from_numpy(w) for w in chosen], [torch.from_numpy(d) for d in diagonals], rho, beta, "cpu"
        )
        rows = [
            [rho * np.eye(n) + beta * d[:, None] * w for d in each]
            for w, each in zip(chosen, diagonals, strict=True)
        ]
        for p, (top, low) in enumerate(found.logs):
            truth = np.eye(n)
            for row in rows:
                truth = row[p] @ truth
            values = np.linalg.svd(truth, compute_uv=False)
            assert np.exp(top) == pytest.approx(values[0], rel=1e-6)
            size = np.prod([np.linalg.norm(row[p], 2) for row in rows])
            assert np.exp(low) == pytest.approx(values[-1], rel=1e-5, abs=1e-11 * size)
        factors = factors_of(rows)
        (check,) = checks(factors, {key(factors): found})
        assert check.verdict in {"holds", "not_applicable", "vacuous"}, (check, rows)
        held += check.verdict == "holds"
        resolved += check.value is not None
    assert held > 200
    assert resolved > 150


def test_products_that_leave_float64_are_known_by_their_logarithms() -> None:
    w = torch.diag(torch.tensor([1e60, 1e59], dtype=torch.float64))
    found = layers_product([w] * 12, [None] * 12, 0.0, 1.0, "cpu")
    ((top, low),) = found.logs
    assert top == pytest.approx(12 * 60 * log(10), rel=1e-12)
    assert top - low == pytest.approx(12 * log(10), rel=1e-9)
    tiny = layers_product([w / 1e200] * 12, [None] * 12, 0.0, 1.0, "cpu")
    assert tiny.logs[0][0] - tiny.logs[0][1] == pytest.approx(12 * log(10), rel=1e-9)
    assert layers_product([0 * w] * 2, [None] * 2, 0.0, 1.0, "cpu").logs == ((-inf, -inf),)
    assert layers_product([w * 1e240, w], [None] * 2, 0.0, 1e100, "cpu").why_not


def test_a_layer_with_fewer_patterns_begins_again() -> None:
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.standard_normal((4, 4))) for _ in range(2))
    two, four = (torch.from_numpy(rng.random((count, 4))) for count in (2, 4))
    found = layers_product([a, b], [two, four], 1.0, 1.0, "cpu")
    eye = torch.eye(4, dtype=torch.float64)
    for p, (top, _) in enumerate(found.logs):
        m = (eye + four[p][:, None] * b) @ (eye + two[p % 2][:, None] * a)
        assert np.exp(top) == pytest.approx(float(torch.linalg.matrix_norm(m, 2)))


@pytest.mark.parametrize(
    ("logs", "verdict", "word"),
    [
        ([(log(6), 0.0)], "holds", "is 6, at most Πκ = 16"),
        ([(log(6), 0.0), (log(2), 0.0)], "holds", "at 2 sampled patterns"),
        ([(log(17), 0.0)], "violated", "above Πκ"),
        ([(log(16.1), log(8))], "violated", "beyond Πσmax"),
        ([(log(6), 0.0), (log(0.9), log(0.8))], "violated", "beyond"),
        ([(log(15), -inf)], "violated", "beyond"),
        ([(float("nan"), float("nan"))], "violated", ""),
    ],
)
def test_forged_products(logs: list[tuple[float, float]], verdict: str, word: str) -> None:
    factors = [same(name, 4.0, 1.0) for name in "ab"]
    (check,) = checks(factors, {key(factors): ProductExtremes(tuple(logs))})
    assert check.verdict == verdict, check
    assert word in check.why or any(word in a for a in check.assumptions)


def test_a_product_below_a_millionth_is_judged_by_its_extremes() -> None:
    factors = [same(name, 2.0, 1e-4) for name in "ab"]
    (check,) = checks(factors, {key(factors): ProductExtremes(((log(3), log(1e-8)),))})
    assert (check.verdict, check.value) == ("holds", None)
    (check,) = checks(factors, {key(factors): ProductExtremes(((log(4.1), log(1e-8)),))})
    assert (check.verdict, check.value) == ("violated", None)


def test_a_product_that_was_not_formed_proves_nothing() -> None:
    factors = [same(name, 2.0, 1.0) for name in "ab"]
    (check,) = checks(factors, {key(factors): ProductExtremes((), "too large")})
    assert (check.verdict, check.value, check.bound) == ("not_applicable", None, None)
    assert check.why.endswith("too large")


# In the report


def stack(count: int, n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {f"l{i}.weight": 0.5 / n**0.5 * torch.randn(n, n, generator=generator) for i in range(count)}


def inspect(state: Any, **settings: Any) -> Report:
    rules = (Rule("*", skip="identity"),) if isinstance(state, dict) else ()
    return specinspect.inspect(
        state, **{"activation": "relu", "device": "cpu", "rules": rules, "cache": False, **settings}
    )


def r26(report: Report, of: str) -> BoundCheck:
    (found,) = [check for check in report.network if check.id == "r26" and check.of == of]
    return found


def test_layers_at_known_inputs(tmp_path: Path) -> None:
    state = stack(3, 10)
    generator = torch.Generator().manual_seed(4)
    inputs = {name.removesuffix(".weight"): torch.randn(1, 10, generator=generator) for name in state}
    save_file(inputs, tmp_path / "x.safetensors")
    check = r26(inspect(state, inputs=str(tmp_path / "x.safetensors"), rho=0.7, beta=-0.4), "skip_chain")
    truth = np.eye(10)
    for name, weight in state.items():
        w, x = weight.double().numpy(), inputs[name.removesuffix(".weight")][0].double().numpy()
        truth = (0.7 * np.eye(10) - 0.4 * (w @ x > 0)[:, None] * w) @ truth
    assert check.verdict == "holds"
    assert check.value == pytest.approx(np.linalg.cond(truth), rel=1e-6)


def test_layers_without_d() -> None:
    state = stack(4, 9)
    for settings in ({"activation": "identity"}, {"maps": ("weight", "skip")}):
        check = r26(inspect(state, **settings), "skip_chain")
        truth = np.linalg.multi_dot([np.eye(9) + w.double().numpy() for w in state.values()][::-1])
        assert check.value == pytest.approx(np.linalg.cond(truth), rel=1e-6)


class PreActivation(nn.Module):
    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nets.PreActivationBlock(4, 4) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def test_convolutional_blocks_against_autograd() -> None:
    """With constant images every pixel has the same diagonal: the dense Jacobian is the periodic operator."""
    model = PreActivation().double().eval()
    randomise(model)  # circular padding
    found = Found(model)
    generator = torch.Generator().manual_seed(5)
    ready, truths = [], [torch.eye(4 * 36, dtype=torch.float64) for _ in range(2)]
    for i, name in enumerate(found.blocks):
        branch = found.branch(name, 6)
        x = torch.randn(2, 4, 1, 1, generator=generator, dtype=torch.float64).expand(-1, -1, 6, 6)
        ready.append(RowBlock(branch, PERIODIC, points(branch.stages, x)))
        for p in range(2):
            j = torch.autograd.functional.jacobian(model.blocks[i], x[p : p + 1].contiguous())
            truths[p] = j.reshape(144, 144) @ truths[p]
    product = blocks_product(ready, 1.0, 1.0, Plan("cpu"))
    assert len(product.logs) == 2
    for (top, low), truth in zip(product.logs, truths, strict=True):
        values = torch.linalg.svdvals(truth)
        assert np.exp(top) == pytest.approx(float(values[0]), rel=1e-6)
        assert np.exp(low) == pytest.approx(float(values[-1]), rel=1e-5)
    # Written out, the same.
    dense = blocks_product(
        [RowBlock(r.branch, "a diagonal per pixel", r.at) for r in ready], 1.0, 1.0, Plan("cpu")
    )
    assert np.allclose(np.array(dense.logs), np.array(product.logs), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{}, {"conv_operator": "padded"}, {"conv_operator": "padded", "conv_pattern": "pixel"}],
)
def test_convolutional_blocks_in_the_report(settings: dict[str, Any]) -> None:
    model = PreActivation().eval()
    randomise(model)
    for parameter in model.parameters():
        parameter.data.mul_(0.4)
    check = r26(inspect(model, activation="auto", grid=4, patterns=2, **settings), "block")
    assert check.verdict == "holds"
    assert check.value is not None
    assert check.bound is not None
    assert 1 < check.value < check.bound


def test_rows_of_layers_and_of_blocks_are_told_apart() -> None:
    model = nets.ResidualMLP(3, 8)  # x + 0.5·φ(layer(x)): the layers' own maps know nothing of the 0.5
    randomise(model)
    report = inspect(model.eval(), activation="auto")
    layers, blocks = r26(report, "skip_chain"), r26(report, "block")
    assert layers.verdict == blocks.verdict == "holds"
    assert layers.value != blocks.value


def test_a_violated_product_is_an_error_of_the_network() -> None:
    report = inspect(stack(3, 6))
    names = tuple(result.layer.name for result in report)
    forged = {("skip_chain", names): ProductExtremes(((log(1e5), 0.0),))}
    data = assemble(
        specinspect.engine.open_source(stack(3, 6), specinspect.engine.settings_of({})).checkpoint,
        {}, report.layers, (), products=forged, seconds=0.0,
    )  # fmt: skip
    (finding,) = [f for f in data.findings if f.rule == "bound_violated"]
    assert (finding.severity, finding.layer) == ("error", "network")


def test_products_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECINSPECT_CACHE_DIR", str(tmp_path / "cache"))
    torch.save(stack(3, 8), tmp_path / "a.pt")
    model = PreActivation().eval()
    randomise(model)
    rules = (Rule("*", skip="identity"),)
    first = [inspect(str(tmp_path / "a.pt"), rules=rules, cache=True), inspect(model, grid=4, cache=True)]
    monkeypatch.setattr(products, "_measured", lambda _: pytest.fail("computed again"))
    again = [inspect(str(tmp_path / "a.pt"), rules=rules, cache=True), inspect(model, grid=4, cache=True)]
    assert [r.network for r in again] == [r.network for r in first]
    with pytest.raises(BaseException, match="computed again"):
        inspect(str(tmp_path / "a.pt"), rules=rules, cache=True, beta=0.5)


def test_without_bounds_nothing_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "run_row", lambda _: pytest.fail("multiplied"))
    assert inspect(stack(3, 6), bounds=False).network == ()


def test_a_solver_that_fails_costs_no_other_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_more: object) -> None:
        raise torch.linalg.LinAlgError("no luck")  # type: ignore[attr-defined]

    monkeypatch.setattr(products, "_of_layers", fail)
    report = inspect(stack(3, 6))
    assert all(layer.maps["skip"].condition_number for layer in report)
    check = r26(report, "skip_chain")
    assert check.verdict == "not_applicable"
    assert "did not converge" in check.why
