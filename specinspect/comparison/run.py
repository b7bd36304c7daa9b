"""From two sources to a Comparison: open, match, measure one pair after the other, sort."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from specinspect._version import __version__
from specinspect.comparison.match import Match, match
from specinspect.comparison.measure import PairJob, run_pair
from specinspect.comparison.model import Comparison, ComparisonSummary, LayerComparison, OtherTensors
from specinspect.comparison.order import movement
from specinspect.comparison.same import compare_others
from specinspect.engine import Inspection, Progress, check_memory, layers_job, open_source, settings_of
from specinspect.errors import LayerError
from specinspect.layers.model import Layer
from specinspect.layers.names import matches
from specinspect.report.assemble import checkpoint_summary
from specinspect.schedule import Cost, cost, run
from specinspect.settings import Settings
from specinspect.spectra.plan import Plan, choose_plan, default_jobs, return_large_blocks

if TYPE_CHECKING:
    from specinspect.engine import Source

UNUSED: Mapping[str, Any] = {
    "inputs": None,
    "compose": (),
    "curve": False,
    "conv_operator": "circular",
    "conv_pattern": "channel",
}
"""Settings that a comparison does not use, and their defaults."""


DECIDING = (
    "layers", "exclude", "maps", "beta", "rho", "activation", "model", "model_args", "rules", "patterns",
    "seed", "grid", "device", "spectra",
)  # fmt: skip
"""Settings that decide a number of a comparison."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two opened sources and the layers matched in them; nothing has been computed."""

    a: Inspection
    b: Inspection
    match: Match
    settings: Settings
    notices: tuple[str, ...] = ()


def settings_for(settings: Settings) -> Settings:
    """Return the settings of a run without what a comparison does not use."""
    return replace(settings, **UNUSED, blocks=False, bounds=False)


def open_pair(
    a: Source, b: Source, settings: Settings, *, key_a: str | None = None, key_b: str | None = None
) -> Pairing:
    """Open both sources and match their layers. Reads headers only.

    Args:
        a: path of a checkpoint, a state dict, or a torch.nn.Module.
        b: the other one.
        settings: for both; `layers` and `exclude` match the layers' names in either.
        key_a: which state dict inside A, where it is not `settings.key`.
        key_b: which state dict inside B, likewise.

    Raises:
        SpecinspectError: one cannot be read, or they have no layer in common.
    """
    ignored = [name for name, default in UNUSED.items() if getattr(settings, name) != default]
    notices: tuple[str, ...] = (f"compare does not use {', '.join(ignored)}",) if ignored else ()
    used = settings_for(settings)
    everything = replace(used, layers=(), exclude=())  # selected below, once partners are known
    left = _opened("A", a, replace(everything, key=key_a or settings.key))
    right = _opened("B", b, replace(everything, key=key_b or settings.key))
    found = match(left.discovery.layers, right.discovery.layers)
    if not found.pairs:
        raise LayerError(
            f"no layer in common: {_some(left.discovery.layers)} in A, {_some(right.discovery.layers)} in B",
            "expected two checkpoints of one architecture",
        )
    if settings.layers or settings.exclude:
        found = _selected(found, settings)
    notices += tuple(dict.fromkeys((*left.notices, *right.notices)))
    return Pairing(left, right, found, used, notices)


def _opened(side: str, source: Source, settings: Settings) -> Inspection:
    try:
        return open_source(source, settings)
    except LayerError as error:  # the others are of the files' own, and name them
        raise LayerError(f"{side}: {error.message}", error.hint) from error


def _some(layers: Sequence[Layer]) -> str:
    names = [repr(layer.name) for layer in layers]
    return f"{len(names)} layers ({', '.join(names[:2])}, …)" if len(names) > 2 else " and ".join(names)


def _selected(found: Match, settings: Settings) -> Match:
    """Keep the layers that were asked for, under the name that they have on either side."""

    def wanted(*layers: Layer) -> bool:
        names = [layer.name for layer in layers]
        return (not settings.layers or any(matches(name, settings.layers) for name in names)) and not any(
            matches(name, settings.exclude) for name in names
        )

    pairs = tuple(pair for pair in found.pairs if wanted(*pair))
    if not pairs:
        names = [pair[0].name for pair in found.pairs]
        close = [hit for g in settings.layers for hit in get_close_matches(g.strip("*"), names, 3, 0.3)]
        some = ", ".join(map(repr, list(dict.fromkeys(close))[:3] or names[:3]))
        raise LayerError(
            f"no layer left: --layers and --exclude keep none of {len(names)} that both checkpoints have",
            f"they have {some}",
        )
    return Match(
        pairs,
        tuple(layer for layer in found.only_in_a if wanted(layer)),
        tuple(layer for layer in found.only_in_b if wanted(layer)),
        found.prefixes,
    )


