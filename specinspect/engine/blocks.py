"""One block, from its tensors to its result."""

from __future__ import annotations

from specinspect.engine.failures import named_memory_errors, solver_errors, why_failed
from specinspect.engine.jobs import BlockJob
from specinspect.engine.requests import request_of_block
from specinspect.report.model import BlockResult


def run_block(job: BlockJob) -> BlockResult:
    """Measure one block, or take it from the cache.

    Raises:
        SpecinspectError: its tensors do not fit together, or there is no memory for it.
    """
    if job.cache is None:
        return _measure_block(job)
    request = request_of_block(job)
    known = job.cache.recall(request)
    if known is not None:
        return known
    name = job.cache.name(request)
    result = _measure_block(job)
    job.cache.keep(request, name, result)
    return result


def _measure_block(job: BlockJob) -> BlockResult:
    import torch

    from specinspect.bounds.blocks import check_block
    from specinspect.checkpoint.read import read_tensor
    from specinspect.spectra.blocks import measure_block

    settings = job.settings
    wanted = settings.wants_bounds
    try:
        with named_memory_errors(job.block.name), torch.inference_mode():
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
            checks = check_block(answer.spectra, answer.quantities) if wanted else ()
    except solver_errors() as error:
        return BlockResult(job.block, None, None, notes=(why_failed(error),))
    return BlockResult.of(answer.spectra, checks)
