"""One job of layers, from its tensors to their results."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from specinspect.engine.failures import named_errors, named_memory_errors, solver_errors, why_failed
from specinspect.engine.images import grid_assumptions, misaligned, no_skip, on_own_sides, out_of_reach
from specinspect.engine.jobs import BOUNDARIES, Job, layers_job
from specinspect.engine.opening import Inspection
from specinspect.engine.requests import request_of_layer
from specinspect.engine.theory import advice_for, bounds_of
from specinspect.layers.model import Layer
from specinspect.maps import ConvolutionMap, LinearMap, LowRankMap, build_weight_map, grid_sides
from specinspect.maps.question import (
    Activated,
    Probes,
    activated,
    projection_map,
)
from specinspect.report.model import LayerResult
from specinspect.settings import MAPS, Settings
from specinspect.spectra.plan import Plan, choose_plan

if TYPE_CHECKING:
    from specinspect.spectra.activated import Answer, Question
    from specinspect.spectra.compute import Measured
    from specinspect.spectra.model import Spectrum, Status
    from specinspect.spectra.study import Study


def run_job(job: Job) -> tuple[LayerResult, ...]:
    """Compute the layers of one job, or take them from the cache.

    On the CPU if the device turns out to be too small; such results are not kept.

    Raises:
        ResourceError: no memory for a layer.
        LayerError: a layer's tensors do not fit together.
    """
    cache = job.cache
    if cache is None:
        return _run_layers(job)[0]
    requests = [request_of_layer(job, layer) for layer in job.layers]
    results = [cache.recall(request) for request in requests]
    missing = [i for i, result in enumerate(results) if result is None]
    if missing:
        names = [cache.name(requests[i]) for i in missing]
        computed, lasting = _run_layers(replace(job, layers=tuple(job.layers[i] for i in missing)))
        for i, result in zip(missing, computed, strict=True):
            results[i] = result
        if lasting:
            cache.keep_all(zip([requests[i] for i in missing], names, computed, strict=True))
    return tuple(result for result in results if result is not None)


def _run_layers(job: Job) -> tuple[tuple[LayerResult, ...], bool]:
    """Compute the layers of one job. Returns the results, and whether they would be the same another time.

    A layer whose linear algebra fails costs no other layer its numbers.
    """
    try:
        return _on_device(job)
    except solver_errors() as error:
        if len(job.layers) == 1:
            return (_without_numbers(job, error),), isinstance(error, OverflowError)
    parts = [_run_layers(replace(job, layers=(layer,))) for layer in job.layers]
    return tuple(result for results, _ in parts for result in results), all(lasting for _, lasting in parts)


def _on_device(job: Job) -> tuple[tuple[LayerResult, ...], bool]:
    """Compute the layers where the plan says, or on the CPU if that is too small; see `_run_layers`."""
    import torch

    with named_memory_errors(", ".join(layer.name for layer in job.layers)):
        try:
            return _compute(job, job.plan), True
        except torch.OutOfMemoryError:
            notice = f"computed on the CPU: {job.plan.device} ran out of memory"
            return _compute(job, Plan("cpu"), notice), False


def _without_numbers(job: Job, error: Exception) -> LayerResult:
    """Return what can be said of a job's only layer: its weight's spectrum, if another map is at fault."""
    from specinspect.spectra.compute import Measured
    from specinspect.spectra.norm import measure_part
    from specinspect.spectra.summary import unusable

    start = time.perf_counter()
    (layer,), settings = job.layers, job.settings
    names = {"weight", *settings.maps} if layer.kind not in {"embedding", "lora"} else {"weight"}
    names -= {"skip", "skip_chain"} if layer.skip.kind == "none" else set()
    alone = None
    if names != {"weight"}:
        with suppress(*solver_errors()):
            (alone,), _ = _on_device(replace(job, settings=replace(settings, maps=("weight",), curve=False)))
    status: Status = "beyond_float64" if isinstance(error, OverflowError) else "not_converged"
    linear = build_weight_map(layer, job.read, settings.grid)
    failed = unusable(linear.count, 0, job.plan.device, status)
    maps = dict.fromkeys((name for name in MAPS if name in names), failed)
    if alone is not None:
        return replace(alone, maps={**maps, **alone.maps}, notes=(*alone.notes, why_failed(error)))
    boundary = None if layer.conv is None else BOUNDARIES[settings.conv_operator]
    entries = (
        Measured(failed) if isinstance(linear, LowRankMap) else measure_part(linear, job.plan, norm=False)
    )
    return LayerResult(
        layer,
        maps,
        time.perf_counter() - start,
        grid=layer.sides or grid_sides(layer, settings.grid),
        boundary=boundary,
        notes=(*entries.notes, why_failed(error)),
        zeros=entries.zeros,
    )


def study_layer(inspection: Inspection, layer: Layer, weight: Spectrum) -> Study | None:
    """Return a layer whose skip maps can be had at any ρ and β; None where a skip makes no sense.

    None too for convolutions with zeros around their grid, which are measured anew for every ρ and β.

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

    if layer.conv is not None and inspection.settings.conv_operator == "padded":
        return None
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
        d = activated(layer, kernel, job.read, available, probes_of(job, layer, linear, plan))
        return Study(linear, layer.skip.kind, weight, d.diagonals, plan, a)


