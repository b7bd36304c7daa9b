"""The rank that a stride beyond the kernel leaves, against the dense operator."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import specinspect
from specinspect.layers.model import ConvGeometry, Fact, Layer, Stored
from specinspect.layers.rules import Rule
from specinspect.report.structure import full_rank
from specinspect.report.table import render


def conv(out: int, inn: int, kernel: int, stride: int, dilation: int, groups: int) -> Layer:
    geometry = ConvGeometry(
        (kernel,), Fact((stride,), "model"), Fact((dilation,), "model"), Fact(groups, "model")
    )
    shape = (out, inn // groups, kernel)
    return Layer("c", "conv1d", ("c.weight",), shape, (out, inn), "f64", Stored("c.weight"), conv=geometry)


def circular(weight: np.ndarray, n: int, stride: int, dilation: int, groups: int) -> np.ndarray:
    """Return the operator on a periodic grid of n places, written out."""
    out, inn, taps = weight.shape
    matrix = np.zeros((out * n // stride, inn * groups * n))
    for o in range(out):
        group = o // (out // groups)
        for place in range(n // stride):
            for i in range(inn):
                for tap in range(taps):
                    column = (group * inn + i) * n + (place * stride + tap * dilation) % n
                    matrix[o * (n // stride) + place, column] += weight[o, i, tap]
    return matrix


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
@pytest.mark.parametrize(("out", "inn", "groups"), [(3, 2, 1), (2, 3, 1), (4, 4, 2), (6, 2, 2)])
def test_generic_weights_have_it(
    out: int, inn: int, groups: int, kernel: int, stride: int, dilation: int
) -> None:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((out, inn // groups, kernel))
    matrix = circular(weight, 12, stride, dilation, groups)
    layer = conv(out, inn, kernel, stride, dilation, groups)
    assert full_rank(layer, min(matrix.shape)) == np.linalg.matrix_rank(matrix)


def report(weight: torch.Tensor, **settings: Any) -> specinspect.Report:
    rules = (Rule("*", stride=2, padding=0),)
    return specinspect.inspect(
        {"layer2.0.downsample.0.weight": weight}, rules=rules, device="cpu", **settings
    )


def test_a_healthy_strided_shortcut_is_no_finding_and_passes_the_gate() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.linalg.qr(torch.randn(24, 16, generator=generator))[0][..., None, None]
    healthy = report(weight)
    assert healthy.findings == ()
    assert specinspect.check(healthy, max_kappa=2.0, select=("SI101", "SI203")) == ()


def test_what_it_loses_beyond_that_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 8, generator=generator) @ torch.randn(8, 16, generator=generator)
    sick = report(weight[..., None, None].contiguous())
    assert [finding.rule for finding in sick.findings] == ["rank_deficient"]
    assert [f.rule for f in specinspect.check(sick, select=("SI203",))] == ["SI203"]


def test_a_dead_channel_beside_a_stride_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 16, generator=generator)
    weight[:, 3] = 0
    dead = report(weight[..., None, None])
    assert [finding.rule for finding in dead.findings] == ["rank_deficient"]


def test_a_matrix_has_all() -> None:
    layer = replace(conv(3, 2, 1, 2, 1, 1), conv=None)
    assert full_rank(layer, 7) == 7


@pytest.mark.parametrize("operator", ["circular", "padded"])
@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_what_a_stride_takes_is_infinite_in_every_map_and_no_mark(activation: str, operator: str) -> None:
    """κ(W) and κ(D·W) are infinite by construction: said in a note, marked nowhere, passed by the gate."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.linalg.qr(torch.randn(24, 16, generator=generator))[0][..., None, None]
    found = report(weight, activation=activation, conv_operator=operator, grid=4)
    result = found.layers[0]
    for name in ("weight", "chain"):
        spectrum = result.maps[name]
        assert (spectrum.condition_number_status, spectrum.condition_number) == ("infinite", None)
        assert spectrum.pseudo_condition_number is not None
    assert result.maps["weight"].pseudo_condition_number == pytest.approx(1.0)
    assert result.notes[0].startswith("the stride skips inputs: rank at most 64 of 96 by construction")
    assert found.findings == ()
    assert specinspect.check(found, max_kappa=2.0, max_chain_kappa=20.0) == ()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(found))
    (line,) = [line for line in console.export_text().splitlines() if line.startswith(result.layer.name)]
    assert "∞" in line
    assert "!" not in line


def test_lost_rank_is_marked() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 8, generator=generator) @ torch.randn(8, 16, generator=generator)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(report(weight[..., None, None].contiguous(), grid=4)))
    assert any(line.rstrip().endswith("!") for line in console.export_text().splitlines())
