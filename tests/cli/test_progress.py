"""The progress bar, which nobody sees in a log."""

from __future__ import annotations

import io
import sys
from itertools import count

import pytest

from specinspect.cli import progress as bars
from specinspect.engine import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with bars.progress(3) as advance:
        assert advance is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("ticks", "told"), [(10.0, True), (0.1, False)])
def test_minutes_left_are_said_once_with_what_is_quicker(
    ticks: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, clock = Terminal(), count(0.0, ticks)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("specinspect.cli.progress.time.monotonic", lambda: next(clock))
    with bars.progress(10, lambda: "--maps weight is quicker") as advance:
        assert advance is not None
        advance(Progress(1, 10, 0.05))
        advance(Progress(2, 10, 0.10))
    text = terminal.getvalue()
    assert text.count("--maps weight is quicker") == int(told)
    assert ("about 3 minutes left" in text) == told  # 10 s for a twentieth
