"""The README keeps its promises: its commands are the ones that CI runs, its table is real."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

import specinspect
from specinspect.report.table import print_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_calls_the_test_command_to_the_letter() -> None:
    commands = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "pytest" in block]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_table_is_what_the_sample_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "96")
    buffer = io.StringIO()
    print_table(specinspect.inspect("samples/sick.pt", device="cpu"), buffer)
    shown = re.search(r"```text\n(samples/sick.*?)\n…", README, re.DOTALL)
    assert shown is not None
    # What lies under the storage floor is rounding noise: its digits differ from machine to machine.
    noise = re.compile(r"\d\.\d\de-1\d")
    assert noise.sub("noise", shown[1]) in noise.sub("noise", buffer.getvalue())


def test_the_options_are_those_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from specinspect.cli.app import run

    assert run(["report", "--help"]) == 0
    options = capsys.readouterr().out.split("Options:")[1]
    known = set(re.findall(r"^ +(?:-\w, )?(--?[a-z-]+)", options, re.MULTILINE)) | {"-o", "--no-blocks"}
    table = README[README.index("| option |") : README.index("Exit codes:")]
    documented = set(re.findall(r"`(--?[a-z-]+)", table))
    assert documented == known - {"--help", "--output"}
