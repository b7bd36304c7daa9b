"""From layer results to a Report: findings and summary. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specinspect._version import __version__
from specinspect.bounds.catalogue import CATALOGUE
from specinspect.checkpoint.model import Checkpoint, Skipped
from specinspect.report.branch import with_branches
from specinspect.report.model import (
    BadTensor,
    BlockResult,
    CheckpointSummary,
    Finding,
    LayerResult,
    Report,
    Summary,
    WorstConditionNumber,
)
from specinspect.report.network import network_bounds
from specinspect.report.structure import full_rank, lost
from specinspect.spectra.model import FAILED

if TYPE_CHECKING:
    from specinspect.bounds.model import BoundCheck
    from specinspect.bounds.network import Products


def assemble(
    checkpoint: Checkpoint,
    settings: Mapping[str, Any],
    results: Sequence[LayerResult],
    skipped: Sequence[Skipped],
    *,
    blocks: Sequence[BlockResult] = (),
    notices: Sequence[str] = (),
    bad_tensors: Sequence[BadTensor] = (),
    products: Products | None = None,
    seconds: float,
) -> Report:
    """Build the report of one checkpoint.

    Args:
        checkpoint: what was opened.
        settings: all that decides a number.
        results: in checkpoint order.
        skipped: tensors that are in no layer.
        blocks: what was measured of blocks.
        notices: what was asked for and could not be had (a device).
        bad_tensors: tensors in no layer whose entries are wrong.
        products: of layers and of blocks that follow each other; None where none was formed.
        seconds: wall-clock time of the computation.
    """
    used = {name for result in results for name in result.layer.parameters}
    weights = [(result, result.maps["weight"]) for result in results]
    resolved = [(result, s.condition_number) for result, s in weights if s.condition_number is not None]
    bounds = network_bounds(results, blocks, products)
    blocks = with_branches(blocks, results)
    worst = max(resolved, key=lambda pair: pair[1], default=None)
    return Report(
        checkpoint=checkpoint_summary(checkpoint, notices),
        settings=settings,
        layers=tuple(results),
        skipped=(*skipped, *checkpoint.skipped),
        findings=(
            *(finding for result in results for finding in layer_findings(result)),
            *(finding for tensor in bad_tensors for finding in tensor_findings(tensor)),
            *(finding for result in blocks for finding in _violated(result.block.name, result.bounds)),
            *_violated("network", bounds),
        ),
        summary=Summary(
            layers=len(results),
            analysed_tensors=len(used),
            tensors=checkpoint.count,
            worst_condition_number=worst and WorstConditionNumber(worst[0].layer.name, "weight", worst[1]),
            nonfinite=sum(bool(s.nonfinite) for _, s in weights),
            unresolved=sum(s.condition_number is None for _, s in weights),
            seconds=seconds,
        ),
        version=__version__,
        blocks=tuple(blocks),
        network=bounds,
        bad_tensors=tuple(bad_tensors),
    )


def checkpoint_summary(checkpoint: Checkpoint, notices: Sequence[str] = ()) -> CheckpointSummary:
    """Return what a report says of the file; notices join its assumptions."""
    return CheckpointSummary(
        path=checkpoint.path,
        format=checkpoint.format,
        files=checkpoint.files,
        bytes=checkpoint.bytes,
        tensors=checkpoint.count,
        parameters=checkpoint.parameters,
        metadata=checkpoint.metadata,
        key=checkpoint.key,
        assumptions=(*checkpoint.assumptions, *notices),
        placeholders=checkpoint.placeholders,
    )


def layer_findings(result: LayerResult) -> Iterator[Finding]:
    """Yield what is wrong with a layer whatever its use: no thresholds, those are the gate's."""
    yield from _violated(result.layer.name, result.bounds)
    spectrum, name = result.maps["weight"], result.layer.name
    notes = "; ".join(result.notes)
    if spectrum.condition_number_status == "nonfinite_weights":
        yield Finding("nonfinite_weights", "error", name, notes, float(spectrum.nonfinite), 0.0)
        return
    failed = [key for key, found in result.maps.items() if found.condition_number_status in FAILED]
    if failed:
        rule = result.maps[failed[0]].condition_number_status
        yield Finding(rule, "error", name, f"no numbers for {', '.join(failed)}: {notes}")
    if spectrum.sigma_max == 0:
        yield Finding("zero_matrix", "error", name, "every entry is zero", 0.0)
        return
    rank = spectrum.numerical_rank
    if rank is None or result.layer.kind == "lora":  # low rank is what an adapter is for
        return
    full = full_rank(result.layer, spectrum.count)
    dead = any(result.zeros or ())
    structural = spectrum.condition_number_status == "infinite" and (full == spectrum.count or dead)
    if (structural and rank < full) or lost(full, rank):
        why = f": {notes}" if structural and notes else ""
        if not structural:
            why = f": the rest is within the rounding error of {result.layer.dtype}"
        yield Finding(
            "rank_deficient",
            "warning",
            name,
            f"numerical rank {rank:,} of {full:,}{why}",
            float(rank),
            float(full),
        )


def tensor_findings(tensor: BadTensor) -> Iterator[Finding]:
    """Yield what is wrong with a tensor in no layer, under the tensor's own name."""
    if tensor.nan or tensor.infinite:
        count = float(tensor.nan + tensor.infinite)
        yield Finding("nonfinite_weights", "error", tensor.name, nonfinite_text(tensor), count, 0.0)
    if tensor.negative:
        count = float(tensor.negative)
        yield Finding("negative_variance", "warning", tensor.name, negative_text(tensor), count, 0.0)


def nonfinite_text(tensor: BadTensor) -> str:
    """Say how many entries are NaN and infinite, and what the tensor is."""
    text = f"{tensor.nan:,} NaN and {tensor.infinite:,} infinite of {tensor.entries:,} entries"
    return f"{text} ({tensor.what})" if tensor.what else text


def negative_text(tensor: BadTensor) -> str:
    """Say how many variances are negative, and whose they are."""
    verb = "is" if tensor.negative == 1 else "are"
    text = f"{tensor.negative:,} of {tensor.entries:,} variances {verb} negative"
    return f"{text} ({tensor.what})" if tensor.what else text


def _violated(name: str, bounds: Sequence[BoundCheck]) -> Iterator[Finding]:
    """Yield the theorems that a layer or block seems to break: digits were lost, or this program errs."""
    for check in bounds:
        if check.verdict == "violated" and CATALOGUE[check.id].strength in {"deterministic", "exact"}:
            yield Finding(
                "bound_violated",
                "error",
                name,
                f"{check.id} of {check.of}: {check.why}",
                check.value,
                check.bound,
            )
