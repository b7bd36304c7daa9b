"""A picture: rows of cells, each one character with the name of a style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from specinspect.report.text import ascii_only

if TYPE_CHECKING:
    from rich.text import Text


class Cell(NamedTuple):
    """One character, and what it stands for; what that looks like is the theme's."""

    char: str
    style: str = ""


BLANK = Cell(" ")


@dataclass(frozen=True, slots=True)
class Canvas:
    """Rows of equal width. No picture needs its colours to be understood."""

    rows: tuple[tuple[Cell, ...], ...]

    def lines(self) -> list[str]:
        """Return the characters alone, one string per row."""
        return ["".join(cell.char for cell in row) for row in self.rows]

    def __str__(self) -> str:
        """Return the characters alone."""
        return "\n".join(self.lines())

    def to_text(self, *, dark: bool = True) -> Text:
        """Return the picture with the colours of a theme, for rich and textual."""
        from itertools import groupby

        from rich.text import Text

        from specinspect.plots.theme import styles

        look = styles(dark=dark)
        text = Text(no_wrap=True, end="")
        for number, row in enumerate(self.rows):
            if number:
                text.append("\n")
            for style, cells in groupby(row, key=lambda cell: cell.style):
                text.append("".join(cell.char for cell in cells), look.get(style, ""))
        return text


class Sketch:
    """A canvas under construction; whatever falls outside of it is cut off."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = max(width, 0), max(height, 0)
        self._cells = [[BLANK] * self.width for _ in range(self.height)]

    def put(self, column: int, row: int, char: str, style: str = "") -> None:
        """Set one cell."""
        if 0 <= column < self.width and 0 <= row < self.height:
            self._cells[row][column] = Cell(char, style)

    def write(self, column: int, row: int, text: str, style: str = "") -> None:
        """Set one cell per character, from left to right."""
        for offset, char in enumerate(text):
            self.put(column + offset, row, char, style)

    def free(self, column: int, row: int, width: int) -> bool:
        """Say whether these cells, and one on each side of them, are inside and blank."""
        if not 0 <= row < self.height or column < 0 or column + width > self.width:
            return False
        around = self._cells[row][max(column - 1, 0) : column + width + 1]
        return all(cell.char == " " for cell in around)

    def paste(self, column: int, row: int, canvas: Canvas) -> None:
        """Copy another picture into this one."""
        for down, cells in enumerate(canvas.rows):
            for along, cell in enumerate(cells):
                self.put(column + along, row + down, cell.char, cell.style)

    def done(self, *, plain: bool = False) -> Canvas:
        """Return the canvas; plain: in ASCII, one character for one."""
        if not plain:
            return Canvas(tuple(tuple(row) for row in self._cells))
        return Canvas(tuple(tuple(Cell(_plain(char), style) for char, style in row) for row in self._cells))


_PLAIN = {
    "█": "#",
    "▔": "'",
    "▀": '"',
    "─": "-",
    "│": "|",
    "┼": "+",
    "├": "|",
    "┤": "|",
    "└": "+",
    "┊": ":",
    "╎": ";",
    "┆": "!",
    "▲": "^",
    "▼": "v",
    "◂": "<",
    "▸": ">",
    "∞": "^",
    "≈": "~",
    "▓": "#",
    "░": "-",
    "·": ".",
    "■": "#",
    "²": "2",
    **dict.fromkeys("▏▎▍", "-"),
    **dict.fromkeys("▌▋▊▉", "="),
    **dict(zip("▁▂▃▄▅▆▇", "..::==#", strict=True)),
}


def _plain(char: str) -> str:
    if char.isascii():
        return char
    return _PLAIN.get(char) or ascii_only(char)[:1]


def spelled(text: str, *, plain: bool) -> str:
    """Return a text as it can be written: in ASCII with our own symbols spelled out, if plain."""
    return ascii_only(text.translate(_SPELLED)) if plain else text


_SPELLED = str.maketrans(
    {**{key: value for key, value in _PLAIN.items() if key not in "∞²·"}, "≤": "<=", "·": "*"}
)
