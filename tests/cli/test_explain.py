"""`specinspect explain`: the list, one bound, a family, a rule, and names that nothing has."""

from __future__ import annotations

import io

import pytest

from specinspect.bounds.catalogue import CATALOGUE
from specinspect.cli.app import run
from specinspect.gate.catalogue import RULES


def test_the_list_has_every_bound_and_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain"]) == 0
    first = [
        line.split()[0]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  ") and line[2] != " "
    ]
    assert first == [*CATALOGUE, *RULES]


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_bound_in_full(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", name.upper()]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    result = CATALOGUE[name]
    for text in (name, result.title, result.statement, *result.assumptions, result.vacuous, result.source):
        assert " ".join(text.split()) in shown


def test_a_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "r4"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in CATALOGUE if name.startswith("r4."))
    assert "r3.upper" not in [line.split()[0] for line in out.splitlines() if line and line[0] != " "]


@pytest.mark.parametrize("name", ["SI101", "si101", "max-kappa", "max_kappa"])
def test_a_rule_by_code_and_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", name]) == 0
    assert capsys.readouterr().out.startswith("SI101 · max-kappa\n")


@pytest.mark.parametrize("rule", ["nonfinite_weights", "zero_matrix", "rank_deficient", "bound_violated"])
def test_the_findings_of_a_report_can_be_looked_up(rule: str) -> None:
    assert run(["explain", rule]) == 0


def test_an_unknown_name_is_an_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "r4.shrap"]) == 2
    assert capsys.readouterr().err == (
        "specinspect: explain: no bound and no rule is called 'r4.shrap' (did you mean r4.sharp?)\n"
    )


def test_without_unicode_the_text_is_ascii_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", "72")
    for name in CATALOGUE:
        assert run(["explain", name]) == 0
    stream.seek(0)
    lines = stream.read().splitlines()
    assert max(map(len, lines)) <= 72
    assert not [line for line in lines if "\\u" in line]
