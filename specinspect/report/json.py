"""The report as JSON, schema_version "1" (`schema.json` describes it)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from specinspect.report.model import SCHEMA_VERSION

if TYPE_CHECKING:
    from specinspect.layers.model import ConvGeometry, Layer
    from specinspect.report.model import LayerResult, Report
    from specinspect.spectra.model import Histogram, PatternStatistics, Spectrum

SCALARS = (
    "sigma_max",
    "sigma_min",
    "condition_number",
    "condition_number_status",
    "pseudo_condition_number",
    "numerical_rank",
    "stable_rank",
    "effective_rank",
    "frobenius_norm",
    "storage_floor",
    "computation_floor",
    "method",
    "device",
    "count",
    "nonfinite",
)
"""Fields of a Spectrum that are one value each, in the order in which every format lists them."""


def to_dict(report: Report) -> dict[str, Any]:
    """Return the JSON object as plain Python data: no NaN, no infinity, only types that JSON has.

    Args:
        report: what to render.

    Returns:
        A new dict that shares nothing mutable with the report; layers in checkpoint order.
    """
    from specinspect.report.blocks import block_to_dict

    checkpoint, summary = report.checkpoint, report.summary
    worst = summary.worst_condition_number
    return {
        "schema_version": SCHEMA_VERSION,
        "specinspect_version": report.version,
        "checkpoint": {
            "path": checkpoint.path,
            "format": checkpoint.format,
            "files": list(checkpoint.files),
            "bytes": checkpoint.bytes,
            "tensors": checkpoint.tensors,
            "parameters": checkpoint.parameters,
            "metadata": _plain(checkpoint.metadata),
            "key": checkpoint.key,
            "assumptions": list(checkpoint.assumptions),
            "placeholders": list(checkpoint.placeholders),
        },
        "settings": _plain(report.settings),
        "layers": [_layer(result) for result in report.layers],
        "blocks": [block_to_dict(result) for result in report.blocks],
        "skipped": [{"name": item.name, "reason": item.reason} for item in report.skipped],
        "findings": [
            {
                "rule": finding.rule,
                "severity": finding.severity,
                "layer": finding.layer,
                "message": finding.message,
                "value": _plain(finding.value),
                "limit": _plain(finding.limit),
            }
            for finding in report.findings
        ],
        "summary": {
            "layers": summary.layers,
            "worst_condition_number": None
            if worst is None
            else {"layer": worst.layer, "map": worst.map, "value": _plain(worst.value)},
            "nonfinite": summary.nonfinite,
            "unresolved": summary.unresolved,
            "analysed_tensors": summary.analysed_tensors,
            "tensors": summary.tensors,
            "seconds": _plain(summary.seconds),
        },
    }


def to_json(report: Report) -> str:
    """Return the report as one JSON object in ASCII.

    Each layer, skipped tensor and finding stands on a line of its own: `grep` and `diff` work, and json's C
    encoder does nearly all of the writing (its indented form is pure Python and many times slower).
    """
    lines = []
    for key, value in to_dict(replace(report, layers=())).items():
        # One layer at a time: all singular values of a large model as Python floats would fill the memory.
        items = map(_layer, report.layers) if key == "layers" else value
        if key == "layers" or isinstance(value, list):
            rows = ",\n".join(f"    {_dumps(item)}" for item in items)
            body = f"[\n{rows}\n  ]" if rows else "[]"
        else:
            body = _dumps(value)
        lines.append(f"  {_dumps(key)}: {body}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return plain data: non-finite floats as None, numpy scalars as Python's, what JSON lacks as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _plain(value.item())
    return str(value)


def _layer(result: LayerResult) -> dict[str, Any]:
    layer = result.layer
    data: dict[str, Any] = {
        "name": layer.name,
        "kind": layer.kind,
        "parameters": list(layer.parameters),
        "shape": list(layer.shape),
        "matrix_shape": list(layer.matrix_shape),
        "dtype": layer.dtype,
        "assumptions": list(assumptions(result)),
        "notes": list(result.notes),
        "bias": layer.bias,
        "normalization": _normalization(layer),
        "activation": _activation(layer),
        "skip": {"kind": layer.skip.kind, "source": layer.skip.source},
    }
    if layer.conv is not None:
        data["convolution"] = _convolution(layer.conv, result.grid, result.boundary)
    if result.tau is not None:
        data["tau"] = {"min": _plain(result.tau.min), "max": _plain(result.tau.max)}
    data["maps"] = {name: _spectrum(spectrum) for name, spectrum in result.maps.items()}
    if result.padding_bounds is not None:
        data["padding_bounds"] = _plain(asdict(result.padding_bounds))
    if result.skip_curve is not None:
        data["skip_curve"] = _plain(asdict(result.skip_curve))
    data["seconds"] = _plain(result.seconds)
    return data


def assumptions(result: LayerResult) -> tuple[str, ...]:
    """Return everything guessed about a layer, each sentence once, in order."""
    return tuple(dict.fromkeys((*result.layer.assumptions, *result.assumptions)))


def _normalization(layer: Layer) -> dict[str, Any] | None:
    norm = layer.normalization
    return None if norm is None else {"kind": norm.kind, "name": norm.name, "source": norm.source}


def _activation(layer: Layer) -> dict[str, Any]:
    activation = layer.activation
    data = {"name": activation.name, "slope": _plain(activation.slope), "source": activation.source}
    return data if activation.parameter is None else {**data, "parameter": activation.parameter}


def _convolution(conv: ConvGeometry, grid: tuple[int, ...] | None, boundary: str | None) -> dict[str, Any]:
    return {
        "kernel": list(conv.kernel),
        "stride": list(conv.stride.value),
        "dilation": list(conv.dilation.value),
        "padding": None if conv.padding is None else list(conv.padding.value),
        "groups": conv.groups.value,
        "transposed": conv.transposed,
        "grid": None if grid is None else list(grid),
        "convention": "zero-padded" if boundary == "zeros" else "circular",
        "sources": {
            "stride": conv.stride.source,
            "dilation": conv.dilation.source,
            "groups": conv.groups.source,
            "padding": None if conv.padding is None else conv.padding.source,
        },
    }


def _spectrum(spectrum: Spectrum) -> dict[str, Any]:
    data = {name: _plain(getattr(spectrum, name)) for name in SCALARS}
    data["histogram"] = None if spectrum.histogram is None else _histogram(spectrum.histogram)
    if spectrum.patterns is not None:
        data["patterns"] = _patterns(spectrum.patterns)
    if spectrum.singular_values is not None:
        import numpy as np

        values = spectrum.singular_values.tolist()
        data["singular_values"] = values if np.isfinite(spectrum.singular_values).all() else _plain(values)
    return data


def _patterns(patterns: PatternStatistics) -> dict[str, Any]:
    data: dict[str, Any] = {
        "n": patterns.n,
        "active_fraction": _plain(patterns.active_fraction.median),
        "active_fraction_min": _plain(patterns.active_fraction.min),
        "active_fraction_max": _plain(patterns.active_fraction.max),
    }
    for end in ("min", "median", "max"):
        data[end] = {name: _plain(getattr(found, end)) for name, found in patterns.scalars.items()}
    return data


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {
        "edges": _plain(histogram.edges),
        "counts": _plain(histogram.counts),
        "zeros": _plain(histogram.zeros),
    }
