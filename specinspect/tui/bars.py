"""The lines around the table and the panes: header, tabs, status, and the line that asks for a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from specinspect.report.text import middle, visible
from specinspect.report.words import plural

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from specinspect.engine import Inspection
    from specinspect.tui.runner import Progress

BAR = 10
"""Cells of the progress bar."""


def count(value: int) -> str:
    """Return a number of parameters: 6,634 or 11.7 M."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,}"


def time_left(seconds: float) -> str:
    """Return a duration: 12 s, 3 min, 2 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def subject(inspection: Inspection) -> list[str]:
    """Return what is open, the most telling part first."""
    checkpoint = inspection.checkpoint
    dtypes = Counter(layer.dtype for layer in inspection.discovery.layers)
    return [
        visible(PurePath(checkpoint.path).name or checkpoint.path),
        plural(len(inspection.discovery.layers), "layer"),
        count(checkpoint.parameters),
        "+".join(name for name, _ in dtypes.most_common(3)),
    ]


def progress_text(progress: Progress) -> str:
    """Return how far the pass is: 37/62 ▓▓▓▓░░ 12 s left."""
    if progress.finished:
        return f"{progress.done}/{progress.layers} done in {time_left(progress.seconds)}"
    filled = round(BAR * progress.fraction)
    bar = "▓" * filled + "░" * (BAR - filled)
    text = f"{progress.done}/{progress.layers} {bar}"
    if progress.done == progress.layers and progress.blocks_left:
        return f"{text} {plural(progress.blocks_left, 'block')} left"
    return text if progress.seconds_left is None else f"{text} {time_left(progress.seconds_left)} left"


class OneLine(Widget):
    """A line of text; unlike Static it lays nothing out anew when it changes."""

    DEFAULT_CSS = "OneLine { height: 1; }"
    _text = ""

    def say(self, text: str) -> None:
        """Show another text."""
        if text != self._text:
            self._text = text
            self.refresh()

    def render(self) -> Text:
        """Write it."""
        return Text(self._text, no_wrap=True, overflow="ellipsis")


class Header(Widget):
    """What is open, how far it is, and the scale: one line."""

    DEFAULT_CSS = "Header { height: 1; }"
    _shown: tuple[Sequence[str], Progress, str] | None = None

    def show(self, parts: Sequence[str], progress: Progress, scale: str) -> None:
        """Write the line."""
        self._shown = (parts, progress, scale)
        self.refresh()

    def render(self) -> Text:
        """Leave out what does not fit."""
        if self._shown is None:
            return Text()
        parts, progress, scale = self._shown
        width = max(20, self.size.width)
        right = f"{progress_text(progress)}   {scale} "
        if cell_len(right) > width - 16:
            right = f"{progress.done}/{progress.layers}  {scale} "
        kept = list(parts)
        while len(kept) > 1 and cell_len(" · ".join(kept)) + 14 + cell_len(right) >= width:
            kept.pop()
        brand = " specinspect  " if cell_len(kept[0]) + 14 + cell_len(right) <= width else " "
        left = middle(" · ".join(kept), max(8, width - cell_len(right) - cell_len(brand) - 1))
        gap = " " * max(1, width - cell_len(brand) - cell_len(left) - cell_len(right))
        return Text.assemble((brand, Style(bold=True)), left, gap, right, no_wrap=True, overflow="crop")


class TabBar(Widget):
    """The names of the panes; the one in sight stands in brackets."""

    DEFAULT_CSS = "TabBar { height: 1; }"

    @dataclass
    class Chosen(Message):
        """A tab was clicked."""

        key: str

    def __init__(self, tabs: Sequence[tuple[str, str]], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.tabs = list(tabs)
        """(key, title) in order."""
        self.hidden: frozenset[str] = frozenset()
        self.active = tabs[0][0]

    def show(self, active: str, hidden: frozenset[str]) -> None:
        """Mark a tab, and leave some out."""
        self.active, self.hidden = active, hidden
        self.refresh()

    def _cells(self) -> list[tuple[str, str]]:
        shown = [tab for tab in self.tabs if tab[0] not in self.hidden]
        long = [(key, f"[{title}]" if key == self.active else f" {title} ") for key, title in shown]
        if sum(cell_len(text) for _, text in long) <= self.size.width:
            return long
        return [
            (key, f"[{title}]" if key == self.active else f" {title.split()[0][:7]} ") for key, title in shown
        ]

    def render(self) -> Text:
        """Write the names."""
        text = Text(no_wrap=True, overflow="crop")
        for key, title in self._cells():
            text.append(title, Style(bold=True, reverse=True) if key == self.active else Style(dim=False))
        return text

    def on_click(self, event: events.Click) -> None:
        """Choose the tab under the mouse."""
        at = 0
        for key, title in self._cells():
            at += cell_len(title)
            if event.x < at:
                self.post_message(self.Chosen(key))
                return


class Ask(Horizontal):
    """One line that asks for a text, above the footer; Esc leaves it, nothing else is blocked."""

    DEFAULT_CSS = """
    Ask { height: 1; display: none; }
    Ask.open { display: block; }
    Ask > Static { width: auto; height: 1; }
    Ask > Input { width: 1fr; height: 1; border: none; padding: 0 1; background: $surface-lighten-1; }
    Ask > Input:focus { border: none; }
    Ask > #ask-hint { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", id="ask.leave", tooltip="Leave without an answer"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._changed: Callable[[str], None] | None = None
        self._done: Callable[[str], bool] | None = None
        self._left: Callable[[], None] | None = None

    def compose(self) -> ComposeResult:
        """The question, the answer and a hint."""
        yield Static(id="ask-label", markup=False)
        yield Input(id="ask-input", compact=True)
        yield Static(id="ask-hint", markup=False)

    def ask(
        self,
        label: str,
        text: str,
        hint: str,
        done: Callable[[str], bool],
        *,
        changed: Callable[[str], None] | None = None,
        left: Callable[[], None] | None = None,
    ) -> None:
        """Ask for a text.

        Args:
            label: the question.
            text: to begin with.
            hint: what may be answered.
            done: called with the answer; True if it will do, which closes the line.
            changed: called with every keystroke.
            left: called when the line is left without an answer.
        """
        self._changed, self._done, self._left = None, done, left
        self.query_one("#ask-label", Static).update(f" {label} ")
        self.hint(hint)
        field = self.query_one(Input)
        with field.prevent(Input.Changed):
            field.value = text
        field.cursor_position = len(text)
        self._changed = changed
        self.add_class("open")
        field.focus()

    def hint(self, text: str) -> None:
        """Say something beside the answer."""
        room = max(0, self.app.size.width // 2)
        self.query_one("#ask-hint", Static).update(f" {middle(text, room)} " if text else "")

    @property
    def is_open(self) -> bool:
        """Whether it is asking."""
        return self.has_class("open")

    def close(self) -> None:
        """Stop asking."""
        self._changed = self._done = self._left = None
        self.remove_class("open")

    def action_leave(self) -> None:
        """Leave without an answer."""
        left = self._left
        self.close()
        if left is not None:
            left()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Pass every keystroke on."""
        event.stop()
        if self._changed is not None:
            self._changed(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Pass the answer on."""
        event.stop()
        if self._done is not None and self._done(event.value):
            self.close()
