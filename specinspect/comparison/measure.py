"""One layer in two checkpoints: both spectra, the difference, the overlap. Plain data in, plain data out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specinspect.comparison.model import Difference, LayerComparison, Overlap
from specinspect.comparison.same import same_bytes, same_maps, same_weight
from specinspect.engine import Job, named_memory_errors, run_job, solver_errors
from specinspect.maps import build_weight_map
from specinspect.maps.question import side_tensors
from specinspect.report.model import LayerResult
from specinspect.spectra.plan import Plan

if TYPE_CHECKING:
    from specinspect.spectra.model import Spectrum


@dataclass(frozen=True, slots=True)
class PairJob:
    """One matched layer to be compared: can be sent to any worker."""

    a: Job
    b: Job


def run_pair(pair: PairJob) -> LayerComparison:
    """Compare the layers of one pair (see `compare_layers`)."""
    return compare_layers(pair.a, pair.b)


def compare_layers(a: Job, b: Job) -> LayerComparison:
    """Compare one layer of two checkpoints.

    Args:
        a: the layer in A, alone in its job; `engine.layers_job` makes such a job.
        b: the layer in B. Its settings and plan are those of A.

    Weights whose bytes are the same are found while reading, and measured once.

    Raises:
        ResourceError: no memory for the layer.
        LayerError: its tensors do not fit together.
    """
    start = time.perf_counter()
    (layer_a,), (layer_b,) = a.layers, b.layers
    # Random inputs are drawn by name: under one name both sides see the same.
    twin = replace(b, layers=(replace(layer_b, name=layer_a.name),), settings=a.settings, plan=a.plan)
    identical = same_weight(layer_a, layer_b, a.read, b.read)
    first = _measure(a)
    reusable = identical and (set(a.settings.maps) == {"weight"} or _same_side(a, b))
    second = replace(first, layer=layer_b) if reusable else replace(_measure(twin), layer=layer_b)
    weights = first.maps["weight"], second.maps["weight"]
    if identical:
        moved, shared = _nothing(*weights)
    else:
        moved, shared = _moved(a, twin, *weights)
    return LayerComparison(
        _trimmed(first, keep=a.settings.spectra),
        _trimmed(second, keep=a.settings.spectra),
        identical,
        moved,
        shared,
        _distances(first.maps, second.maps),
        time.perf_counter() - start,
    )


def _measure(job: Job) -> LayerResult:
    (result,) = run_job(replace(job, settings=replace(job.settings, spectra=True)))
    return result


def _same_side(a: Job, b: Job) -> bool:
    """Say whether D is made of the same bytes on both sides."""
    (layer_a,), (layer_b,) = a.layers, b.layers
    side_a, side_b = side_tensors(layer_a, a.tensors), side_tensors(layer_b, b.tensors)
    return same_maps(layer_a, layer_b, side_a, side_b) and all(
        same_bytes(a.read(one), b.read(other)) for one, other in zip(side_a, side_b, strict=True)
    )


def _nothing(a: Spectrum, b: Spectrum) -> tuple[Difference, Overlap]:
    """Return the comparison of a weight with itself; NaN minus NaN is not zero."""
    if a.nonfinite or b.nonfinite:
        return Difference("nonfinite_weights"), Overlap("nonfinite_weights")
    return Difference("identical", 0.0, 0.0, 0.0, 0.0), Overlap("identical", left=1.0, right=1.0)


def _moved(a: Job, b: Job, of_a: Spectrum, of_b: Spectrum) -> tuple[Difference, Overlap]:
    import torch

    try:
        with named_memory_errors(a.layers[0].name), torch.inference_mode():
            try:
                return _subtract(a, b, of_a, of_b, a.plan)
            except torch.OutOfMemoryError:
                return _subtract(a, b, of_a, of_b, Plan("cpu"))
    except solver_errors():
        return Difference("not_computed"), Overlap("not_computed")


def _subtract(a: Job, b: Job, of_a: Spectrum, of_b: Spectrum, plan: Plan) -> tuple[Difference, Overlap]:
    from specinspect.comparison.difference import difference, overlap

    (layer_a,), (layer_b,) = a.layers, b.layers
    if layer_a.kind != layer_b.kind:
        return Difference("kind_changed"), Overlap("kind_changed")
    one = build_weight_map(layer_a, a.read, a.settings.grid)
    other = build_weight_map(layer_b, b.read, b.settings.grid)
    found = difference(one, other, of_a, of_b, plan)
    if found.status == "computed" and found.spectral_norm == 0 and layer_a.conv is None:
        return found, Overlap("identical", left=1.0, right=1.0)  # equal values in another dtype
    return found, overlap(one, other, of_a, of_b, plan)


def _distances(a: Mapping[str, Spectrum], b: Mapping[str, Spectrum]) -> dict[str, float | None]:
    """Return ‖σ_A - σ_B‖₂/‖σ_A‖₂ of every map that both have and that is no median over patterns."""
    return {
        name: _distance(a[name], b[name])
        for name in a
        if name in b and a[name].patterns is None and b[name].patterns is None
    }


def _distance(a: Spectrum, b: Spectrum) -> float | None:
    import numpy as np

    one, other = a.singular_values, b.singular_values
    if one is None or other is None or len(one) != len(other):
        return None
    top = max(float(one[0]), float(other[0])) or 1.0
    apart = float(np.linalg.norm((one - other) / top))
    of = float(np.linalg.norm(one / top))
    if apart == 0:
        return 0.0
    return apart / of if of > 0 else None


def _trimmed(result: LayerResult, *, keep: bool) -> LayerResult:
    """Leave out the singular values unless they were asked for."""
    if keep:
        return result
    maps = {name: replace(spectrum, singular_values=None) for name, spectrum in result.maps.items()}
    return replace(result, maps=maps)
