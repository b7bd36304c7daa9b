"""A NaN anywhere in a model's tensors: seen by the report and stopped by the gate."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import specinspect
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.cli.app import run
from specinspect.engine import inspect

SAMPLES = Path(__file__).parents[2] / "samples"
SPOTS = ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.weight", "position")


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def network() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        torch.nn.LayerNorm(8),
        torch.nn.Linear(8, 8),
    )
    return {**net.state_dict(), "position": torch.randn(2, 5, 8)}


def found(report: specinspect.Report) -> list[tuple[str, str, str, float | None]]:
    return [(f.rule, f.severity, f.layer, f.value) for f in report.findings]


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_one_nan_anywhere_fails_and_names_the_tensor(
    spot: str, dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = network()
    tensors[spot].view(-1)[3] = torch.nan
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    assert run(["check", str(path), "--select", "SI301", "--format", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["checkpoints"][0]["findings"]
    assert (finding["rule"], finding["layer"], finding["value"]) == ("SI301", spot, 1.0)
    assert "1 NaN and 0 infinite" in finding["message"]
    report = inspect(path, maps=("weight",))
    assert ("nonfinite_weights", "error", spot, 1.0) in found(report)


def test_a_healthy_network_has_no_such_finding(tmp_path: Path) -> None:
    save_file(network(), tmp_path / "x.safetensors")
    assert not inspect(tmp_path / "x.safetensors").findings
    assert run(["check", str(tmp_path / "x.safetensors")]) == 0


def test_allowed_left_out_and_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = network()
    tensors["1.running_mean"][0] = torch.inf
    path = str(tmp_path / "x.safetensors")
    save_file(tensors, path)
    assert run(["check", path]) == 1
    assert run(["check", path, "--fail-fast"]) == 1
    assert run(["check", path, "--exit-zero"]) == 0
    assert run(["check", path, "--allow-nonfinite"]) == 0
    assert run(["check", path, "--ignore", "SI301"]) == 0
    assert run(["check", path, "--layers", "4"]) == 0
    assert run(["check", path, "--layers", "0"]) == 1
    assert run(["check", path, "--exclude", "0"]) == 0
    assert "\n    1.running_mean  0 NaN and 1 infinite of 8 entries" in capsys.readouterr().out


def test_a_negative_variance_is_a_warning_and_can_be_made_an_error(tmp_path: Path) -> None:
    tensors = network()
    tensors["1.running_var"][:2] = -0.5
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    report = inspect(path, maps=("weight",))
    assert found(report) == [("negative_variance", "warning", "1.running_var", 2.0)]
    assert run(["check", str(path)]) == 0
    assert run(["check", str(path), "--select", "SI305"]) == 1
    assert [f.rule for f in specinspect.check(report)] == ["SI305"]


def test_complex_tensors_are_read_too(tmp_path: Path) -> None:
    spectrum = torch.randn(8, 8, dtype=torch.complex64)
    torch.save({**network(), "filter.weight": spectrum}, tmp_path / "x.pt")
    assert run(["check", str(tmp_path / "x.pt")]) == 0
    torch.view_as_real(spectrum)[2, 3, 1] = torch.nan
    torch.save({**network(), "filter.weight": spectrum}, tmp_path / "x.pt")
    report = inspect(tmp_path / "x.pt", maps=("weight",))
    assert found(report) == [("nonfinite_weights", "error", "filter.weight", 1.0)]
    assert "1 NaN and 0 infinite of 64 entries (complex (c64))" in report.findings[0].message
    assert run(["check", str(tmp_path / "x.pt")]) == 1


def test_a_mask_may_be_infinite_but_not_nan(tmp_path: Path) -> None:
    tensors = {**network(), "attn_mask": torch.full((4, 4), -torch.inf)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    assert run(["check", str(path)]) == 0
    tensors["attn_mask"][0, 0] = torch.nan
    save_file(tensors, path)
    assert run(["check", str(path)]) == 1


def test_the_optimizers_state_is_not_the_model(tmp_path: Path) -> None:
    moments = {"state": {0: {"exp_avg": torch.full((3,), torch.nan)}}, "param_groups": []}
    torch.save({"model": network(), "optimizer": moments}, tmp_path / "x.pt")
    assert run(["check", str(tmp_path / "x.pt")]) == 0


@pytest.mark.parametrize("form", ["text", "json", "github", "junit", "sarif", "markdown"])
def test_hostile_names_stay_on_their_line(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "[/red]\x1b[31m\n::error::<b>|&\u202e"
    torch.save({**network(), name: torch.tensor([torch.nan])}, tmp_path / "x.pt")
    assert run(["check", str(tmp_path / "x.pt"), "--select", "SI301", "--format", form]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\n::error::<b>" not in out
    assert "NaN" in out


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown", "html"])
def test_hostile_names_in_the_report(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "[/red]\x1b[31m\n::error::<b>|&\u202e"
    torch.save({**network(), name: torch.tensor([torch.nan])}, tmp_path / "x.pt")
    assert run(["report", str(tmp_path / "x.pt"), "--maps", "weight", "--format", form]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    if form == "html":
        assert "<b>|" not in out
    if form == "json":
        assert [f["layer"] for f in json.loads(out)["findings"]] == [name]


def test_no_cache_hides_or_keeps_it_and_no_torch_is_loaded_for_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    script = (
        "import sys; from specinspect.cli.app import run; code = run(sys.argv[1:]); "
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
    )

    def check() -> tuple[int, bool]:
        done = subprocess.run(
            [sys.executable, "-c", script, "check", str(path)], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr.strip().endswith("True")

    tensors = network()
    save_file(tensors, path)
    assert check() == (0, True)
    assert check() == (0, False)
    tensors["3.bias"][0] = torch.nan
    save_file(tensors, path)
    assert check()[0] == 1
    assert check() == (1, False)
    tensors["3.bias"][0] = 0
    save_file(tensors, path)
    assert check()[0] == 0


def test_the_sick_sample_has_the_findings_it_was_made_for() -> None:
    report = inspect(SAMPLES / "sick.pt")
    assert [(f.rule, f.layer) for f in report.findings] == [
        ("nonfinite_weights", "nan"),
        ("rank_deficient", "dead_row"),
        ("rank_deficient", "rank_deficient"),
    ]
    assert not report.bad_tensors


def test_from_memory_too() -> None:
    tensors = network()
    tensors["1.bias"][5] = -torch.inf
    assert found(inspect(tensors, maps=("weight",))) == [("nonfinite_weights", "error", "1.bias", 1.0)]


@pytest.mark.parametrize("arguments", [(), ("--layers", "nope")])
def test_a_file_without_layers_is_named(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "no\x1blayers.safetensors"
    save_file(network() if arguments else {"bias": torch.zeros(3)}, path)
    for command in ("report", "check"):
        assert run([command, str(path), *arguments]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert "no\\x1blayers.safetensors': no layer" in said.err
        assert "\x1b" not in said.err + said.out


def test_entries_of_a_large_checkpoint_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specinspect import engine
    from specinspect.cache import keys
    from specinspect.checkpoint import raw, read

    path = tmp_path / "x.safetensors"
    save_file(network(), path)
    taken: list[str] = []
    original, pieces = read.read_tensor, raw.stored_bytes

    def reading(info: TensorInfo) -> torch.Tensor:
        taken.append(info.name)
        return original(info)

    def hashing(info: TensorInfo) -> Iterator[memoryview]:
        taken.append(info.name)
        return pieces(info)

    monkeypatch.setattr(read, "read_tensor", reading)
    monkeypatch.setattr(keys, "stored_bytes", hashing)
    assert run(["check", str(path), "--select", "SI3"]) == 0
    assert taken.count("4.weight") > 1  # read, and hashed for the cache
    taken.clear()
    monkeypatch.setattr(engine.opening, "LOADING", 1)
    assert run(["check", str(path), "--select", "SI3"]) == 0
    assert sorted(taken) == ["0.weight", "4.weight"]


HUGE = torch.full((3, 3), 1.7e308, dtype=torch.float64)


@pytest.mark.parametrize(
    ("limits", "rules"),
    [
        ([], {"SI203"}),
        (["--max-kappa", "1e4"], {"SI101", "SI203"}),
        (["--max-skip-kappa", "1e4"], {"SI103", "SI203"}),
        (["--max-sigma", "10", "--ignore", "SI203"], {"SI201"}),
        (["--select", "SI3"], set()),
    ],
)
def test_what_float64_cannot_hold_passes_no_rule_that_needs_it(
    limits: list[str], rules: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"bad.weight": HUGE, "good.weight": torch.eye(3)}, tmp_path / "x.safetensors")
    code = run(["check", str(tmp_path / "x.safetensors"), *limits, "--format", "json"])
    found = json.loads(capsys.readouterr().out)["checkpoints"][0]["findings"]
    assert code == bool(rules)
    assert {(f["rule"], f["layer"], f["severity"]) for f in found} == {(r, "bad", "error") for r in rules}
