"""A comparison as JSON: one object in ASCII (`schema.json` describes it).

    schema_version, specinspect_version
    a, b           the two checkpoints, as in a report
    settings       all that decides a number
    prefixes       {a, b}: what was taken off the names so that they match; null where nothing was
    notices[]      sentences: what was not used, or could not be followed
    layers[]       in both, those that moved most first (`order.movement`)
      name, name_b, kind, identical, shape_changed, dtype_changed
      movement     {level, value}: what they are sorted by
      a, b         {name, kind, shape, matrix_shape, dtype, assumptions, notes, maps} as in a report
      changes      map → {condition_number: {status, delta, ratio}, spectral_distance,
                   and the change B - A of sigma_max, sigma_min, numerical_rank, stable_rank, effective_rank}
      difference   {status, spectral_norm, relative_spectral_norm, frobenius_norm, relative_frobenius_norm,
                   stable_rank} of W_A - W_B
      overlap      {status, k, left, right, gap_a, gap_b} of the leading singular subspaces
    only_in_a[], only_in_b[]            {name, kind, shape, dtype}
    changed_shape[], changed_dtype[]    {name, a, b}
    other_tensors  {identical, changed[], only_in_a[], only_in_b[]}: those in no layer; null where only some
                   layers were asked for
    summary        {verdict, matched, identical, changed, only_in_a, only_in_b, most_moved, seconds}

What is not a finite number is null, and a status beside it says why. Changes are B minus A.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from specinspect.comparison.order import kappa_change, movement
from specinspect.report.json import assumptions
from specinspect.report.plain import plain, spectrum_to_dict

if TYPE_CHECKING:
    from specinspect.comparison.model import Comparison, LayerComparison
    from specinspect.layers.model import Layer
    from specinspect.report.model import LayerResult
    from specinspect.spectra.model import Spectrum

SCHEMA_VERSION = "1"
SUBTRACTED = ("sigma_max", "sigma_min", "numerical_rank", "stable_rank", "effective_rank")
"""Fields of a Spectrum whose change is given."""


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Return the JSON object as plain Python data: no NaN, no infinity, only types that JSON has."""
    summary, layers = comparison.summary, comparison.layers
    moved = next((layer.name for layer in layers if not layer.identical), None)
    return {
        "schema_version": SCHEMA_VERSION,
        "specinspect_version": comparison.version,
        "a": plain(asdict(comparison.a)),
        "b": plain(asdict(comparison.b)),
        "settings": plain(comparison.settings),
        "prefixes": None if comparison.prefixes is None else asdict(comparison.prefixes),
        "notices": list(comparison.notices),
        "layers": [_layer(layer) for layer in layers],
        "only_in_a": [_unmatched(layer) for layer in comparison.only_in_a],
        "only_in_b": [_unmatched(layer) for layer in comparison.only_in_b],
        "changed_shape": [
            {"name": layer.name, "a": list(layer.a.layer.shape), "b": list(layer.b.layer.shape)}
            for layer in layers
            if layer.a.layer.shape != layer.b.layer.shape
        ],
        "changed_dtype": [
            {"name": layer.name, "a": layer.a.layer.dtype, "b": layer.b.layer.dtype}
            for layer in layers
            if layer.dtype_changed
        ],
        "other_tensors": None if comparison.others is None else plain(asdict(comparison.others)),
        "summary": {
            "verdict": summary.verdict,
            "matched": summary.matched,
            "identical": summary.identical,
            "changed": summary.changed,
            "only_in_a": summary.only_in_a,
            "only_in_b": summary.only_in_b,
            "most_moved": moved,
            "seconds": plain(summary.seconds),
        },
    }


def to_json(comparison: Comparison) -> str:
    """Return the comparison as one JSON object in ASCII, each layer on a line of its own."""
    lines = []
    for key, value in to_dict(comparison).items():
        body = _dumps(value)
        if isinstance(value, list) and value:
            body = "[\n" + ",\n".join(f"    {_dumps(item)}" for item in value) + "\n  ]"
        lines.append(f"  {_dumps(key)}: {body}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _layer(layer: LayerComparison) -> dict[str, Any]:
    moved = movement(layer)
    return {
        "name": layer.name,
        "name_b": layer.b.layer.name,
        "kind": layer.a.layer.kind,
        "identical": layer.identical,
        "shape_changed": layer.shape_changed,
        "dtype_changed": layer.dtype_changed,
        "movement": {"level": moved.level, "value": plain(moved.value)},
        "a": _side(layer.a),
        "b": _side(layer.b),
        "changes": {
            name: _change(layer.a.maps[name], layer.b.maps[name])
            | {"spectral_distance": plain(layer.spectral_distance.get(name))}
            for name in layer.a.maps
            if name in layer.b.maps
        },
        "difference": plain(asdict(layer.difference)),
        "overlap": plain(asdict(layer.overlap)),
        "seconds": plain(layer.seconds),
    }


def _side(result: LayerResult) -> dict[str, Any]:
    layer = result.layer
    return {
        **_unmatched(layer),
        "matrix_shape": list(layer.matrix_shape),
        "assumptions": list(assumptions(result)),
        "notes": list(result.notes),
        "maps": {name: spectrum_to_dict(spectrum) for name, spectrum in result.maps.items()},
    }


def _unmatched(layer: Layer) -> dict[str, Any]:
    return {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape), "dtype": layer.dtype}


def _change(a: Spectrum, b: Spectrum) -> dict[str, Any]:
    data: dict[str, Any] = {"condition_number": plain(kappa_change(a, b)._asdict())}
    for name in SUBTRACTED:
        before, after = getattr(a, name), getattr(b, name)
        data[name] = None if before is None or after is None else plain(after - before)
    return data
