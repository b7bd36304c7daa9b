"""The only orchestrator: from a source to one LayerResult at a time, and to a Report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

from specinspect.architecture import Architecture, build_with_notes, check_match, read_architecture
from specinspect.cache.requests import block_request, layer_request
from specinspect.cache.results import Request, ResultCache, open_cache
from specinspect.checkpoint import Checkpoint, TensorInfo, from_module, from_state_dict, open_checkpoint
from specinspect.checkpoint.entries import count_entries
from specinspect.checkpoint.text import quote
from specinspect.errors import LayerError, ResourceError, SettingsError, SpecinspectError
from specinspect.inputs import NO_INPUTS, Inputs, read_inputs
from specinspect.layers import Discovery, discover, select
from specinspect.layers.blocks import Block, BlockDiscovery, block_tensors, compose, discover_blocks
from specinspect.layers.facts import apply_facts, with_architecture
from specinspect.layers.model import Activation, Layer, Stored
from specinspect.layers.outside import outside
from specinspect.layers.rules import unmatched_rules
from specinspect.maps import ConvolutionMap, LinearMap, build_weight_map, grid_sides
from specinspect.maps.question import (
    Activated,
    Probes,
    activated,
    checked_inputs,
    projection_map,
    side_tensors,
)
from specinspect.report.assemble import assemble
from specinspect.report.model import BadTensor, BlockResult, LayerResult, Report
from specinspect.schedule import Cost, cost, run
from specinspect.settings import MAPS, Settings
from specinspect.spectra.plan import Plan, available_memory, choose_plan, default_jobs, return_large_blocks

if TYPE_CHECKING:
    import torch

    from specinspect.bounds.model import Advice, BoundCheck
    from specinspect.spectra.activated import Answer, Question
    from specinspect.spectra.compute import Measured
    from specinspect.spectra.model import PaddingBounds, Spectrum
    from specinspect.spectra.quantities import LayerQuantities
    from specinspect.spectra.study import Study

    Source = str | os.PathLike[str] | Mapping[str, torch.Tensor] | torch.nn.Module | Checkpoint

T = TypeVar("T")
MAX_BATCH = 64
"""Layers of equal shape in one job."""
LOADING = 1 << 30
"""Bytes of a checkpoint that are hashed in about the time that loading torch takes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    done: int
    layers: int
    fraction: float
    """Of the estimated work, not of the layers."""


@dataclass(frozen=True, slots=True)
class Job:
    """Layers to be computed together: plain data that can be sent to any worker."""

    layers: tuple[Layer, ...]
    tensors: Mapping[str, TensorInfo]
    settings: Settings
    plan: Plan
    inputs: Inputs = NO_INPUTS
    cache: ResultCache | None = None
    """Where results are looked up and kept."""

    def read(self, name: str) -> torch.Tensor:
        """Return one of the tensors, mapped."""
        from specinspect.checkpoint.read import read_tensor

        return read_tensor(self.tensors[name])


@dataclass(frozen=True, slots=True)
class Inspection:
    """An opened source and the layers chosen in it; nothing has been computed."""

    checkpoint: Checkpoint
    discovery: Discovery
    settings: Settings
    inputs: Inputs
    layers: tuple[Layer, ...]
    """All of the checkpoint's, of which `discovery` may be a selection."""
    blocks: tuple[Block, ...] = ()
    """Measured after the layers."""
    notices: tuple[str, ...] = ()
    """What tracing could not follow, and rules that match nothing."""
    cache: ResultCache | None = None


def open_source(source: Source, settings: Settings) -> Inspection:
    """Open a path, a state dict, a module or a Checkpoint, and find its layers. Reads headers only.

    Raises:
        SpecinspectError: it cannot be read, or holds no layer that was asked for.
    """
    checkpoint = _checkpoint(source, settings)
    try:
        return _chosen(source, checkpoint, settings)
    except LayerError as error:
        if checkpoint.format == "memory":
            raise
        raise LayerError(f"{quote(checkpoint.path)}: {error.message}", error.hint) from error


