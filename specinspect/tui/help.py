"""The page behind `?`: every key, every mark, every word of the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from specinspect.tui.filter import FIELDS, QUANTITIES
from specinspect.tui.keys import KEYS

if TYPE_CHECKING:
    from textual.app import ComposeResult

PANE_KEYS = (
    ("m", "the next map: Spectrum, Skip vs chain, Network, Compare"),
    ("k", "the whole block of the layer: Skip vs chain, Bounds"),
    ("v", "hide bounds that say nothing here, or show them: Bounds"),
    ("x", "κ or σmax, where there is room for one picture: Network"),
    ("Enter", "explain a bound, edit a fact, go to a layer of the network"),
)
"""Keys that only some panes have."""
MARKS = (
    ("!", "a finding: rank lost, for one"),
    ("!!", "an error: NaN, infinite or all-zero weights"),
    ("V", "a bound that should hold does not: lost digits, or a bug"),
    ("✗", "could not be computed; the line at the bottom says why"),
    ("> 3e7", "κ is not resolved: at least about this much"),
    ("x*", "without the rows that D zeroes"),
    ("=", "D is the identity: the same as κ(W)"),
    ("x'", "at the ρ and β of the run, not at today's"),
    ("≈", "interpolated; exact a moment later"),
)


class HelpScreen(ModalScreen[None]):
    """All keys and marks; any of Esc, q and ? closes it. Computing goes on behind it."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll {
        width: 78; max-width: 100%; height: auto; max-height: 100%;
        background: $surface; border: round $primary; padding: 0 1;
    }
    HelpScreen Static { width: 100%; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss", "Back", id="help.leave", tooltip="Close the help"),
    ]

    def compose(self) -> ComposeResult:
        """One page of text."""
        with VerticalScroll(can_focus=True):
            yield Static(help_text())

    def on_mount(self) -> None:
        """Let the arrow keys scroll."""
        self.query_one(VerticalScroll).focus()


def help_text() -> Text:
    """Return the page."""
    text = Text()
    heading = Style(bold=True, underline=True)
    text.append("Keys\n", heading)
    rows = [("↑ ↓", "one layer up or down; Home, End, page keys as usual")]
    rows += [("← →, Enter", "close or open a module")]
    for binding in KEYS:
        if isinstance(binding, Binding) and binding.id != "pane.bounds.3":
            rows.append((_shown(binding), binding.tooltip))
    for key, what in rows:
        text.append(f"  {key:<12}", Style(bold=True)).append(f"{what}\n")
    text.append("\nIn the panes\n", heading)
    for key, what in PANE_KEYS:
        text.append(f"  {key:<12}", Style(bold=True)).append(f"{what}\n")
    text.append("\nMarks\n", heading)
    for mark, what in MARKS:
        text.append(f"  {mark:<12}", Style(bold=True)).append(f"{what}\n")
    text.append("\nFilter\n", heading)
    text.append("  Words, all of which must match: part of a name, a glob such as *.fc1,\n")
    text.append(f"  a comparison such as kappa>1e4 ({', '.join(QUANTITIES)}),\n")
    text.append(f"  or the beginning of a property such as kind:conv ({', '.join(FIELDS)}).\n")
    return text


def _shown(binding: Binding) -> str:
    names = {"escape": "Esc", "tab": "Tab", "shift+tab": "Shift+Tab", "ctrl+s": "Ctrl+S", "ctrl+p": "Ctrl+P"}
    if binding.id in {"beta.down", "rho.down"}:
        return {"beta.down": "[", "rho.down": "{"}[binding.id]
    if binding.key in names:
        return names[binding.key]
    return binding.key_display or binding.key
