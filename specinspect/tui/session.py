"""What the app knows and shows, without a widget: rows, order, filter, scale, and the view of a pane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING

from specinspect.layers.rules import Rule
from specinspect.report.assemble import tensor_findings
from specinspect.tui.edits import rule_of
from specinspect.tui.events import BlockDone, Event, LayerDone, LayerFailed, PairDone, TensorsRead, WeightDone
from specinspect.tui.filter import Predicate, parse
from specinspect.tui.live import Learned, Rays, Setting, at_rho, live
from specinspect.tui.rows import COLUMNS, Key, Row, findings_of, kappa_key, sorted_rows
from specinspect.tui.tree import Line, Tree, Worst
from specinspect.tui.view import Guarantee, Live, PaneView

if TYPE_CHECKING:
    from specinspect.engine import Inspection
    from specinspect.report.model import BadTensor, BlockResult, Finding, LayerResult, Report
    from specinspect.settings import Settings
    from specinspect.spectra.model import SkipCurve, Spectrum

FOLD_ABOVE = 200
"""Layers; repeated blocks of more start closed."""
STEP, LARGEST = 0.05, 64.0
"""Of ρ and β."""
SORTS = ("order", "kappa", "chain", "skip", "sigma", "mark", "shape", "name")
ACTIVATIONS = ("auto", "identity", "relu", "leaky_relu:0.01", "gelu", "silu", "tanh", "abs")


@dataclass(slots=True)
class Looked:
    """What is known of the selected layer beside its result."""

    patterns: int = 0
    skip: Rays = field(default_factory=Rays)
    skip_chain: dict[int | None, Rays] = field(default_factory=dict)
    chain: dict[int, Spectrum] = field(default_factory=dict)
    at_zero: dict[tuple[float, int | None], dict[str, Spectrum]] = field(default_factory=dict)
    curve: SkipCurve | None = None
    block: Rays = field(default_factory=Rays)
    """A + tJ of the block that the selected layer is part of."""
    block_at_zero: dict[float, Spectrum] = field(default_factory=dict)
    """β → βJ."""
    beside: PairDone | None = None
    """All its maps, compared with a second checkpoint's."""
    block_stays: str = ""
    """Why the block is not measured at other ρ and β."""