def _chosen(source: Source, checkpoint: Checkpoint, settings: Settings) -> Inspection:
    """Find the layers and blocks of an opened checkpoint."""
    architecture = _architecture(source, checkpoint, settings)
    if architecture is not None:
        checkpoint = with_architecture(checkpoint, architecture)
    discovery = apply_facts(
        discover(checkpoint),
        checkpoint,
        rules=settings.rules,
        architecture=architecture,
        activation=settings.activation,
    )
    if set(settings.maps) == {"weight"} and not settings.compose:
        discovery = replace(discovery, layers=tuple(_without_activation(la) for la in discovery.layers))
    notices = (
        *(architecture.notes if architecture is not None else ()),
        *unmatched_rules(discovery.layers, settings.rules),
    )
    everything = discovery
    if settings.layers or settings.exclude:
        discovery = select(discovery, settings.layers, settings.exclude)
    blocks = _blocks(everything, discovery, checkpoint, architecture, settings)
    inputs = read_inputs(settings, checkpoint, discovery.layers, [block.layers[0] for block in blocks.blocks])
    not_understood = [f"block {item.name} of the model: {item.reason}" for item in blocks.skipped]
    return Inspection(
        checkpoint,
        discovery,
        settings,
        inputs,
        everything.layers,
        blocks.blocks,
        (
            *notices,
            *_options_without_effect(settings),
            *not_understood,
            *blocks.notes,
            *inputs.notices,
        ),
        open_cache() if settings.cache and _worth_keeping(checkpoint, settings) else None,
    )


