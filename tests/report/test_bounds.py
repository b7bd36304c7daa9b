"""What theory says of a layer, in the JSON and among the findings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from specinspect.bounds.model import BoundCheck
from specinspect.checkpoint import open_checkpoint
from specinspect.report.assemble import assemble
from specinspect.report.json import to_dict
from specinspect.report.model import Finding, LayerResult
from specinspect.report.schema import schema_text
from tests.report import canned

SICK = Path(__file__).parents[2] / "samples" / "sick.pt"
HOLDS = BoundCheck("r4.best", "skip", "holds", 3.25, 5.5, 0.409, None, "κ is 3.25, at most 5.5")
VACUOUS = BoundCheck("r4.sharp", "skip", "vacuous", 3.25, None, None, None, "needs τmin > -1", ("[/]",))
BROKEN = BoundCheck("r2", "skip", "violated", 3.0, 2.0, -0.5, None, "σ₁ is 3, above 2")


def with_bounds(*bounds: BoundCheck) -> LayerResult:
    return replace(canned.linear("fc"), bounds=bounds)


def test_bounds_in_the_json() -> None:
    report = replace(canned.report(), layers=(with_bounds(HOLDS, VACUOUS, BROKEN), canned.linear("bare")))
    data = to_dict(report)
    jsonschema.validate(data, json.loads(schema_text()))
    held, vacuous, broken = data["layers"][0]["bounds"]
    assert held == {
        "id": "r4.best",
        "of": "skip",
        "verdict": "holds",
        "value": 3.25,
        "bound": 5.5,
        "slack": 0.409,
        "probability": None,
        "source": "Riedi, Balestriero, Baraniuk, Singular Value Perturbation and Deep Network Optimization: "
        "Theorem 22, with r3.lower.nr, which is ours",
        "assumptions": [],
        "why": "κ is 3.25, at most 5.5",
    }
    assert (vacuous["bound"], vacuous["assumptions"]) == (None, ["[/]"])
    assert broken["slack"] == -0.5
    assert data["layers"][1]["bounds"] == []


@pytest.mark.parametrize(("bounds", "count"), [((HOLDS, VACUOUS), 0), ((HOLDS, BROKEN), 1)])
def test_a_violated_theorem_is_an_error(bounds: tuple[BoundCheck, ...], count: int) -> None:
    checkpoint = open_checkpoint(str(SICK))
    report = assemble(checkpoint, {}, [with_bounds(*bounds)], (), seconds=0.0)
    found = [finding for finding in report.findings if finding.rule == "bound_violated"]
    assert len(found) == count
    if count:
        assert found == [Finding("bound_violated", "error", "fc", "r2 of skip: σ₁ is 3, above 2", 3.0, 2.0)]
