"""The work as plain data: layers to be computed together, one block, and what each will take."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING

from specinspect.cache.results import ResultCache
from specinspect.checkpoint import TensorInfo
from specinspect.engine.opening import Inspection
from specinspect.errors import ResourceError
from specinspect.inputs import NO_INPUTS, Inputs
from specinspect.layers.blocks import Block, block_tensors
from specinspect.layers.model import Layer, Stored
from specinspect.maps.question import side_tensors
from specinspect.schedule import FREE_BYTES, Cost, cost
from specinspect.settings import Settings
from specinspect.spectra.plan import Plan, available_memory

if TYPE_CHECKING:
    import torch


MAX_BATCH = 64
"""Layers of equal shape in one job."""


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
    jobs = list(jobs_of_blocks(inspection, blocks, plan))
    return jobs, [block_cost(job) for job in jobs]


def jobs_of_blocks(inspection: Inspection, blocks: Sequence[Block], plan: Plan) -> Iterator[BlockJob]:
    """Yield the job of each block."""
    everything = {layer.name: layer for layer in inspection.layers}
    stored = inspection.checkpoint.tensors
    for block in blocks:
        layers = {name: everything[name] for name in (*block.layers, *block.shortcut_layers)}
        tensors = {name: stored[name] for name in block_tensors(block, layers, stored)}
        entering = inspection.inputs.entering.get(block.layers[0])
        yield BlockJob(block, layers, tensors, inspection.settings, plan, inspection.cache, entering)


def block_cost(job: BlockJob) -> Cost:
    """Return what a block will take."""
    from specinspect.spectra.blocks import (
        affordable_grid,
        affordable_patterns,
        block_operations,
        exact_cost,
        own_sides,
    )

    settings, patterns = job.settings, job.settings.patterns
    per_pixel = settings.conv_pattern == "pixel"
    exact = settings.conv_operator == "padded" or per_pixel
    given = None if job.entering is None else job.entering.shape
    grid = own_sides(job.block, job.layers, given, patterns, zeros=exact, per_pixel=per_pixel)
    affordable = grid or affordable_grid(job.block, job.layers, settings.grid, patterns)
    size = sum(prod(layer.shape) for layer in job.layers.values())
    if exact and any(layer.conv is not None for layer in job.layers.values()):
        return Cost(*exact_cost(job.block, job.layers, affordable, patterns))
    patterns = affordable_patterns(job.block, job.layers, affordable, patterns)
    return Cost(8 * 4 * size, block_operations(job.block, job.layers, affordable, patterns))


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


def room_beside(settings: Settings) -> int:
    """Return the bytes that jobs may hold together.

    Where convolutions are written out their size is that of the grid and not of the checkpoint, and many have
    the same: a quarter of the free memory is worth more than all threads on one of them at a time.
    """
    if settings.conv_operator != "padded":
        return FREE_BYTES
    return max(FREE_BYTES, (available_memory() or 0) // 4)


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


BOUNDARIES = {"circular": "circular", "padded": "zeros"}
