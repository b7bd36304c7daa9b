"""`specinspect check` as a user and a CI job meet it: exit codes, streams, files, configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
    Exit("no number", ("{healthy}", "--max-kappa", "x"), 2, None, "--max-kappa: expected a number, got 'x'"),
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

    monkeypatch.setattr("specinspect.engine.layers.build_weight_map", crash)
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


# Several checkpoints


def test_several_checkpoints_and_globs_have_one_verdict(
    healthy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"fc.weight": with_values(100, 1)}, tmp_path / "sharp.safetensors")
    assert run(["check", "*.safetensors", healthy, "--max-kappa", "10"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "healthy.safetensors · 2 layers" in lines
    assert "sharp.safetensors · 1 layer" in lines
    assert f"{healthy} · 2 layers" in lines  # named twice, in two ways
    assert lines[-1] == "failed: 1 error in 5 layers of 3 checkpoints with 6 rules"


@pytest.mark.parametrize("count", [2, 5])
def test_however_many_cannot_be_read_it_is_one_line(
    count: int, healthy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"nowhere{i}.pt" for i in range(count)]
    assert run(["check", *names, healthy]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"specinspect: {count} of {count + 1} checkpoints not checked: ")
    assert err.count("\n") == 1
    assert [name in err for name in names] == [i < 3 for i in range(count)]
    assert err.endswith("; and 2 more\n") == (count == 5)
    assert all(f"{name} · not checked" in out for name in names)
    assert run(["check", *names]) == 2
    out = capsys.readouterr().out
    assert (out == "") == (count == 2)  # what stderr does not tell, stdout does


def test_fail_fast_stops_at_the_first_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({f"l{i}.weight": with_values(100 + i, 1) for i in range(20)}, tmp_path / "a.safetensors")
    options = ["--max-kappa", "10", "--fail-fast", "--format", "json", "--jobs", "1"]
    assert run(["check", "a.safetensors", "nowhere.pt", *options]) == 1
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["stopped_at_first_failure"] is True
    assert data["summary"]["layers"] == 1
    assert [f["rule"] for f in data["checkpoints"][0]["findings"]] == ["SI101"]
    assert len(data["checkpoints"]) == 1
    assert err == ""
    assert "stopped at the first failure" in data["message"]


def test_fail_fast_looks_at_everything_where_nothing_fails(
    healthy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", healthy, "--max-kappa", "8", "--fail-fast"]) == 0
    assert capsys.readouterr().out.endswith("passed: nothing found in 2 layers with 6 rules\n")


# Formats and files


def test_several_formats_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forms = ["--format", "github", "--format", "sarif:out.sarif", "--format", "junit:out.xml"]
    assert run(["check", SICK, *forms, "--format", "markdown:out.md"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("::error file=")
    assert json.loads((tmp_path / "out.sarif").read_text())["version"] == "2.1.0"
    assert "<testsuites" in (tmp_path / "out.xml").read_text()
    assert "| error | SI301" in (tmp_path / "out.md").read_text()


def test_output_option_takes_the_format_without_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", SICK, "--format", "json", "-o", "out.json"]) == 1
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "failed"


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "json:missing/out.json"],
        ["--format", "json:"],
        ["--format", "json:a", "--format", "text:a"],
        ["--format", "json:a", "--format", "text:./a"],
        ["--write-baseline", "a", "--format", "json:./a"],
        ["--write-baseline", "a", "-o", "a"],
        ["--format", "json:a", "-o", "b"],
        ["-o", "healthy.safetensors"],
        ["--format", "json:healthy.safetensors"],
        ["--write-baseline", "healthy.safetensors"],
        ["--write-baseline", "b.json", "--fail-fast"],
        ["--write-baseline", "missing/b.json"],
    ],
)
def test_files_that_cannot_be_written(
    options: list[str], healthy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(healthy).read_bytes()
    assert run(["check", "healthy.safetensors", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert Path(healthy).read_bytes() == before


def test_files_are_written_for_checkpoints_that_cannot_be_read(tmp_path: Path) -> None:
    assert run(["check", "nowhere.pt", "--format", "junit:out.xml"]) == 2
    assert "<error message=" in (tmp_path / "out.xml").read_text()


# Configuration


def test_limits_from_a_file_and_for_single_layers(
    healthy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "specinspect.toml"
    config.write_text('[check]\nmax-kappa = 5\nselect = "max-kappa"\n')
    assert run(["check", healthy, "--format", "json"]) == 1
    assert findings(capsys) == {("SI101", "fc2")}
    assert run(["check", healthy, "--max-kappa", "3", "--format", "json"]) == 1
    assert findings(capsys) == {("SI101", "fc1"), ("SI101", "fc2")}
    config.write_text('[check]\nmax-kappa = 5\n[rules."fc2"]\nmax-kappa = 9\nmax-sigma = 7\n')
    assert run(["check", healthy, "--format", "json"]) == 1
    assert findings(capsys) == {("SI201", "fc2")}
    config.write_text('[check]\nmax-kappa = 5\nexit-zero = true\nignore = ["SI3"]\n')
    assert run(["check", healthy, "--format", "json"]) == 0
    assert findings(capsys) == {("SI101", "fc2")}


def test_limits_from_pyproject(healthy: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.specinspect.check]\nmax-kappa = 5\n")
    assert run(["check", healthy]) == 1
    (tmp_path / "mine.toml").write_text("[check]\nmax-kappa = 50\n")
    assert run(["check", healthy, "--config", "mine.toml"]) == 0


def test_settings_of_report_do_not_make_a_check_dear(healthy: str, tmp_path: Path) -> None:
    (tmp_path / "specinspect.toml").write_text('maps = ["chain"]\nspectra = true\ncompose = ["fc1:fc2"]\n')
    assert run(["check", healthy, "--max-sigma", "9"]) == 0


# Baselines


def test_a_baseline_ratchets(healthy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tmp_path / "b.json"
    assert run(["check", healthy, "--write-baseline", "b.json", "--max-sigma", "9"]) == 0
    first = baseline.read_text()
    weights = {layer["name"]: layer["maps"]["weight"] for layer in json.loads(first)["layers"]}
    assert weights["fc2"]["condition_number"] == pytest.approx(8.0, rel=1e-6)
    capsys.readouterr()

    save_file({"fc1.weight": with_values(4, 2, 1), "fc2.weight": with_values(20, 4, 2, 1)}, healthy)
    again = ["check", healthy, "--baseline", "b.json", "--write-baseline", "b.json", "--format", "json"]
    assert run([*again, "--max-kappa-growth", "1.5", "--max-sigma-growth", "3"]) == 1
    assert findings(capsys) == {("SI401", "fc2")}
    assert baseline.read_text() == first  # what failed is not taken over
    assert run([*again, "--max-kappa-growth", "3", "--max-sigma-growth", "3"]) == 0
    assert baseline.read_text() != first
    assert run(["check", healthy, "--baseline", "b.json", "--max-kappa-growth", "1"]) == 0


def test_a_report_on_stdout_is_a_baseline(
    healthy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "--json", "--maps", "weight", healthy]) == 0
    (tmp_path / "b.json").write_text(capsys.readouterr().out)
    save_file({"fc1.weight": with_values(4, 2, 1), "fc3.weight": with_values(2, 1)}, healthy)
    assert run(["check", healthy, "--baseline", "b.json", "--format", "json"]) == 1
    assert findings(capsys) == {("SI404", "fc3"), ("SI405", "fc2")}
    assert run(["check", healthy, "--baseline", "b.json", "--layers", "fc1"]) == 0


def test_a_baseline_in_the_configuration_lies_beside_it(healthy: str, tmp_path: Path) -> None:
    assert run(["check", healthy, "--write-baseline", "b.json"]) == 0
    (tmp_path / "specinspect.toml").write_text('[check]\nbaseline = "b.json"\n')
    below = tmp_path / "below"
    below.mkdir()
    os.chdir(below)
    assert run(["check", healthy]) == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": "9", "layers": []}'])
def test_a_damaged_baseline_is_2(
    text: str, healthy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.json").write_text(text)
    assert run(["check", healthy, "--baseline", "b.json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "'b.json'" in err


# Only what is needed


def test_a_norm_gate_computes_no_spectrum(healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a full spectrum")

    monkeypatch.setattr("specinspect.spectra.compute.singular_values", never)
    assert run(["check", healthy, "--max-sigma", "9", "--min-stable-rank", "1"]) == 0
    assert run(["check", healthy, "--max-kappa", "9"]) == 2  # the patch does bite


def test_a_gate_on_entries_computes_no_norm(healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a norm")

    monkeypatch.setattr("specinspect.spectra.norm._largest_of_gram", never)
    assert run(["check", healthy, "--select", "SI3"]) == 0
    assert run(["check", healthy, "--max-sigma", "9"]) == 2


def test_a_gate_on_headers_reads_no_tensor_and_loads_no_torch(healthy: str, tmp_path: Path) -> None:
    assert run(["check", healthy, "--write-baseline", "b.json"]) == 0
    data = bytearray(Path(healthy).read_bytes())
    length = int.from_bytes(data[:8], "little")
    data[8 + length :] = b"\xff" * (len(data) - 8 - length)  # NaN, everywhere
    Path(healthy).write_bytes(data)
    arguments = ["check", healthy, "--baseline", "b.json", "--select", "SI404,SI405,SI406"]
    arguments += ["--ignore", "SI401,SI402,SI403"]
    script = f"import sys; from specinspect.cli.app import run; code = run({arguments!r}); "
    script += "print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert run(["check", healthy]) == 1


def test_the_configuration_is_checked_before_anything_is_opened(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["check", "nowhere.pt", "--baseline", "no.json", "--max-kappa", "-1"]) == 2
    assert "--max-kappa" in capsys.readouterr().err


def test_hostile_names_from_a_file_through_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "enc[/][bold]",
        "<b>&]]>",
        "100%::error::x",
        "a\nfailed: 0 errors\r",
        "\x1b[31mred",
        "|a|`b`\u202e",
    ]
    save_file({f"{name}.weight": torch.full((2, 2), torch.nan) for name in names}, tmp_path / "h.safetensors")
    for form in ("text", "json", "github", "junit", "sarif", "markdown"):
        assert run(["check", "h.safetensors", "--format", form]) == 1
        out, err = capsys.readouterr()
        assert err == ""
        assert not any(char in out for char in "\r\x1b\u202e")
        assert sum(line.startswith("failed: ") for line in out.splitlines()) <= 1
    assert len(names) == 6
