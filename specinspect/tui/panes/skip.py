"""Skip against chain: the mirror histogram, and κ along β with what theory guarantees of it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from specinspect.plots.bars import mirror_histogram
from specinspect.plots.curves import Curve, beta_at, kappa_curve
from specinspect.plots.reference import floors
from specinspect.plots.series import Line, Series, extremes
from specinspect.report.block_rows import guarantee, kind_words
from specinspect.report.text import number, visible
from specinspect.report.words import plural
from specinspect.spectra.model import SkipCurve, Spectrum
from specinspect.tui.messages import ActivationChosen, PatternChosen, ScaleChosen
from specinspect.tui.panes import words
from specinspect.tui.panes.pane import Choices, Pane, Picture
from specinspect.tui.view import Live

BLOCK, BESIDE = "block", "ρA+βJ"
"""Label of the pair that is of the whole block, and what its map beside the shortcut is called."""


class Pair(NamedTuple):
    """Two maps that differ by a skip connection."""

    label: str
    chain: str
    skip: str
    up: Spectrum | None
    down: Spectrum | None
    live: Live | None = None
    curve: SkipCurve | None = None


class SkipPane(Pane, can_focus=True):
    """What a skip connection and another scale do to the layer, or to its block."""

    DEFAULT_CSS = """
    SkipPane #readout { height: auto; max-height: 3; }
    SkipPane #mirror { height: 3fr; }
    SkipPane #curve { height: 2fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "m", "next_pair", "W, D·W or block", id="skip.pair", tooltip="Without D, with D, whole block"
        ),
        Binding("k", "block", "block", id="skip.block", tooltip="The residual block as a whole: J and A + J"),
        Binding("p", "next_pattern", "pattern", id="skip.pattern", tooltip="Next sampled activation pattern"),
    ]

    chosen: str = "W"
    """Label of the layer's pair that is shown, where there is one."""

    def compose_body(self) -> ComposeResult:
        """Lay out readout, mirror and curve."""
        yield Choices(id="pairs")
        with Vertical(classes="body"):
            yield Static(id="readout", markup=False)
            yield Choices(id="activations")
            yield Picture(id="mirror")
            yield Picture(id="curve")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the block where there is one."""
        return action != "block" or self.view.block is not None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that there are for the selected layer."""
        view, found = self.view, []
        for label, chain, skip, curve in (
            ("W", "weight", "skip", view.skip_curve),
            ("D·W", "chain", "skip_chain", view.chain_curve),
        ):
            up, _ = words.spectrum_of(view, chain)
            down, live = words.spectrum_of(view, skip)
            if up is not None:
                found.append(Pair(label, chain, skip, up, down, live, curve))
        if view.block is not None and view.block.chain is not None:
            down = view.block.skip
            if down is not None and view.block_live is not None:
                down = view.block_live.spectrum or down
            found.append(
                Pair(BLOCK, "chain", "skip", view.block.chain, down, view.block_live, view.block_curve)
            )
        return tuple(found)

    @property
    def pair(self) -> Pair | None:
        """The pair that is shown."""
        pairs = {pair.label: pair for pair in self.pairs}
        wanted = BLOCK if self.view.on_block and BLOCK in pairs else self.chosen
        return pairs.get(wanted) or next(iter(pairs.values()), None)

    def action_next_pair(self) -> None:
        """Show the next pair."""
        labels = [pair.label for pair in self.pairs]
        if self.pair is not None:
            self._choose(labels[(labels.index(self.pair.label) + 1) % len(labels)])

    def action_block(self) -> None:
        """Show the block, or the layer again."""
        if self.pair is not None and any(pair.label == BLOCK for pair in self.pairs):
            self._choose(self.chosen if self.pair.label == BLOCK else BLOCK)

    def action_next_pattern(self) -> None:
        """Ask for the next sampled pattern; after the last comes the median over all."""
        count, now = self.view.patterns, self.view.pattern
        if count:
            following = 0 if now is None else now + 1
            self.post_message(PatternChosen(following if following < count else None))

    @on(Choices.Picked, "#pairs")
    def pick(self, event: Choices.Picked) -> None:
        """Show the pair that was clicked."""
        self._choose(self.pairs[event.index].label)

    @on(Choices.Picked, "#activations")
    def activate(self, event: Choices.Picked) -> None:
        """Ask for the activation that was clicked."""
        self.post_message(ActivationChosen(self.view.activations[event.index]))

    @on(Picture.Clicked, "#curve")
    def scale(self, event: Picture.Clicked) -> None:
        """Ask for the β under the mouse."""
        pair = self.pair
        if pair is None or pair.curve is None:
            return
        size = event.picture.content_size
        beta = beta_at(pair.curve.beta, self._curves(pair), size.width, size.height, event.column)
        if beta is not None:
            self.post_message(ScaleChosen(self.view.rho, round(beta, 3)))

    def _choose(self, label: str) -> None:
        if label != BLOCK:
            self.chosen = label
        self.choose_block(label == BLOCK)

    def update_body(self) -> None:
        """Draw."""
        view, pair, pairs = self.view, self.pair, self.pairs
        if pair is None:
            self.query_one("#readout", Static).update(self.text("This layer has no map to show.", "label"))
            return
        labels = [self.text(each.label).plain for each in pairs]
        self.query_one("#pairs", Choices).offer("m  ", labels, pairs.index(pair))
        self._offer_activations(pair)
        readout = self._readout(pair)
        if view.reason:
            readout.append_text(self.text(f"\n{visible(view.reason)}", "warning"))
        self.query_one("#readout", Static).update(readout)
        block = pair.label == BLOCK
        up, down = ("J", BESIDE) if block else (words.MAPS[pair.chain], words.MAPS[pair.skip])
        lines = list(floors(pair.up)) if pair.up is not None else []
        live = pair.live
        if live is not None and live.spectrum is None:
            found = (("σmax now", live.sigma_max), ("σmin now", live.sigma_min))
            lines += [Line(v, label, "cursor") for label, v in found if v is not None and v > 0]
        mirror = partial(
            mirror_histogram,
            _series(up, "chain", pair.up),
            _series(down, "skip", pair.down, live, missing="not yet" if view.partial else "not there"),
        )
        drawing = partial(mirror, lines=lines, plain=view.plain)
        self.query_one("#mirror", Picture).draw(drawing, dark=view.dark)
        curve = self.query_one("#curve", Picture)
        drawable = pair.down is not None and not _nonfinite(pair)
        curve.display = drawable and (not block or pair.curve is not None)
        curve.styles.height = 1 if pair.curve is None else "2fr"
        betas = pair.curve.beta if pair.curve is not None else ()
        drawing = partial(kappa_curve, betas, self._curves(pair), cursor=view.beta, plain=view.plain)
        curve.draw(drawing, dark=view.dark)

    def _offer_activations(self, pair: Pair) -> None:
        """Offer what D may be made of, where D is shown."""
        names, now = self.view.activations, self.view.activation
        choices = self.query_one("#activations", Choices)
        choices.display = pair.label == "D·W" and bool(names)
        choices.offer("a  ", [visible(name) for name in names], names.index(now) if now in names else -1)

    def _curves(self, pair: Pair) -> list[Curve]:
        """Return κ along β, and what is guaranteed at the same places."""
        if pair.curve is None:
            return []
        name = BESIDE if pair.label == BLOCK else words.MAPS[pair.skip]
        count = f"{len(pair.curve.beta)} points"
        curves = [Curve(f"κ({name})", "skip", pair.curve.condition_number, legend=count)]
        if pair.skip == "skip" and pair.label != BLOCK:
            curves += [
                Curve(f"guaranteed ({each.label})", "bound", each.kappa)
                for each in self.view.guarantees
                if each.beta == pair.curve.beta
            ]
        return curves

    def _readout(self, pair: Pair) -> Text:
        """Return ρ, β, both κ and how they were come by; then D, and the pattern that is shown."""
        view, layer = self.view, self.view.layer
        text = Text(no_wrap=False)
        if pair.label == BLOCK:
            return self._block_readout(pair)
        text.append_text(self.text(f"ρ {view.rho:.4g}  β {view.beta:.4g}", "bold"))
        if _nonfinite(pair):
            return text.append_text(
                self.text("   no κ: NaN and infinite entries stay, whatever the skip", "bad")
            )
        before = words.live_kappa(pair.up, view.live.get(pair.chain))
        text.append_text(self.text(f"   κ {before} ", "chain"))
        if pair.down is None and pair.live is None:
            why = (
                "its other maps are still being computed" if view.partial else "no skip map makes sense here"
            )
            return text.append_text(self.text(f"  {why}", "label"))
        after = words.live_kappa(pair.down, pair.live)
        text.append_text(self.text(f"-> {after}", "skip"))
        how = words.mark(view, pair.skip)
        text.append_text(self.text(f"   {how}", "label" if how == "exact" else "warning"))
        if pair.skip == "skip" and view.result is not None:
            text.append_text(self._guarantee())
        if pair.label == "D·W" and layer is not None:
            slope = "" if layer.activation.slope is None else f":{layer.activation.slope:g}"
            source = words.SOURCES[layer.activation.source]
            shown = "median" if view.pattern is None else f"pattern {view.pattern + 1}"
            many = f" of {view.patterns} patterns" if view.patterns else ""
            name = f"{visible(layer.activation.name)}{slope}"
            text.append_text(self.text(f"\nD: {name} ({source})   {shown}{many}", "label"))
        return text

    def _guarantee(self) -> Text:
        """Return what is guaranteed at exactly today's β, if that was computed."""
        for each in self.view.guarantees:
            if self.view.beta in each.beta:
                kappa = each.kappa[each.beta.index(self.view.beta)]
                words_ = f"κ ≤ {number(kappa)} guaranteed" if kappa is not None else "nothing guaranteed"
                return self.text(f"   {words_} ({each.label})", "bound")
        return Text("")

    def _block_readout(self, pair: Pair) -> Text:
        result = self.view.block
        assert result is not None
        block = result.block
        what = (
            f"{kind_words(block)} {visible(block.name)}: {plural(len(block.layers), 'layer')}, "
            f"shortcut {block.shortcut.kind}"
        )
        norm = "" if result.norm is None else f", norm of J {number(result.norm)}"
        text = self.text(f"{what} ({words.SOURCES[block.shortcut.source]}){norm}\n", "label")
        before = words.live_kappa(pair.up, None)
        after = words.live_kappa(pair.down, pair.live) if pair.down is not None else "no shortcut"
        text.append_text(self.text(f"ρ {self.view.rho:.4g}  β {self.view.beta:.4g}", "bold"))
        text.append_text(self.text(f"   κ(J) {before} ", "chain"))
        text.append_text(self.text(f"-> κ({BESIDE}) {after}", "skip"))
        if pair.down is None:
            return text
        how = words.block_mark(self.view)
        text.append_text(self.text(f"   {how}", "label" if how == "exact" else "warning"))
        if how == "exact" and pair.live is None and (proven := guarantee(result)) is not None:
            text.append_text(self.text(f"   proven <= {number(proven)}", "bound"))
        return text


def _nonfinite(pair: Pair) -> bool:
    return pair.up is not None and pair.up.condition_number_status == "nonfinite_weights"


def _series(
    name: str, style: str, spectrum: Spectrum | None, live: Live | None = None, missing: str = "not there"
) -> Series:
    if spectrum is None:
        return Series(name, style, legend=missing)
    if live is not None and not live.exact:
        low, high = number(live.sigma_min), number(live.sigma_max)
        legend = f"≈ σmax {high}  σmin {low}  κ {number(live.condition_number)}"
        return Series(name, style, spectrum.singular_values, spectrum.histogram, legend)
    return Series(name, style, spectrum.singular_values, spectrum.histogram, extremes(spectrum))
