"""The cache from the command line, whole processes: a second run, a killed one, info and clear."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from specinspect import engine
from specinspect.cli.app import run

SAMPLES = Path(__file__).parents[2] / "samples"


def save(path: Path, side: int) -> str:
    """Save 12 layers, each of another shape, so that every layer is a job of its own."""
    generator = torch.Generator().manual_seed(0)
    names = [f"layer{number}.weight" for number in range(12)]
    save_file({n: torch.randn(side + i, side, generator=generator) for i, n in enumerate(names)}, path)
    return str(path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return save(tmp_path / "model.safetensors", 20)


def without_times(text: str) -> str:
    return re.sub(r'"seconds": [-+.e\d]+', '"seconds": 0', text)


def entries(directory: Path) -> list[Path]:
    return [path for path in (directory / "results").rglob("*") if re.fullmatch(r"\w{32}-\w{32}", path.name)]


def test_a_second_run_needs_no_torch(
    checkpoint: str, cache_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import sys; from specinspect.cli.app import run; code = run(sys.argv[1:]);"
        "sys.stderr.write(f'{code} torch' if 'torch' in sys.modules else f'{code} none')"
    )
    outputs: list[str] = []
    for expected in ("0 torch", "0 none"):
        done = subprocess.run(
            [sys.executable, "-c", script, "report", "--json", "--device", "cpu", checkpoint],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stderr == expected
        outputs.append(without_times(done.stdout))
        assert len(entries(cache_directory)) == 12
    assert run(["report", "--json", "--device", "cpu", "--no-cache", checkpoint]) == 0
    assert outputs[0] == outputs[1] == without_times(capsys.readouterr().out)


def test_without_the_cache_nothing_is_read_or_written(
    checkpoint: str, cache_directory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["report", "--json", "--no-cache", checkpoint]) == 0
    assert not cache_directory.exists()
    config = tmp_path / "specinspect.toml"
    config.write_text("cache = false\n")
    assert run(["report", "--json", "--config", str(config), checkpoint]) == 0
    assert not cache_directory.exists()
    assert run(["report", "--json", checkpoint]) == 0
    assert cache_directory.exists()
    for line in capsys.readouterr().out.splitlines():
        assert '"cache"' not in line  # decides no number


@pytest.mark.parametrize(
    "command", [["report", "--json"], ["check", "--max-kappa", "1e3"], ["compare", "--json"]]
)
def test_every_command_computes_an_unchanged_checkpoint_once(
    command: list[str], checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [checkpoint, checkpoint] if command[0] == "compare" else [checkpoint]
    code = run([*command, *paths])
    first = without_times(capsys.readouterr().out)

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(engine.layers, "_run_layers", never)
    monkeypatch.setattr(engine.blocks, "_measure_block", never)
    assert run([*command, *paths]) == code
    assert without_times(capsys.readouterr().out) == first
    assert run([*command, "--no-cache", *paths]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, cache_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(tmp_path / "large.safetensors", 200)
    command = [sys.executable, "-m", "specinspect", "report", "--json", "--jobs", "1", checkpoint]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(entries(cache_directory)) < 3 and time.monotonic() < deadline:
        assert process.poll() is None, "done before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert out == b""
    kept = {path: path.stat().st_mtime_ns for path in entries(cache_directory)}
    inodes = {path: path.stat().st_ino for path in kept}
    assert 3 <= len(kept) < 12

    resumed = subprocess.run(command, capture_output=True, timeout=120, check=True)
    assert resumed.stderr == b""
    assert len(entries(cache_directory)) == 12
    assert {path: path.stat().st_ino for path in kept} == inodes  # none was written again
    assert run([*command[3:], "--no-cache"]) == 0
    assert without_times(resumed.stdout.decode()) == without_times(capsys.readouterr().out)


def test_info_and_clear(
    checkpoint: str,
    cache_directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPECINSPECT_CACHE_LIMIT", "300M")
    expected = {"directory": str(cache_directory), "entries": 0, "bytes": 0, "limit_bytes": 300 << 20}
    assert run(["cache", "info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert not cache_directory.exists()  # looking makes nothing
    assert run(["report", "--json", checkpoint]) == 0
    capsys.readouterr()
    size = sum(-(-path.stat().st_size // 4096) * 4096 for path in entries(cache_directory))
    assert run(["cache", "info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected | {"entries": 12, "bytes": size}
    assert run(["cache", "info"]) == 0
    out = capsys.readouterr().out
    assert str(cache_directory) in out
    assert re.search(r"entries +12\n", out)
    assert f"{size / 1024:.2f} KiB of at most 300.00 MiB" in out
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("removed 12 entries, ")
    assert entries(cache_directory) == []
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "removed 0 entries, 0 bytes\n"


@pytest.mark.parametrize("arguments", [["cache", "info"], ["cache", "clear"], ["report"]])
def test_a_limit_that_is_no_size_is_one_line(
    arguments: list[str], checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECINSPECT_CACHE_LIMIT", "plenty")
    assert run([*arguments, checkpoint] if arguments == ["report"] else arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("specinspect: SPECINSPECT_CACHE_LIMIT: expected a size such as 500M or 2G, got 'plenty'\n")


def test_a_cache_that_cannot_be_used_is_one_line_on_stderr(
    checkpoint: str, cache_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_directory.write_text("a file, no directory")
    done = subprocess.run(
        [sys.executable, "-m", "specinspect", "report", "--json", checkpoint],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert len(json.loads(done.stdout)["layers"]) == 12
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("specinspect: ")
    assert str(cache_directory) in done.stderr
    for command in ("info", "clear"):
        assert run(["cache", command]) in {0, 2}
        _, err = capsys.readouterr()
        assert err.count("\n") <= 1


def test_hostile_names_of_the_directory(
    tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECINSPECT_CACHE_DIR", str(tmp_path / "a\x1b[31m\nb"))
    assert run(["report", "--json", checkpoint]) == 0
    capsys.readouterr()
    assert run(["cache", "info"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\n") == 3
    assert os.path.isdir(tmp_path / "a\x1b[31m\nb")  # noqa: PTH112


@pytest.mark.parametrize("name", ["info", "clear"])
def test_a_file_in_the_place_of_the_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SPECINSPECT_CACHE_DIR", str(tmp_path / "file"))
    assert run(["cache", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"specinspect: cannot use the cache in {str(tmp_path / 'file')!r}")
    assert err.count("\n") == 1
