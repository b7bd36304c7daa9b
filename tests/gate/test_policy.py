"""Which rules run, what they need computed, and what a baseline may be."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from specinspect.config import CHECKS, THRESHOLDS
from specinspect.errors import SettingsError
from specinspect.gate.baseline import Baseline, BaselineLayer, parse_baseline, read_baseline
from specinspect.gate.catalogue import RULES
from specinspect.gate.policy import Thresholds, make_policy
from tests.report import canned

BASELINE = Baseline("b.json", {"fc": BaselineLayer("linear", (4, 4), 2.0, "resolved", 1.0, 4)})
DEFAULT = {"SI203", "SI301", "SI302", "SI303", "SI304", "SI305", "SI501"}


def codes(**values: Any) -> set[str]:
    return {active.rule.code for active in make_policy(Thresholds(**values)).rules}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, DEFAULT),
        ({"max_kappa": 10.0}, DEFAULT | {"SI101"}),
        ({"max_kappa": 10.0, "select": ("SI302",)}, {"SI101", "SI302"}),
        ({"select": ("SI3",)}, {"SI301", "SI302", "SI303", "SI304", "SI305"}),
        ({"select": ("si301", "Zero-Matrix")}, {"SI301", "SI302"}),
        ({"select": ("SI3",), "ignore": ("SI304", "dead-rows", "SI305")}, {"SI301", "SI302"}),
        ({"select": ("ALL",)}, DEFAULT | {"SI104"}),
        ({"select": ("SI1",), "max_sigma": 2.0}, {"SI104", "SI201"}),
        ({"allow_nonfinite": True}, DEFAULT - {"SI301"}),
        (
            {"baseline": BASELINE},
            DEFAULT | {"SI401", "SI402", "SI403", "SI404", "SI405", "SI406"},
        ),
        ({"per_layer": (("a.*", {"max_sigma": 2.0}),), "select": ("SI301",)}, {"SI201", "SI301"}),
    ],
)
def test_rules_that_run(values: dict[str, Any], expected: set[str]) -> None:
    assert codes(**values) == expected


@pytest.mark.parametrize(
    ("values", "quantities", "maps", "bounds"),
    [
        ({}, "spectrum", ("weight",), False),
        ({"max_sigma": 2.0}, "sigma_max", ("weight",), False),
        ({"min_stable_rank": 2.0}, "sigma_max", ("weight",), False),
        ({"select": ("SI3",)}, "entries", ("weight",), False),
        ({"select": ("SI3",), "max_sigma": 2.0}, "sigma_max", ("weight",), False),
        ({"max_kappa": 2.0, "max_sigma": 2.0}, "spectrum", ("weight",), False),
        ({"select": ("SI404", "SI405", "SI406"), "ignore": ("SI401", "SI402", "SI403"),
          "baseline": BASELINE}, "none", ("weight",), False),
        ({"baseline": BASELINE}, "spectrum", ("weight",), False),
        ({"baseline": BASELINE, "ignore": ("SI401", "SI403")}, "sigma_max", ("weight",), False),
        ({"max_chain_kappa": 2.0}, "spectrum", ("weight", "chain"), False),
        ({"max_skip_kappa": 2.0}, "spectrum", ("weight", "skip"), False),
        ({"max_guaranteed_kappa": 2.0}, "spectrum", ("weight", "chain", "skip", "skip_chain"), True),
        ({"select": ("SI501",)}, "spectrum", ("weight", "chain", "skip", "skip_chain"), True),
    ],
)  # fmt: skip
def test_only_what_is_asked_for_is_computed(
    values: dict[str, Any], quantities: str, maps: tuple[str, ...], bounds: bool
) -> None:
    effort = make_policy(Thresholds(**values)).effort()
    assert (effort.quantities, set(effort.maps), effort.bounds) == (quantities, set(maps), bounds)


def test_what_is_selected_is_an_error() -> None:
    severities = {
        active.rule.code: active.severity
        for active in make_policy(Thresholds(select=("dead-rows",), max_kappa=3.0)).rules
    }
    assert severities == {"SI101": "error", "SI303": "error"}
    assert {a.severity for a in make_policy(Thresholds()).rules if a.rule.code == "SI303"} == {"warning"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"select": ("max-kapa",)}, "unknown rule 'max-kapa' (did you mean 'max-kappa'?)"),
        ({"ignore": ("SI30l",)}, "unknown rule 'SI30l' (did you mean 'SI30"),
        ({"select": ("S",)}, "unknown rule 'S'"),
        ({"select": ("max-sigma",)}, "give --max-sigma X"),
        ({"select": ("SI404",)}, "give --baseline REPORT.json"),
        ({"select": ("SI4",)}, "no rule is left"),
        ({"max_rank_loss": 0.1}, "give --baseline REPORT.json"),
    ],
)
def test_what_makes_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        make_policy(Thresholds(**values))
    assert message in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.5, "3", True])
def test_limits_are_finite_numbers_that_can_be_met(value: Any) -> None:
    with pytest.raises(SettingsError, match="--max-kappa: expected"):
        Thresholds(max_kappa=value)
    with pytest.raises(SettingsError, match=r"rules\.'a': max-kappa: expected"):
        Thresholds(per_layer=(("a", {"max_kappa": value}),))


def test_configuration_knows_every_threshold() -> None:
    names = {item.name for item in fields(Thresholds)}
    limits = {rule.threshold for rule in RULES.values() if rule.threshold is not None}
    assert set(THRESHOLDS) == limits == {name for name in names if name.startswith(("max_", "min_"))}
    assert set(CHECKS) - {"exit_zero"} == names - {"per_layer"}


# Baselines


def test_a_report_is_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(canned.report().to_json(), encoding="utf-8")
    baseline = read_baseline(str(path))
    assert set(baseline.layers) == {result.layer.name for result in canned.report()}
    assert baseline.layers["head"] == BaselineLayer("linear", (10, 64), 2.0, "resolved", 1.0, 10)
    assert baseline.layers["encoder.layers.1.attention.self.key"].condition_number is None


REPORT = canned.report().to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        (json.dumps(REPORT)[:-200], "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("\xff\xfe", "is no report"),
        ("[]", "is no report"),
        ("{}", "is no report"),
        (json.dumps({"schema_version": "2.1.0", "layers": []}), "has schema_version '2.1.0', expected '1'"),
        (json.dumps({"schema_version": ["x" * 100], "layers": []}), "has schema_version"),
        (json.dumps({"schema_version": 1, "layers": []}), "has schema_version 1, expected '1'"),
        (json.dumps({"schema_version": "1", "layers": [{}]}), "no whole report"),
        (json.dumps({"schema_version": "1", "layers": 3}), "no whole report"),
        (json.dumps({"schema_version": "1", "layers": [{"name": [], "maps": {}}]}), "no whole report"),
    ],
)
def test_what_is_no_baseline(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text('"\xff"' if text == "\xff\xfe" else text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message) as error:
        read_baseline(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, -1.0, "4", True, []])
@pytest.mark.parametrize("name", ["sigma_max", "condition_number"])
def test_numbers_of_a_baseline_are_numbers(name: str, value: Any) -> None:
    data = json.loads(json.dumps(REPORT))
    data["layers"][0]["maps"]["weight"][name] = value
    with pytest.raises(SettingsError, match="no whole report"):
        parse_baseline(data)


def test_no_baseline_has_an_impossible_rank_shape_or_condition_number() -> None:
    data = json.loads(json.dumps(REPORT))
    weight = data["layers"][0]["maps"]["weight"]
    for place, key, value in (
        (weight, "numerical_rank", float("inf")),
        (weight, "condition_number", 0.0),
        (data["layers"][0], "shape", [float("inf"), 2]),
    ):
        good, place[key] = place[key], value
        with pytest.raises(SettingsError, match="no whole report"):
            parse_baseline(data)
        place[key] = good
    parse_baseline(data)


def test_a_directory_and_bytes_are_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        read_baseline(str(tmp_path))
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is no JSON"):
        read_baseline(str(tmp_path / "b.json"))
