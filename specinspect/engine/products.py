"""Layers and blocks that follow each other: the maps of a whole row, multiplied (MATH R26)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from specinspect.bounds.network import Products
from specinspect.cache.results import Request, ResultCache
from specinspect.engine.failures import named_memory_errors, solver_errors, why_failed
from specinspect.engine.jobs import BlockJob, Job, jobs_of_blocks, layers_job
from specinspect.engine.layers import probes_of
from specinspect.engine.opening import Inspection
from specinspect.engine.requests import request_of_block, request_of_layer
from specinspect.layers.model import Layer
from specinspect.maps import DenseMap, build_weight_map
from specinspect.maps.question import activated
from specinspect.report.model import BlockResult, LayerResult
from specinspect.report.network import block_runs, layer_runs
from specinspect.schedule import Cost, run
from specinspect.spectra.model import ProductExtremes
from specinspect.spectra.plan import Plan, default_jobs

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class RowJob:
    """A row of layers or of blocks: plain data."""

    layers: Job | None
    """Of a row of layers, in order; None for blocks."""
    blocks: tuple[BlockJob, ...] = ()
    with_patterns: bool = True
    """Whether D is in the layers' maps."""

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What it is a row of, as `bounds.network.Products` says it, and the names in order."""
        if self.layers is None:
            return "block", tuple(job.block.name for job in self.blocks)
        return "skip_chain", tuple(layer.name for layer in self.layers.layers)


def measured_products(
    inspection: Inspection,
    results: Sequence[LayerResult],
    blocks: Sequence[BlockResult],
    plan: Plan,
    executor: Executor | None = None,
) -> Products:
    """Return the extremes of every product that MATH R26 speaks of.

    From the cache where it has them; torch is loaded only where one is missing.

    Args:
        inspection: what was opened.
        results: of the layers, in checkpoint order.
        blocks: of the blocks.
        plan: where to compute.
        executor: where to run, as for layers.
    """
    if not inspection.settings.wants_bounds:
        return {}
    jobs = list(_jobs(inspection, results, blocks, plan))
    cache = inspection.cache
    requests = [_request(job) for job in jobs] if cache is not None else []
    recalled = [cache.recall(request) for request in requests] if cache is not None else [None] * len(jobs)
    found = {job.key: known for job, known in zip(jobs, recalled, strict=True) if known is not None}
    missing = [job for job in jobs if job.key not in found]
    workers = (inspection.settings.jobs or default_jobs()) if plan.device == "cpu" else 1
    costs = [_cost(job) for job in missing]
    for number, result in run(missing, costs, run_row, workers=workers, executor=executor):
        found[missing[number].key] = result
    return found


def _jobs(
    inspection: Inspection, results: Sequence[LayerResult], blocks: Sequence[BlockResult], plan: Plan
) -> Iterator[RowJob]:
    by_name = {result.layer.name: result for result in results}
    for names in layer_runs(results):
        row = [by_name[name] for name in names]
        job = layers_job(inspection, [result.layer for result in row], plan)
        yield RowJob(job, with_patterns="skip_chain" in row[0].maps)
    named = {result.block.name: result.block for result in blocks}
    for names in block_runs(results, blocks):
        yield RowJob(None, tuple(jobs_of_blocks(inspection, [named[name] for name in names], plan)))


def _request(job: RowJob) -> Request[ProductExtremes]:
    """Ask for a product by all that each of its factors is asked for by."""
    parts: list[Request[LayerResult] | Request[BlockResult]] = [request_of_block(b) for b in job.blocks]
    if job.layers is not None:
        parts += [request_of_layer(job.layers, layer) for layer in job.layers.layers]
    context = (job.with_patterns, [(part.given, part.context) for part in parts])
    tensors = {f"{i} {role}": info for i, part in enumerate(parts) for role, info in part.tensors.items()}
    return Request(ProductExtremes, {}, context, tensors)


def _cost(job: RowJob) -> Cost:
    """Estimate what a row takes: a few matrices at a time, and a product per factor and pattern."""
    layers: Sequence[Layer] = () if job.layers is None else job.layers.layers
    sizes = [prod(layer.shape) for layer in (*layers, *(la for b in job.blocks for la in b.layers.values()))]
    return Cost(8 * 4 * max(sizes), 20.0 * sum(size**1.5 for size in sizes))


def run_row(job: RowJob) -> ProductExtremes:
    """Multiply the maps of a row, or take the answer from the cache.

    Raises:
        SpecinspectError: its tensors do not fit together, or there is no memory for it.
    """
    cache = _cache(job)
    if cache is None:
        return _measured(job)
    request = _request(job)
    name = cache.name(request)
    result = _measured(job)
    cache.keep(request, name, result)
    return result


def _cache(job: RowJob) -> ResultCache | None:
    return job.blocks[0].cache if job.layers is None else job.layers.cache


def _measured(job: RowJob) -> ProductExtremes:
    import torch

    _, names = job.key
    with named_memory_errors(f"{names[0]} … {names[-1]}"), torch.inference_mode():
        try:
            if job.layers is None:
                return _of_blocks(job.blocks)
            return _of_layers(job.layers, with_patterns=job.with_patterns)
        except solver_errors() as error:
            return ProductExtremes((), why_failed(error))


def _of_layers(job: Job, *, with_patterns: bool) -> ProductExtremes:
    from specinspect.spectra.activated import kernel_matrix
    from specinspect.spectra.product import layers_product

    matrices: list[torch.Tensor] = []
    diagonals: list[torch.Tensor | None] = []
    for layer in job.layers:
        linear = build_weight_map(layer, job.read, job.settings.grid)
        kernel = kernel_matrix(linear)
        if not isinstance(linear, DenseMap) or kernel is None:
            return ProductExtremes((), f"{layer.name} is no dense matrix")
        d = None
        if with_patterns:
            probes = probes_of(job, layer, linear, job.plan)
            d = activated(layer, kernel, job.read, frozenset(job.tensors), probes).diagonals
        matrices.append(linear.matrix)
        diagonals.append(None if d is None else d.values)
    return layers_product(matrices, diagonals, job.settings.rho, job.settings.beta, job.plan.device)


def _of_blocks(jobs: Sequence[BlockJob]) -> ProductExtremes:
    from specinspect.checkpoint.read import read_tensor
    from specinspect.spectra.blocks.ready import built, sampled
    from specinspect.spectra.blocks.row import RowBlock, blocks_product

    ready = []
    settings, plan = jobs[0].settings, jobs[0].plan
    for job in jobs:
        entering = None if job.entering is None else read_tensor(job.entering)
        branch, how, _ = built(
            job.block,
            job.layers,
            job.read,
            frozenset(job.tensors),
            settings.grid,
            settings.patterns,
            settings.conv_operator == "padded",
            settings.conv_pattern == "pixel",
            entering,
        )
        at, _ = sampled(job.block, branch, None, entering, settings.patterns, settings.seed, how)
        ready.append(RowBlock(branch, how, at))
    return blocks_product(ready, settings.rho, settings.beta, plan)
