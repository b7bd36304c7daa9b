"""Every rule on layers made by hand, at its limit and on values that are no numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import specinspect
from specinspect.bounds.model import BoundCheck
from specinspect.errors import SettingsError
from specinspect.gate.baseline import parse_baseline
from specinspect.gate.catalogue import RULES
from specinspect.gate.check import check_layers
from specinspect.gate.policy import make_policy, thresholds_of
from specinspect.report.model import LayerResult, Report
from specinspect.spectra.model import Range, Spectrum, Status
from tests.report import canned

SICK = Path(__file__).parents[2] / "samples" / "sick.pt"


def outcome(code: str, result: LayerResult, **thresholds: object) -> tuple[str, str]:
    """Return what one rule says of one layer: its outcome, and the message or the reason."""
    policy = make_policy(thresholds_of({"select": (code,), **thresholds}))
    (case,) = [case for case in check_layers([result], policy) if case.rule.code == code]
    return case.outcome, case.finding.message if case.finding is not None else case.why


def weight(spectrum: Spectrum, kind: str = "linear", **other: object) -> LayerResult:
    made = canned.layer("fc", (64, 64), kind)
    return LayerResult(made, {"weight": spectrum}, 0.0, **other)  # type: ignore[arg-type]


def unresolved(status: Status = "below_storage_precision") -> Spectrum:
    """Return σmax = 2, σmin = 5e-3 under a floor of 1e-2: by Weyl κ is at least 1.99/0.015 = 132.7."""
    spectrum = replace(canned.unresolved(), condition_number_status=status)
    return replace(spectrum, computation_floor=1e-2 if "computation" in status else 0.0)


# κ, whatever became of it


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(8.0, "passed"), (8.0 * (1 - 0.9e-6), "passed"), (8.0 * (1 - 2e-6), "failed"), (100.0, "passed")],
)
def test_kappa_at_its_limit(limit: float, expected: str) -> None:
    assert outcome("SI101", weight(canned.spectrum(2.0, 0.25)), max_kappa=limit)[0] == expected


@pytest.mark.parametrize("status", ["below_storage_precision", "below_computation_precision"])
@pytest.mark.parametrize("limit", [10.0, 1e3, 1e300])
def test_an_unresolved_kappa_never_passes(status: Status, limit: float) -> None:
    found, message = outcome("SI101", weight(unresolved(status)), max_kappa=limit)
    assert found == "failed"
    assert message.startswith("κ(W) > 130, not resolved ")  # rounded down, so that it stays a lower bound


def test_an_infinite_kappa_fails_and_says_why() -> None:
    result = weight(canned.dead(), notes=("1 of 64 rows is zero",))
    assert outcome("SI101", result, max_kappa=1e300) == (
        "failed",
        "κ(W) = ∞ (1 of 64 rows is zero), limit 1e300",
    )


def test_nan_is_reported_once_or_by_whoever_is_left() -> None:
    result = weight(canned.NONFINITE)
    findings = specinspect.check(report([result]), max_kappa=10.0, max_sigma=5.0)
    assert [f.rule for f in findings] == ["SI301"]
    findings = specinspect.check(report([result]), max_kappa=10.0, ignore=("SI301",))
    assert [(f.rule, f.value) for f in findings] == [("SI101", None)]
    assert "3 NaN or infinite entries" in findings[0].message
    assert specinspect.check(report([result]), max_kappa=10.0, allow_nonfinite=True) == ()


def test_nothing_computed_is_no_pass() -> None:
    partial = replace(canned.spectrum(), condition_number=None, condition_number_status="not_computed")
    assert outcome("SI101", weight(partial), max_kappa=10.0)[0] == "skipped"
    assert outcome("SI104", weight(partial))[0] == "skipped"


def test_chain_leaves_out_what_d_zeroes_and_takes_the_worst_pattern() -> None:
    result = canned.linear("fc")  # κ(DW) infinite, pseudo 12.5 in the median and 25 at worst
    assert outcome("SI102", result, max_chain_kappa=25.0)[0] == "passed"
    found, message = outcome("SI102", result, max_chain_kappa=24.9)
    assert found == "failed"
    assert "κ(DW) = 25.0 at the worst of 8 patterns (median 12.5)" in message


def test_chain_of_a_singular_weight_is_infinite() -> None:
    result = canned.linear("fc", canned.dead(), chain=canned.patterned(canned.dead()))
    assert outcome("SI102", result, max_chain_kappa=1e9)[0] == "failed"


def test_chain_with_an_unresolved_pattern_fails() -> None:
    chain = canned.patterned(canned.spectrum(2.0, 0.25))
    assert chain.patterns is not None
    scalars = {**chain.patterns.scalars, "condition_number": Range(4.0, 8.0, None)}
    chain = replace(chain, patterns=replace(chain.patterns, scalars=scalars))
    found, message = outcome("SI102", canned.linear("fc", chain=chain), max_chain_kappa=1e9)
    assert found == "failed"
    assert "not resolved" in message


def test_skip_is_checked_where_there_is_one() -> None:
    assert outcome("SI103", canned.linear("fc"), max_skip_kappa=8.0)[0] == "passed"  # 3.5/0.4375
    assert outcome("SI103", canned.linear("fc"), max_skip_kappa=7.9)[0] == "failed"
    assert outcome("SI103", weight(canned.spectrum()), max_skip_kappa=2.0)[0] == "skipped"


def test_an_adapter_is_judged_by_its_own_rank() -> None:
    result = weight(replace(canned.dead(), pseudo_condition_number=5.0), "lora")
    assert outcome("SI101", result, max_kappa=5.0)[0] == "passed"
    assert outcome("SI101", result, max_kappa=4.0)[0] == "failed"
    assert outcome("SI203", result)[0] == "skipped"


def test_unresolved_kappa_as_a_rule_of_its_own() -> None:
    assert outcome("SI104", weight(unresolved()))[0] == "failed"
    assert outcome("SI104", weight(canned.dead()))[0] == "passed"
    assert outcome("SI104", weight(canned.spectrum()))[0] == "passed"


# Bounds


def bound(verdict: str, limit: float | None, **other: object) -> BoundCheck:
    check = BoundCheck("r4.best", "skip", verdict, 3.0, limit, 0.5, None, "because")  # type: ignore[arg-type]
    return replace(check, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((bound("holds", 5.0),), "passed"),
        ((bound("holds", 5.1),), "failed"),
        ((bound("vacuous", None),), "failed"),
        ((bound("not_applicable", None),), "failed"),
        ((bound("violated", 4.0),), "failed"),
        ((bound("holds", 2.0, of="skip_chain"),), "failed"),
        ((bound("holds", 2.0, id="r4.nr"),), "failed"),
        ((), "failed"),
    ],
)
def test_guaranteed_kappa(bounds: tuple[BoundCheck, ...], expected: str) -> None:
    result = canned.linear("fc", bounds=bounds)
    assert outcome("SI105", result, max_guaranteed_kappa=5.0)[0] == expected


def test_guarantee_is_asked_only_where_there_is_a_skip() -> None:
    assert outcome("SI105", weight(canned.spectrum()), max_guaranteed_kappa=5.0)[0] == "skipped"


def test_only_a_violated_theorem_without_probability_is_a_finding() -> None:
    wrong = canned.linear("fc", bounds=(bound("holds", 5.0), bound("violated", 2.0, id="r9")))
    chance = canned.linear("fc", bounds=(bound("violated", 2.0, probability=0.99),))
    assert outcome("SI501", wrong) == ("failed", "r9 of skip: because")
    assert outcome("SI501", chance)[0] == "passed"
    assert outcome("SI501", canned.linear("fc"))[0] == "skipped"
    (finding,) = specinspect.check(report([wrong]))
    assert (finding.rule, finding.severity) == ("SI501", "error")


# Norms, ranks, entries


def test_norm_and_stable_rank_at_their_limits() -> None:
    result = weight(canned.spectrum(2.5, 0.25))
    assert outcome("SI201", result, max_sigma=2.5)[0] == "passed"
    assert outcome("SI201", result, max_sigma=2.49)[0] == "failed"
    assert outcome("SI202", result, min_stable_rank=17.25)[0] == "passed"
    assert outcome("SI202", result, min_stable_rank=17.26)[0] == "failed"
    zero = weight(replace(canned.dead(), sigma_max=0.0, stable_rank=None, numerical_rank=0))
    assert outcome("SI202", zero, min_stable_rank=0.0)[0] == "failed"


@pytest.mark.parametrize(
    ("rank", "zeros", "exact", "expected"),
    [
        (64, (0, 0), 0, "passed"),
        (62, (0, 0), 0, "passed"),  # within what rounding does to a healthy matrix
        (61, (0, 0), 0, "failed"),
        (60, (4, 0), 4, "passed"),  # the dead rows explain it
        (57, (4, 0), 4, "failed"),
    ],
)
def test_rank_beyond_rounding_and_dead_rows(
    rank: int, zeros: tuple[int, int], exact: int, expected: str
) -> None:
    spectrum = canned.spectrum(2.0, 0.0 if exact else 1e-9, 64)
    spectrum = replace(spectrum, numerical_rank=rank, histogram=canned.histogram(1e-9, 2.0, zeros=exact))
    assert outcome("SI203", weight(spectrum, zeros=zeros))[0] == expected


def test_rank_lost_by_construction() -> None:
    spectrum = replace(canned.spectrum(2.0, 0.0, 64), numerical_rank=63)
    result = weight(spectrum, zeros=(0, 0), notes=("the stride skips inputs: rank at most 63 of 64",))
    assert outcome("SI203", result)[1].endswith("the stride skips inputs: rank at most 63 of 64")


def test_dead_rows_and_columns() -> None:
    spectrum = canned.spectrum()
    assert outcome("SI303", weight(spectrum, zeros=(0, 3)))[0] == "passed"
    assert outcome("SI303", weight(spectrum, zeros=(1, 0))) == ("failed", "1 of 64 rows is zero")
    assert outcome("SI304", weight(spectrum, zeros=(0, 3))) == ("failed", "3 of 64 columns are zero")
    assert outcome("SI304", weight(spectrum, "embedding", zeros=(0, 1)))[0] == "passed"
    assert outcome("SI304", weight(spectrum, "embedding", zeros=(0, 2)))[0] == "failed"
    assert outcome("SI303", weight(spectrum))[0] == "skipped"
    convolution = replace(canned.conv("conv"), zeros=(2, 0))
    assert outcome("SI303", convolution) == ("failed", "2 of 64 output channels are zero")


def test_a_zero_matrix_is_reported_once() -> None:
    zero = replace(canned.dead(), sigma_max=0.0, stable_rank=None, numerical_rank=0)
    findings = specinspect.check(report([weight(zero, zeros=(64, 64))]))
    assert [(f.rule, f.severity) for f in findings] == [("SI302", "error")]


# Baselines


def report(results: list[LayerResult]) -> Report:
    return replace(canned.report(), layers=tuple(results))


def growth(before: LayerResult, now: LayerResult, **thresholds: object) -> dict[str, tuple[str, str]]:
    """Return code → (severity, message) of what a baseline says."""
    baseline = parse_baseline(report([before]).to_dict())
    found = specinspect.check(report([now]), baseline=baseline, **thresholds)
    return {f.rule: (f.severity, f.message) for f in found if f.rule.startswith("SI4")}


def test_growth_at_its_limit() -> None:
    before, now = weight(canned.spectrum(2.0, 0.25, 64)), weight(canned.spectrum(3.0, 0.25, 64))
    assert growth(before, now, max_kappa_growth=1.5, max_sigma_growth=1.5) == {}
    found = growth(before, now, max_kappa_growth=1.49, max_sigma_growth=1.49)
    assert set(found) == {"SI401", "SI402"}
    assert found["SI401"] == ("error", "κ(W) has grown from 8.00 to 12.0, 1.50 times, limit 1.49")


def test_default_growth_limits_are_two_and_two_percent() -> None:
    before = weight(canned.spectrum(2.0, 0.25, 64))
    assert growth(before, weight(canned.spectrum(3.9, 0.25, 64))) == {}
    assert set(growth(before, weight(canned.spectrum(4.1, 0.25, 64)))) == {"SI401", "SI402"}
    lost = weight(replace(canned.spectrum(2.0, 0.25, 64), numerical_rank=62))
    assert growth(before, lost)["SI403"][1] == "rank 62, in the baseline 64: 3.1% lost, limit 0.02"
    assert growth(before, lost, max_rank_loss=0.04) == {}


RESOLVED = canned.spectrum(2.0, 0.25, 64)


@pytest.mark.parametrize(
    ("before", "now", "severity"),
    [
        (RESOLVED, unresolved(), "error"),
        (RESOLVED, canned.dead(), "error"),
        (unresolved(), unresolved(), "warning"),
        (unresolved(), canned.dead(), "error"),
        (unresolved(), RESOLVED, None),
        (canned.dead(), RESOLVED, None),
        (canned.dead(), canned.dead(), None),
        (canned.dead(), unresolved(), None),
        (canned.NONFINITE, RESOLVED, None),
        (canned.NONFINITE, unresolved(), "warning"),
        (RESOLVED, canned.NONFINITE, None),  # SI301's
    ],
)
def test_growth_of_a_kappa_that_is_no_number(before: Spectrum, now: Spectrum, severity: str | None) -> None:
    found = growth(weight(before), weight(now), ignore=("SI402", "SI403"))
    assert ({code: pair[0] for code, pair in found.items()}) == ({"SI401": severity} if severity else {})


def test_layers_that_appear_vanish_and_change_shape() -> None:
    old, new = canned.linear("old"), canned.linear("new")
    baseline = parse_baseline(report([old, canned.linear("same")]).to_dict())
    reshaped = replace(canned.linear("same"), layer=canned.layer("same", (32, 64)))
    found = specinspect.check(report([new, reshaped]), baseline=baseline)
    assert {(f.rule, f.severity, f.layer) for f in found} == {
        ("SI404", "warning", "new"),
        ("SI405", "error", "old"),
        ("SI406", "error", "same"),
    }
    unasked = replace(report([new]), settings={"exclude": ["old", "same"]})
    assert {f.rule for f in specinspect.check(unasked, baseline=baseline)} == {"SI404"}


# The samples


def truth() -> dict[str, np.ndarray]:
    state = torch.load(SICK, weights_only=True)
    return {name[:-7]: value.double().numpy() for name, value in state.items() if name.endswith(".weight")}


def test_each_planted_illness_is_found_by_its_rule_and_nothing_else_is() -> None:
    found = specinspect.check(specinspect.inspect(SICK, maps=("weight",)))
    assert {(f.rule, f.layer) for f in found} == {
        ("SI301", "nan"),
        ("SI303", "dead_row"),
        ("SI203", "rank_deficient"),
    }


def test_kappa_on_the_sick_sample_as_numpy_has_it() -> None:
    sick = specinspect.inspect(SICK, maps=("weight",))
    finite = {name: w for name, w in truth().items() if np.isfinite(w).all()}
    assert len(finite) == 5
    for limit in (3.9, 4.1, 1.9e5, 2.1e5):
        found = specinspect.check(sick, max_kappa=limit, select=("SI101",))
        above = {name for name, w in finite.items() if np.linalg.cond(w) > limit}
        assert {f.layer for f in found} == above | {"nan"}
        assert {f.rule for f in found} == {"SI101"}


# Python


def test_thresholds_by_keyword() -> None:
    with pytest.raises(SettingsError, match="did you mean 'max_kappa'"):
        specinspect.check(canned.report(), max_kapa=3.0)
    with pytest.raises(SettingsError, match="at least 1"):
        specinspect.check(canned.report(), max_kappa=0.0)
    with pytest.raises(SettingsError, match="finite number"):
        specinspect.check(canned.report(), max_kappa="3")
    assert specinspect.check(canned.report(), max_kappa=1e300, select=("SI101",))


def test_limits_of_single_layers_win_and_the_last_match_counts() -> None:
    layers = [canned.linear("a.fc"), canned.linear("a.head"), canned.linear("b.fc")]  # κ = 40
    found = specinspect.check(
        report(layers),
        max_kappa=50.0,
        select=("SI101",),
        per_layer=(("a.*", {"max_kappa": 30.0}), ("*.head", {"max_kappa": 45.0})),
    )
    assert [(f.layer, f.limit) for f in found] == [("a.fc", 30.0)]


def test_every_rule_has_an_evaluator_and_words() -> None:
    from specinspect.gate.check import _RULES

    assert set(_RULES) | {"SI305", "SI405"} == set(RULES)
    for rule in RULES.values():
        assert rule.summary[0].islower() or rule.summary.startswith(("κ", "W", "σ"))
        assert rule.explanation.endswith(".")
        assert rule.fix.endswith(".")
        assert RULES[rule.name] is RULES[rule.code.lower()] is rule


def test_a_convolution_on_another_grid_is_not_compared() -> None:
    before = canned.conv("conv")
    grown = replace(before, maps={"weight": canned.spectrum(300.0, 0.01, 16384)})
    assert {"SI401", "SI402"} <= set(growth(before, grown))
    found = growth(before, replace(grown, grid=(8, 8)))
    assert found == {"SI406": ("error", "grid [8, 8], in the baseline [16, 16]")}
    assert growth(before, replace(before, grid=None, maps={})) == {}
