"""A baseline: what an earlier report says of each layer. Any `report --json` is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from specinspect.errors import SettingsError
from specinspect.report.model import SCHEMA_VERSION

_HINT = "write one with specinspect report --json -o FILE, or check --write-baseline FILE"

GEOMETRY = ("stride", "dilation", "groups", "grid", "convention")
"""Of a convolution: what decides which operator its kernel makes."""


@dataclass(frozen=True, slots=True)
class BaselineLayer:
    """What the gate compares with."""

    kind: str
    shape: tuple[int, ...]
    condition_number: float | None
    condition_number_status: str
    sigma_max: float | None
    numerical_rank: int | None
    geometry: Mapping[str, Any] | None = None
    """Of a convolution: stride, dilation, groups, grid and convention."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The layers of an earlier report."""

    path: str
    layers: Mapping[str, BaselineLayer]


def read_baseline(path: str) -> Baseline:
    """Read a report.

    Raises:
        SettingsError: no such file, not JSON, not a report, or of another schema_version.
    """
    try:
        # From bytes: a shell's `>` may have made UTF-16 of it, or put a byte order mark in front.
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(f"--baseline: cannot read {path!r}: {error.strerror or error}", _HINT) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"--baseline: {path!r} is no JSON (damaged or cut short)", _HINT) from error
    return parse_baseline(data, path)


def parse_baseline(data: object, path: str = "baseline") -> Baseline:
    """Take a report's JSON object for a baseline.

    Raises:
        SettingsError: not a report, or of another schema_version.
    """
    if not isinstance(data, Mapping) or "schema_version" not in data or "layers" not in data:
        raise SettingsError(f"--baseline: {path!r} is no report of specinspect", _HINT)
    if data["schema_version"] != SCHEMA_VERSION:
        found = repr(data["schema_version"])[:20]
        raise SettingsError(
            f"--baseline: {path!r} has schema_version {found}, expected {SCHEMA_VERSION!r}",
            "write it anew with this version",
        )
    try:
        layers = {layer["name"]: _layer(layer) for layer in data["layers"]}
        if not all(isinstance(name, str) for name in layers):
            raise TypeError("a name that is no text")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise SettingsError(f"--baseline: {path!r} is no whole report of specinspect", _HINT) from error
    return Baseline(path, layers)


def _layer(layer: Mapping[str, Any]) -> BaselineLayer:
    weight = layer["maps"]["weight"]
    rank, geometry = weight["numerical_rank"], layer.get("convolution")
    return BaselineLayer(
        str(layer["kind"]),
        tuple(int(n) for n in layer["shape"]),
        _number(weight["condition_number"], least=1.0),
        str(weight["condition_number_status"]),
        _number(weight["sigma_max"]),
        None if rank is None else int(rank),
        None if geometry is None else {name: geometry[name] for name in GEOMETRY},
    )


def _number(value: object, least: float = 0.0) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < least:
        raise TypeError(f"expected a number of at least {least:g}")
    return float(value)