class Session:
    """The state of the app.

    Args:
        inspection: what is open.
        plain: whether only ASCII can be shown.
        spectra: whether an exported report holds all singular values.
    """

    def __init__(self, inspection: Inspection, *, plain: bool = False, spectra: bool = False) -> None:
        self.inspection, self.plain, self.spectra = inspection, plain, spectra
        self.base = inspection.settings
        """The settings as they were given; edits are rules on top of them."""
        layers = inspection.discovery.layers
        self.rows = [Row(index, layer) for index, layer in enumerate(layers)]
        self.names = {layer.name: index for index, layer in enumerate(layers)}
        self.tree = Tree([layer.name for layer in layers])
        self.worst = Worst(self.tree)
        self.closed = set(self.tree.repeated()) if len(layers) > FOLD_ABOVE else set()
        self.sort, self.reverse = "order", False
        self.filter_text = ""
        self._predicate: Predicate | None = None
        self.rho, self.beta = self.base.rho, self.base.beta
        self.selected: int | None = 0 if layers else None
        self.pattern: int | None = None
        self.on_block = False
        """Whether the block of the selected layer is shown rather than the layer."""
        self.blocks: dict[str, BlockResult] = {}
        self.bad_tensors: tuple[BadTensor, ...] = ()
        self.edits: dict[str, dict[str, str]] = {}
        """Layer → field → value, as they were edited here."""
        self.pending: dict[tuple[str, str], str] = {}
        """(layer, field) → value, of edits on their way."""
        self.epoch = 0
        self.looked = Looked()
        self.problem = ""
        self.compared = ""
        """Path of the second checkpoint."""
        self.only = (0, 0)
        """Layers that only this one has, and only the second."""
        self.all_maps = False
        """Whether all maps of the selected layer are compared rather than its weight alone."""

    # Results.

    def take(self, event: Event) -> int | None:
        """Take in an event of the pass; return the layer that it changed."""
        if isinstance(event, BlockDone):
            shown = self.shown_block()
            self.blocks[event.result.block.name] = event.result
            if shown is not None and self.shown_block() is not shown:
                self.forget()  # an edit has changed it: so has what was learned of it
            return None
        if isinstance(event, TensorsRead):
            self.bad_tensors = event.bad
            return None
        if isinstance(event, WeightDone):
            row = self.rows[event.index]
            if row.result is not None or event.result.layer != row.layer:
                return None  # an old one has more to show
            found = findings_of(event.result)
            self.rows[event.index] = replace(row, result=event.result, partial=True, findings=found)
            return event.index
        if isinstance(event, LayerDone):
            row = self.rows[event.index]
            if event.result.layer != row.layer:
                return None  # edited meanwhile: a newer one is on its way
            again = row.result is not None and not row.partial
            found = findings_of(event.result)
            row = replace(row, state="done", result=event.result, partial=False, reason="", findings=found)
            self.rows[event.index] = row
            if again:
                self._count_anew()
            else:
                self._count(row)
            return event.index
        if isinstance(event, PairDone):
            if event.path == self.compared:
                self._take_pair(event)
            return event.index
        if isinstance(event, LayerFailed):
            row = self.rows[event.index]
            row = replace(row, state="failed", reason=event.reason, result=None, partial=False)
            self.rows[event.index] = row
            self._count(row)
            return event.index
        return None

    def _take_pair(self, event: PairDone) -> None:
        row = self.rows[event.index]
        if event.scale is None:
            self.rows[event.index] = replace(row, pair=event.pair)
        elif event.index == self.selected and (event.pair is None or event.pair.a.layer == row.layer):
            self.looked.beside = event

    def _count(self, row: Row) -> None:
        marks = COLUMNS["mark"].order
        keys: dict[str, Key | None] = {"mark": marks(row) if marks is not None else None}
        if row.result is not None:
            keys |= {"kappa": kappa_key(row, "weight")}
            keys |= {name: kappa_key(row, name) for name in ("chain", "skip")}
        self.worst.add(row.index, keys)

    def _count_anew(self) -> None:
        self.worst.clear()
        for row in self.rows:
            if row.state in {"done", "failed"}:
                self._count(row)

    @property
    def results(self) -> tuple[LayerResult, ...]:
        """Those that are done, in checkpoint order."""
        return tuple(row.result for row in self.rows if row.result is not None and not row.partial)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the layers that are done, in checkpoint order, and with other tensors."""
        of_tensors = (finding for tensor in self.bad_tensors for finding in tensor_findings(tensor))
        return (*(finding for row in self.rows for finding in row.findings), *of_tensors)

    def report(self, *, device: str, notices: Sequence[str], seconds: float) -> Report:
        """Return what has been computed as a report; what is missing is said in its assumptions."""
        from specinspect.report.assemble import assemble

        kept = [_as_asked(result, spectra=self.spectra) for result in self.results]
        missing = len(self.rows) - len(kept)
        said = [f"exported before all was computed: {missing} of {len(self.rows)} layers are missing"]
        return assemble(
            self.inspection.checkpoint,
            {**self.inspection.settings.deciding(device), "spectra": self.spectra},
            kept,
            self.inspection.discovery.skipped,
            blocks=[self.blocks[b.name] for b in self.inspection.blocks if b.name in self.blocks],
            bad_tensors=self.bad_tensors,
            notices=(*self.inspection.notices, *notices, *(said if missing else ())),
            seconds=seconds,
        )

    def compare_with(self, path: str, only: tuple[int, int]) -> None:
        """Begin to compare with a second checkpoint: sorted by what moved most from now on.

        Args:
            path: of the second checkpoint.
            only: how many layers only this one has, and only the second.
        """
        self.compared, self.only = path, only
        self.looked.beside = None
        self.rows[:] = [replace(row, pair=None) for row in self.rows]
        self.sort, self.reverse = "moved", False

    # Order and filter.

    def lines(self) -> tuple[list[Line], bool]:
        """Return the lines of the table, and whether they are a tree."""
        keep = self._predicate
        if self.sort == "order":
            if keep is None:
                return self.tree.lines(self.closed), True
            kept = {row.index for row in self.rows if keep(row)}
            return self.tree.lines((), kept.__contains__), True
        rows = [row for row in self.rows if keep is None or keep(row)]
        chosen = sorted_rows(rows, self.sort, reverse=self.reverse)
        return [Line(0, row.layer.name, index=row.index) for row in chosen], False

    def set_filter(self, text: str) -> None:
        """Show only layers that match.

        Raises:
            SettingsError: a word that makes no sense; the filter stays as it was.
        """
        predicate = parse(text) if text.strip() else None
        self.filter_text, self._predicate = text.strip(), predicate

    @property
    def filtered(self) -> bool:
        """Whether rows are hidden by a filter."""
        return self._predicate is not None

    def sort_by(self, key: str) -> None:
        """Sort by a column; again by the same: the other way round."""
        self.reverse = not self.reverse if self.sort == key else False
        self.sort = key

    def fold(self) -> bool:
        """Close all repeated blocks, or open everything; return whether they are closed now."""
        repeated = self.tree.repeated()
        self.closed = set() if repeated and repeated <= self.closed else repeated
        return bool(self.closed)

    def reveal(self, index: int) -> None:
        """Open every module that a layer is in."""
        for group in self.tree.above(index):
            self.closed.discard(group.path)

    def worst_layer(self) -> int | None:
        """Return the layer with the worst κ(W) among those that are shown."""
        rows = [row for row in self.rows if self._predicate is None or self._predicate(row)]
        keyed = [(key, -row.index) for row in rows if (key := kappa_key(row, "weight")) is not None]
        return -max(keyed)[1] if keyed else None

    def next_finding(self, after: int | None, step: int) -> int | None:
        """Return the next layer with a mark, in the order of the screen, around the end."""
        if self.sort == "order":
            order = [row.index for row in self.rows if self._predicate is None or self._predicate(row)]
        else:
            order = [line.index for line in self.lines()[0] if line.index is not None]
        marked = [
            i
            for i in order
            if self.rows[i].findings or self.rows[i].violated or self.rows[i].state == "failed"
        ]
        if not marked:
            return None
        if after not in order:
            return marked[0] if step > 0 else marked[-1]
        places = {index: place for place, index in enumerate(order)}
        here = places[after]
        ahead = [i for i in marked if (places[i] - here) * step > 0]
        if step > 0:
            return ahead[0] if ahead else marked[0]
        return ahead[-1] if ahead else marked[-1]

    def beside_wanted(self) -> int | None:
        """Return the selected layer if all its maps are to be compared at today's ρ and β, and are not."""
        row = None if self.selected is None else self.rows[self.selected]
        if row is None or row.pair is None or not self.all_maps:
            return None
        known = self.looked.beside
        return None if known is not None and known.scale == (self.rho, self.beta) else row.index

    # The selected layer.

    def select(self, index: int | None) -> None:
        """Look at another layer."""
        if index != self.selected:
            self.selected = index
            self.forget()

    def forget(self) -> None:
        """Drop what was learned of the selected layer."""
        self.epoch += 1
        self.looked, self.problem = Looked(), ""
        self.pattern = None

    def set_scale(self, rho: float, beta: float) -> bool:
        """Set ρ and β; False if both would be zero."""
        rho, beta = (round(min(max(value, -LARGEST), LARGEST), 6) for value in (rho, beta))
        if rho == beta == 0:
            return False
        self.rho, self.beta = rho, beta
        return True

    @property
    def at_run(self) -> bool:
        """Whether ρ and β are those of the run."""
        return (self.rho, self.beta) == (self.base.rho, self.base.beta)

    def setting(self, *, block: bool = False) -> Setting | None:
        """Return what the lens is to look at.

        Args:
            block: also at the block, where it is shown rather than the layer.
        """
        if self.selected is None or self.rows[self.selected].result is None:
            return None
        layer = self.rows[self.selected].layer
        shown = self.shown_block() if block and self.on_block else None
        beside = shown.block if shown is not None and shown.skip is not None else None
        return Setting(self.selected, layer, self.rho, self.beta, self.pattern, self.epoch, beside)

    def learn(self, learned: Learned) -> bool:
        """Take in what the lens found; False if it is about another layer by now."""
        setting, looked = learned.setting, self.looked
        if setting.epoch != self.epoch or setting.index != self.selected:
            return False
        looked.patterns = max(looked.patterns, learned.patterns)
        self.problem = learned.problem
        if learned.skip is not None:
            looked.skip.add(*learned.skip)
        if learned.skip_chain is not None:
            looked.skip_chain.setdefault(setting.pattern, Rays()).add(*learned.skip_chain)
        if learned.chain is not None and setting.pattern is not None:
            looked.chain[setting.pattern] = learned.chain
        if learned.at_zero:
            looked.at_zero[setting.beta, setting.pattern] = dict(learned.at_zero)
        if learned.curve is not None:
            looked.curve = learned.curve
        if learned.block is not None:
            looked.block.add(*learned.block)
        if learned.block_at_zero is not None:
            looked.block_at_zero[setting.beta] = learned.block_at_zero
        looked.block_stays = looked.block_stays or learned.block_stays
        return True

    def _block_live(self) -> Live | None:
        """Return ρA + βJ of the block at today's ρ and β, as far as it is known."""
        if self.at_run:
            return None
        if self.rho == 0:
            found = self.looked.block_at_zero.get(self.beta)
            return None if found is None else live(found, exact=True)
        return self.looked.block.at(self.rho, self.beta)

    def live_maps(self) -> dict[str, Live]:
        """Return the maps of the selected layer at today's ρ, β and pattern, as far as they are known."""
        maps: dict[str, Live] = {}
        looked = self.looked
        if self.pattern is not None and self.pattern in looked.chain:
            maps["chain"] = live(looked.chain[self.pattern], exact=True)
        if self.at_run and self.pattern is None:
            return maps
        if self.rho == 0:
            found = looked.at_zero.get((self.beta, self.pattern), {})
            return maps | {name: live(spectrum, exact=True) for name, spectrum in found.items()}
        if not self.at_run:
            maps |= _named("skip", looked.skip.at(self.rho, self.beta))
        rays = looked.skip_chain.get(self.pattern)
        if rays is not None:
            maps |= _named("skip_chain", rays.at(self.rho, self.beta))
        elif not looked.patterns and "skip" in maps:
            maps["skip_chain"] = maps["skip"]
        return maps

    def live_kappa(self) -> str | None:
        """Return κ(skip) of the selected layer at today's ρ and β as the table shows it."""
        found = self.live_maps().get("skip")
        if found is None or found.spectrum is None:
            return None
        from specinspect.report.text import kappa

        text = kappa(found.spectrum)
        return text if found.exact else f"≈{text}"

    def view(self, *, dark: bool, running: Iterable[int] = (), network: bool = False) -> PaneView:
        """Return what the panes show of the selected layer.

        Args:
            dark: whether the theme is dark.
            running: layers in flight.
            network: also what is about all layers, which takes longer.
        """
        row = None if self.selected is None else self.rows[self.selected]
        common = PaneView(
            rho=self.rho,
            beta=self.beta,
            run_rho=self.base.rho,
            run_beta=self.base.beta,
            plain=self.plain,
            dark=dark,
        )
        if network:
            common = replace(
                common,
                layers=tuple(r.layer for r in self.rows),
                results=self.results,
                failed={r.layer.name: r.reason for r in self.rows if r.state == "failed"},
                findings=self.findings,
            )
        if row is None:
            return common
        looked = self.looked
        state = "running" if row.index in set(running) and row.state != "done" else row.state
        curve = at_rho(looked.curve or looked.skip.curve(), self.rho)
        rays = looked.skip_chain.get(self.pattern)
        return replace(
            common,
            layer=row.layer,
            comparison=row.pair,
            all_maps=self.all_maps,
            compared_maps=looked.beside.pair if looked.beside is not None else None,
            compared_at=looked.beside.scale if looked.beside is not None else None,
            compared_not=looked.beside.reason if looked.beside is not None else "",
            state=state,
            result=row.result,
            partial=row.partial,
            reason=row.reason or self.problem,
            live=self.live_maps(),
            skip_curve=curve,
            chain_curve=at_rho(rays.curve(), self.rho) if rays is not None else None,
            block=self.shown_block(),
            on_block=self.on_block,
            block_live=self._block_live(),
            block_curve=at_rho(looked.block.curve(), self.rho),
            block_stays=looked.block_stays,
            activation=self.activation_of(row.layer.name),
            activations=ACTIVATIONS,
            pattern=self.pattern,
            patterns=looked.patterns or _patterns(row.result),
            guarantees=guarantees(row.result, self.rho, curve.beta if curve is not None else (), self.beta),
        )

    def shown_block(self) -> BlockResult | None:
        """Return the block that the selected layer is part of, None until it is measured."""
        if self.selected is None:
            return None
        name = self.rows[self.selected].layer.name
        for block in self.inspection.blocks:
            if name in block.layers or name in block.shortcut_layers:
                found = self.blocks.get(block.name)
                if found is not None:
                    return found
        return None

    # Edits.

    def activation_of(self, name: str) -> str:
        """Return what was chosen for D of a layer, also where it is still on its way."""
        kept = self.edits.get(name, {}).get("activation", "auto")
        return self.pending.get((name, "activation"), kept)

    def edited(self, name: str, field_: str, value: str) -> Settings:
        """Return the settings under which a layer's fact is as edited; 'auto' takes an edit back.

        Raises:
            SettingsError: a value that makes no sense.
        """
        changed = {**self.edits.get(name, {}), field_: value}
        if value == "auto":
            del changed[field_]
        edits = {**self.edits, name: changed}
        rules: tuple[Rule, ...] = tuple(rule_of(layer, facts) for layer, facts in edits.items() if facts)
        return replace(self.base, rules=(*self.base.rules, *rules))

    def accept(self, inspection: Inspection, name: str, field_: str, value: str) -> list[int]:
        """Take over an edit that fits; return the layers that have changed and must be computed again."""
        facts = self.edits.setdefault(name, {})
        if value == "auto":
            facts.pop(field_, None)
        else:
            facts[field_] = value
        self.inspection = inspection
        changed = []
        for index, layer in enumerate(inspection.discovery.layers):
            row = self.rows[index]
            if layer != row.layer:
                self.rows[index] = replace(row, layer=layer, state="pending")
                changed.append(index)
        if self.selected in changed:
            self.forget()
        return changed


