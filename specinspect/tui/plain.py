"""ASCII for terminals that take nothing else: one character for one, so that the layout stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.filter import LineFilter

from specinspect.report.text import ASCII_BARS, BARS

if TYPE_CHECKING:
    from textual.color import Color

_ONE_FOR_ONE = str.maketrans(
    {
        **dict(zip(BARS, ASCII_BARS, strict=True)),
        **dict.fromkeys("─━═╌╍┄┅┈┉╴╶╸╺▔", "-"),
        **dict.fromkeys("│┃║╎╏┆┇┊┋▏▎▍▌▋▊▉▐▕", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰┏┓┗┛╔╗╚╝", "+"),
        "κ": "k", "σ": "s", "ρ": "r", "β": "b", "τ": "t", "δ": "d", "×": "x", "∞": "I", "–": "-", "…": ".",
        "·": "-", "≥": ">", "≤": "<", "≈": "~", "→": ">", "←": "<", "↑": "^", "↓": "v", "▾": "v", "▸": ">",
        "✗": "X", "✓": "+", "▓": "#", "░": ".", "▒": ":", "▄": "#", "▀": "#", "²": "2", "′": "'",
    }
)  # fmt: skip


class AsciiFilter(LineFilter):
    """Turns every character into one of ASCII that is as wide."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments in ASCII."""
        return [Segment(one_for_one(text), style, control) for text, style, control in segments]


def one_for_one(text: str) -> str:
    """Return the text in ASCII, as many cells wide: what has no likeness becomes '?'."""
    if text.isascii():
        return text
    text = text.translate(_ONE_FOR_ONE)
    return "".join(char if char.isascii() else "?" * cell_len(char) for char in text)
