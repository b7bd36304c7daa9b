"""What is said to a person: one line on stderr."""

from __future__ import annotations

import contextlib
import sys


def say(message: str) -> None:
    """Write one line to stderr, with control characters made visible."""
    from specinspect.report.text import visible

    with contextlib.suppress(OSError):  # a full disk or a reader that went away: the exit code still tells
        sys.stderr.write(f"specinspect: {visible(message)}\n")
        sys.stderr.flush()
