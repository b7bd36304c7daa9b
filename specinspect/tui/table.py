"""The table of layers: a line widget of its own, since only the lines in sight are ever made.

Twenty thousand rows cost what forty cost; Textual's DataTable takes seconds to take them in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from specinspect.plots.theme import styles
from specinspect.report.text import ABSENT, layer_name, middle, shape, visible
from specinspect.tui.rows import Column, Row, kappa_cell, mark, shown_columns
from specinspect.tui.tree import Group, Line, Worst

if TYPE_CHECKING:
    from textual import events

OPEN, CLOSED = "▾", "▸"
INDENT = 2


class LayerTable(ScrollView, can_focus=True):
    """Layers by module, or in the order of a column."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "layers--header", "layers--cursor", "layers--group", "layers--pending",
    }  # fmt: skip
    DEFAULT_CSS = """
    LayerTable {
        height: 1fr;
        scrollbar-size-vertical: 1;
        overflow-x: hidden;
        overflow-y: scroll;
    }
    LayerTable > .layers--header { text-style: bold; color: $text-muted; }
    LayerTable > .layers--cursor { background: $primary; color: $text; text-style: bold; }
    LayerTable:blur > .layers--cursor { background: $surface-lighten-2; }
    LayerTable > .layers--group { color: $text-muted; text-style: bold; }
    LayerTable > .layers--pending { color: $text-disabled; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False, id="table.up", tooltip="One line up"),
        Binding("down", "move(1)", "Down", show=False, id="table.down", tooltip="One line down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="table.pageup", tooltip="One page up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="table.pagedown", tooltip="One page down"),
        Binding("home", "edge(0)", "First", show=False, id="table.first", tooltip="The first line"),
        Binding("end", "edge(-1)", "Last", show=False, id="table.last", tooltip="The last line"),
        Binding("enter,space", "enter", "Open or close", show=False, id="table.toggle",
                tooltip="Open or close a module; on a layer: its details"),
        Binding("left", "close", "Close", show=False, id="table.close", tooltip="Close the module"),
        Binding("right", "open", "Open", show=False, id="table.open", tooltip="Open the module"),
    ]  # fmt: skip

    @dataclass
    class Highlighted(Message):
        """The cursor came to a layer, or to none."""

        index: int | None

    @dataclass
    class GroupToggled(Message):
        """A module is to be opened or closed."""

        path: str
        open: bool

    @dataclass
    class Entered(Message):
        """Enter was pressed on a layer."""

        index: int

    @dataclass
    class HeaderClicked(Message):
        """The header of a column was clicked."""

        key: str

    def __init__(self, rows: Sequence[Row], worst: Worst, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.rows = rows
        self.worst = worst
        self.closed: frozenset[str] = frozenset()
        self.compared = False
        self.nested = True
        """Whether lines are the tree's; otherwise each shows its layer's whole name."""
        self.running: frozenset[int] = frozenset()
        self.live: Mapping[int, str] = {}
        """Layer → κ(skip) at today's ρ and β, where rows are at others."""
        self.stale = False
        """Whether κ(skip) of the rows is at another ρ and β than today's."""
        self.sorted_by = "order"
        self.lines: list[Line] = []
        self.cursor = 0
        self._columns: tuple[tuple[Column, ...], int] | None = None

    # What is shown.

    def show_lines(self, lines: list[Line], *, nested: bool) -> None:
        """Show other lines; the cursor stays on its line where that is still there."""
        before = self.lines[self.cursor] if self.cursor < len(self.lines) else None
        self.lines, self.nested = lines, nested
        if self.virtual_size.height != len(lines) + 1:  # setting it lays out the whole screen
            self.virtual_size = Size(0, len(lines) + 1)
        self._columns = None
        if before is not None:
            key = before.key
            place = next((i for i, line in enumerate(lines) if line.key == key), None)
            if place is not None:
                self._move_to(place)
                self.refresh()
                return
        self._move_to(min(self.cursor, max(0, len(lines) - 1)))
        self.refresh()

    @property
    def selected(self) -> int | None:
        """Index of the layer under the cursor."""
        return self.lines[self.cursor].index if self.cursor < len(self.lines) else None

    def go_to(self, index: int) -> bool:
        """Put the cursor on a layer; False if it is on no line."""
        for place, line in enumerate(self.lines):
            if line.index == index:
                self._move_to(place)
                return True
        return False

    def _move_to(self, place: int) -> None:
        before = self.lines[self.cursor].key if self.cursor < len(self.lines) else None
        self.cursor = place
        self._follow()
        after = self.lines[place].key if place < len(self.lines) else None
        if after != before or after is None:
            self.post_message(self.Highlighted(self.selected))
        self.refresh()

    def _follow(self) -> None:
        """Scroll so that the cursor is in sight, below the header."""
        height = max(1, self.size.height - 1)
        top = round(self.scroll_offset.y)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    # Keys and mouse.

    def action_move(self, by: int) -> None:
        """Move the cursor by some lines."""
        if self.lines:
            self._move_to(min(max(self.cursor + by, 0), len(self.lines) - 1))

    def action_page(self, by: int) -> None:
        """Move the cursor by pages."""
        self.action_move(by * max(1, self.size.height - 2))

    def action_edge(self, place: int) -> None:
        """Move the cursor to the first or the last line."""
        if self.lines:
            self._move_to(place % len(self.lines))

    def action_enter(self) -> None:
        """Open or close a module, or enter a layer."""
        line = self.lines[self.cursor] if self.lines else None
        if line is None:
            return
        if line.group is not None:
            self.post_message(self.GroupToggled(line.group.path, line.group.path in self.closed))
        elif line.index is not None:
            self.post_message(self.Entered(line.index))

    def action_close(self) -> None:
        """Close the module under the cursor, or go to the one that the layer is in."""
        if not self.lines or not self.nested:
            return
        line = self.lines[self.cursor]
        if line.group is not None and line.group.path not in self.closed:
            self.post_message(self.GroupToggled(line.group.path, open=False))
            return
        for place in range(self.cursor - 1, -1, -1):
            if self.lines[place].group is not None and self.lines[place].depth < line.depth:
                self._move_to(place)
                return

    def action_open(self) -> None:
        """Open the module under the cursor."""
        line = self.lines[self.cursor] if self.lines else None
        if line is not None and line.group is not None:
            self.post_message(self.GroupToggled(line.group.path, open=True))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to a line; on a module also open or close it; on a header sort."""
        if event.y == 0:
            self._click_header(event.x)
            return
        place = round(self.scroll_offset.y) + event.y - 1
        if not 0 <= place < len(self.lines):
            return
        self._move_to(place)
        line = self.lines[place]
        if line.group is not None or event.chain > 1:
            self.action_enter()

    def _click_header(self, x: int) -> None:
        columns, names = self._layout()
        at = names
        if x < at:
            self.post_message(self.HeaderClicked("name"))
            return
        for column in columns:
            at += column.width + 1
            if x < at:
                if column.order is not None:
                    self.post_message(self.HeaderClicked(column.key))
                return

    def on_resize(self) -> None:
        """Choose the columns anew."""
        self._columns = None
        self._follow()

    # Drawing.

    def update_rows(self) -> None:
        """Draw what has changed in the rows."""
        self.refresh(Region(0, 0, self.size.width, self.size.height))

    def _layout(self) -> tuple[tuple[Column, ...], int]:
        if self._columns is None:
            widest = max((self._name_width(line) for line in self.lines[:5000]), default=0)
            width = max(10, self.scrollable_content_region.width)
            shapes = max((cell_len(shape(row.layer.shape)) for row in self.rows[:5000]), default=0)
            self._columns = shown_columns(width, widest, shapes, compared=self.compared)
        return self._columns

    def _name_width(self, line: Line) -> int:
        indent = INDENT * line.depth + 2 if self.nested else 0
        count = 0 if line.group is None else len(f" ({line.group.layers})")
        return indent + cell_len(visible(line.label)) + count

    def render_line(self, y: int) -> Strip:
        """Draw one line; the first is the header, which stays."""
        width = self.scrollable_content_region.width
        if y == 0:
            return self._header(width)
        place = round(self.scroll_offset.y) + y - 1
        if not self.lines and y == 1:
            style = self.rich_style + self._colours("layers--pending")
            return Strip([Segment("no layer matches", style)]).adjust_cell_length(width, style)
        if not 0 <= place < len(self.lines):
            return Strip.blank(width, self.rich_style)
        line = self.lines[place]
        style = self.rich_style
        if place == self.cursor:
            style = style + self.get_component_rich_style("layers--cursor")
        segments = self._layer(line, style) if line.index is not None else self._group(line, style)
        return Strip(segments).adjust_cell_length(width, style)

    def _header(self, width: int) -> Strip:
        style = self.rich_style + self._colours("layers--header")
        columns, names = self._layout()
        segments = [Segment(_fit(self._titled("name", "name"), names, left=True), style)]
        for column in columns:
            text = self._titled(column.key, column.header)
            segments += [Segment(" ", style), Segment(_fit(text, column.width, left=column.left), style)]
        return Strip(segments).adjust_cell_length(width, style)

    def _titled(self, key: str, text: str) -> str:
        return f"{text}↓" if self.sorted_by == key else f"{text}↑" if self.sorted_by == f"-{key}" else text

    def _layer(self, line: Line, base: Style) -> list[Segment]:
        row = self.rows[line.index or 0]
        columns, names = self._layout()
        style = base
        if row.result is None and row.state != "failed":
            style = self._unless_cursor(line, "layers--pending", base)
        label = layer_name(line.label if self.nested else row.layer.name)
        indent = " " * (INDENT * line.depth + 2) if self.nested else ""
        segments = [Segment(_fit(indent + middle(label, names - len(indent)), names, left=True), style)]
        for column in columns:
            segments += [Segment(" ", style), self._cell(row, column, style, cursor=self._on(line))]
        return segments

    def _on(self, line: Line) -> bool:
        """Say whether the cursor is on a line."""
        return self.cursor < len(self.lines) and self.lines[self.cursor] is line

    def _colours(self, name: str) -> Style:
        """Return colour and weight of a component, as they are on the table's own background."""
        found = self.get_component_rich_style(name)
        return Style(color=found.color, bold=found.bold)

    def _unless_cursor(self, line: Line, name: str, base: Style) -> Style:
        """Return a component's colours, but on the cursor its own: they are chosen to be read on it."""
        return base if self._on(line) else base + self._colours(name)

    def _cell(self, row: Row, column: Column, style: Style, *, cursor: bool) -> Segment:
        text = column.cell(row)
        if row.index in self.running and row.state == "pending" and not row.partial and column.key == "kappa":
            text = "…"
        if column.key == "skip" and self.stale and text and text != ABSENT:
            text = self.live.get(row.index, f"{text}'")
        if column.key == "mark" or row.state == "failed":
            error = row.state == "failed" or text in {"!!", "V"}
            if not cursor:
                style = style + Style.parse(
                    styles(dark=self.app.current_theme.dark)["bad" if error else "warning"]
                )
        return Segment(_fit(text, column.width, left=column.left), style)

    def _group(self, line: Line, base: Style) -> list[Segment]:
        group = line.group
        if group is None:
            raise AssertionError("only called for groups")
        columns, names = self._layout()
        style = self._unless_cursor(line, "layers--group", base)
        closed = group.path in self.closed
        indent = " " * (INDENT * line.depth) + (CLOSED if closed else OPEN) + " "
        text = indent + middle(f"{visible(line.label)} ({group.layers})", max(1, names - len(indent)))
        segments = [Segment(_fit(text, names, left=True), style)]
        for column in columns:
            cell = self._worst(group, column.key) if closed else ""
            segments += [Segment(" ", style), Segment(_fit(cell, column.width, left=column.left), style)]
        return segments

    def _worst(self, group: Group, key: str) -> str:
        """Return the worst value of a column below a closed group."""
        if key == "mark":
            marked = self.worst.layer(group, "mark")
            return "" if marked is None else mark(self.rows[marked])
        if key not in {"kappa", "chain", "skip"}:
            return ""
        index = self.worst.layer(group, key)
        if index is None:
            return ""
        text = kappa_cell(self.rows[index], "weight" if key == "kappa" else key)
        return f"{text}'" if key == "skip" and self.stale else text


def _fit(text: str, width: int, *, left: bool) -> str:
    """Return the text in exactly so many cells."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text[:-1] if length == width + 1 else text, width)
    return text + " " * (width - length) if left else " " * (width - length) + text
