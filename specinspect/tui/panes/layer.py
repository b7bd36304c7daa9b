"""The facts about a layer, where each comes from, and those that can be edited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.suggester import SuggestFromList
from textual.widgets import DataTable, Input, Static

from specinspect.errors import SettingsError
from specinspect.layers import rules
from specinspect.layers.model import PROJECTIONS, Layer, Product, SpectralNorm, Stored, WeightNorm
from specinspect.layers.vocabulary import CANONICAL, parse_activation
from specinspect.report.text import integer, layer_name, number, shape, visible
from specinspect.settings import LARGEST_GRID
from specinspect.tui.messages import FactEdited, Field
from specinspect.tui.panes import words
from specinspect.tui.panes.pane import Pane
from specinspect.tui.view import PaneView

SKIPS = tuple(kind for kind in rules.SKIPS if kind not in PROJECTIONS)
"""Those that can be chosen here: a projection needs to be told which layer it is, in a rule."""
EXPECTED = {
    "activation": "a name such as relu, gelu, identity or leaky_relu:0.1",
    "skip": f"one of {', '.join(SKIPS)}",
    "stride": "a whole number of at least 1, or one per axis: 2 or 2,1",
    "grid": f"a whole number from 1 to {LARGEST_GRID}",
}


class Fact(NamedTuple):
    """A row: what it is, its value, and where that comes from."""

    name: str
    value: str
    source: str = ""
    field: Field | None = None
    """Set where it can be edited."""
    text: str = ""
    """What the editor starts with."""


class LayerPane(Pane):
    """Facts in a table; Enter edits one, and the app is told with `FactEdited`."""

    ALONE = False
    DEFAULT_CSS = """
    LayerPane DataTable { height: 1fr; background: transparent; }
    LayerPane #whole { height: auto; max-height: 4; padding: 0 0 0 1; }
    LayerPane #editor { display: none; height: auto; }
    LayerPane.-editing #editor { display: block; }
    LayerPane.-editing #whole { display: none; }
    LayerPane Input, LayerPane Input:focus { border: none; height: 1; padding: 0 1; background: $boost; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "edit", "edit", id="layer.edit", tooltip="Edit the fact under the cursor"),
        Binding("escape", "cancel", "cancel", id="layer.cancel", tooltip="Leave the fact as it was"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._facts: tuple[Fact, ...] = ()
        self._editing: Fact | None = None
        self._drawn: object = None

    def compose_body(self) -> ComposeResult:
        """Lay out the table, the whole text of a row, and the editor."""
        with Vertical(classes="body"):
            yield DataTable(cursor_type="row", cell_padding=1)
            yield Static(id="whole", markup=False)
            with Vertical(id="editor"):
                yield Static(id="asked", markup=False)
                yield Input(id="value")
                yield Static(id="wrong", markup=False)

    @property
    def fact(self) -> Fact | None:
        """The fact under the cursor."""
        row = self.query_one(DataTable).cursor_row
        return self._facts[row] if 0 <= row < len(self._facts) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave Escape to others while nothing is edited."""
        return self._editing is not None if action == "cancel" else True

    def update_body(self) -> None:
        """Fill the table, unless it is as it was."""
        view = self.view
        self._facts = tuple(facts(view))
        name = view.layer.name if view.layer is not None else None
        key = (name, self._facts, view.plain, view.dark, self.size.width)
        if key == self._drawn:
            return
        before = self._drawn[0] if isinstance(self._drawn, tuple) else None
        self._drawn = key
        if before != name:
            self.action_cancel()
        table = self.query_one(DataTable)
        row = table.cursor_row if before == name else 0
        table.clear(columns=True)
        sources = max((len(fact.source) for fact in self._facts), default=0)
        sources = max(sources, len("where from"))
        room = max(self.size.width - 14 - sources - 7, 20)
        for label, width in (("fact", 14), ("value", room), ("where from", sources)):
            table.add_column(self.text(label, "label"), width=width)
        for fact in self._facts:
            value = self.fit(fact.value, room - (8 if fact.field is not None else 0))
            if fact.field is not None:
                value.append_text(self.text("  [edit]", "good"))
            source = self.text(fact.source, "warning" if fact.source == words.SOURCES["assumed"] else "")
            table.add_row(self.text(fact.name, "title"), value, source)
        if self._facts:
            table.move_cursor(row=min(row, len(self._facts) - 1))
        self._whole()

    def _whole(self) -> None:
        fact = self.fact
        text = self.text("") if fact is None else self.text(fact.value)
        if fact is not None and fact.field is not None:
            text.append_text(self.text("   Enter edits it; the layer is then computed again.", "label"))
        self.query_one("#whole", Static).update(text)

    @on(DataTable.RowHighlighted)
    def moved(self) -> None:
        """Show the whole text of the row under the cursor."""
        self._whole()

    @on(DataTable.RowSelected)
    def selected(self) -> None:
        """Edit the row that was chosen."""
        self.action_edit()

    def action_edit(self) -> None:
        """Open the editor on the fact under the cursor, or say why it cannot be edited."""
        fact = self.fact
        if fact is None:
            return
        if fact.field is None:
            text = self.text(fact.value)
            text.append_text(self.text("   This one cannot be edited: it is what the file holds.", "warning"))
            self.query_one("#whole", Static).update(text)
            return
        self._editing = fact
        self.query_one("#asked", Static).update(self.text(f"{fact.name}: {EXPECTED[fact.field]}", "label"))
        self.query_one("#wrong", Static).update("")
        field = self.query_one(Input)
        names = {"activation": sorted(CANONICAL), "skip": list(SKIPS)}.get(fact.field)
        field.suggester = SuggestFromList(names) if names else None
        field.value = fact.text
        self.add_class("-editing")
        field.focus()
        self.refresh_bindings()

    def action_cancel(self) -> None:
        """Close the editor."""
        inside = self.query_one(Input).has_focus
        self._editing = None
        self.remove_class("-editing")
        if inside:
            self.query_one(DataTable).focus()
        self.refresh_bindings()

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        """Tell the app, or say what is wrong with the value."""
        event.stop()
        fact, layer = self._editing, self.view.layer
        if fact is None or fact.field is None or layer is None:
            return
        value = event.value.strip()
        wrong = problem(layer, fact.field, value)
        if wrong:
            self.query_one("#wrong", Static).update(self.text(f"x {wrong}", "bad"))
            return
        self.action_cancel()
        self.post_message(FactEdited(layer.name, fact.field, value))


def problem(layer: Layer, field: Field, value: str) -> str:
    """Return in one line what is wrong with a value for a fact; empty where nothing is."""
    if field == "activation":
        try:
            parse_activation(value)
        except SettingsError as error:
            return visible(str(error))
        return ""
    if field == "skip":
        return "" if value in SKIPS else f"skip: expected {EXPECTED['skip']}, got {visible(value)!r}"
    sizes = [part.strip() for part in value.split(",")]
    whole = all(part.isascii() and part.isdecimal() and len(part) < 10 for part in sizes)
    axes = len(layer.conv.kernel) if layer.conv is not None else 1
    fits = whole and len(sizes) in ({1} if field == "grid" else {1, axes})
    largest = LARGEST_GRID if field == "grid" else 10**9
    if fits and all(1 <= int(part) <= largest for part in sizes):
        return ""
    return f"{field}: expected {EXPECTED[field]}, got {visible(value)!r}"


def facts(view: PaneView) -> Iterator[Fact]:
    """Yield what is known of the selected layer, the facts that can be edited first."""
    layer, result = view.layer, view.result
    if layer is None:
        return
    if view.state == "failed":
        yield Fact("failed", visible(view.reason) or "no reason was given")
    yield from _editable(layer, result.grid if result is not None else None)
    yield Fact("name", layer_name(layer.name))
    yield Fact("kind", layer.kind)
    yield Fact("shape", f"{shape(layer.shape)}  as stored, {layer.dtype}")
    outputs, inputs = layer.matrix_shape
    yield Fact("map", f"{integer(inputs)} inputs -> {integer(outputs)} outputs")
    for tensor in layer.parameters:
        yield Fact("tensor", visible(tensor))
    yield Fact("weight is", _recipe(layer))
    if layer.conv is not None:
        conv = layer.conv
        yield Fact("dilation", shape(conv.dilation.value), words.SOURCES[conv.dilation.source])
        yield Fact("groups", integer(conv.groups.value), words.SOURCES[conv.groups.source])
        if conv.padding is not None:
            padding = f"{shape(conv.padding.value)} {conv.padding_mode}"
            yield Fact("padding", padding, words.SOURCES[conv.padding.source])
    if layer.normalization is not None:
        norm = layer.normalization
        kind = norm.kind.replace("_", " ")
        yield Fact("followed by", f"{kind} {visible(norm.name)}", words.SOURCES[norm.source])
    if layer.bias is not None:
        yield Fact("bias", visible(layer.bias))
    if result is not None:
        yield Fact("computed in", f"{number(result.seconds)} s")
        for note in result.notes:
            yield Fact("seen", visible(note))
    for sentence in result.assumptions if result is not None and result.assumptions else layer.assumptions:
        yield Fact("assumed", visible(sentence))


def _editable(layer: Layer, grid: tuple[int, ...] | None) -> Iterator[Fact]:
    activation, skip = layer.activation, layer.skip
    name = activation.name if activation.slope is None else f"{activation.name}:{activation.slope:g}"
    slopes = f" with slopes {visible(activation.parameter)}" if activation.parameter else ""
    yield Fact("activation", f"{visible(name)}{slopes}", words.SOURCES[activation.source], "activation", name)
    through = f" {layer_name(skip.shortcut.name)}" if skip.shortcut is not None else ""
    yield Fact("skip", f"{skip.kind}{through}", words.SOURCES[skip.source], "skip", skip.kind)
    if layer.conv is not None:
        stride = layer.conv.stride
        text = ",".join(map(str, stride.value))
        yield Fact("stride", shape(stride.value), words.SOURCES[stride.source], "stride", text)
        sides = grid or ((layer.grid,) * len(layer.conv.kernel) if layer.grid is not None else ())
        source = words.SOURCES["config"] if layer.grid is not None else "setting of the run"
        source = "the images in --inputs" if layer.sides is not None else source
        yield Fact(
            "grid", shape(sides) if sides else "not computed yet", source, "grid", str(max(sides, default=16))
        )


def _recipe(layer: Layer) -> str:
    """Return how the weight is made from its tensors."""
    match layer.weight:
        case Stored(tensor, transpose, rows):
            turned = ", transposed" if transpose else ""
            part = "" if rows is None else ", rows " + ", ".join(f"{a} to {b - 1}" for a, b in rows)
            return f"{visible(tensor)}{turned}{part}"
        case Product(left, right, scale, alpha):
            times = f"{visible(alpha)} / rank" if alpha is not None else f"{scale:g}"
            return f"{visible(left)} @ {visible(right)} times {times}"
        case WeightNorm(g, v):
            return f"{visible(g)} * v / norm of v, v = {visible(v)}"
        case SpectralNorm(original):
            return f"{visible(original)} / its stored spectral norm"
