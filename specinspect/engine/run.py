"""The pass over a whole source: layers as they finish, then blocks, then a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specinspect.checkpoint.entries import count_entries
from specinspect.engine.blocks import run_block
from specinspect.engine.jobs import block_jobs, check_memory, layer_jobs, room_beside
from specinspect.engine.layers import run_job
from specinspect.engine.opening import Inspection, open_source, settings_of
from specinspect.engine.products import measured_products
from specinspect.engine.requests import recalled_blocks, recalled_layers
from specinspect.layers.outside import outside
from specinspect.report.assemble import assemble
from specinspect.report.model import BadTensor, BlockResult, LayerResult, Report
from specinspect.schedule import run
from specinspect.spectra.plan import Plan, choose_plan, default_jobs, return_large_blocks

if TYPE_CHECKING:
    from specinspect.engine.opening import Source


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    done: int
    layers: int
    fraction: float
    """Of the estimated work, not of the layers."""
    blocks: int = 0
    """Not 0 once all layers are there and blocks are measured: `done` and `fraction` then speak of these."""


def inspect(
    source: Source,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    **settings: Any,
) -> Report:
    """Compute the spectrum of every layer.

    Args:
        source: path of a checkpoint, a state dict, or a torch.nn.Module (read as it is, in eval mode terms).
        progress: called after every layer.
        executor: where to run the layers; threads of this process if None.
        **settings: the fields of `Settings`.

    Raises:
        SpecinspectError: the source cannot be read, or a setting makes no sense.
    """
    return report(open_source(source, settings_of(settings)), progress=progress, executor=executor)


def iter_layers(
    source: Source,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    **settings: Any,
) -> Iterator[LayerResult]:
    """Yield each layer's result as soon as it is there, the longest computations first.

    Arguments and errors as for `inspect`; the source is opened before the first result is asked for.
    """
    chosen = settings_of(settings)
    inspection = open_source(source, chosen)
    return (result for _, result in _results(inspection, choose_plan(chosen.device), progress, executor))


def report(
    inspection: Inspection,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
) -> Report:
    """Compute all chosen layers of an opened source."""
    start = time.perf_counter()
    plan = choose_plan(inspection.settings.device)
    found = dict(_results(inspection, plan, progress, executor))
    results = [found[i] for i in range(len(found))]
    blocks = _measured_blocks(inspection, plan, progress, executor)
    return assemble(
        inspection.checkpoint,
        inspection.settings.deciding(plan.device),
        results,
        inspection.discovery.skipped,
        blocks=blocks,
        products=measured_products(inspection, results, blocks, plan, executor),
        bad_tensors=tuple(bad_tensors(inspection)),
        notices=(*inspection.notices, *plan.notices),
        seconds=time.perf_counter() - start,
    )


def bad_tensors(inspection: Inspection) -> Iterator[BadTensor]:
    """Yield the tensors in no layer that have NaN or infinite entries, or negative variances.

    They are read anew every time, without torch: a few bytes beside the weights, and no cache goes stale.

    Raises:
        CheckpointError: a tensor cannot be read any more.
    """
    chosen, settings = inspection.discovery, inspection.settings
    tensors = inspection.checkpoint.tensors
    for item in outside(inspection.layers, chosen, tensors, settings.layers, settings.exclude):
        found = count_entries(item.info, negative=item.variance)
        infinite = 0 if item.infinite else found.infinite
        if found.nan or infinite or found.negative:
            yield BadTensor(item.info.name, item.what, item.info.size, found.nan, infinite, found.negative)


def _measured_blocks(
    inspection: Inspection,
    plan: Plan,
    progress: Callable[[Progress], None] | None,
    executor: Executor | None,
) -> tuple[BlockResult, ...]:
    """Measure all blocks of an opened source, in order."""
    results = dict(recalled_blocks(inspection, plan))
    missing = [i for i in range(len(inspection.blocks)) if i not in results]
    if missing:
        left, costs = block_jobs(inspection, plan, results)
        workers = (inspection.settings.jobs or default_jobs()) if plan.device == "cpu" else 1
        whole, done, count = sum(c.operations for c in costs) or 1.0, 0.0, len(inspection.blocks)
        if progress is not None:
            progress(Progress(len(results), len(inspection.discovery.layers), 0.0, count))
        room = room_beside(inspection.settings)
        for number, result in run(left, costs, run_block, workers=workers, executor=executor, room=room):
            results[missing[number]] = result
            done += costs[number].operations
            if progress is not None:
                progress(Progress(len(results), len(inspection.discovery.layers), done / whole, count))
    return tuple(results[i] for i in range(len(inspection.blocks)))


def iter_results(
    inspection: Inspection,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
) -> Iterator[LayerResult]:
    """Yield the results of an opened source as they finish; what is left when it is closed is not begun."""
    plan = choose_plan(inspection.settings.device)
    return (result for _, result in _results(inspection, plan, progress, executor))


def _results(
    inspection: Inspection,
    plan: Plan,
    progress: Callable[[Progress], None] | None,
    executor: Executor | None,
) -> Iterator[tuple[int, LayerResult]]:
    """Yield (index in checkpoint order, result) as they finish."""
    layers, settings = inspection.discovery.layers, inspection.settings
    known = set()
    for index, result in recalled_layers(inspection, plan):
        known.add(index)
        yield index, result
    if known and progress is not None:
        progress(Progress(len(known), len(layers), float(len(known) == len(layers))))
    groups, jobs, costs = layer_jobs(inspection, plan, known)
    if not jobs:
        return
    check_memory(jobs, costs, plan)
    return_large_blocks()
    workers = (settings.jobs or default_jobs()) if plan.device == "cpu" else 1
    whole, done, layers_done = sum(c.operations for c in costs) or 1.0, 0.0, len(known)
    room = room_beside(settings)
    for number, results in run(jobs, costs, run_job, workers=workers, executor=executor, room=room):
        for index, result in zip(groups[number], results, strict=True):
            layers_done += 1
            yield index, result
        done += costs[number].operations
        if progress is not None:
            progress(Progress(layers_done, len(layers), done / whole))