def compare(
    a: Source,
    b: Source,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    key_a: str | None = None,
    key_b: str | None = None,
    **settings: Any,
) -> Comparison:
    """Compare the layers of two checkpoints.

    Args:
        a: path of a checkpoint, a state dict, or a torch.nn.Module: what changes are measured from.
        b: the other one.
        progress: called after every layer.
        executor: where to run the layers; threads of this process if None.
        key_a: which state dict inside A, where A and B differ in that.
        key_b: which state dict inside B.
        **settings: the fields of `Settings`; `maps` is the weight alone unless given.

    Raises:
        SpecinspectError: a source cannot be read, they have no layer in common, or a setting makes no sense.
    """
    chosen = settings_of({"maps": ("weight",), **settings})
    pairing = open_pair(a, b, chosen, key_a=key_a, key_b=key_b)
    return measure(pairing, progress=progress, executor=executor)


def measure(
    pairing: Pairing,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
) -> Comparison:
    """Compare all matched layers of two opened sources."""
    start = time.perf_counter()
    plan = choose_plan(pairing.settings.device)
    found = dict(_results(pairing, plan, progress, executor))
    in_order = [found[i] for i in range(len(found))]
    layers = tuple(sorted(in_order, key=movement, reverse=True))  # stable: ties stay as in A
    others = _others(pairing)
    settings = pairing.settings
    decided = settings.deciding(plan.device)
    only_a, only_b = pairing.match.only_in_a, pairing.match.only_in_b
    return Comparison(
        a=checkpoint_summary(pairing.a.checkpoint),
        b=checkpoint_summary(pairing.b.checkpoint),
        settings={name: decided[name] for name in DECIDING},
        layers=layers,
        only_in_a=only_a,
        only_in_b=only_b,
        others=others,
        prefixes=pairing.match.prefixes,
        notices=(*pairing.notices, *plan.notices),
        summary=_summary(layers, only_a, only_b, others, time.perf_counter() - start),
        version=__version__,
    )


def _others(pairing: Pairing) -> OtherTensors | None:
    """Compare the tensors that are in no layer, unless only some layers were asked for."""
    settings = pairing.settings
    if settings.layers or settings.exclude:
        return None
    used = tuple(
        {name for layer in side.layers for name in layer.parameters} for side in (pairing.a, pairing.b)
    )
    return compare_others(
        pairing.a.checkpoint, pairing.b.checkpoint, (used[0], used[1]), pairing.match.prefixes
    )


def _summary(
    layers: Sequence[LayerComparison],
    only_a: Sequence[Layer],
    only_b: Sequence[Layer],
    others: OtherTensors | None,
    seconds: float,
) -> ComparisonSummary:
    identical = sum(layer.identical for layer in layers)
    rest = others is None or not (others.changed or others.only_in_a or others.only_in_b)
    same = identical == len(layers) and not only_a and not only_b and rest
    return ComparisonSummary(
        matched=len(layers),
        identical=identical,
        changed=len(layers) - identical,
        only_in_a=len(only_a),
        only_in_b=len(only_b),
        verdict="identical" if same else "different",
        seconds=seconds,
    )


def _results(
    pairing: Pairing,
    plan: Plan,
    progress: Callable[[Progress], None] | None,
    executor: Executor | None,
) -> Iterator[tuple[int, LayerComparison]]:
    """Yield (index in the order of A, result) as they finish."""
    settings, pairs = pairing.settings, pairing.match.pairs
    jobs = [PairJob(layers_job(pairing.a, [a], plan), layers_job(pairing.b, [b], plan)) for a, b in pairs]
    costs = [_cost(a, b, settings) for a, b in pairs]
    check_memory([job.a for job in jobs], costs, plan)
    return_large_blocks()
    workers = (settings.jobs or default_jobs()) if plan.device == "cpu" else 1
    whole, done = sum(c.operations for c in costs) or 1.0, 0.0
    results = run(jobs, costs, run_pair, workers=workers, executor=executor)
    for count, (index, result) in enumerate(results, start=1):
        done += costs[index].operations
        yield index, result
        if progress is not None:
            progress(Progress(count, len(jobs), done / whole))


def _cost(a: Layer, b: Layer, settings: Settings) -> Cost:
    """Estimate a pair: the maps of both, and about as much as the larger weight for the difference."""
    costs = cost(a, settings), cost(b, settings)
    alone = max(cost(layer, replace(settings, maps=("weight",))).operations for layer in (a, b))
    return Cost(max(c.bytes for c in costs), sum(c.operations for c in costs) + alone)
