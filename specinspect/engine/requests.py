"""What the result cache knows of the layers and blocks of an opened source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TypeVar

from specinspect.cache.requests import block_request, layer_request
from specinspect.cache.results import Request
from specinspect.engine.jobs import BlockJob, Job, jobs_of_blocks, layers_job
from specinspect.engine.opening import Inspection
from specinspect.layers.model import Layer
from specinspect.maps.question import side_tensors
from specinspect.report.model import BlockResult, LayerResult
from specinspect.spectra.plan import Plan, default_jobs

T = TypeVar("T")


def request_of_block(job: BlockJob) -> Request[BlockResult]:
    """Return what the cache is asked for a block."""
    others = _further(job, {"block", "layers", "tensors", "settings", "plan", "cache", "entering"})
    # No tensor of a checkpoint has an empty name.
    tensors = job.tensors if job.entering is None else {**job.tensors, "": job.entering}
    return block_request(job.block, job.layers, tensors, job.settings, job.plan, others=others)


def _further(job: Job | BlockJob, known: set[str]) -> dict[str, object]:
    """Return the fields of a job that no key speaks of yet: they may decide something."""
    return {item.name: getattr(job, item.name) for item in fields(job) if item.name not in known}


def _recalled(inspection: Inspection, requests: Iterable[Request[T]]) -> Iterator[tuple[int, T]]:
    """Yield (number, result) of what is in the cache: without torch, which takes longer to load than this."""
    cache = inspection.cache
    if cache is None:
        return
    known = [(number, request) for number, request in enumerate(requests) if cache.knows(request)]
    if not known:
        return
    pool = ThreadPoolExecutor(inspection.settings.jobs or default_jobs(), "specinspect-cache")
    try:
        recalled = pool.map(cache.recall, (request for _, request in known))
        for (number, _), result in zip(known, recalled, strict=True):
            if result is not None:
                yield number, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt waits for nobody


def recalled_layers(inspection: Inspection, plan: Plan) -> Iterator[tuple[int, LayerResult]]:
    """Yield (index in checkpoint order, result) of the layers that are in the cache."""
    everything = layers_job(inspection, inspection.discovery.layers, plan)
    yield from _recalled(inspection, (request_of_layer(everything, layer) for layer in everything.layers))


def recalled_blocks(inspection: Inspection, plan: Plan) -> Iterator[tuple[int, BlockResult]]:
    """Yield (number, result) of the blocks that are in the cache."""
    jobs = jobs_of_blocks(inspection, inspection.blocks, plan)
    yield from _recalled(inspection, (request_of_block(job) for job in jobs))


def request_of_layer(job: Job, layer: Layer) -> Request[LayerResult]:
    """Return what the cache is asked for a layer."""
    names = (*layer.parameters, *side_tensors(layer, job.tensors))
    others = _further(job, {"layers", "tensors", "settings", "plan", "inputs", "cache"})
    flowing = job.inputs.flowing
    return layer_request(
        layer,
        {name: job.tensors[name] for name in names},
        job.settings,
        job.plan,
        inputs=job.inputs.per_layer.get(layer.name),
        observed=job.inputs.outputs.get(layer.name),
        flowing=None if flowing is None else (flowing.get(layer.name),),
        others=others,
    )
