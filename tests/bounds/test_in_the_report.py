"""Bounds on entries, data and random weights, through the whole tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import save_file

import specinspect
from specinspect.bounds.model import BoundCheck
from specinspect.errors import SettingsError
from specinspect.layers.rules import Rule
from specinspect.report.model import LayerResult, Report
from specinspect.report.schema import schema_text


def weights(count: int, n: int, c: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"l{i}.weight": c / n**0.5 * torch.randn(n, n, generator=generator) for i in range(count)}


def inspect(state: dict[str, torch.Tensor], **settings: Any) -> Report:
    return specinspect.inspect(state, **{"activation": "relu", "device": "cpu", **settings})


def check(layer: LayerResult, name: str) -> BoundCheck:
    (found,) = [c for c in layer.bounds if c.id == name]
    return found


def test_fresh_layers_are_guaranteed_a_condition_number() -> None:
    report = inspect(weights(4, 64, 0.25), delta=0.02)
    for layer in report:
        found = check(layer, "r21.alld")
        assert (found.verdict, found.probability) == ("holds", pytest.approx(1 - 0.02 / 4))
        assert found.value == pytest.approx(layer.maps["skip_chain"].patterns.scalars["condition_number"].max)  # type: ignore[union-attr]
        assert any("divided by the number of layers" in a for a in found.assumptions)
        assert check(layer, "r19.max").value == pytest.approx(layer.maps["weight"].sigma_max)
    assert report.settings["delta"] == 0.02


def test_a_selection_does_not_change_what_a_layer_is_told() -> None:
    state = weights(4, 32, 0.25)
    whole, part = inspect(state), inspect(state, layers=["l2"])
    assert part.layers[0].bounds == whole.layers[2].bounds


def test_settings_reach_the_bounds() -> None:
    state = weights(1, 64, 2**0.5)
    (layer,) = inspect(state, init="kaiming")
    assert check(layer, "r17").verdict == "holds"
    (layer,) = inspect(state, init="std:0.5")
    assert "not those of std:0.5" in check(layer, "r17").why
    betas = {}
    for target in (2.0, 20.0):
        (layer,) = inspect(state, target_kappa=target)
        betas[target] = next(a.value for a in layer.advice if a.quantity == "beta")
    assert 0 < betas[2.0] < betas[20.0] < 1


@pytest.mark.parametrize("wrong", [{"delta": 0.0}, {"delta": 2}, {"target_kappa": 1.0}, {"init": "he"}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="--"):
        inspect(weights(1, 4, 1.0), **wrong)


def test_the_json_has_them_and_obeys_the_schema() -> None:
    data = json.loads(inspect(weights(2, 32, 0.25)).to_json())
    Draft202012Validator(json.loads(schema_text())).validate(data)
    (layer, _) = data["layers"]
    by_id = {c["id"]: c for c in layer["bounds"]}
    assert {"r10", "r11", "r16", "r17", "r18", "r21.gauss", "r23", "r25"} <= by_id.keys()
    assert by_id["r17"]["probability"] == pytest.approx(0.995)
    assert by_id["r10"]["probability"] is None
    assert "Davidson" in by_id["r19.max"]["source"]
    assert {a["quantity"] for a in layer["advice"]} >= {"beta", "largest_entry", "scale", "zeroed_rows"}
    assert data["network"]["bounds"][0]["id"] == "r26"
    assert json.loads(inspect(weights(1, 8, 1.0), bounds=False).to_json())["network"] == {"bounds": []}


def test_unlimited_beta_is_null_in_json() -> None:
    (layer,) = inspect({"a.weight": torch.eye(5)})
    assert next(a for a in layer.advice if a.quantity == "beta").value == np.inf
    data = json.loads(inspect({"a.weight": torch.eye(5)}).to_json())
    assert next(a for a in data["layers"][0]["advice"] if a["quantity"] == "beta")["value"] is None


def test_the_data_factor_needs_inputs(tmp_path: Path) -> None:
    state = weights(2, 16, 1.0)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((40, 16)) * np.linspace(0.1, 2, 16)
    save_file({"l0": torch.from_numpy(inputs)}, tmp_path / "x.safetensors")
    first, second = inspect(state, inputs=str(tmp_path / "x.safetensors"))
    assert check(first, "r14").value == pytest.approx(np.linalg.cond(inputs))
    assert check(first, "r14.proxy").verdict == "not_applicable"
    assert not [c for c in second.bounds if c.id.startswith("r14")]
    # Without an activation the inputs are looked at for r14 alone, as strictly.
    save_file({"l0": torch.zeros(3, 15)}, tmp_path / "x.safetensors")
    for activation in ("relu", "identity"):
        with pytest.raises(SettingsError, match=r"expected an array of shape \(n, 16\)"):
            inspect(state, inputs=str(tmp_path / "x.safetensors"), activation=activation)


def test_a_stack_of_layers_whose_skips_are_real() -> None:
    state = weights(3, 24, 0.3)
    known = inspect(state, rules=(Rule("*", skip="identity"),))
    (found,) = known.network
    kappas = [layer.maps["skip_chain"].patterns.scalars["condition_number"].max for layer in known]  # type: ignore[union-attr]
    assert (found.id, found.verdict) == ("r26", "holds")
    assert found.bound == pytest.approx(np.prod([k for k in kappas if k is not None]))
    (found,) = inspect(state).network
    assert (found.verdict, found.bound) == ("not_applicable", None)


@pytest.mark.parametrize("scale", [1e300, 1e150, 1e-150, 1e-300])
@pytest.mark.parametrize("init", [None, "kaiming", "std:1e-200"])
def test_the_edges_of_float64(scale: float, init: str | None) -> None:
    generator = torch.Generator().manual_seed(2)
    state = {"a.weight": scale * torch.randn(24, 24, generator=generator, dtype=torch.float64)}
    (layer,) = inspect(state, init=init, target_kappa=1e300)
    assert not [c for c in layer.bounds if c.verdict == "violated"]
    assert check(layer, "r17").verdict == ("holds" if init is None else "not_applicable")


def test_convolutions() -> None:
    """r10 counts the taps, of strided layers too; what is proven for dense matrices alone is not claimed."""
    generator = torch.Generator().manual_seed(1)
    kernel = 0.05 * torch.randn(8, 8, 3, 3, generator=generator)
    state = {"conv.weight": kernel, "flat.weight": torch.ones(4, 2, 3, 3)}
    rules = (Rule("flat", stride=(2, 2)),)
    conv, flat = inspect(state, rules=rules, grid=8)
    assert check(conv, "r10").bound == pytest.approx(float(kernel.abs().max()) * 9 * 8, rel=1e-6)
    for layer in (conv, flat):
        assert check(layer, "r10").verdict == "holds"
        assert "not for convolutions" in check(layer, "r17").why
    assert check(conv, "r23").bound is not None
    assert any("periodic grid" in a.sentence for a in conv.advice)
    assert not any("ReLU may" in a.sentence for a in conv.advice)


def test_deterministic_bounds_hold_on_the_samples() -> None:
    samples = Path(__file__).parents[2] / "samples"
    for name in ("digits_residual.pt", "sick.pt"):
        report = specinspect.inspect(samples / name, device="cpu")
        assert not [c for layer in report for c in layer.bounds if c.verdict == "violated"]
        assert not [f for f in report.findings if f.rule == "bound_violated"]
