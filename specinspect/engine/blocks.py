"""One block, from its tensors to its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specinspect.engine.failures import named_memory_errors, solver_errors, why_failed
from specinspect.engine.jobs import BlockJob, block_cost, jobs_of_blocks
from specinspect.engine.requests import request_of_block
from specinspect.report.model import BlockResult
from specinspect.spectra.plan import choose_plan

if TYPE_CHECKING:
    from specinspect.engine.opening import Inspection
    from specinspect.layers.blocks import Block
    from specinspect.spectra.model import Spectrum

AFFORDABLE = 1e11
"""Operations up to which a block is measured anew for another ρ or β: a few seconds of one core."""


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


@dataclass(frozen=True, slots=True)
class BlockStudy:
    """A block whose ρA + βJ can be had at any ρ and β."""

    job: BlockJob

    def skip(self, rho: float, beta: float) -> Spectrum | None:
        """Return the spectrum of ρA + βJ, all singular values included; None where it cannot be measured.

        Raises:
            SpecinspectError: its tensors do not fit together, or there is no memory for it.
        """
        settings = replace(self.job.settings, rho=rho, beta=beta, spectra=True, bounds=False)
        return _measure_block(replace(self.job, settings=settings)).skip


def study_block(inspection: Inspection, block: Block) -> BlockStudy | None:
    """Return a block that can be measured at other ρ and β than the run's.

    None where there is no shortcut, and where a new ρ or β would take too long: more than AFFORDABLE
    operations, or convolutions that do not fall apart into frequencies.
    """
    if block.shortcut.kind == "none":
        return None
    (job,) = jobs_of_blocks(inspection, [block], choose_plan(inspection.settings.device))
    settings = job.settings
    together = settings.conv_pattern == "pixel" or settings.conv_operator == "padded"
    if together and any(layer.conv is not None for layer in job.layers.values()):
        return None
    return BlockStudy(job) if block_cost(job).operations <= AFFORDABLE else None


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
