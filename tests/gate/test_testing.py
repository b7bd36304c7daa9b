"""The assertion for test suites."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import specinspect
from specinspect.errors import SpecinspectError
from specinspect.testing import assert_conditioned


def model(last: float = 1.0) -> torch.nn.Module:
    """Return a network whose layers have the singular values (4, 2, 1) and (8, last)."""
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.copy_(torch.diag(torch.tensor([4.0, 2.0, 1.0])))
        second.weight.copy_(torch.diag(torch.tensor([8.0, last])))
    return torch.nn.Sequential(first, torch.nn.ReLU(), second)


def test_a_model_within_its_limits() -> None:
    assert_conditioned(model(), max_kappa=8.0, max_sigma=8.0, min_stable_rank=1.0)
    assert_conditioned(model())


def test_the_failure_lists_layers_values_and_limits() -> None:
    with pytest.raises(AssertionError) as error:
        assert_conditioned(model(0.5), max_kappa=8)
    lines = str(error.value).splitlines()
    assert lines[0] == "not conditioned as required"
    assert "    2  κ(W) = 16.0, limit 8" in lines
    assert lines[-1] == "failed: 1 error in 2 layers with 6 rules"


def test_settings_go_to_the_engine() -> None:
    assert_conditioned(model(0.5), max_kappa=8, exclude=("2",))
    assert_conditioned(model(0.5).state_dict(), max_kappa=8, layers=("0",))
    with pytest.raises(AssertionError, match=r"κ\(skip\) = 9.00, limit 8.9"):
        assert_conditioned(model(0.0), max_skip_kappa=8.9, layers=("2",))


def test_paths_reports_and_baselines(tmp_path: Path) -> None:
    path, baseline = tmp_path / "model.pt", tmp_path / "b.json"
    torch.save(model().state_dict(), path)
    report = specinspect.inspect(path)
    baseline.write_text(report.to_json(), encoding="utf-8")
    assert_conditioned(str(path), baseline=str(baseline))
    assert_conditioned(report, max_kappa=8.0)
    with pytest.raises(AssertionError, match=r"from 8.00 to 16.0, 2.00 times, limit 1.9"):
        assert_conditioned(model(0.5), baseline=str(baseline), max_kappa_growth=1.9)


def test_nan_fails_by_default() -> None:
    broken = model(float("nan"))
    with pytest.raises(AssertionError, match="1 NaN"):
        assert_conditioned(broken, max_kappa=8)
    assert_conditioned(broken, max_kappa=8, allow_nonfinite=True)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(SpecinspectError, match="did you mean 'max_kappa'"):
        assert_conditioned(model(), max_kapa=8)
    with pytest.raises(SpecinspectError, match="unknown option 'quantities'"):
        assert_conditioned(model(), quantities="entries")
    with pytest.raises(SpecinspectError, match="nowhere"):
        assert_conditioned("nowhere.pt")
