"""For test suites: one assertion about how well a model is conditioned."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from specinspect.errors import SettingsError
from specinspect.gate.baseline import read_baseline
from specinspect.gate.check import check_layers, vanished
from specinspect.gate.policy import Policy, Thresholds, make_policy, thresholds_of
from specinspect.gate.verdict import Checked, Verdict
from specinspect.settings import Settings

if TYPE_CHECKING:
    from specinspect.engine import Source
    from specinspect.report.model import Report

_GATE = frozenset(item.name for item in fields(Thresholds))
_OURS = frozenset({"maps", "quantities", "bounds", "blocks", "compose", "curve", "spectra"})
"""Settings that follow from the limits."""


def assert_conditioned(source: Source | Report, **options: Any) -> None:
    """Fail a test, and say why, unless a model keeps to limits.

        def test_weights() -> None:
            assert_conditioned(model, max_kappa=1e4, exclude=("*.embeddings.*",))

    Args:
        source: a path, a state dict, a torch.nn.Module, or a Report that was computed already.
        **options: limits and rules as for `specinspect.check` (max_kappa=1e4, select=("SI3",)), a baseline
            also as a path, and settings as for `specinspect.inspect` (layers, exclude, beta, activation, …).
            Only what the limits need is computed.

    Raises:
        AssertionError: some layer fails a rule; the message lists layers, values and limits.
        SpecinspectError: the source cannot be read, or an option makes no sense.
    """
    __tracebackhide__ = True
    policy, settings = _split(options)
    verdict = _verdict(source, policy, settings)
    if verdict.outcome != "passed":
        from specinspect.gate.formats.text import render

        raise AssertionError(f"not conditioned as required\n{render(verdict).rstrip()}")


def _split(options: dict[str, Any]) -> tuple[Policy, dict[str, Any]]:
    """Tell limits from settings."""
    limits = {name: value for name, value in options.items() if name in _GATE}
    settings = {name: value for name, value in options.items() if name not in _GATE}
    known = sorted(_GATE | {item.name for item in fields(Settings)} - _OURS)
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise SettingsError(f"unknown option {name!r}", f"did you mean {close[0]!r}?" if close else "")
    if isinstance(limits.get("baseline"), str):
        limits["baseline"] = read_baseline(limits["baseline"])
    return make_policy(thresholds_of(limits)), settings


def _verdict(source: Source | Report, policy: Policy, settings: dict[str, Any]) -> Verdict:
    from specinspect import engine
    from specinspect._version import __version__
    from specinspect.report.model import Report

    if isinstance(source, Report):
        report = source
    else:
        effort = policy.effort()
        report = engine.inspect(
            source,
            **settings,
            maps=effort.maps,
            bounds=effort.bounds,
            blocks=False,
            quantities="entries" if effort.quantities == "none" else effort.quantities,
        )
    names = [result.layer.name for result in report.layers]
    include, exclude = report.settings.get("layers") or (), report.settings.get("exclude") or ()
    cases = (*check_layers(report.layers, policy), *vanished(names, policy, include, exclude))
    checked = Checked(report.checkpoint.path, cases, len(names), len(names))
    return Verdict((checked,), tuple(active.rule for active in policy.rules), __version__)
