"""The report as JSON, schema_version "1" (`schema.json` describes it)."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from specinspect.report.blocks import block_to_dict
from specinspect.report.model import SCHEMA_VERSION
from specinspect.report.plain import bound_to_dict, plain, spectrum_to_dict

if TYPE_CHECKING:
    from specinspect.layers.model import ConvGeometry, Layer
    from specinspect.report.model import LayerResult, Report


def to_dict(report: Report) -> dict[str, Any]:
    """Return the JSON object as plain Python data: no NaN, no infinity, only types that JSON has.

    Args:
        report: what to render.

    Returns:
        A new dict that shares nothing mutable with the report; layers in checkpoint order.
    """
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
            "metadata": plain(checkpoint.metadata),
            "key": checkpoint.key,
            "assumptions": list(checkpoint.assumptions),
            "placeholders": list(checkpoint.placeholders),
        },
        "settings": plain(report.settings),
        "layers": [_layer(result) for result in report.layers],
        "blocks": [block_to_dict(result) for result in report.blocks],
        "network": {"bounds": [bound_to_dict(check) for check in report.network]},
        "skipped": [{"name": item.name, "reason": item.reason} for item in report.skipped],
        "findings": [
            {
                "rule": finding.rule,
                "severity": finding.severity,
                "layer": finding.layer,
                "message": finding.message,
                "value": plain(finding.value),
                "limit": plain(finding.limit),
            }
            for finding in report.findings
        ],
        "summary": {
            "layers": summary.layers,
            "worst_condition_number": None
            if worst is None
            else {"layer": worst.layer, "map": worst.map, "value": plain(worst.value)},
            "nonfinite": summary.nonfinite,
            "unresolved": summary.unresolved,
            "analysed_tensors": summary.analysed_tensors,
            "tensors": summary.tensors,
            "seconds": plain(summary.seconds),
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
        "skip": {"kind": layer.skip.kind, "source": layer.skip.source}
        | ({"shortcut": layer.skip.shortcut.name} if layer.skip.shortcut else {}),
    }
    if layer.conv is not None:
        data["convolution"] = _convolution(layer.conv, result.grid, result.boundary)
    if result.tau is not None:
        data["tau"] = {"min": plain(result.tau.min), "max": plain(result.tau.max)}
    data["maps"] = {name: spectrum_to_dict(spectrum) for name, spectrum in result.maps.items()}
    if result.padding_bounds is not None:
        data["padding_bounds"] = plain(asdict(result.padding_bounds))
    if result.skip_curve is not None:
        data["skip_curve"] = plain(asdict(result.skip_curve))
    data["bounds"] = [bound_to_dict(check) for check in result.bounds]
    data["advice"] = [plain(asdict(item)) for item in result.advice]
    data["seconds"] = plain(result.seconds)
    return data


def assumptions(result: LayerResult) -> tuple[str, ...]:
    """Return everything guessed about a layer, each sentence once, in order."""
    return tuple(dict.fromkeys((*result.layer.assumptions, *result.assumptions)))


def _normalization(layer: Layer) -> dict[str, Any] | None:
    norm = layer.normalization
    return None if norm is None else {"kind": norm.kind, "name": norm.name, "source": norm.source}


def _activation(layer: Layer) -> dict[str, Any]:
    activation = layer.activation
    data = {"name": activation.name, "slope": plain(activation.slope), "source": activation.source}
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
