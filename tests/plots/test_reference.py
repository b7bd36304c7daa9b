"""The bulk of a random layer: compared with dense random matrices and with torch's convolutions' blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from specinspect.layers.model import ConvGeometry, Fact
from specinspect.plots.reference import bulk, bulk_edges, floors
from tests.report.canned import layer, spectrum


@pytest.mark.parametrize("shape", [(200, 200), (400, 100), (100, 400)])
def test_a_random_matrix_fills_its_bulk(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(0).uniform(-0.3, 0.3, shape)
    values = np.linalg.svd(weight, compute_uv=False)
    found = replace(spectrum(), frobenius_norm=float(np.linalg.norm(weight)), count=len(values))
    edges = bulk_edges(layer("x", shape), found)
    assert edges is not None
    assert values[0] == pytest.approx(edges[1], rel=0.03)
    assert values[-1] == pytest.approx(edges[0], abs=0.03 * values[0])


def test_a_random_convolution_fills_its_bulk() -> None:
    side, out, inn = 8, 48, 12
    kernel = np.random.default_rng(1).normal(size=(out, inn, 3, 3))
    blocks = np.fft.fft2(kernel, (side, side)).transpose(2, 3, 0, 1)
    values = np.linalg.svd(blocks, compute_uv=False).ravel()
    ones = Fact((1, 1), "assumed")
    geometry = ConvGeometry((3, 3), ones, ones, Fact(1, "shape"))  # type: ignore[arg-type]
    made = layer("x", (out, inn, 3, 3), "conv2d", conv=geometry)
    found = replace(spectrum(), frobenius_norm=float(np.linalg.norm(values)), count=len(values))
    edges = bulk_edges(made, found)
    assert edges is not None
    assert np.quantile(values, 0.99) == pytest.approx(edges[1], rel=0.1)
    assert np.quantile(values, 0.01) == pytest.approx(edges[0], rel=0.1)
    strided = replace(geometry, stride=Fact((2, 2), "config"))
    assert bulk_edges(replace(made, conv=strided), found) is None


def test_what_is_not_known_is_not_drawn() -> None:
    assert bulk(layer("x"), replace(spectrum(), frobenius_norm=None)) == ()
    assert bulk(layer("x"), replace(spectrum(), frobenius_norm=0.0)) == ()
    assert floors(replace(spectrum(), storage_floor=None, computation_floor=0.0)) == ()
    square = bulk(layer("x", (64, 64)), spectrum())
    assert [line.label for line in square] == ["random bulk to"]
