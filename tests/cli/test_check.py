"""`specinspect check` as a user and a CI job meet it: exit codes, streams, files, configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from specinspect.cli.app import run

SAMPLES = Path(__file__).parents[2] / "samples"
SICK = str(SAMPLES / "sick.pt")


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_values(*values: float) -> torch.Tensor:
    """Return a matrix with these singular values: rotated, so that no entry tells them."""
    generator = torch.Generator().manual_seed(len(values))
    n = len(values)
    left, right = (
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0] for _ in range(2)
    )
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


@pytest.fixture
def healthy(tmp_path: Path) -> str:
    """Return a file whose layers have κ = 4 and 8, in float64."""
    path = tmp_path / "healthy.safetensors"
    save_file({"fc1.weight": with_values(4, 2, 1), "fc2.weight": with_values(8, 4, 2, 1)}, path)
    return str(path)


def findings(capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str]]:
    data = json.loads(capsys.readouterr().out)
    return {(f["rule"], f["layer"]) for checked in data["checkpoints"] for f in checked["findings"]}


@dataclass(frozen=True)
class Exit:
    name: str
    arguments: tuple[str, ...]
    code: int
    out: str | None
    """Part of stdout; None: nothing is on it."""
    err: str = ""
    """Part of the one line on stderr; '': nothing is on it."""


EXITS = (
    Exit("nothing asked", ("{healthy}",), 0, "passed: nothing found in 2 layers"),
    Exit("within", ("{healthy}", "--max-kappa", "10"), 0, "passed"),
    Exit("exactly at the limit", ("{healthy}", "--max-kappa", "8"), 0, "passed"),
    Exit("just under", ("{healthy}", "--max-kappa", "7.999"), 1, "κ(W) = 8.00, limit 7.999"),
    Exit("sigma exactly", ("{healthy}", "--max-sigma", "8"), 0, "passed"),
    Exit("sigma under", ("{healthy}", "--max-sigma", "7.999"), 1, "σmax = 8.00"),
    Exit("NaN", ("{sick}",), 1, "1 NaN"),
    Exit("NaN with exit zero", ("{sick}", "--exit-zero"), 0, "failed: 1 error"),
    Exit("NaN allowed", ("{sick}", "--allow-nonfinite"), 0, "passed: 2 warnings"),
    Exit("warnings that were selected", ("{sick}", "--select", "dead-rows"), 1, "SI303"),
    Exit("no file", ("nowhere.pt",), 2, None, "found nothing at 'nowhere.pt'"),
    Exit("unreadable", ("{damaged}",), 2, None, "damaged.pt"),
    Exit("unreadable with exit zero", ("{damaged}", "--exit-zero"), 2, None, "damaged.pt"),
    Exit("one of two unreadable", ("{sick}", "{damaged}"), 2, "1 of 2 checkpoints not checked", "damaged.pt"),
    Exit("no match", ("{healthy}", "--layers", "nothing"), 2, None, "matches none of 2 layers"),
    Exit("glob without match", ("*.nothing",), 2, None, "no checkpoint matches '*.nothing'"),
    Exit("bad option", ("{healthy}", "--max-kapa", "3"), 2, None, "No such option: --max-kapa"),
    Exit("no number", ("{healthy}", "--max-kappa", "x"), 2, None, "Invalid value for '--max-kappa'"),
    Exit("NaN as a limit", ("{healthy}", "--max-kappa", "nan"), 2, None, "--max-kappa: expected a finite"),
    Exit("limit no κ can meet", ("{healthy}", "--max-kappa", "0.5"), 2, None, "at least 1, got 0.5"),
    Exit("unknown rule", ("{healthy}", "--select", "max-kapa"), 2, None, "did you mean 'max-kappa'?"),
    Exit("unknown code", ("{healthy}", "--ignore", "SI999"), 2, None, "unknown rule 'SI999'"),
    Exit("rule without its limit", ("{healthy}", "--select", "SI101"), 2, None, "give --max-kappa X"),
    Exit("no rule left", ("{healthy}", "--ignore", "ALL"), 2, None, "no rule is left"),
    Exit("growth without baseline", ("{healthy}", "--max-kappa-growth", "2"), 2, None, "give --baseline"),
    Exit("no baseline there", ("{healthy}", "--baseline", "no.json"), 2, None, "cannot read 'no.json'"),
    Exit("unknown format", ("{healthy}", "--format", "sarff"), 2, None, "did you mean 'sarif'?"),
    Exit(
        "two formats on stdout", ("{healthy}", "--format", "json", "--format", "text"), 2, None, "both go to"
    ),
    Exit("no checkpoint", (), 2, None, "CKPT"),
    Exit("bad configuration", ("{healthy}", "--config", "bad.toml"), 2, None, "did you mean 'max-kappa'?"),
)


@pytest.mark.parametrize("case", EXITS, ids=lambda case: case.name)
def test_exit_codes(case: Exit, healthy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(Path(SICK).read_bytes()[:3000])
    (tmp_path / "bad.toml").write_text("[check]\nmax-kapa = 3\n")
    names = {"healthy": healthy, "sick": SICK, "damaged": str(damaged)}
    assert run(["check", *(argument.format(**names) for argument in case.arguments)]) == case.code
    out, err = capsys.readouterr()
    assert (out == "") if case.out is None else (case.out in out)
    if case.err:
        assert case.err in err
        assert err.startswith("specinspect: ")
        assert err.count("\n") == 1
    else:
        assert err == ""


def test_a_crash_is_never_0_or_1(
    healthy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr("specinspect.cli.gating.check_layers", crash)
    assert run(["check", healthy]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "internal error: ZeroDivisionError: injected" in err


def test_a_crash_in_a_worker_is_never_0_or_1(
    healthy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise SystemError("injected")

    monkeypatch.setattr("specinspect.engine.build_weight_map", crash)
    assert run(["check", healthy]) == 2
    assert capsys.readouterr().out == ""


def test_an_interrupt_is_130(
    healthy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    left: list[int] = []
    monkeypatch.setattr("specinspect.cli.app.os._exit", left.append)
    monkeypatch.setattr("specinspect.engine.report", interrupt)
    run(["check", healthy])
    assert left == [130]
    assert capsys.readouterr() == ("", "specinspect: interrupted\n")
