"""How names that come from files appear in messages."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 160


def quote(value: object) -> str:
    """Return a name as one printable line: escaped like `repr`, cut when very long.

    Names are untrusted: a newline, an escape sequence or a right-to-left mark must not reach a terminal.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except RecursionError:
        text = "something nested too deep"
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    # A file name that is not UTF-8 carries surrogates; repr escapes those too.
    return repr(text)


def quote_list(values: Iterable[object], limit: int = 8) -> str:
    """Return several names as one line and say how many more there are."""
    names = list(values)
    shown = ", ".join(quote(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def plural(count: int, noun: str) -> str:
    """Return '1 tensor', '2 tensors'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def kind_of(value: object) -> str:
    """Return what a value is, with its article: 'an int', 'a dict'."""
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeio" else f"a {name}"
