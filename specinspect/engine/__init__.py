"""The only orchestrator: from a source to one LayerResult at a time, and to a Report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specinspect.engine.blocks import BlockStudy, run_block, study_block
from specinspect.engine.failures import named_memory_errors, solver_errors
from specinspect.engine.jobs import (
    BlockJob,
    Job,
    block_jobs,
    check_memory,
    layer_jobs,
    layers_job,
    room_beside,
)
from specinspect.engine.layers import run_job, study_layer
from specinspect.engine.opening import LOADING, Inspection, _chosen, _worth_keeping, open_source, settings_of
from specinspect.engine.requests import recalled_blocks, recalled_layers
from specinspect.engine.run import Progress, bad_tensors, inspect, iter_layers, iter_results, report
from specinspect.spectra.plan import choose_plan

if TYPE_CHECKING:
    from specinspect.engine.opening import Source

__all__ = [
    "LOADING",
    "BlockJob",
    "BlockStudy",
    "Inspection",
    "Job",
    "Progress",
    "Source",
    "_chosen",
    "_worth_keeping",
    "bad_tensors",
    "block_jobs",
    "check_memory",
    "choose_plan",
    "inspect",
    "iter_layers",
    "iter_results",
    "layer_jobs",
    "layers_job",
    "named_memory_errors",
    "open_source",
    "recalled_blocks",
    "recalled_layers",
    "report",
    "room_beside",
    "run_block",
    "run_job",
    "settings_of",
    "solver_errors",
    "study_block",
    "study_layer",
]
