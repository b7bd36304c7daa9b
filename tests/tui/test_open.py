"""The command, and the whole app with the real engine."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from specinspect.engine import inspect, open_source
from specinspect.settings import Settings
from specinspect.tui.app import Inspector
from tests.tui.drive import computed, drive, screen, table

SAMPLES = Path(__file__).parents[2] / "samples"


def test_the_real_engine_on_a_sample() -> None:
    path = str(SAMPLES / "sick.pt")
    truth = inspect(path)
    inspector = Inspector(open_source(path, Settings(spectra=True)))

    async def steps(pilot: Pilot[Any]) -> None:
        await computed(pilot)
        for row, expected in zip(inspector.session.rows, truth, strict=True):
            assert row.result is not None
            assert row.result.layer == expected.layer
            found = row.result.maps["weight"]
            assert found.condition_number_status == expected.maps["weight"].condition_number_status
            assert found.sigma_max == expected.maps["weight"].sigma_max
        assert [f.rule for f in inspector.session.findings] == [f.rule for f in truth.findings]
        assert table(inspector).go_to(4)
        await pilot.press("2")
        await pilot.pause(0.5)
        shown = screen(inspector)
        assert "nearly_singular" in shown
        assert "2.00e5" in shown
        assert len(inspector.session.blocks) == len(truth.blocks)

    drive(inspector, steps, (140, 40))


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "specinspect", "open", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


def test_without_a_terminal_it_points_to_report() -> None:
    done = run(str(SAMPLES / "sick.pt"), stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "needs a terminal" in done.stderr
    assert "specinspect report" in done.stderr


def test_web_without_the_extra_says_how_to_get_it() -> None:
    pytest.importorskip("textual")
    try:
        import textual_serve  # noqa: F401
    except ImportError:
        done = run(str(SAMPLES / "sick.pt"), "--web")
        assert done.returncode == 2
        assert "pip install 'specinspect[web]'" in done.stderr
        assert done.stderr.count("\n") == 1


def in_terminal(
    arguments: list[str], keys: bytes | signal.Signals, wait_for: bytes, **env: str
) -> tuple[int, bytes]:
    """Run `specinspect open` in a pseudo-terminal, press keys once something is shown; (code, output)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **env})
        os.execv(sys.executable, [sys.executable, "-m", "specinspect", "open", *arguments])
    data, pressed, end = b"", False, time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                more = os.read(terminal, 65536)
            except OSError:
                break
            if not more:
                break
            data += more
        if not pressed and wait_for in data:
            if isinstance(keys, signal.Signals):
                os.kill(pid, keys)
            else:
                os.write(terminal, keys)
            pressed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), data


def test_quits_at_once_and_leaves_the_terminal_as_it_was() -> None:
    code, data = in_terminal([str(SAMPLES / "sick.pt"), "--no-cache"], b"q", b"rank_deficient")
    assert code == 0
    assert b"\x1b[?1049h" in data  # the other screen
    assert data.rindex(b"\x1b[?1049l") > data.rindex(b"\x1b[?1049h")  # and back
    assert b"\x1b[?25h" in data  # with its cursor


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    code, data = in_terminal([str(SAMPLES / "sick.pt"), "--no-cache"], number, b"rank_deficient")
    assert code == 130
    assert data.rindex(b"\x1b[?1049l") > data.rindex(b"\x1b[?1049h")
    assert b"Traceback" not in data


def test_q_may_be_pressed_before_anything_is_shown() -> None:
    code, data = in_terminal([str(SAMPLES / "sick.pt"), "--no-cache"], b"q", b"\x1b[?1049h")
    assert code == 0
    assert b"Traceback" not in data
    assert b"Error" not in data


def test_a_dumb_terminal_is_one_line() -> None:
    code, data = in_terminal([str(SAMPLES / "sick.pt")], b"", b"never", TERM="dumb")
    assert code == 2
    assert b"specinspect report" in data.replace(b"\r\n", b" ")
    assert b"\x1b" not in data


def test_a_mangled_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes((SAMPLES / "resnet_tiny.safetensors").read_bytes()[:200])
    code, data = in_terminal([str(path)], b"", b"never")
    assert code == 2
    assert data.count(b"\n") == 1
    assert b"\x1b" not in data


def test_a_locale_without_unicode_gets_ascii() -> None:
    code, data = in_terminal([str(SAMPLES / "sick.pt"), "--no-cache"], b"q", b"rank_deficient", LC_ALL="C")
    assert code == 0
    assert data.isascii()
