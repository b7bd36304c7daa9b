"""All keys of the app, in the order of the footer. The command palette and the help list the same."""

from __future__ import annotations

from textual.binding import Binding, BindingType


def _key(
    key: str,
    action: str,
    title: str,
    name: str,
    tooltip: str,
    *,
    show: bool = False,
    display: str | None = None,
) -> Binding:
    return Binding(key, action, title, show=show, key_display=display, tooltip=tooltip, id=name)


KEYS: list[BindingType] = [
    _key("question_mark", "help_keys", "help", "help", "All keys and marks", show=True, display="?"),
    _key("q", "quit", "quit", "quit", "End at once", show=True),
    _key("slash", "filter", "filter", "filter", "Show only layers that match", show=True, display="/"),
    _key("s", "sort", "sort", "sort", "Sort by the next column", show=True),
    _key("S", "reverse", "reverse order", "reverse", "Sort the other way round"),
    _key("w", "worst", "worst", "worst", "Go to the worst κ(W)", show=True),
    _key("n", "finding(1)", "finding", "finding.next", "Go to the next finding", show=True),
    _key("N", "finding(-1)", "previous finding", "finding.previous", "Go to the previous finding"),
    _key("left_square_bracket", "scale(0, -1)", "β", "beta.down", "Less of the branch: β - 0.05",
         show=True, display="[ ]"),
    _key("right_square_bracket", "scale(0, 1)", "β up", "beta.up", "More of the branch: β + 0.05", display="]"),
    _key("left_curly_bracket", "scale(-1, 0)", "ρ", "rho.down", "Less of the skip: ρ - 0.05",
         show=True, display="{ }"),
    _key("right_curly_bracket", "scale(1, 0)", "ρ up", "rho.up", "More of the skip: ρ + 0.05", display="}"),
    _key("c", "compare", "compare", "compare", "Compare with a second checkpoint", show=True),
    _key("e", "export", "export", "export", "Write report, spectrum or screen", show=True),
    _key("a", "activation", "activation", "activation", "Another activation makes D of this layer", show=True),
    _key("b", "pane('bounds')", "bounds", "pane.bounds", "Show the bounds of this layer", show=True),
    _key("ctrl+p", "command_palette", "palette", "palette", "Every command by name", show=True, display="^p"),
    _key("z", "fold", "fold", "fold", "Close all repeated blocks, or open everything"),
    _key("0", "reset_scale", "reset ρ, β", "scale.reset", "ρ and β of the run"),
    _key("p", "pattern(1)", "pattern", "pattern.next", "Show the next sampled pattern of D"),
    _key("P", "pattern(-1)", "previous pattern", "pattern.previous", "Show the previous sampled pattern of D"),
    _key("full_stop", "next_pane(1)", "next pane", "pane.next", "Show the next pane", display="."),
    _key("comma", "next_pane(-1)", "previous pane", "pane.previous", "Show the previous pane", display=","),
    _key("tab", "focus_next", "into the pane", "focus.next", "To what can be chosen in the pane, and back"),
    _key("shift+tab", "focus_previous", "and back", "focus.previous", "The same, the other way round"),
    _key("l", "pane('layers')", "layers", "pane.layers", "Go to the table of layers"),
    _key("1", "pane('spectrum')", "spectrum", "pane.spectrum", "Show the spectrum of this layer"),
    _key("2", "pane('skip')", "skip vs chain", "pane.skip", "Show the layer beside a skip"),
    _key("3", "pane('bounds')", "bounds", "pane.bounds.3", "Show the bounds of this layer"),
    _key("4", "pane('layer')", "layer", "pane.layer", "Show the facts of this layer"),
    _key("5", "pane('network')", "network", "pane.network", "Show the whole network"),
    _key("6", "pane('compare')", "compare pane", "pane.compare", "Show the layer in both checkpoints"),
    _key("ctrl+s", "save", "save edits", "save", "Write edited facts into specinspect.toml"),
    _key("d", "dark", "dark or light theme", "dark", "Change between dark and light"),
    _key("escape", "step_back", "back", "back", "One step back"),
]  # fmt: skip
