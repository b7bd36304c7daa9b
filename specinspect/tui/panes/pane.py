"""What all panes are made of: a title, pictures that fit their room, choices to click, a state in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from specinspect.plots.canvas import Canvas, spelled
from specinspect.plots.theme import styles
from specinspect.report.text import layer_name, middle, shape, visible
from specinspect.tui.messages import BlockChosen
from specinspect.tui.view import PaneView

NARROW, SHORT = 100, 26
"""Columns and rows below which a pane leaves out what is not needed to read it."""


class Picture(Widget):
    """A picture, drawn anew for every size it gets."""

    DEFAULT_CSS = "Picture { width: 1fr; height: 1fr; }"

    class Clicked(Message):
        """A cell of the picture was clicked."""

        def __init__(self, picture: Picture, column: int, row: int) -> None:
            super().__init__()
            self.picture, self.column, self.row = picture, column, row

        @property
        def control(self) -> Picture:
            """The picture."""
            return self.picture

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - textual's own name for it
        super().__init__(id=id)
        self._draw: Callable[[int, int], Canvas] | None = None
        self._dark = True

    def draw(self, drawing: Callable[[int, int], Canvas] | None, *, dark: bool) -> None:
        """Set what is drawn: a function of (width, height)."""
        self._draw, self._dark = drawing, dark
        self.refresh()

    def canvas(self) -> Canvas:
        """Return the picture at its present size."""
        width, height = self.content_size
        return Canvas(()) if self._draw is None else self._draw(width, height)

    def render(self) -> Text:
        """Draw."""
        return self.canvas().to_text(dark=self._dark)

    def on_click(self, event: events.Click) -> None:
        """Say which cell was clicked."""
        offset = event.get_content_offset(self)
        if offset is not None:
            self.post_message(self.Clicked(self, offset.x, offset.y))


class Choices(Widget):
    """One of a few words, all in sight: the chosen one in brackets, each to be clicked."""

    DEFAULT_CSS = "Choices { width: 1fr; height: 1; }"

    class Picked(Message):
        """A word was clicked."""

        def __init__(self, choices: Choices, index: int) -> None:
            super().__init__()
            self.choices, self.index = choices, index

        @property
        def control(self) -> Choices:
            """The widget."""
            return self.choices

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._lead, self._words, self._chosen = "", (), 0

    _words: tuple[str, ...]

    def offer(self, lead: str, words: Sequence[str], chosen: int) -> None:
        """Set what stands in front, the words, and which of them is chosen."""
        self._lead, self._words, self._chosen = lead, tuple(words), chosen
        self.refresh()

    def _pieces(self) -> list[str]:
        return [f"[{word}]" if i == self._chosen else f" {word} " for i, word in enumerate(self._words)]

    def render(self) -> Text:
        """Draw."""
        text = Text(self._lead, "dim", no_wrap=True, overflow="ellipsis")
        for index, piece in enumerate(self._pieces()):
            text.append(piece, "bold" if index == self._chosen else "")
        return text

    def on_click(self, event: events.Click) -> None:
        """Pick the word under the mouse."""
        at = len(self._lead)
        for index, piece in enumerate(self._pieces()):
            if at <= event.x < at + len(piece):
                self.post_message(self.Picked(self, index))
            at += len(piece)


class Pane(Widget):
    """A detail pane. `show` may be called at any time, also before it is mounted."""

    DEFAULT_CSS = """
    Pane { width: 1fr; height: 1fr; layout: vertical; }
    Pane > .title { height: 1; }
    Pane > .message { height: auto; padding: 1 0; display: none; }
    Pane.-nothing > .message { display: block; }
    Pane.-nothing > .body { display: none; }
    Pane > .body { height: 1fr; }
    Pane DataTable, Pane VerticalScroll { scrollbar-size-vertical: 1; overflow-x: hidden; }
    """

    ALONE: ClassVar[bool] = True
    """Whether there is nothing to see without a result of the selected layer."""

    view = PaneView()
    _given = False

    def compose(self) -> ComposeResult:
        """Lay out title, message and body."""
        yield Static(classes="title", markup=False)
        yield Static(classes="message", markup=False)
        yield from self.compose_body()

    def compose_body(self) -> ComposeResult:
        """Lay out what the pane is for; every widget at the top has the class 'body'."""
        yield from ()

    def update_body(self) -> None:
        """Bring the body up to date with `self.view`; called only when there is something to show."""

    def show(self, view: PaneView) -> None:
        """Show this from now on."""
        had = self.view.block is not None
        self.view, self._given = view, True
        self._update()
        if had != (view.block is not None) and self.is_mounted:
            self.refresh_bindings()  # k is there where a block is

    def on_mount(self) -> None:
        """Show what was given before there was a screen."""
        self._update()

    def on_resize(self, event: events.Resize) -> None:
        """Leave out what does not fit."""
        self.set_class(event.size.width < NARROW, "-narrow")
        self.set_class(event.size.height < SHORT, "-short")
        self._update()

    def choose_block(self, on: bool) -> None:
        """Show the whole block of the layer, or the layer again; the other panes follow."""
        if on != self.view.on_block:
            self.post_message(BlockChosen(on))
        self.show(replace(self.view, on_block=on))

    def text(self, text: str, style: str = "") -> Text:
        """Return a text as the locale can show it; names in it are to be made visible before."""
        return Text(spelled(text, plain=self.view.plain), self.look(style))

    def fit(self, text: str, room: int) -> Text:
        """Return the beginning of a text in so many cells; three dots say that there is more."""
        whole = Text(spelled(text, plain=self.view.plain), no_wrap=True)
        if whole.cell_len > room:
            dots = "..." if self.view.plain else "…"
            whole.truncate(max(room - len(dots), 0), overflow="crop")
            whole.append(dots)
        return whole

    def look(self, style: str) -> str:
        """Return what a style of the pictures looks like in this theme."""
        return styles(dark=self.view.dark).get(style, style)

    def title(self) -> Text:
        """Return the line above everything."""
        return layer_title(self, self.size.width)

    def _update(self) -> None:
        if not self._given or not self.is_mounted or not self.query(".title"):
            return
        self.query_one(".title", Static).update(self.title())
        reason = missing(self.view) if self.ALONE else None
        self.set_class(reason is not None, "-nothing")
        if reason is not None:
            words, style = reason
            self.query_one(".message", Static).update(self.text(words, style))
        else:
            self.update_body()


def missing(view: PaneView) -> tuple[str, str] | None:
    """Return why there is nothing to show of the selected layer, and a style; None where there is."""
    if view.layer is None:
        return "No layer is selected.", "label"
    why = visible(view.reason)
    if view.state == "failed":
        return f"x failed: {why or 'no reason was given'}", "bad"
    if view.result is not None:
        return None
    if view.state == "running":
        return f"computing …{' ' + why if why else ''}", "label"
    return f"waiting for its turn …{' ' + why if why else ''}", "label"


def layer_title(pane: Pane, width: int) -> Text:
    """Return name, kind, shape and dtype of the selected layer in one line; the name gives way."""
    layer = pane.view.layer
    if layer is None:
        return Text("")
    state = ""
    if pane.view.partial:
        state = "  W so far …"
    elif pane.view.state == "running" and pane.view.result is not None:
        state = "  computing again …"
    facts = f"  {layer.kind} {shape(layer.shape)} {layer.dtype}{state}"
    plain = pane.view.plain
    facts = spelled(facts, plain=plain)
    name = spelled(layer_name(layer.name), plain=plain)
    ellipsis = "..." if plain else "…"
    line = Text(
        middle(name, max(width - len(facts), 12), ellipsis), "bold", no_wrap=True, overflow="ellipsis"
    )
    return line.append(facts, "not bold")
