"""`specinspect compare` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from specinspect.cli.app import run
from tests.cli.test_cli import command, one_line_error

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    a, b = tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"
    weights = {"fc1.weight": torch.eye(4), "fc1.bias": torch.zeros(4), "fc2.weight": torch.ones(2, 4)}
    save_file(weights, a)
    save_file({**weights, "fc1.weight": 2 * torch.eye(4)}, b)
    return str(a), str(b)


def test_table_is_the_default(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", *files]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "2 layers in both: 1 changed, 1 identical" in out
    assert "fc1" in out


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_json_on_stdout_alone(
    option: list[str], files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *option, *files]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    data = json.loads(out, parse_constant=pytest.fail)
    assert [layer["name"] for layer in data["layers"]] == ["fc1", "fc2"]
    assert data["layers"][0]["difference"]["spectral_norm"] == 1.0
    assert (data["a"]["path"], data["b"]["path"]) == files


def test_samples_fit_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    import jsonschema

    assert run(["schema", "compare"]) == 0
    schema = json.loads(capsys.readouterr().out)
    for a, b, *more in (
        ("digits_chain.pt", "digits_residual.pt"),
        ("resnet_tiny.safetensors", "resnet_tiny.safetensors", "--grid", "4", "--maps", "weight,chain,skip"),
        ("sick.pt", "sick.pt", "--spectra"),
    ):
        assert run(["compare", "--json", str(SAMPLES / a), str(SAMPLES / b), *more]) == 0
        data = json.loads(capsys.readouterr().out)
        jsonschema.validate(data, schema)
        assert data["summary"]["verdict"] == ("identical" if a == b else "different")


def test_markdown(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--format", "markdown", *files]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("### base.safetensors → tuned.safetensors\n")


@pytest.mark.parametrize("form", ["table", "json", "markdown"])
def test_output_file(
    form: str, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    assert run(["compare", "--format", form, "-o", str(target), *files]) == 0
    assert capsys.readouterr() == ("", "")
    assert "fc1" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize("side", [0, 1])
def test_neither_input_is_written_over(
    side: int, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(files[side]).read_bytes()
    assert run(["compare", "-o", files[side], *files]) == 2
    assert "is read by this very run" in one_line_error(capsys)
    assert Path(files[side]).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compare"], "Missing argument 'A'"),
        (["compare", "A"], "Missing argument 'B'"),
        (["compare", "A", "nowhere.pt"], "nowhere.pt"),
        (["compare", "nowhere.pt", "A"], "nowhere.pt"),
        (["compare", "A", "B", "--top", "0"], "--top"),
        (["compare", "A", "B", "--grid", "0"], "--grid"),
        (["compare", "A", "B", "--maps", "wieght"], "--maps"),
        (["compare", "A", "B", "--json", "--format", "table"], "contradict"),
        (["compare", "A", "B", "--format", "csv"], "csv"),
        (["compare", "A", "B", "--layers", "nope*"], "no layer left"),
        (["compare", "A", "B", "--config", "nowhere.toml"], "nowhere.toml"),
        (["compare", "A", "B", "-o", "/nowhere/x"], "-o"),
        (["compare", "A", "B", "--key", "model"], "model"),
        (["compare", "A", "B", "--device", "tpu"], "--device"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], expected: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"A": files[0], "B": files[1]}.get(word, word) for word in arguments]
    assert run(given) == 2
    assert expected in one_line_error(capsys)


def test_no_common_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a\x1b[31m.weight": torch.eye(3)}, tmp_path / "a.safetensors")
    save_file({"b.weight": torch.eye(4)}, tmp_path / "b.safetensors")
    assert run(["compare", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]) == 2
    line = one_line_error(capsys)
    assert "no layer in common" in line
    assert "\x1b" not in line


def test_a_damaged_file(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(files[0]).read_bytes()[:-8])
    assert run(["compare", files[0], str(damaged)]) == 2
    one_line_error(capsys)


def test_which_side_has_no_layers(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"bias": torch.zeros(3)}, tmp_path / "none.safetensors")
    assert run(["compare", files[0], str(tmp_path / "none.safetensors")]) == 2
    line = one_line_error(capsys)
    assert f"B: '{tmp_path / 'none.safetensors'}': no layer to analyse" in line
    assert run(["compare", str(tmp_path / "none.safetensors"), files[0]]) == 2
    assert f"A: '{tmp_path / 'none.safetensors'}': no layer to analyse" in one_line_error(capsys)


def test_the_cache_changes_nothing(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for option in ([], [], ["--no-cache"]):
        assert run(["compare", "--json", "--maps", "weight,chain,skip", *option, *files]) == 0
        data = json.loads(capsys.readouterr().out)
        del data["summary"]["seconds"]
        for layer in data["layers"]:
            del layer["seconds"]
        found.append(data)
    assert found[0] == found[1] == found[2]


def test_a_state_dict_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.ckpt"
    torch.save({"model": {"fc.weight": torch.eye(3)}, "ema": {"fc.weight": 2 * torch.eye(3)}}, path)
    keys = ["--key-a", "model", "--key-b", "ema"]
    assert run(["compare", "--json", str(path), str(path), *keys]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["a"]["key"], data["b"]["key"]) == ("model", "ema")
    assert data["layers"][0]["difference"]["relative_spectral_norm"] == 1.0


def test_a_configuration_file(
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specinspect.toml").write_text('curve = true\nlayers = ["fc1"]\n')
    assert run(["compare", "--json", *files]) == 0
    out, err = capsys.readouterr()
    assert err == "specinspect: compare does not use curve\n"
    assert [layer["name"] for layer in json.loads(out)["layers"]] == ["fc1"]


def test_a_crash_is_neither_0_nor_1(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr("specinspect.comparison.run.measure", crash)
    assert run(["compare", *files]) == 2
    assert "internal error: ZeroDivisionError: injected" in one_line_error(capsys)


def test_interrupt_is_130(tmp_path: Path) -> None:
    for name in "ab":
        torch.save({"big.weight": torch.randn(4000, 4000)}, tmp_path / f"{name}.pt")
    process = subprocess.Popen(
        [sys.executable, "-m", "specinspect", "compare", str(tmp_path / "a.pt"), str(tmp_path / "b.pt")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore interrupts, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "specinspect: interrupted\n")


def test_a_pipe_without_unicode(files: tuple[str, str]) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    process = command("compare", *files, env=environment)
    assert process.returncode == 0
    assert process.stderr == ""
    assert process.stdout.isascii()


def test_help_loads_neither_torch_nor_textual() -> None:
    code = (
        "import sys; from specinspect.cli.app import run; run(['compare', '--help']);"
        "print(sorted({'torch', 'textual', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--top" in process.stdout
    assert process.stdout.endswith("[]\n")
