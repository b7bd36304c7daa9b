"""What is said to a person: one line on stderr."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Write one line to stderr, with control characters made visible."""
    from specinspect.report.text import visible

    sys.stderr.write(f"specinspect: {visible(message)}\n")
