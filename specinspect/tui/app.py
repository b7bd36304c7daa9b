"""The app: the table of layers, the panes beside it, and the keys."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer

from specinspect.errors import SettingsError, SpecinspectError
from specinspect.report.text import ascii_only, layer_name, visible
from specinspect.tui import edits, export
from specinspect.tui.bars import Ask, Header, OneLine, TabBar, subject
from specinspect.tui.comparing import Comparing
from specinspect.tui.editing import Editing
from specinspect.tui.events import BlockDone, Event, PairDone, Said, TensorsRead
from specinspect.tui.help import HelpScreen
from specinspect.tui.keys import KEYS
from specinspect.tui.live import Learned, Lens
from specinspect.tui.messages import (
    ActivationChosen,
    BlockChosen,
    FactEdited,
    LayerChosen,
    MapsWanted,
    PatternChosen,
    ScaleChosen,
)
from specinspect.tui.plain import AsciiFilter
from specinspect.tui.runner import Progress, Runner
from specinspect.tui.session import ACTIVATIONS, SORTS, STEP, Session
from specinspect.tui.table import LayerTable
from specinspect.tui.work import EngineWork, Work, reason

if TYPE_CHECKING:
    from textual import events
    from textual.filter import LineFilter
    from textual.timer import Timer

    from specinspect.engine import Inspection
    from specinspect.tui.panes.pane import Pane
    from specinspect.tui.rows import Row
    from specinspect.tui.view import PaneView

NARROW = 110
"""Columns below which the layers are one of the panes."""
INTERRUPTED = 130
"""Exit code after SIGINT or SIGTERM from outside; ctrl+c is a key."""
TICK = 0.1
"""Seconds between two looks at the progress."""
FOLLOW = 0.02
"""Seconds that a pane waits for more changes before it is drawn; keys go first."""
SETTLE = 0.15
"""Seconds that a layer stays selected before it is looked at closely."""
TABS = (
    ("layers", "Layers"),
    ("spectrum", "Spectrum"),
    ("skip", "Skip vs chain"),
    ("bounds", "Bounds"),
    ("layer", "Layer"),
    ("network", "Network"),
    ("compare", "Compare"),
)


class Inspector(App[None]):
    """Looks at one checkpoint.

    Args:
        inspection: what is open; nothing has been computed.
        work: the engine.
        notices: what is to be said at the start.
        config: the configuration file that was read.
        against: path of a second checkpoint.
        plain: write ASCII only.
        spectra: put all singular values into an exported report.
    """

    TITLE = "specinspect"
    ENABLE_COMMAND_PALETTE = True
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = KEYS

    @dataclass
    class Arrived(Message):
        """The pass has something."""

        event: Event

    @dataclass
    class Seen(Message):
        """The lens has something."""

        learned: Learned

    @dataclass
    class Finished(Message):
        """An errand is done."""

        then: Callable[[], None]

    def __init__(
        self,
        inspection: Inspection,
        *,
        work: Work | None = None,
        notices: Iterable[str] = (),
        config: str | None = None,
        against: str | None = None,
        plain: bool = False,
        spectra: bool = False,
    ) -> None:
        super().__init__()
        self.session = Session(inspection, plain=plain, spectra=spectra)
        self._work = work if work is not None else EngineWork()
        self._config, self._against = config, against
        self._runner = Runner(self._work, inspection, lambda event: self._tell(self.Arrived(event)))
        self._lens = Lens(self._work, lambda learned: self._tell(self.Seen(learned)))
        self._editing = Editing(self.session, self._work, self._errand, self._edited, self._complain)
        self._comparing = Comparing(
            self.session,
            self._work,
            self._errand,
            self._runner,
            self._compared,
        )
        self._notices = (*notices, *inspection.notices)
        self._said: list[str] = []
        self._progress = Progress(layers=len(self.session.rows))
        self._dirty = self._blocks_dirty = False
        self._settling = 0
        self._panes: dict[str, Pane] = {}
        self._pane_timer: Timer | None = None
        self._pane_seconds = 0.0
        # Held rather than looked up: results still come in while the screen is taken down.
        self._header = Header(id="header")
        self._tabs = TabBar(TABS, id="tabs")
        self._table = LayerTable(self.session.rows, self.session.worst, id="layers")
        self._beside = Vertical(id="panes")
        self._status = OneLine(id="status")
        self._ask = Ask(id="ask")
        self.pane = "spectrum"
        self.narrow = False
        self._window = (80, 24)
        if plain:
            self._ascii = AsciiFilter()

    def get_line_filters(self) -> list[LineFilter]:
        """Write ASCII where the terminal takes nothing else."""
        filters = list(super().get_line_filters())
        return [*filters, self._ascii] if self.session.plain else filters

    # Layout.

    def compose(self) -> ComposeResult:
        """The screen, from top to bottom."""
        yield self._header
        yield self._tabs
        with Horizontal(id="body"):
            yield self._table
            yield self._beside
        yield self._status
        yield self._ask
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Show what the headers say, then begin to compute."""
        self._end_on_signals()
        self._handler = LogToScreen(lambda text: self._tell(self.Arrived(Said(text))))
        logging.getLogger("specinspect").addHandler(self._handler)
        self._table.running = frozenset()
        self._arrange()
        self._show_lines()
        self._table.focus()
        self.set_interval(TICK, self._tick)
        for sentence in self._notices:
            self.notify(visible(sentence), markup=False, timeout=8)
        self.call_after_refresh(self._begin)

    def _end_on_signals(self) -> None:
        """Let `kill` end the app as q does: the terminal comes back as it was."""
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, and other threads
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, lambda: self.exit(return_code=INTERRUPTED))

    def on_unmount(self) -> None:
        """Let the log go where it went before."""
        logging.getLogger("specinspect").removeHandler(self._handler)

    async def _begin(self) -> None:
        """Load the panes and start the threads, once something is on the screen: torch takes a second."""
        panes = {key: kind(id=f"pane-{key}") for key, kind in load_panes().items()}
        if not self._beside.is_mounted or self._exit:  # q came first
            return
        self._panes = panes
        await self._beside.mount(*panes.values())
        self._show_pane()
        self._runner.want(self.session.selected)
        self._runner.start()
        if self._against is not None:
            self._compare(self._against)

    def on_resize(self, event: events.Resize) -> None:
        """Put the panes beside the layers, or all of them behind tabs."""
        self._arrange(event.size.width, event.size.height)

    def _arrange(self, width: int | None = None, height: int | None = None) -> None:
        width, height = width or self.size.width, height or self.size.height
        was = self.narrow
        self.narrow = width < NARROW
        if self.narrow and not was:
            self.pane = "layers"
        elif not self.narrow and self.pane == "layers":
            self.pane = "spectrum"
        self._window = (width, height)
        self._show_pane()
        self._show_header()
        self._show_status()

    def _show_pane(self) -> None:
        hidden = frozenset() if self.narrow else frozenset({"layers"})
        hidden |= frozenset() if self.session.compared else frozenset({"compare"})
        self._tabs.show(self.pane, hidden)
        self._table.display = not self.narrow or self.pane == "layers"
        self._beside.display = not self.narrow or self.pane != "layers"
        for key, pane in self._panes.items():
            pane.display = key == self.pane
        self.set_class(self.narrow, "narrow")
        self._update_pane()
        self._settle()

    # What comes in.

    def _tell(self, message: Message) -> None:
        """Post a message from any thread; after the end there is nobody to tell."""
        with contextlib.suppress(Exception):
            self.post_message(message)

    def on_inspector_arrived(self, message: Arrived) -> None:
        """Take in a result; the table is drawn at the next tick."""
        event = message.event
        if isinstance(event, Said):
            self.notify(
                visible(event.sentence),
                markup=False,
                severity="error" if event.error else "information",
                timeout=10,
            )
            return
        index = self.session.take(event)
        if isinstance(event, PairDone) and event.scale is not None:
            self._comparing.done()
            self._settle()
        self._dirty = True
        if isinstance(event, TensorsRead) and event.bad:
            names = ", ".join(tensor.name for tensor in event.bad[:3])
            more = f" and {len(event.bad) - 3} more" if len(event.bad) > 3 else ""
            sentence = f"not finite, or negative variances: {names}{more} (5: network)"
            self.notify(visible(sentence), markup=False, severity="error", timeout=10)
            self._update_pane()
        if isinstance(event, BlockDone):
            self._blocks_dirty = True
        elif index is not None and index == self.session.selected:
            self._update_pane()
            self._settle()

    def on_inspector_seen(self, message: Seen) -> None:
        """Take in what the lens found."""
        if not self.session.learn(message.learned):
            return
        self._show_live()
        if self.pane in {"skip", "spectrum", "layer"}:
            self._update_pane()

    def on_inspector_finished(self, message: Finished) -> None:
        """Go on with an errand on this thread."""
        message.then()

    def _errand(self, work: Callable[[], Callable[[], None]]) -> None:
        """Do something slow on a thread of its own; what it returns is called here."""

        def run() -> None:
            try:
                then = work()
            except Exception as error:  # whatever it is, it belongs on the screen
                text = reason(error)

                def then() -> None:
                    self._complain(text)

            self._tell(self.Finished(then))

        threading.Thread(target=run, name="specinspect-errand", daemon=True).start()

    def _complain(self, text: str) -> None:
        self.notify(visible(text), markup=False, severity="error", timeout=10)

    def _tick(self) -> None:
        """Look at the progress, and draw what has changed since."""
        progress = self._runner.progress
        changed = progress != self._progress and not (progress.finished and self._progress.finished)
        self._progress = progress
        if changed:
            self._table.running = progress.running
            self._show_header()
        if self._dirty:
            self._dirty = False
            if self.session.sort == "order" and not self.session.filtered:
                self._table.update_rows()
            else:
                self._show_lines()
            if self.pane == "network" or self._blocks_dirty:
                self._blocks_dirty = False
                self._update_pane(soon=False)
        elif changed:
            self._table.update_rows()

    @property
    def at_rest(self) -> bool:
        """Whether everything is computed and drawn, as far as anybody asked for it."""
        return (
            self._progress.finished
            and not self._dirty
            and self._pane_timer is None
            and len(self._panes) > 0
            and not self._lens.busy
        )

    def freeze_clock(self) -> None:
        """Show no times any more, so that two pictures of the same thing are the same."""
        self._progress = replace(self._progress, seconds=0.0)
        self._show_header()

    # What is shown.

    def _show_lines(self) -> None:
        lines, nested = self.session.lines()
        table, session = self._table, self.session
        table.closed = frozenset() if session.filtered else frozenset(session.closed)
        table.compared = bool(session.compared)
        table.sorted_by = f"-{session.sort}" if session.reverse else session.sort
        table.show_lines(lines, nested=nested)
        self._show_status()

    def _show_header(self) -> None:
        scale = f"β {self.session.beta:.2f}  ρ {self.session.rho:.2f}"
        if not self.session.at_run:
            scale = f"{scale} (run: {self.session.base.beta:g}, {self.session.base.rho:g})"
        self._header.show(subject(self.session.inspection), self._progress, scale)

    def _show_status(self) -> None:
        session, parts = self.session, []
        width, height = self._window
        if width < 80 or height < 24:
            parts.append(f"{width}×{height} is small: 80×24 shows more")
        if session.filtered:
            shown = sum(line.index is not None for line in self._table.lines)
            parts.append(f"filter {visible(session.filter_text)}: {shown} of {len(session.rows)} layers")
        if session.sort != "order":
            what = "name" if session.sort == "name" else _TITLES[session.sort]
            parts.append(f"sorted by {what}{', reversed' if session.reverse else ''}")
        if not session.at_run:
            parts.append(f"x' is at β {session.base.beta:g}, ρ {session.base.rho:g}")
        if session.compared:
            here, there = session.only
            apart = f" (only here {here}, only there {there} layers)" if here or there else ""
            parts.append(f"B: {visible(Path(session.compared).name)}{apart}")
        row = None if session.selected is None else session.rows[session.selected]
        if row is not None and row.state == "failed":
            parts.append(visible(f"{layer_name(row.layer.name)}: {row.reason}"))
        elif row is not None and row.findings:
            parts.append("; ".join(visible(f"{f.severity}: {f.message}") for f in row.findings))
        self._status.say(" " + " · ".join(parts))

    def _show_live(self) -> None:
        table, session = self._table, self.session
        table.stale = not session.at_run
        found = session.live_kappa() if session.selected is not None else None
        table.live = {session.selected: found} if found is not None and session.selected is not None else {}
        table.update_rows()

    def _view(self) -> PaneView:
        return self.session.view(
            dark=self.current_theme.dark,
            running=self._progress.running,
            network=self.pane == "network",
        )

    def _update_pane(self, *, soon: bool = True) -> None:
        """Draw the pane in sight a moment later, once for all that has changed by then.

        Args:
            soon: somebody waits for it. Otherwise it may take a tenth of the time, no more.
        """
        if self.pane == "layers" or self._pane_timer is not None:
            return
        wait = FOLLOW if soon else max(FOLLOW, 9 * self._pane_seconds)
        self._pane_timer = self.set_timer(wait, self._draw_pane)

    def _draw_pane(self) -> None:
        self._pane_timer = None
        pane = self._panes.get(self.pane)
        if pane is not None:
            start = time.perf_counter()
            pane.show(self._view())
            self._pane_seconds = time.perf_counter() - start

    # Selection.

    def on_layer_table_highlighted(self, message: LayerTable.Highlighted) -> None:
        """Look at another layer."""
        message.stop()
        self._follow_cursor()

    def _follow_cursor(self) -> None:
        """Select what the cursor is on now: keys may come faster than messages about it."""
        index = self._table.selected
        if index is not None and index != self.session.selected:
            self._select(index)

    def _select(self, index: int) -> None:
        self.session.select(index)
        self._runner.want(index)
        self._show_live()
        self._show_status()
        self._update_pane()
        self._settle()

    def _settle(self) -> None:
        """Look closely at the selected layer if it stays selected, and where its pictures are in sight."""
        self._settling += 1
        turn = self._settling

        def settled() -> None:
            if turn == self._settling:
                self._look()
                if self.pane == "compare":
                    self._comparing.look()

        self.set_timer(SETTLE, settled)

    def _look(self) -> None:
        setting = self.session.setting(block=self.pane == "skip")
        needed = self.pane == "skip" or not self.session.at_run or self.session.pattern is not None
        if setting is None or not needed:
            return
        row = self.session.rows[setting.index]
        result = row.result
        if result is not None and not row.partial and result.layer == setting.layer:
            self._lens.look(self.session.inspection, setting, result.maps["weight"])

    def on_layer_table_group_toggled(self, message: LayerTable.GroupToggled) -> None:
        """Open or close a module."""
        closed = self.session.closed
        (closed.discard if message.open else closed.add)(message.path)
        self._show_lines()

    def on_layer_table_entered(self, message: LayerTable.Entered) -> None:
        """Show the details of a layer, or go to what can be chosen in them."""
        if self.pane == "layers":
            self.action_pane("spectrum")
        else:
            self.screen.focus_next()

    def on_layer_table_header_clicked(self, message: LayerTable.HeaderClicked) -> None:
        """Sort by a column; the name goes back to the tree first."""
        key = message.key
        if key == "name" and self.session.sort not in {"order", "name"}:
            key = "order"
        self.session.sort_by(key)
        self._show_lines()

    def on_tab_bar_chosen(self, message: TabBar.Chosen) -> None:
        """Show a pane."""
        self.action_pane(message.key)

    def _go_to(self, index: int | None, none: str) -> None:
        if index is None:
            self.notify(none, markup=False)
            return
        self.session.reveal(index)
        self._show_lines()
        if self._table.go_to(index):
            self._follow_cursor()

    # Keys.

    def action_pane(self, key: str) -> None:
        """Show a pane."""
        if key == "layers" and not self.narrow:
            self._table.focus()
            return
        self.pane = key
        self._show_pane()
        if key == "layers":
            self._table.focus()
        elif self.narrow:
            self.call_after_refresh(self.screen.focus_next)

    def action_next_pane(self, step: int) -> None:
        """Show the pane beside this one."""
        bar = self._tabs
        keys = [key for key, _ in TABS if key not in bar.hidden]
        self.action_pane(keys[(keys.index(self.pane) + step) % len(keys)])

    def action_sort(self) -> None:
        """Sort by the next column."""
        keys = list(SORTS)
        if self.session.compared:
            keys.insert(1, "moved")
        here = self.session.sort
        self.session.sort, self.session.reverse = keys[(keys.index(here) + 1) % len(keys)], False
        self._show_lines()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        if self.session.sort != "order":
            self.session.sort_by(self.session.sort)
            self._show_lines()

    def action_fold(self) -> None:
        """Close all repeated blocks, or open everything."""
        closed = self.session.fold()
        self._show_lines()
        if not closed and not self.session.tree.repeated():
            self.notify("no block repeats in this checkpoint", markup=False)

    def action_worst(self) -> None:
        """Go to the layer with the worst κ(W)."""
        self._go_to(self.session.worst_layer(), "no layer is computed yet")

    def action_finding(self, step: int) -> None:
        """Go to the next or the previous layer with a finding."""
        self._follow_cursor()
        found = self.session.next_finding(self.session.selected, step)
        self._go_to(found, "no findings" if self._progress.finished else "no findings so far")

    def action_scale(self, rho: float, beta: float) -> None:
        """Change ρ and β by some steps."""
        session = self.session
        self._set_scale(session.rho + rho * STEP, session.beta + beta * STEP)

    def action_reset_scale(self) -> None:
        """Set ρ and β back to those of the run."""
        self._set_scale(self.session.base.rho, self.session.base.beta)

    def _set_scale(self, rho: float, beta: float) -> None:
        if not self.session.set_scale(rho, beta):
            self.notify("ρ and β cannot both be 0: there would be no map", markup=False)
            return
        self._show_header()
        self._show_live()
        self._show_status()
        self._update_pane()
        if self.pane == "compare":
            self._settle()
        else:
            self._look()

    def on_scale_chosen(self, message: ScaleChosen) -> None:
        """Take ρ and β from a pane."""
        message.stop()
        self._set_scale(message.rho, message.beta)

    def action_activation(self) -> None:
        """Let the next activation make D of the selected layer."""
        row = self._selected_row()
        if row is None:
            return
        now = self.session.activation_of(row.layer.name)
        place = ACTIVATIONS.index(now) if now in ACTIVATIONS else 0
        self._editing.edit(row.layer.name, "activation", ACTIVATIONS[(place + 1) % len(ACTIVATIONS)])
        self._update_pane()

    def on_activation_chosen(self, message: ActivationChosen) -> None:
        """Take an activation from a pane."""
        message.stop()
        row = self._selected_row()
        if row is not None:
            self._editing.edit(row.layer.name, "activation", message.name)
            self._update_pane()

    def action_pattern(self, step: int) -> None:
        """Show the next sampled pattern; after the last one the median over all."""
        self._follow_cursor()
        count = self._view().patterns
        if not count:
            self.notify("no patterns here: D is the identity, or the layer is not computed yet", markup=False)
            return
        choices = [None, *range(count)]
        here = choices.index(self.session.pattern) if self.session.pattern in choices else 0
        self._set_pattern(choices[(here + step) % len(choices)])

    def on_pattern_chosen(self, message: PatternChosen) -> None:
        """Take a pattern from a pane."""
        message.stop()
        self._set_pattern(message.pattern)

    def _set_pattern(self, pattern: int | None) -> None:
        self.session.pattern = pattern
        self._update_pane()
        self._look()

    def on_block_chosen(self, message: BlockChosen) -> None:
        """Show the whole block of the selected layer, or the layer again."""
        message.stop()
        self.session.on_block = message.on
        self._update_pane()
        self._look()

    def on_layer_chosen(self, message: LayerChosen) -> None:
        """Go to a layer that was picked in a pane."""
        message.stop()
        self._go_to(self.session.names.get(message.layer), "that layer is not shown")

    def _selected_row(self) -> Row | None:
        self._follow_cursor()
        selected = self.session.selected
        return None if selected is None else self.session.rows[selected]

    # Edits.

    def on_fact_edited(self, message: FactEdited) -> None:
        """Compute a layer anew with an edited fact."""
        message.stop()
        self._editing.edit(message.layer, message.field, message.value)

    def _edited(self, told: Inspection, changed: list[int]) -> None:
        """Compute anew what an edit has changed."""
        self._dirty = True
        self._update_pane()
        if changed:
            self._errand(lambda: self._again(told, changed))

    def _again(self, inspection: Inspection, changed: list[int]) -> Callable[[], None]:
        tasks = [task for index in changed for task in self._work.again(inspection, index)]
        self._runner.add(tasks)
        return lambda: None

    def action_save(self) -> None:
        """Write edited facts into the configuration file."""
        try:
            path = edits.save(self.session.edits, self._config)
        except SettingsError as error:
            self._complain(str(error))
            return
        self.notify(f"saved to {visible(str(path))}", markup=False)

    # Filter, export, comparison.

    def action_filter(self) -> None:
        """Ask for a filter; it works while it is typed."""
        ask = self._ask
        before = self.session.filter_text

        def changed(text: str) -> None:
            try:
                self.session.set_filter(text)
            except SettingsError as error:
                ask.hint(visible(str(error)))
                return
            self._show_lines()
            shown = sum(line.index is not None for line in self._table.lines)
            ask.hint(f"{shown} of {len(self.session.rows)}")

        def done(text: str) -> bool:
            self._after_ask()
            return True

        def left() -> None:
            self.session.set_filter(before)
            self._show_lines()
            self._after_ask()

        if self.narrow:
            self.action_pane("layers")
        hint = "name, glob*, kappa>1e4, kind:conv, finding:"
        ask.ask("filter", before, hint, done, changed=changed, left=left)

    def _after_ask(self) -> None:
        self._ask.close()
        if self._table.display:
            self._table.focus()
        self._show_status()

    def action_export(self) -> None:
        """Ask for a file; its suffix says what is written."""
        ask = self._ask
        stem = Path(self.session.inspection.checkpoint.path).stem

        def done(path: str) -> bool:
            try:
                written = export.write_new(path, self._exported)
            except SpecinspectError as error:
                ask.hint(visible(str(error)))
                return False
            self._after_ask()
            self.notify(f"written: {visible(str(written))}", markup=False)
            return True

        hint = ".json report · .csv spectrum · .svg .txt screen"
        ask.ask("export to", export.free_name(stem, ".json"), hint, done, left=self._after_ask)

    def _exported(self, suffix: str) -> str:
        if suffix == ".json":
            plan = self._runner.plan
            report = self.session.report(
                device=plan.device if plan is not None else self.session.base.device,
                notices=plan.notices if plan is not None else (),
                seconds=self._progress.seconds,
            )
            return report.to_json()
        if suffix == ".csv":
            row = self._selected_row()
            if row is None or row.result is None:
                raise SettingsError("the selected layer is not computed yet", "wait, or choose another")
            return export.spectrum_csv(row.result, self._view())
        if suffix == ".svg":
            return self.export_screenshot(title=f"specinspect {subject(self.session.inspection)[0]}")
        text = export.screen_text(self.screen)
        return ascii_only(text) if self.session.plain else text

    def action_compare(self) -> None:
        """Ask for a second checkpoint."""
        ask = self._ask

        def done(path: str) -> bool:
            if not path.strip():
                return False
            self._after_ask()
            self._compare(str(Path(path.strip()).expanduser()))
            return True

        ask.ask("compare with", self.session.compared, "path of a checkpoint", done, left=self._after_ask)

    def _compare(self, path: str) -> None:
        self._comparing.open(path)

    def _compared(self, notices: Iterable[str]) -> None:
        """Show the second checkpoint, which is open now."""
        for sentence in notices:
            self.notify(visible(sentence), markup=False)
        self._show_lines()
        self._show_pane()

    def on_maps_wanted(self, message: MapsWanted) -> None:
        """Compare all maps of the selected layer, or the weight alone."""
        message.stop()
        self.session.all_maps = message.on
        self._settle()

    # The rest.

    async def on_key(self, event: events.Key) -> None:
        """Pass a key that nothing else took to the pane in sight, whoever has the focus."""
        at_end = not self.screen_stack  # a key that was still on its way
        if at_end or self.pane == "layers" or len(self.screen_stack) > 1 or self._ask.is_open:
            return
        pane = self._panes.get(self.pane)
        if pane is None or (self.focused is not None and pane in self.focused.ancestors_with_self):
            return  # in the pane, its keys are found without help
        bindings = pane._bindings.key_to_bindings.get(event.key, ())  # what Textual itself looks through
        for binding in bindings:
            if event.key not in {"enter", "escape"} and await self.run_action(binding.action, pane):
                event.stop()
                return

    def action_step_back(self) -> None:
        """Go one step back: out of a question, a filter, a pane, an order."""
        ask = self._ask
        if ask.is_open:
            ask.action_leave()
        elif self.narrow and self.pane != "layers":
            self.action_pane("layers")
        elif not self._table.has_focus and self._table.display:
            self._table.focus()
        elif self.session.filtered:
            self.session.set_filter("")
            self._show_lines()
        elif self.session.sort != "order":
            self.session.sort, self.session.reverse = "order", False
            self._show_lines()

    def action_help_keys(self) -> None:
        """Show all keys and marks."""
        self.push_screen(HelpScreen())

    def action_dark(self) -> None:
        """Change between dark and light."""
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"
        self._update_pane()

    def action_help_quit(self) -> None:
        """Say which key ends the app to whoever pressed Ctrl+C."""
        self.notify("q ends specinspect", markup=False)

    async def action_quit(self) -> None:
        """End at once; what is being computed ends with the process."""
        self._runner.stop()
        self._lens.stop()
        self.exit()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every key, in the command palette."""
        for binding in KEYS:
            if isinstance(binding, Binding) and not binding.system:
                action = binding.action
                yield SystemCommand(
                    f"{binding.description} ({binding.key_display or binding.key.split(',')[0]})",
                    binding.tooltip,
                    lambda action=action: self.call_later(self.run_action, action),
                )


_TITLES = {
    "kappa": "κ(W)",
    "chain": "κ(DW)",
    "skip": "κ(skip)",
    "sigma": "σmax",
    "mark": "findings",
    "shape": "size",
    "moved": "what moved most",
    "other": "κ(W) of B",
}


class LogToScreen(logging.Handler):
    """Shows what would be written to stderr, into the middle of the screen."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning."""
        self._say(record.getMessage())


def load_panes() -> Mapping[str, type[Pane]]:
    """Return the panes by key. They load numpy and all that draws: later than the first screen."""
    from specinspect.tui.panes.bounds import BoundsPane
    from specinspect.tui.panes.compare import ComparePane
    from specinspect.tui.panes.layer import LayerPane
    from specinspect.tui.panes.network import NetworkPane
    from specinspect.tui.panes.skip import SkipPane
    from specinspect.tui.panes.spectrum import SpectrumPane

    return {
        "spectrum": SpectrumPane,
        "skip": SkipPane,
        "bounds": BoundsPane,
        "layer": LayerPane,
        "network": NetworkPane,
        "compare": ComparePane,
    }
