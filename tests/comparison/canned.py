"""A comparison with one layer of every kind of change; the same numbers on every machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from specinspect.comparison.model import Comparison, LayerComparison
from tests.comparison.truth import compared

HOSTILE = "enc[/]\n\x1b[31m|`<b>&@user"


def comparison() -> Comparison:
    """Return it: matrices with one entry per row, whose decompositions are exact everywhere."""
    a = {f"{name}.weight": _diagonal(8) for name in ("same", "grown", "dead", "shape", "nan", HOSTILE)}
    b = {f"net.{name}": value.clone() for name, value in a.items()}
    b["net.grown.weight"][0, 0] = 16.0
    b["net.dead.weight"][7] = 0
    b["net.shape.weight"] = _diagonal(8, 12)
    b["net.nan.weight"][1, 1] = float("nan")
    b[f"net.{HOSTILE}.weight"] = b[f"net.{HOSTILE}.weight"].roll(1, 1)
    a["cast.weight"] = _diagonal(8)
    b["net.cast.weight"] = _diagonal(8).to(torch.bfloat16)
    a["conv.weight"] = torch.eye(4)[:, :, None, None].repeat(1, 1, 1, 1)
    b["net.conv.weight"] = 1.5 * a["conv.weight"]
    a["conv.bias"], b["net.conv.bias"] = torch.zeros(4), torch.ones(4)
    a["old.weight"] = torch.ones(2, 3)
    b["net.head.weight"] = torch.ones(3, 2)
    found: Comparison = compared(a, b, grid=4)
    return replace(
        found,
        layers=tuple(_timeless(layer) for layer in found.layers),
        summary=replace(found.summary, seconds=0.25),
        version="0.0",
    )


def _diagonal(m: int, n: int | None = None) -> torch.Tensor:
    values = torch.zeros(m, n or m, dtype=torch.float32)
    values[range(m), range(m)] = torch.from_numpy(2.0 ** -np.arange(m)).float() * 8
    return values


def _timeless(layer: LayerComparison) -> LayerComparison:
    return replace(layer, seconds=0.0, a=replace(layer.a, seconds=0.0), b=replace(layer.b, seconds=0.0))