def _worth_keeping(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Say whether results are looked up and kept: not where hashing takes as long as reading."""
    entries_alone = settings.quantities == "entries" and settings.conv_operator != "padded"
    return not entries_alone or checkpoint.bytes < LOADING


def _options_without_effect(settings: Settings) -> tuple[str, ...]:
    """Return one sentence for each option that the choice of maps leaves without effect."""
    if settings.curve and set(settings.maps) == {"weight"}:
        return ("--curve: no curve, since --maps leaves out the map skip that it is of",)
    return ()


def _blocks(
    everything: Discovery,
    selected: Discovery,
    checkpoint: Checkpoint,
    architecture: Architecture | None,
    settings: Settings,
) -> BlockDiscovery:
    """Find the blocks whose layers are all selected, and those that the user composed."""
    composed = tuple(compose(text, everything.layers) for text in settings.compose)
    if not settings.blocks or set(settings.maps) == {"weight"}:
        return BlockDiscovery(composed)
    found = discover_blocks(
        everything.layers,
        architecture=architecture,
        config=checkpoint.config,
        tensors=checkpoint.tensors,
    )
    names = {layer.name for layer in selected.layers}
    blocks = tuple(b for b in found.blocks if names.issuperset((*b.layers, *b.shortcut_layers)))
    return BlockDiscovery((*blocks, *composed), found.skipped, found.notes)


def _without_activation(layer: Layer) -> Layer:
    """Leave out what was assumed of an activation that no map will use: always the last sentence."""
    if layer.activation.source != "assumed":
        return layer
    return replace(layer, activation=Activation("identity", "assumed"), assumptions=layer.assumptions[:-1])


def _architecture(source: Source, checkpoint: Checkpoint, settings: Settings) -> Architecture | None:
    """Trace the network, where the caller holds it or asked for its code to be run."""
    if settings.model is not None:
        built = build_with_notes(settings.model, settings.model_args)
        architecture = read_architecture(built.module, built.notes)
        check_match(architecture, {name: info.shape for name, info in checkpoint.tensors.items()})
        return architecture
    if settings.model_args is not None:
        raise SettingsError("--model-args: expected --model beside it", "say which factory they are for")
    return read_architecture(source) if hasattr(source, "named_modules") else None


def _checkpoint(source: Source, settings: Settings) -> Checkpoint:
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, str | os.PathLike):
        return open_checkpoint(os.fspath(source), settings.key)
    if settings.key is not None:
        raise SettingsError("key: only a file can hold several state dicts", "pass the one that is meant")
    if isinstance(source, Mapping):
        return from_state_dict(source)
    if hasattr(source, "named_modules"):
        return from_module(source)
    raise SettingsError(
        f"expected a path, a state dict or a torch.nn.Module, got {type(source).__name__}",
    )


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


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Return the Settings of keyword arguments.

    Raises:
        SettingsError: no such setting, or a value that makes no sense.
    """
    known = Settings.__dataclass_fields__
    for name in values:
        if name not in known:
            raise SettingsError(f"unknown setting {name!r}", f"known are {', '.join(known)}")
    return Settings(**values)


def report(
    inspection: Inspection,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
) -> Report:
    """Compute all chosen layers of an opened source."""
    start = time.perf_counter()
    plan = choose_plan(inspection.settings.device)
    results = dict(_results(inspection, plan, progress, executor))
    return assemble(
        inspection.checkpoint,
        inspection.settings.deciding(plan.device),
        [results[i] for i in range(len(results))],
        inspection.discovery.skipped,
        blocks=_measured_blocks(inspection, plan, executor),
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


@dataclass(frozen=True, slots=True)
class BlockJob:
    """One block to be measured: plain data."""

    block: Block
    layers: Mapping[str, Layer]
    tensors: Mapping[str, TensorInfo]
    settings: Settings
    plan: Plan
    cache: ResultCache | None = None
    """Where results are looked up and kept."""
    entering: TensorInfo | None = None
    """The user's own inputs of the block's first layer."""

    def read(self, name: str) -> torch.Tensor:
        """Return one of the tensors, mapped."""
        from specinspect.checkpoint.read import read_tensor

        return read_tensor(self.tensors[name])


def run_block(job: BlockJob) -> BlockResult:
    """Measure one block, or take it from the cache.

    Raises:
        SpecinspectError: its tensors do not fit together, or there is no memory for it.
    """
    if job.cache is None:
        return _measure_block(job)
    request = _block_request(job)
    known = job.cache.recall(request)
    if known is not None:
        return known
    name = job.cache.name(request)
    result = _measure_block(job)
    job.cache.keep(request, name, result)
    return result


def _block_request(job: BlockJob) -> Request[BlockResult]:
    others = _further(job, {"block", "layers", "tensors", "settings", "plan", "cache", "entering"})
    # No tensor of a checkpoint has an empty name.
    tensors = job.tensors if job.entering is None else {**job.tensors, "": job.entering}
    return block_request(job.block, job.layers, tensors, job.settings, job.plan, others=others)


def _further(job: Job | BlockJob, known: set[str]) -> dict[str, object]:
    """Return the fields of a job that no key speaks of yet: they may decide something."""
    return {item.name: getattr(job, item.name) for item in fields(job) if item.name not in known}


def _measure_block(job: BlockJob) -> BlockResult:
    import torch

    from specinspect.bounds.blocks import check_block
    from specinspect.checkpoint.read import read_tensor
    from specinspect.spectra.blocks import measure_block

    settings = job.settings
    wanted = _wants_bounds(settings)
    with named_errors(job.block.name), torch.inference_mode():
        answer = measure_block(
            job.block,
            job.layers,
            job.read,
            available=frozenset(job.tensors),
            plan=job.plan,
            rho=settings.rho,
            beta=settings.beta,
            patterns=settings.patterns,
            seed=settings.seed,
            grid=settings.grid,  # halved inside where that is too much, and said
            keep_values=settings.spectra,
            per_pixel=settings.conv_pattern == "pixel",
            zeros=settings.conv_operator == "padded",
            entering=None if job.entering is None else read_tensor(job.entering),
            quantities=wanted,
        )
    return BlockResult.of(answer.spectra, check_block(answer.spectra, answer.quantities) if wanted else ())


def block_jobs(
    inspection: Inspection, plan: Plan, known: Container[int] = ()
) -> tuple[list[BlockJob], list[Cost]]:
    """Return a job for every block of an opened source, in order, and what each will take.

    Args:
        inspection: the opened source.
        plan: where to compute.
        known: numbers of blocks that are left out.
    """
    blocks = [block for number, block in enumerate(inspection.blocks) if number not in known]
    jobs = list(_block_jobs(inspection, blocks, plan))
    return jobs, [_block_cost(job) for job in jobs]


def _block_jobs(inspection: Inspection, blocks: Sequence[Block], plan: Plan) -> Iterator[BlockJob]:
    everything = {layer.name: layer for layer in inspection.layers}
    stored = inspection.checkpoint.tensors
    for block in blocks:
        layers = {name: everything[name] for name in (*block.layers, *block.shortcut_layers)}
        tensors = {name: stored[name] for name in block_tensors(block, layers, stored)}
        entering = inspection.inputs.entering.get(block.layers[0])
        yield BlockJob(block, layers, tensors, inspection.settings, plan, inspection.cache, entering)


def _block_cost(job: BlockJob) -> Cost:
    from specinspect.spectra.blocks import affordable_grid, block_operations

    grid, patterns = job.settings.grid, job.settings.patterns
    affordable = affordable_grid(job.block, job.layers, grid, patterns)
    size = sum(prod(layer.shape) for layer in job.layers.values())
    return Cost(8 * 4 * size, block_operations(job.block, job.layers, affordable, patterns))


def _measured_blocks(
    inspection: Inspection, plan: Plan, executor: Executor | None
) -> tuple[BlockResult, ...]:
    """Measure all blocks of an opened source, in order."""
    results = dict(recalled_blocks(inspection, plan))
    missing = [i for i in range(len(inspection.blocks)) if i not in results]
    if missing:
        left, costs = block_jobs(inspection, plan, results)
        workers = (inspection.settings.jobs or default_jobs()) if plan.device == "cpu" else 1
        measured = run(left, costs, run_block, workers=workers, executor=executor)
        results |= {missing[number]: result for number, result in measured}
    return tuple(results[i] for i in range(len(inspection.blocks)))


def _recalled(inspection: Inspection, requests: Iterable[Request[T]]) -> Iterator[tuple[int, T]]:
    """Yield (number, result) of what is in the cache: without torch, which takes longer to load than this."""
    cache = inspection.cache
    if cache is None:
        return
    pool = ThreadPoolExecutor(inspection.settings.jobs or default_jobs(), "specinspect-cache")
    try:
        for number, result in enumerate(pool.map(cache.recall, requests)):
            if result is not None:
                yield number, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt waits for nobody


def recalled_layers(inspection: Inspection, plan: Plan) -> Iterator[tuple[int, LayerResult]]:
    """Yield (index in checkpoint order, result) of the layers that are in the cache."""
    layers = inspection.discovery.layers
    requests = (_layer_request(layers_job(inspection, [layer], plan), layer) for layer in layers)
    yield from _recalled(inspection, requests)


def recalled_blocks(inspection: Inspection, plan: Plan) -> Iterator[tuple[int, BlockResult]]:
    """Yield (number, result) of the blocks that are in the cache."""
    jobs = _block_jobs(inspection, inspection.blocks, plan)
    yield from _recalled(inspection, (_block_request(job) for job in jobs))


def layer_jobs(
    inspection: Inspection, plan: Plan, known: Container[int] = ()
) -> tuple[list[tuple[int, ...]], list[Job], list[Cost]]:
    """Return the jobs that compute the chosen layers of an opened source.

    Args:
        inspection: the opened source.
        plan: where to compute.
        known: layers, by their number in checkpoint order, that are left out.

    Returns:
        For each job the indices of its layers in checkpoint order, the job, and what it will take.
    """
    layers, settings = inspection.discovery.layers, inspection.settings
    groups = list(_batches(layers, [i for i in range(len(layers)) if i not in known], plan))
    jobs = [layers_job(inspection, [layers[i] for i in group], plan) for group in groups]
    return groups, jobs, [_total([cost(layer, settings) for layer in job.layers]) for job in jobs]


def layers_job(inspection: Inspection, layers: Sequence[Layer], plan: Plan) -> Job:
    """Return one job for some layers of an opened source."""
    tensors = inspection.checkpoint.tensors
    names = [name for layer in layers for name in (*layer.parameters, *side_tensors(layer, tensors))]
    return Job(
        tuple(layers),
        {name: tensors[name] for name in names},
        # What is random may fail once in all layers: by the union bound, each has its share.
        replace(inspection.settings, delta=inspection.settings.delta / max(len(inspection.layers), 1)),
        plan,
        inspection.inputs,
        inspection.cache,
    )


def _layer_request(job: Job, layer: Layer) -> Request[LayerResult]:
    names = (*layer.parameters, *side_tensors(layer, job.tensors))
    return layer_request(
        layer,
        {name: job.tensors[name] for name in names},
        job.settings,
        job.plan,
        inputs=job.inputs.per_layer.get(layer.name),
        outputs=job.inputs.outputs.get(layer.name),
        others=_further(job, {"layers", "tensors", "settings", "plan", "inputs", "cache"}),
    )


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
    workers = settings.jobs or default_jobs()
    whole, done, layers_done = sum(c.operations for c in costs) or 1.0, 0.0, len(known)
    for number, results in run(
        jobs, costs, run_job, workers=workers if plan.device == "cpu" else 1, executor=executor
    ):
        for index, result in zip(groups[number], results, strict=True):
            layers_done += 1
            yield index, result
        done += costs[number].operations
        if progress is not None:
            progress(Progress(layers_done, len(layers), done / whole))


def _batches(layers: tuple[Layer, ...], chosen: list[int], plan: Plan) -> Iterator[tuple[int, ...]]:
    """Group the indices of dense layers of equal shape, as many as the device takes at once."""

    def shape(i: int) -> tuple[int, ...]:
        layer = layers[i]
        dense = layer.conv is None and isinstance(layer.weight, Stored)
        return layer.matrix_shape if dense else (-1, i)

    limit = plan.batch_bytes()
    for key, members in groupby(sorted(chosen, key=lambda i: (shape(i), i)), key=shape):
        indices = tuple(members)
        size = 1 if key[0] < 0 else min(MAX_BATCH, max(1, limit // max(1, 8 * key[0] * key[1])))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def _total(costs: list[Cost]) -> Cost:
    return Cost(sum(c.bytes for c in costs), sum(c.operations for c in costs))


def check_memory(jobs: Sequence[Job], costs: Sequence[Cost], plan: Plan) -> None:
    """Refuse what does not fit, before anything is computed.

    Raises:
        ResourceError: the memory that is free is less than one job needs.
    """
    free = available_memory()
    if plan.device != "cpu" or free is None or not jobs:
        return
    worst = max(range(len(jobs)), key=lambda i: costs[i].bytes)
    if costs[worst].bytes > free:
        layer = jobs[worst].layers[0]
        raise ResourceError(
            f"layer {layer.name!r} ({'×'.join(map(str, layer.shape))}) needs about "
            f"{costs[worst].bytes / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free",
            "leave it out with --exclude, or use a larger machine",
        )


def run_job(job: Job) -> tuple[LayerResult, ...]:
    """Compute the layers of one job, or take them from the cache.

    On the CPU if the device turns out to be too small; such results are not kept.

    Raises:
        ResourceError: no memory for a layer.
        LayerError: a layer's tensors do not fit together, or its solver failed.
    """
    cache = job.cache
    if cache is None:
        return _run_layers(job)[0]
    requests = [_layer_request(job, layer) for layer in job.layers]
    results = [cache.recall(request) for request in requests]
    missing = [i for i, result in enumerate(results) if result is None]
    if missing:
        names = [cache.name(requests[i]) for i in missing]
        computed, lasting = _run_layers(replace(job, layers=tuple(job.layers[i] for i in missing)))
        for i, name, result in zip(missing, names, computed, strict=True):
            results[i] = result
            if lasting:
                cache.keep(requests[i], name, result)
    return tuple(result for result in results if result is not None)


def _run_layers(job: Job) -> tuple[tuple[LayerResult, ...], bool]:
    """Compute the layers of one job. Returns the results, and whether they would be the same another time."""
    import torch

    with named_errors(", ".join(layer.name for layer in job.layers)):
        try:
            return _compute(job, job.plan), True
        except torch.OutOfMemoryError:
            notice = f"computed on the CPU: {job.plan.device} ran out of memory"
            return _compute(job, Plan("cpu"), notice), False


def study_layer(inspection: Inspection, layer: Layer, weight: Spectrum) -> Study | None:
    """Return a layer whose skip maps can be had at any ρ and β; None where a skip makes no sense.

    Args:
        inspection: where the layer is from; what it says of patterns, seed, grid and device counts.
        layer: with the facts that are to hold.
        weight: the spectrum of W.

    Raises:
        SpecinspectError: its tensors do not fit together, or there is no memory for it.
    """
    import torch

    from specinspect.maps import DenseMap
    from specinspect.spectra.activated import kernel_matrix
    from specinspect.spectra.study import Study

    plan = choose_plan(inspection.settings.device)
    job = layers_job(inspection, [layer], plan)
    with named_errors(layer.name), torch.inference_mode():
        linear = build_weight_map(layer, job.read, job.settings.grid)
        kernel = kernel_matrix(linear)
        if not isinstance(linear, DenseMap | ConvolutionMap) or kernel is None:
            return None
        if layer.skip.kind == "none" or weight.nonfinite:
            return None
        available = frozenset(job.tensors)
        a = projection_map(layer, linear, job.read, available)
        if _unfit(a, padded=False):
            return None
        d = activated(layer, kernel, job.read, available, _probes(job, layer, linear, plan))
        return Study(linear, layer.skip.kind, weight, d.diagonals, plan, a)


@contextmanager
def named_errors(names: str) -> Iterator[None]:
    """Turn the errors of solvers and allocators into ours, with the layer's name."""
    import torch

    try:
        yield
    except SpecinspectError:
        raise
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise LayerError(f"layer {names!r}: the eigenvalue solver did not converge ({error})") from error
    except OverflowError as error:
        raise LayerError(
            f"layer {names!r}: expected singular values within float64, found some beyond 1.8e308",
            "leave it out with --exclude, or choose a smaller --beta and --rho",
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error).lower():
            raise
        raise ResourceError(
            f"no memory to compute layer {names!r}", "leave it out with --exclude, or use a larger machine"
        ) from error


def _compute(job: Job, plan: Plan, notice: str = "") -> tuple[LayerResult, ...]:
    import torch

    from specinspect.spectra.compute import measure
    from specinspect.spectra.norm import measure_part

    start, quantities = time.perf_counter(), job.settings.quantities
    with torch.inference_mode():
        maps = [build_weight_map(layer, job.read, job.settings.grid) for layer in job.layers]
        if quantities == "spectrum" or job.settings.conv_operator == "padded":
            # Bounds rest on all singular values; which go again in _result.
            measured = measure(maps, plan, keep_values=job.settings.spectra or _wants_bounds(job.settings))
        else:
            measured = [measure_part(linear, plan, norm=quantities == "sigma_max") for linear in maps]
    shared = (time.perf_counter() - start) / len(job.layers)
    return tuple(
        _result(job, plan, layer, linear, found, shared, notice)
        for layer, linear, found in zip(job.layers, maps, measured, strict=True)
    )


def _result(
    job: Job, plan: Plan, layer: Layer, linear: LinearMap, weight: Measured, shared: float, notice: str
) -> LayerResult:
    """Add the maps with D and with a skip to a weight's spectrum, and say what was assumed."""
    import torch

    from specinspect.spectra.activated import Question, kernel_matrix, measure_maps
    from specinspect.spectra.curve import BETAS, skip_curve
    from specinspect.spectra.padded import padding_bounds

    start = time.perf_counter()
    settings = job.settings
    maps, tau, curve, padding, quantities = {"weight": weight.spectrum}, None, None, None, None
    assumptions = [*layer.assumptions, *_grid_assumptions(layer, settings.grid)]
    notes = [*weight.notes, *((notice,) if notice else ())]
    padded = layer.conv is not None and settings.conv_operator == "padded"
    if padded or (set(settings.maps) != {"weight"} and layer.kind not in {"embedding", "lora"}):
        with torch.inference_mode():
            kernel = kernel_matrix(linear)
            d = Activated(None)
            with_d = not {"chain", "skip_chain"}.isdisjoint(settings.maps)
            if with_d and kernel is not None and not weight.spectrum.nonfinite:
                probes = _probes(job, layer, linear, plan)
                d = activated(layer, kernel, job.read, frozenset(job.tensors), probes)
            a = projection_map(layer, linear, job.read, frozenset(job.tensors))
            unfit = _unfit(a, padded)
            kind = "none" if unfit else layer.skip.kind
            question = Question(settings.rho, settings.beta, kind, d.diagonals, a)
            if isinstance(linear, ConvolutionMap) and settings.conv_operator == "padded":
                answer = _padded(layer, linear, question, plan, settings)
            else:
                answer = measure_maps(
                    linear,
                    weight.spectrum,
                    question,
                    plan,
                    keep_values=settings.spectra,
                    quantities=_wants_bounds(settings),
                )
            if settings.curve:
                curve = skip_curve(linear, kind, settings.rho, BETAS, plan, a)
            zeros_outside = layer.conv is not None and not layer.conv.transposed
            useful = not padded or _wants_bounds(settings)
            if isinstance(linear, ConvolutionMap) and zeros_outside and useful and any(linear.padding):
                periodic, rho, beta = weight.spectrum, settings.rho, settings.beta
                padding = padding_bounds(linear, plan, circular=periodic, rho=rho, beta=beta)
        unknown = {"chain", "skip_chain"} if d.bad else set()
        maps |= {name: found for name, found in answer.maps.items() if name not in unknown}
        tau, quantities = answer.tau, answer.quantities
        assumptions += d.assumptions
        notes += [f"no map with D: {d.bad}"] if d.bad else []
        notes += [f"no skip map: {unfit}"] if unfit else []
    if not settings.spectra:
        maps["weight"] = replace(maps["weight"], singular_values=None)
    shown = {name: maps[name] for name in MAPS if name in maps and name in {"weight", *settings.maps}}
    return LayerResult(
        layer,
        shown,
        shared + time.perf_counter() - start,
        grid=grid_sides(layer, settings.grid),
        tau=tau,
        skip_curve=curve,
        boundary=None if layer.conv is None else _BOUNDARIES[settings.conv_operator],
        padding_bounds=None if padded else padding,
        assumptions=tuple(dict.fromkeys(assumptions)),
        notes=tuple(notes),
        bounds=_bounds(layer, quantities, shown, padding, job),
        advice=_advice(layer, quantities, shown, settings),
        zeros=weight.zeros,
    )


def _unfit(projection: LinearMap | None, padded: bool) -> str:
    """Return why a projection cannot stand beside W, '' where it can."""
    from specinspect.spectra.activated import kernel_matrix

    entries = None if projection is None else kernel_matrix(projection)
    if entries is None:
        return ""
    if not bool(entries.isfinite().all()):
        return "NaN or infinite values in its shortcut"
    return "a shortcut that is a layer is only measured on the periodic grid" if padded else ""


def _wants_bounds(settings: Settings) -> bool:
    """Say whether bounds are computed: never for weights alone, which they would slow down."""
    return settings.bounds and set(settings.maps) != {"weight"} and settings.quantities == "spectrum"


def _bounds(
    layer: Layer,
    quantities: LayerQuantities | None,
    maps: Mapping[str, Spectrum],
    padding: PaddingBounds | None,
    job: Job,
) -> tuple[BoundCheck, ...]:
    """Return the verdicts of theory on the maps that are shown."""
    from specinspect.bounds.checks import check_layer
    from specinspect.checkpoint.read import read_tensor

    settings, given = job.settings, job.inputs.per_layer.get(layer.name)
    if not _wants_bounds(settings):
        return ()
    inputs = None
    if given is not None and layer.conv is None:
        inputs = checked_inputs(layer, read_tensor(given)).numpy()
    if quantities is not None:
        quantities = replace(quantities, kind=layer.kind, activation=layer.activation.name)
    checks = check_layer(
        quantities,
        padding,
        maps,
        boundary=_BOUNDARIES[settings.conv_operator],
        delta=settings.delta,
        init=settings.init,
        inputs=inputs,
    )
    return tuple(check for check in checks if check.of in maps)


def _advice(
    layer: Layer, quantities: LayerQuantities | None, maps: Mapping[str, Spectrum], settings: Settings
) -> tuple[Advice, ...]:
    """Return what follows from theory for a layer beside a skip."""
    from specinspect.bounds.advice import advise

    if quantities is None or "skip" not in maps:
        return ()
    quantities = replace(quantities, kind=layer.kind, activation=layer.activation.name)
    return advise(quantities, settings.target_kappa, delta=settings.delta)


_BOUNDARIES = {"circular": "circular", "padded": "zeros"}


def _padded(
    layer: Layer, linear: ConvolutionMap, question: Question, plan: Plan, settings: Settings
) -> Answer:
    """Return all maps of a convolution with the zeros that pad it (MATH §I), the weight's included."""
    from specinspect.spectra.activated import Answer
    from specinspect.spectra.padded import measure_padded, padded_tau

    transposed = layer.conv is not None and layer.conv.transposed
    maps = measure_padded(
        linear,
        plan,
        diagonals=question.diagonals,
        shortcut=question.shortcut,
        rho=question.rho,
        beta=question.beta,
        keep_values=settings.spectra,
        transposed=transposed,
    )
    return Answer(maps, padded_tau(linear, plan, transposed=transposed))


def _probes(job: Job, layer: Layer, linear: LinearMap, plan: Plan) -> Probes:
    """Return at which inputs the layer's D is taken: the network's, the user's, or random ones."""
    from specinspect.checkpoint.read import read_tensor
    from specinspect.maps.operator import ConvolutionOperator

    given = job.inputs.per_layer.get(layer.name)
    pixels = None
    if isinstance(linear, ConvolutionMap) and job.settings.conv_pattern == "pixel":
        transposed = layer.conv is not None and layer.conv.transposed
        pixels = ConvolutionOperator.of(linear, transposed=transposed, device=plan.device)
    return Probes(
        job.settings.patterns,
        job.settings.seed,
        inputs=None if given is None else read_tensor(given),
        outputs=job.inputs.outputs.get(layer.name),
        pixels=pixels,
    )


def _grid_assumptions(layer: Layer, side: int) -> tuple[str, ...]:
    sides = grid_sides(layer, side)
    if sides is None:
        return ()
    text = "×".join(map(str, sides))
    if any(n != side for n in sides):
        return (f"periodic grid {text} instead of side {side}, to hold the kernel and divide by the stride",)
    return (f"periodic {text} grid: the input size is not stored in the checkpoint",)
