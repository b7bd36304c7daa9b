"""What theory says of the layer: every bound with its verdict, its explanation on Enter, and the advice."""

from __future__ import annotations

import math
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import DataTable, Static

from specinspect.bounds.catalogue import CATALOGUE
from specinspect.bounds.model import Advice, BoundCheck
from specinspect.plots.small import slack_bar
from specinspect.report.model import BlockResult
from specinspect.report.text import number, visible
from specinspect.tui.panes import words
from specinspect.tui.panes.pane import Choices, Pane

VERDICTS = {
    "holds": ("✓ holds", "+ holds", "good"),
    "violated": ("✗ VIOLATED", "! VIOLATED", "bad"),
    "vacuous": ("○ vacuous", "o vacuous", "label"),
    "not_applicable": ("– n/a", "- n/a", "label"),
}
"""Verdict → how it is written, in ASCII, and its style."""
COLUMNS = (
    ("verdict", 10),
    ("result", 8),
    ("of", 7),
    ("value", 8),
    ("bound", 10),
    ("used up", 9),
    ("sure", 6),
)
"""Header and least width of every column; that of the results takes what their ids need."""
GIVEN_UP = ("sure", "used up")
"""Columns that go first where the pane is narrow: an explanation has what they say."""
OF = {**words.MAPS, "skip_chain": "skip·DW", "skip": "skip"}
OF_BLOCK = {"chain": "J", "skip": "ρA+βJ"}
BAR = 4
"""Cells of a slack bar."""
REASON = 24
"""Columns from which on the reason stands in the table too."""