def guarantees(
    result: LayerResult | None, rho: float, betas: Sequence[float], beta: float
) -> tuple[Guarantee, ...]:
    """Return what theory guarantees of κ(ρI + βW) along β, and at today's β alone (MATH R4).

    For square maps, whose τ is known; everything is computed from σmax, σmin and τ.
    """
    if result is None or result.tau is None or result.layer.skip.kind != "identity":
        return ()
    weight = result.maps["weight"]
    if weight.sigma_max is None or weight.sigma_min is None:
        return ()
    from specinspect.bounds.skip import guaranteed_kappa

    low = max(0.0, weight.sigma_min - (weight.computation_floor or 0.0))
    found = []
    for places in (tuple(betas), (beta,)):
        if places:
            kappa = guaranteed_kappa(rho, places, weight.sigma_max, low, result.tau.min, result.tau.max)
            values = tuple(float(k) if isfinite(k) else None for k in kappa)
            found.append(Guarantee(places, values, "r4.best"))
    return tuple(found)


def _named(name: str, found: Live | None) -> dict[str, Live]:
    return {} if found is None else {name: found}


def _patterns(result: LayerResult | None) -> int:
    chain = result.maps.get("chain") if result is not None else None
    return chain.patterns.n if chain is not None and chain.patterns is not None else 0


def _as_asked(result: LayerResult, *, spectra: bool) -> LayerResult:
    """Return a result without the singular values that the app kept for its pictures."""
    if spectra:
        return result
    maps = {name: replace(spectrum, singular_values=None) for name, spectrum in result.maps.items()}
    return replace(result, maps=maps)
