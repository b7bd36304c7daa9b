"""How an exception of somebody else's code appears in a message."""

from __future__ import annotations

_LONGEST = 300


def describe(error: BaseException) -> str:
    """Return class and message of an exception as one printable line, cut when very long."""
    line = " ".join(str(error).split())
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    line = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