class BoundsPane(Pane):
    """A table of checks; Enter explains one, Escape goes back."""

    DEFAULT_CSS = """
    BoundsPane DataTable { height: 1fr; background: transparent; }
    BoundsPane #of { display: none; }
    BoundsPane.-both #of { display: block; }
    BoundsPane #summary { height: 1; }
    BoundsPane #why { height: auto; max-height: 3; min-height: 2; padding: 0 0 0 1; }
    BoundsPane #advice { height: auto; max-height: 9; padding: 0 0 0 1; }
    BoundsPane.-short #advice { max-height: 5; }
    BoundsPane #explanation { display: none; height: 1fr; }
    BoundsPane.-explaining #explanation { display: block; }
    BoundsPane.-explaining .table { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "explain", "explain", id="bounds.explain", tooltip="What this bound says, and why"),
        Binding("escape", "back", "back", id="bounds.back", tooltip="Back to the table"),
        Binding(
            "k", "block", "block", id="bounds.block", tooltip="The bounds of the whole block: of ρA + βJ"
        ),
        Binding(
            "v", "hide", "hide vacuous", id="bounds.hide", tooltip="Hide what says nothing here, or show"
        ),
    ]

    hiding = False
    """Whether vacuous and not-applicable checks are left out."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._shown: tuple[BoundCheck, ...] = ()
        self._advice: tuple[Advice, ...] = ()
        self._drawn: object = None

    def compose_body(self) -> ComposeResult:
        """Lay out table, reason and advice, or an explanation in their place."""
        yield Choices(id="of")
        with Vertical(classes="body"):
            with Vertical(classes="table"):
                yield Static(id="summary", markup=False)
                yield DataTable(cursor_type="row", cell_padding=0)
                yield Static(id="why", markup=False)
                yield Static(id="advice", markup=False)
            with VerticalScroll(id="explanation"):
                yield Static(id="text", markup=False)

    @property
    def explaining(self) -> bool:
        """Whether an explanation is open."""
        return self.has_class("-explaining")

    @property
    def check(self) -> BoundCheck | None:
        """The check under the cursor."""
        row = self.query_one(DataTable).cursor_row
        return self._shown[row] if 0 <= row < len(self._shown) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave Escape to others while there is nothing to go back from."""
        if action == "back":
            return self.explaining
        if action == "block" and self.view.block is None:
            return False
        return not self.explaining if action in {"explain", "hide", "block"} else True

    def update_body(self) -> None:
        """Fill the table, unless it is as it was."""
        result, view, block = self.view.result, self.view, self.block
        self.set_class(view.block is not None, "-both")
        if view.block is not None:
            name = f"block {visible(view.block.block.name)}"
            choices = [self.text(word).plain for word in ("layer", name)]
            self.query_one("#of", Choices).offer("k  ", choices, 0 if block is None else 1)
        if block is not None:
            checks, self._advice = block.bounds, ()
        else:
            checks = result.bounds if result is not None else ()
            self._advice = result.advice if result is not None else ()
        shown = tuple(c for c in checks if not self.hiding or c.verdict in {"holds", "violated"})
        self._summarise(checks, len(checks) - len(shown))
        subject = (result.layer.name if result else "", block.block.name if block else None)
        key = (subject, shown, self._advice, view.plain, view.dark, self.size.width)
        if key == self._drawn:
            return
        before = self._drawn[0] if isinstance(self._drawn, tuple) else None
        self._drawn, self._shown = key, shown
        self._fill(keep=before == key[0])
        if before != key[0]:
            self.action_back()
        self._advise()
        self._reason()

    @property
    def block(self) -> BlockResult | None:
        """The block, where it is shown rather than the layer."""
        return self.view.block if self.view.on_block else None

    def _of(self, check: BoundCheck) -> str:
        """Return which map a check is about."""
        names = OF if self.block is None else OF_BLOCK
        return names.get(check.of, visible(check.of))

    def _summarise(self, checks: tuple[BoundCheck, ...], hidden: int) -> None:
        text = Text(no_wrap=True, overflow="ellipsis")
        for verdict, (sign, plain, style) in VERDICTS.items():
            count = sum(check.verdict == verdict for check in checks)
            if count:
                text.append_text(self.text(f"{plain if self.view.plain else sign} {count}   ", style))
        if not checks:
            what = "layer" if self.block is None else "block"
            why = f"No bound was tested for this {what}."
            if self.view.partial and self.block is None:
                why = "The bounds come with the maps that are still being computed."
            text.append_text(self.text(why, "label"))
        if hidden:
            text.append_text(self.text(f"{hidden} hidden, v shows them", "label"))
        if checks and not words.at_run(self.view):
            text.append_text(self.text(f"{'   ' if hidden else ''}at {words.run(self.view)}", "warning"))
        self.query_one("#summary", Static).update(text)

    def _fill(self, *, keep: bool) -> None:
        table = self.query_one(DataTable)
        row = table.cursor_row if keep else 0
        table.clear(columns=True)
        longest = max((len(visible(check.id)) for check in self._shown), default=0)
        widths = dict(COLUMNS)
        widths["result"] = max(longest, widths["result"])
        for gone in GIVEN_UP:
            if sum(widths.values()) + len(widths) < self.size.width:
                break
            del widths[gone]
        room = self.size.width - sum(widths.values()) - len(widths) - 1
        widths["result"] += min(room, 0)
        for label, width in widths.items():
            table.add_column(self.text(label, "label"), width=max(width, 1) + 1)
        if room >= REASON:
            table.add_column(self.text("why", "label"), width=room)
        for check in self._shown:
            cells = self._cells(check)
            row_ = [cells[label] for label in widths]
            table.add_row(*row_, *([self.fit(visible(check.why), room)] if room >= REASON else []))
        if self._shown:
            table.move_cursor(row=min(row, len(self._shown) - 1))

    def _cells(self, check: BoundCheck) -> dict[str, Text]:
        """Return what stands in each column."""
        sign, plain, style = VERDICTS[check.verdict]
        used = _used(check) if check.verdict in {"holds", "violated"} else None
        bar = Text("")
        if used is not None:
            bar = slack_bar(1 - used, BAR, plain=self.view.plain).to_text(dark=self.view.dark)
            bar.append_text(self.text(f" {_percent(used):>4}"))
        sure = "–" if check.verdict == "not_applicable" else _sure(check.probability)
        return {
            "verdict": self.text(plain if self.view.plain else sign, style),
            "result": self.text(visible(check.id)),
            "of": self.text(self._of(check)),
            "value": self.text(number(check.value)),
            "bound": self.text(f"{_side(check)}{number(check.bound)}"),
            "used up": bar,
            "sure": self.text(sure),
        }

    def _advise(self) -> None:
        text = Text()
        advice = self._advice
        most = 2 if self.has_class("-short") else 4
        for item in advice[:most]:
            text.append_text(self.text("advice  ", "title"))
            text.append_text(self.text(f"{visible(item.sentence)} ({visible(item.bound)})\n"))
        if len(advice) > most:
            text.append_text(self.text(f"{len(advice) - most} more: Enter on their bounds", "label"))
        text.rstrip()
        self.query_one("#advice", Static).update(text)

    def _reason(self) -> None:
        check = self.check
        text = self.text("")
        if check is not None:
            result = CATALOGUE.get(check.id)
            text.append_text(self.text(f"{result.title}: " if result is not None else "", "title"))
            text.append_text(self.text(visible(check.why) or "no reason was given"))
        self.query_one("#why", Static).update(text)

    @on(DataTable.RowHighlighted)
    def moved(self) -> None:
        """Say why the check under the cursor is as it is."""
        self._reason()

    @on(DataTable.RowSelected)
    def selected(self) -> None:
        """Explain the check that was chosen."""
        self.action_explain()

    def action_explain(self) -> None:
        """Show what the bound under the cursor says."""
        check = self.check
        if check is None:
            return
        self.query_one("#text", Static).update(self._explanation(check))
        self.add_class("-explaining")
        scroll = self.query_one("#explanation", VerticalScroll)
        scroll.scroll_home(animate=False)
        if self.has_focus_within:
            scroll.focus()
        self.refresh_bindings()

    def action_back(self) -> None:
        """Go back to the table."""
        inside = self.query_one("#explanation").has_focus
        self.remove_class("-explaining")
        if inside:
            self.query_one(DataTable).focus()
        self.refresh_bindings()

    def action_block(self) -> None:
        """Show the bounds of the block, or those of the layer again."""
        if self.view.block is not None:
            self.choose_block(not self.view.on_block)

    @on(Choices.Picked, "#of")
    def pick(self, event: Choices.Picked) -> None:
        """Show the bounds of what was clicked."""
        self.choose_block(event.index == 1)

    def action_hide(self) -> None:
        """Leave out vacuous and not-applicable checks, or show them again."""
        self.hiding = not self.hiding
        self.show(self.view)

    def _explanation(self, check: BoundCheck) -> Text:
        """Return statement, assumptions, source and corrections; then the verdict here."""
        result = CATALOGUE.get(check.id)
        sign, plain, style = VERDICTS[check.verdict]
        text = Text().append_text(self.text(f"{visible(check.id)}  ", "title"))
        if result is None:
            text.append_text(self.text("The catalogue has no text for this bound.\n"))
        else:
            text.append_text(self.text(f"{result.title}\n", "title"))
            text.append_text(self.text(f"{result.strength} result\n\n", "label"))
            text.append_text(self.text(f"{result.statement}\n"))
        text.append_text(self.text(f"\nHere, on {self._of(check)}: ", "title"))
        text.append_text(self.text(plain if self.view.plain else sign, style))
        text.append_text(self.text(f"\n{visible(check.why)}\n"))
        parts: list[tuple[str, tuple[str, ...]]] = [
            ("advice", tuple(item.sentence for item in self._advice if item.bound == check.id)),
            ("tested or taken for granted here", check.assumptions),
        ]
        if result is not None:
            parts += [
                ("assumes", result.assumptions),
                ("vacuous when", (result.vacuous,) if result.vacuous else ()),
                ("source", (result.source,)),
                ("corrected", (result.corrected,) if result.corrected else ()),
            ]
        for title, sentences in parts:
            if sentences:
                text.append_text(self.text(f"\n{title}\n", "title"))
                text.append_text(self.text("".join(f"- {visible(sentence)}\n" for sentence in sentences)))
        return text.append_text(self.text("\nEscape goes back to the table.", "label"))


def _side(check: BoundCheck) -> str:
    """Return whether the bound is from above or below, as its slack tells."""
    above = _above(check)
    return "" if above is None else "≤ " if above else "≥ "


def _above(check: BoundCheck) -> bool | None:
    """Say whether the bound is an upper one; None where its slack does not tell."""
    if check.value is None or check.bound is None or not check.slack or check.value == check.bound:
        return None
    return (check.bound > check.value) == (check.slack > 0)


def _used(check: BoundCheck) -> float | None:
    """Return how much of a bound is used up: value/bound of an upper one, bound/value of a lower one."""
    if check.slack is None or not math.isfinite(check.slack):
        return None
    if _above(check) is False:
        return 1 / (1 + check.slack) if check.slack > -1 else math.inf
    return max(1 - check.slack, 0.0)


def _percent(used: float) -> str:
    """Return a share of at most four characters."""
    return f"{100 * used:.0f}%" if used < 9.995 else ">999"


def _sure(probability: float | None) -> str:
    """Return with which probability a result holds, rounded down; 'always' for a theorem without one."""
    if probability is None:
        return "always"
    return f"{int(probability * 1000) / 10:.1f}%" if probability < 0.999 else "≥99.9%"