def _compute(job: Job, plan: Plan, notice: str = "") -> tuple[LayerResult, ...]:
    import torch

    from specinspect.spectra.compute import measure
    from specinspect.spectra.norm import measure_part

    start, quantities = time.perf_counter(), job.settings.quantities
    with torch.inference_mode():
        maps = [build_weight_map(layer, job.read, job.settings.grid) for layer in job.layers]
        if quantities == "spectrum" or job.settings.conv_operator == "padded":
            # Bounds rest on all singular values; which go again in _result.
            measured = measure(maps, plan, keep_values=job.settings.spectra or job.settings.wants_bounds)
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
    from specinspect.spectra.padding import padding_bounds

    start = time.perf_counter()
    settings = job.settings
    maps, tau, curve, padding, quantities = {"weight": weight.spectrum}, None, None, None, None
    assumptions = [*layer.assumptions, *grid_assumptions(layer, settings)]
    notes = [*weight.notes, *((notice,) if notice else ())]
    padded = layer.conv is not None and settings.conv_operator == "padded"
    if padded or (set(settings.maps) != {"weight"} and layer.kind not in {"embedding", "lora"}):
        with torch.inference_mode():
            kernel = kernel_matrix(linear)
            d = Activated(None)
            with_d = not {"chain", "skip_chain"}.isdisjoint(settings.maps)
            if with_d and kernel is not None and not weight.spectrum.nonfinite:
                probes = probes_of(job, layer, linear, plan)
                d = activated(layer, kernel, job.read, frozenset(job.tensors), probes)
            a = projection_map(layer, linear, job.read, frozenset(job.tensors))
            unfit = _unfit(a, padded)
            kind = "none" if unfit else layer.skip.kind
            question = Question(settings.rho, settings.beta, kind, d.diagonals, a)
            if isinstance(linear, ConvolutionMap) and settings.conv_operator == "padded":
                answer = _padded(layer, on_own_sides(layer, linear), question, plan, settings)
            else:
                answer = measure_maps(
                    linear,
                    weight.spectrum,
                    question,
                    plan,
                    keep_values=settings.spectra,
                    quantities=settings.wants_bounds,
                )
            if settings.curve:
                curve = skip_curve(linear, kind, settings.rho, BETAS, plan, a)
            zeros_outside = layer.conv is not None and not layer.conv.transposed
            useful = not padded or settings.wants_bounds
            if isinstance(linear, ConvolutionMap):
                useful &= layer.sides in {None, linear.grid}
            if isinstance(linear, ConvolutionMap) and zeros_outside and useful and any(linear.padding):
                periodic, rho, beta = weight.spectrum, settings.rho, settings.beta
                padding = padding_bounds(linear, plan, circular=periodic, rho=rho, beta=beta)
        unknown = {"chain", "skip_chain"} if d.bad else set()
        maps |= {name: found for name, found in answer.maps.items() if name not in unknown}
        tau, quantities = answer.tau, answer.quantities
        assumptions += d.assumptions
        notes += [f"no map with D: {d.bad}"] if d.bad else []
        notes += [f"no skip map: {unfit}"] if unfit else []
        if isinstance(linear, ConvolutionMap) and kind != "none" and "skip" in settings.maps:
            notes += no_skip(layer, on_own_sides(layer, linear)) if padded and "skip" not in maps else ()
            assumptions += () if padded else misaligned(layer, linear)
    if not settings.spectra:
        maps["weight"] = replace(maps["weight"], singular_values=None)
    shown = {name: maps[name] for name in MAPS if name in maps and name in {"weight", *settings.maps}}
    notes += out_of_reach(shown) if padded else ()
    return LayerResult(
        layer,
        shown,
        shared + time.perf_counter() - start,
        grid=layer.sides or grid_sides(layer, settings.grid),
        tau=tau,
        skip_curve=curve,
        boundary=None if layer.conv is None else BOUNDARIES[settings.conv_operator],
        padding_bounds=None if padded else padding,
        assumptions=tuple(dict.fromkeys(assumptions)),
        notes=tuple(notes),
        bounds=bounds_of(layer, quantities, shown, padding, job),
        advice=advice_for(layer, quantities, shown, settings),
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


def probes_of(job: Job, layer: Layer, linear: LinearMap, plan: Plan) -> Probes:
    """Return at which inputs the layer's D is taken: the network's, the user's, or random ones."""
    from specinspect.checkpoint.read import read_tensor
    from specinspect.maps.operator import ConvolutionOperator

    given, observed = job.inputs.per_layer.get(layer.name), job.inputs.outputs.get(layer.name)
    pixels, notice = None, ""
    if isinstance(linear, ConvolutionMap) and job.settings.conv_pattern == "pixel":
        transposed = layer.conv is not None and layer.conv.transposed
        own = on_own_sides(layer, linear)
        pixels = ConvolutionOperator.of(own, transposed=transposed, device=plan.device)
        if observed is not None and tuple(observed.values.shape[1:]) != pixels.outputs:
            seen, computed = (
                "×".join(map(str, shape)) for shape in (observed.values.shape[1:], pixels.outputs)
            )
            notice = f"its outputs in the network are {seen}, not {computed} as with zeros around its inputs"
            observed = None
    return Probes(
        job.settings.patterns,
        job.settings.seed,
        inputs=None if given is None else read_tensor(given),
        observed=observed,
        pixels=pixels,
        notice=notice,
    )
