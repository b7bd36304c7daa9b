"""The whole network: κ and σmax through its depth, the worst layers, and the findings."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Static

from specinspect.plots.curves import Curve, depth_plot
from specinspect.report import kappas
from specinspect.report.model import Finding, LayerResult
from specinspect.report.text import layer_name, middle, visible
from specinspect.tui.messages import LayerChosen
from specinspect.tui.panes import words
from specinspect.tui.panes.pane import Choices, Pane, Picture

MOST = 50
"""Rows of a list; how many more there are is said."""
PAIRS = (("W", "weight", "skip"), ("D·W", "chain", "skip_chain"))


class Row(NamedTuple):
    """A line that leads to a layer."""

    layer: str
    cells: tuple[Text, ...]


class NetworkPane(Pane):
    """Depth plots above, worst layers and findings below; Enter selects the layer of a row."""

    ALONE = False
    DEFAULT_CSS = """
    NetworkPane .plots { height: 1fr; }
    NetworkPane.-short #sigma { display: none; }
    NetworkPane.-short.-swapped #sigma { display: block; }
    NetworkPane.-short.-swapped #kappa { display: none; }
    NetworkPane .lists { height: 1fr; }
    NetworkPane .list { width: 1fr; }
    NetworkPane .list Static { height: 1; }
    NetworkPane DataTable { height: 1fr; background: transparent; }
    NetworkPane #findings-side { padding: 0 0 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "next_pair", "W or D·W", id="network.pair", tooltip="Chain and skip without or with D"),
        Binding("x", "swap", "κ or σmax", id="network.swap", tooltip="In a low window: the other picture"),
    ]

    pair = 0
    """Index into PAIRS."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._rows: dict[str, list[Row]] = {}

    def compose_body(self) -> ComposeResult:
        """Lay out pictures and lists."""
        yield Choices(id="depth")
        with Vertical(classes="body"):
            with Vertical(classes="plots"):
                yield Picture(id="kappa")
                yield Picture(id="sigma")
            with Horizontal(classes="lists"):
                with Vertical(classes="list"):
                    yield Static(id="worst-title", markup=False)
                    yield DataTable(id="worst", cursor_type="row", show_header=False, cell_padding=1)
                with Vertical(classes="list", id="findings-side"):
                    yield Static(id="findings-title", markup=False)
                    yield DataTable(id="findings", cursor_type="row", show_header=False, cell_padding=1)

    def title(self) -> Text:
        """Return how much of the network is here."""
        view = self.view
        total = len(view.layers) or len(view.results)
        failed = f", {len(view.failed)} failed" if view.failed else ""
        text = self.text(f"network: {len(view.results):,} of {total:,} layers computed{failed}", "title")
        text.no_wrap = True
        return text

    def action_next_pair(self) -> None:
        """Show the other pair of maps."""
        self.pair = (self.pair + 1) % len(PAIRS)
        self.show(self.view)

    def action_swap(self) -> None:
        """Show the other picture, where there is room for one only."""
        self.toggle_class("-swapped")

    @on(Choices.Picked, "#depth")
    def pick(self, event: Choices.Picked) -> None:
        """Show the pair that was clicked."""
        self.pair = event.index
        self.show(self.view)

    @on(DataTable.RowSelected)
    def selected(self, event: DataTable.RowSelected) -> None:
        """Ask the app to select the layer of a row."""
        rows = self._rows.get(event.data_table.id or "", [])
        if event.cursor_row < len(rows) and rows[event.cursor_row].layer:
            self.post_message(LayerChosen(rows[event.cursor_row].layer))

    def update_body(self) -> None:
        """Draw pictures and fill lists."""
        view = self.view
        _, chain, skip = PAIRS[self.pair]
        self.query_one(Choices).offer("m  ", [self.text(pair[0]).plain for pair in PAIRS], self.pair)
        results = {result.layer.name: result for result in view.results}
        names = [layer.name for layer in view.layers] or list(results)
        for what, picture in (("κ", "kappa"), ("σmax", "sigma")):
            curves = [
                Curve(
                    f"{what}({words.MAPS[name]})",
                    style,
                    tuple(_depth(results.get(layer), name, what, layer in view.failed) for layer in names),
                )
                for name, style in ((chain, "chain"), (skip, "skip"))
            ]
            drawing = partial(depth_plot, curves, what=what, plain=view.plain)
            self.query_one(f"#{picture}", Picture).draw(drawing, dark=view.dark)
        self._worst(chain)
        self._findings()

    def _worst(self, name: str) -> None:
        room = max(self.size.width // 2 - 14, 8)
        found = []
        for result in self.view.results:
            if "weight" in result.maps and name in result.maps:
                cell = kappas.shown(result, name)
                spectrum = result.maps[name]
                level = cell.level if cell.level >= 0 else kappas.severity(spectrum)[0]
                found.append((level, cell.value, cell.text, result))
        found.sort(key=lambda row: (-row[0], -row[1]))
        rows = [
            Row(
                result.layer.name,
                (
                    Text(f"{self.text(text).plain:>8}", self.look("bad" if level else "")),
                    self._short(result.layer.name, room),
                ),
            )
            for level, _, text, result in found[:MOST]
        ]
        more = f", the first {MOST} of {len(found)}" if len(found) > MOST else ""
        title = self.text(f"worst κ({words.MAPS[name]}){more}", "title")
        self.query_one("#worst-title", Static).update(title)
        self._fill("worst", rows, (8, room))

    def _findings(self) -> None:
        findings = sorted(self.view.findings, key=lambda finding: finding.severity != "error")
        failures = [Finding("failed", "error", name, why) for name, why in self.view.failed.items()]
        everything = [*failures, *findings]
        rows = [Row(finding.layer, self._finding(finding)) for finding in everything[:MOST]]
        more = f", the first {MOST} of {len(everything)}" if len(everything) > MOST else ""
        title = f"findings{more}" if everything else "no findings"
        self.query_one("#findings-title", Static).update(self.text(title, "title"))
        self._fill("findings", rows, (1, max(self.size.width // 2 - 8, 8)))

    def _finding(self, finding: Finding) -> tuple[Text, ...]:
        error = finding.severity == "error"
        room = max(self.size.width // 2 - 8, 8)
        name = self._short(finding.layer, max(room // 2, 8)) if finding.layer else self.text("network")
        text = self.fit(f"{name.plain}: {visible(finding.message)}", room)
        return self.text("x" if error else "!", "bad" if error else "warning"), text

    def _short(self, name: str, room: int) -> Text:
        ellipsis = "..." if self.view.plain else "…"
        return Text(middle(self.text(layer_name(name)).plain, room, ellipsis), no_wrap=True)

    def _fill(self, which: str, rows: list[Row], widths: tuple[int, int]) -> None:
        """Put rows into a list, unless they are there already."""
        if self._rows.get(which) == rows:
            return
        table: DataTable[Text] = self.query_one(f"#{which}", DataTable)
        before, at = self._rows.get(which, []), table.cursor_row
        if 0 < at < len(before):  # the cursor stays with its layer; at the top it stays at the top
            names = [row.layer for row in rows]
            at = names.index(before[at].layer) if before[at].layer in names else at
        self._rows[which] = rows
        table.clear(columns=True)
        for width in widths:
            table.add_column("", width=width)
        for row in rows:
            table.add_row(*row.cells)
        if rows:
            table.move_cursor(row=min(at, len(rows) - 1))


def _depth(result: LayerResult | None, name: str, what: str, failed: bool) -> float | None:
    """Return a number of one layer for the depth plot: NaN where there is none to be had."""
    if failed:
        return math.nan
    if result is None or name not in result.maps or "weight" not in result.maps:
        return None
    spectrum = result.maps[name]
    if kappas.severity(spectrum)[0] == 3:
        return math.nan
    if what != "κ":
        return spectrum.sigma_max or None
    cell = kappas.shown(result, name)
    level, value = (cell.level, cell.value) if cell.level >= 0 else kappas.severity(spectrum)
    return math.inf if level == 2 else value or None
