"""The command line as a user meets it: data on stdout, one line on stderr, exit codes to the letter."""

from __future__ import annotations

import csv
import io
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

import specinspect
from specinspect.cli.app import run

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / "model.safetensors"
    save_file({"fc1.weight": torch.eye(4), "fc1.bias": torch.zeros(4), "fc2.weight": torch.ones(2, 4)}, path)
    return str(path)


def command(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    process: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "specinspect", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    return process


def one_line_error(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("specinspect: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_table_is_the_default(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", checkpoint]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "fc1" in out
    assert "analysed 2 of 3 tensors" in out


def test_json_on_stdout_alone(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--json", checkpoint]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    data = json.loads(out)
    assert data["schema_version"] == "1"
    assert [layer["name"] for layer in data["layers"]] == ["fc1", "fc2"]
    assert "singular_values" not in data["layers"][0]["maps"]["weight"]


def test_spectra_are_added_on_request(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--json", "--spectra", checkpoint]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["layers"][0]["maps"]["weight"]["singular_values"] == [1.0] * 4


@pytest.mark.parametrize("form", ["json", "csv", "markdown", "html", "table"])
def test_output_file_has_what_stdout_would(
    form: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    assert run(["report", "--format", form, "-o", str(target), checkpoint]) == 0
    assert capsys.readouterr() == ("", "")
    assert "fc1" in target.read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "out"]


def test_csv_is_csv(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--format", "csv", "--maps", "weight", checkpoint]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["name"] for row in rows] == ["fc1", "fc2"]


def test_real_output_fits_the_published_schema(capsys: pytest.CaptureFixture[str]) -> None:
    import jsonschema

    assert run(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    for sample in ("sick.pt", "resnet_tiny.safetensors", "transformer_tiny"):
        assert run(["report", "--json", "--grid", "4", "--spectra", str(SAMPLES / sample)]) == 0
        jsonschema.validate(json.loads(capsys.readouterr().out), schema)


def test_layers_and_exclude(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--json", "--layers", "fc*", "--exclude", "*1", checkpoint]) == 0
    assert [layer["name"] for layer in json.loads(capsys.readouterr().out)["layers"]] == ["fc2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["report"], "Missing argument 'CKPT'"),
        (["report", "nowhere.pt"], "nowhere.pt"),
        (["report", "--gird", "3", "x"], "--gird"),
        (["report", "--grid", "three", "x"], "--grid: expected a whole number, got 'three'"),
        (["report", "--beta=x", "x"], "--beta: expected a number, got 'x'"),
        (["report", "--maps", ",", "x"], "got none"),
        (["report", "--grid", "0", "x"], "--grid"),
        (["report", "--grid", "99999999999999999999", "x"], "--grid"),
        (["report", "--patterns", "99999999999999999999", "x"], "--patterns"),
        (["report", "--rho", "0", "--beta", "0", "x"], "both 0"),
        (["report", "--beta", "nan", "x"], "--beta"),
        (["report", "--target-kappa", "1", "x"], "--target-kappa"),
        (["report", "--target-kappa", "inf", "x"], "--target-kappa"),
        (["report", "--delta", "0", "x"], "--delta"),
        (["report", "--delta", "1", "x"], "--delta"),
        (["report", "--delta", "nan", "x"], "--delta"),
        (["report", "--init", "he", "x"], "--init: expected kaiming, xavier, pytorch-default or std:X"),
        (["report", "--init", "std:0", "x"], "--init"),
        (["report", "--init", "std:inf", "x"], "--init"),
        (["report", "--init", "std", "x"], "--init"),
        (["report", "--maps", "weight,wight", "x"], "wight"),
        (["report", "--activation", "gelo", "samples/sick.pt"], "gelo"),
        (["report", "--model", "nowhere:Net", "samples/sick.pt"], "nowhere"),
        (["report", "--model-args", "{}", "samples/sick.pt"], "--model"),
        (["report", "--config", "nowhere.toml", "x"], "nowhere.toml"),
        (["report", "-o", "", "x"], "expected a file name"),
        (["report", "--jobs", "0", "x"], "--jobs"),
        (["report", "--format", "xml", "x"], "'--format': 'xml' is not one of"),
        (["report", "--json", "--format", "csv", "x"], "contradict"),
        (["report", "-o", "no/such/place", "x"], "no such directory"),
        (["report", "-o", ".", "x"], "found the directory"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert expected in one_line_error(capsys)


def test_unknown_device(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--device", "tpu", checkpoint]) == 2
    assert "tpu" in one_line_error(capsys)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--layers", "fc3"], "'fc3' matches none of 2 layers (did you mean 'fc2', 'fc1'?)"),
        (["--layers", "["], "'[' matches none of 2 layers (the first are 'fc1', 'fc2')"),
        (["--exclude", "*"], "excluding '*' keeps none of 2 layers (exclude less"),
        (["--layers", "fc1", "--exclude", "fc?"], "'fc1' without 'fc?' keeps none of 2 layers (exclude less"),
    ],
)
def test_no_layer_matched(
    options: list[str], expected: str, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", *options, checkpoint]) == 2
    assert expected in one_line_error(capsys)


def test_a_comma_too_many_is_no_map(checkpoint: str) -> None:
    assert run(["report", "--maps", "weight,", checkpoint]) == 0


def test_no_layer_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"bias": torch.zeros(3)}, tmp_path / "m.safetensors")
    assert run(["report", str(tmp_path / "m.safetensors")]) == 2
    one_line_error(capsys)


def test_hostile_names_stay_on_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"enc[/]\n\x1b[31m.weight": torch.eye(2)}, tmp_path / "m.safetensors")
    for form in ("table", "csv", "markdown", "html", "json"):
        assert run(["report", "--format", form, str(tmp_path / "m.safetensors")]) == 0
        out = capsys.readouterr().out
        assert "\x1b[31m" not in out
        assert "enc[/]" in out
    assert run(["report", "--layers", "\x1b[31m\n", str(tmp_path / "m.safetensors")]) == 2
    assert "\x1b" not in one_line_error(capsys)


def test_a_crash_is_neither_0_nor_1(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr("specinspect.engine.report", crash)
    assert run(["report", checkpoint]) == 2
    assert "internal error: ZeroDivisionError: injected" in one_line_error(capsys)


def test_a_write_that_fails_is_exit_code_2(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    assert run(["report", "--json", "-o", "/dev/full", checkpoint]) == 2
    one_line_error(capsys)


def test_the_checkpoint_is_not_written_over(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(checkpoint).read_bytes()
    assert run(["report", "--json", "-o", checkpoint, checkpoint]) == 2
    assert "is read by this very run" in one_line_error(capsys)
    assert Path(checkpoint).read_bytes() == before


def test_a_link_stays_a_link_and_permissions_stay(checkpoint: str, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    assert run(["report", "--json", "-o", str(link), checkpoint]) == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["schema_version"] == "1"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_named_pipe_is_written_to(checkpoint: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    assert run(["report", "--json", "-o", str(pipe), checkpoint]) == 0
    out, _ = reader.communicate(timeout=30)
    assert json.loads(out)["schema_version"] == "1"


def test_dash_is_stdout(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--json", "-o", "-", checkpoint]) == 0
    assert json.loads(capsys.readouterr().out)["schema_version"] == "1"


@pytest.mark.parametrize(("closed", "code"), [("2>&-", 0), (">&-", 2), (">&- 2>&-", 2)])
def test_closed_streams(checkpoint: str, closed: str, code: int) -> None:
    line = f"'{sys.executable}' -m specinspect report --json '{checkpoint}' {closed}"
    process = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == code
    assert "internal error" not in process.stderr


@pytest.mark.parametrize("form", ["json", "table"])
def test_the_reader_may_go_away(form: str, checkpoint: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "specinspect", "report", "--format", form, checkpoint],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_error_that_cannot_be_told_is_still_2() -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "specinspect", "report", "nowhere.pt"],
            stderr=full,
            timeout=60,
            check=False,
        )
    assert process.returncode == 2


def test_interrupt_is_130_while_the_command_line_is_loading() -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from specinspect.__main__ import main; main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "specinspect: interrupted\n")


def test_interrupt_is_130_even_inside_a_decomposition(tmp_path: Path) -> None:
    torch.save({"big.weight": torch.randn(5000, 5000)}, tmp_path / "m.pt")
    process = subprocess.Popen(
        [sys.executable, "-m", "specinspect", "report", str(tmp_path / "m.pt")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore interrupts, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "specinspect: interrupted\n")
    assert time.monotonic() - start < 5


def test_version_and_help_load_neither_torch_nor_textual() -> None:
    code = (
        "import sys; from specinspect.cli.app import run; run(sys.argv[1:]);"
        "print(sorted({'torch', 'textual', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    for option, expected in (("--version", specinspect.__version__), ("--help", "report")):
        process = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, check=True, timeout=60
        )
        assert expected in process.stdout
        assert process.stdout.endswith("[]\n")


def test_python_m_works(checkpoint: str) -> None:
    process = command("report", "--format", "csv", checkpoint)
    assert process.returncode == 0
    assert process.stderr == ""
    assert process.stdout.startswith("name,map,")


def test_a_locale_without_unicode(checkpoint: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    process = command("report", checkpoint, env=environment)
    assert process.returncode == 0
    assert process.stderr == ""
    assert process.stdout.isascii()


SHARED = (
    "--layers",
    "--exclude",
    "--key",
    "--beta",
    "--rho",
    "--activation",
    "--patterns",
    "--seed",
    "--grid",
    "--model",
    "--config",
    "--device",
    "--jobs",
    "--spectra",
    "--no-cache",
)
"""What open, report, check and compare have in common, by contract."""


@pytest.mark.parametrize("command", ["open", "report", "check", "compare"])
def test_every_command_has_the_shared_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert [option for option in SHARED if option not in words] == []


@pytest.mark.parametrize("command", ["report", "check", "compare"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[check]\nmax-kappa = 0.5", "check.max-kappa: expected a finite number of at least 1, got 0.5"),
        ("[check]\nselect = 'SI999'", "unknown rule 'SI999'"),
        ("[rules.'fc*']\nmax-sigma = -1", "rules.'fc*': max-sigma: expected a finite number"),
        ("grid = 0", "grid: expected a whole number from 1"),
        ("conv-pattern = 'pixels'", "conv-pattern: expected channel or pixel"),
    ],
)
def test_the_whole_configuration_is_checked_whatever_the_command_uses(
    command: str,
    text: str,
    expected: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("specinspect.toml").write_text(text)
    paths = [checkpoint] * (2 if command == "compare" else 1)
    grid = ["--grid", "4"] if "grid" in text else []  # what is overridden is still wrong
    assert run([command, *paths, *grid]) == 2
    error = one_line_error(capsys)
    assert f"specinspect.toml: {expected}" in error
    assert "--" not in error.partition(expected)[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_what_an_editor_or_a_shell_puts_in_front_of_a_file_is_no_error(
    encoding: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["report", "--json", checkpoint]) == 0
    Path("b.json").write_text(capsys.readouterr().out, encoding=encoding)
    assert run(["check", checkpoint, "--baseline", "b.json"]) == 0
    if encoding == "utf-16":  # TOML and JSON of others are UTF-8 by their own rules
        return
    Path("specinspect.toml").write_text("beta = 0.5", encoding=encoding)
    Path("config.json").write_text('{"model_type": "llama", "hidden_act": "silu"}', encoding=encoding)
    index = {"weight_map": {"fc1.weight": Path(checkpoint).name, "fc2.weight": Path(checkpoint).name}}
    Path("model.safetensors.index.json").write_text(json.dumps(index), encoding=encoding)
    capsys.readouterr()
    assert run(["report", "--json", str(tmp_path / "model.safetensors.index.json")]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["settings"]["beta"] == 0.5
    assert not [text for text in data["checkpoint"]["assumptions"] if "config.json" in text]
