"""The skip maps beside the checkpoint's own shortcut, against dense matrices from torch's own layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import specinspect
from specinspect.engine import open_source, study_layer
from specinspect.maps import DenseMap
from specinspect.maps.patterns import Diagonals
from specinspect.settings import Settings
from specinspect.spectra.activated import Question, measure_maps, shortcut_floor
from specinspect.spectra.compute import measure
from specinspect.spectra.plan import Plan

GRID = 4


def jacobian(function: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the matrix of an affine function of one example."""
    x = torch.zeros(1, *shape, dtype=torch.float64)
    j = torch.autograd.functional.jacobian(lambda v: function(v).flatten(), x)
    return j.reshape(j.shape[0], -1).detach().numpy()


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(values.abs() + 0.3 if "var" in name else values / 2)
    return module.double().eval()


class Strided(nn.Module):
    def __init__(self, inn: int, out: int, stride: int) -> None:
        super().__init__()
        common: dict[str, Any] = {"padding_mode": "circular"}
        self.conv = nn.Conv2d(inn, out, 3, stride=stride, padding=1, **common)
        self.down = nn.Sequential(nn.Conv2d(inn, out, 1, stride=stride), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(x)) + self.down(x)


def values_of(map_: Any) -> NDArray[np.float64]:
    assert map_.singular_values is not None
    return np.asarray(map_.singular_values)


def pooled(inn: int, out: int, stride: int) -> NDArray[np.float64]:
    """Return the rescaled average pool between the first channels, densely."""
    pool = nn.AvgPool2d(stride)

    def function(x: torch.Tensor) -> torch.Tensor:
        y = stride * pool(x)
        return nn.functional.pad(y, (0, 0, 0, 0, 0, out - inn)) if out > inn else y[:, :out]

    return jacobian(function, (inn, GRID, GRID))


@pytest.mark.parametrize(("inn", "out", "stride"), [(2, 4, 2), (4, 2, 2), (3, 3, 2), (2, 3, 1), (3, 3, 1)])
@pytest.mark.parametrize("kind", ["projection", "projection-plus-identity"])
def test_convolutions(inn: int, out: int, stride: int, kind: str) -> None:
    net = randomised(Strided(inn, out, stride))
    rules = (specinspect_rule("conv", skip=kind),)
    report = specinspect.inspect(net, grid=GRID, rho=0.7, beta=-1.3, rules=rules, spectra=True, curve=True)
    layer = next(item for item in report if item.layer.name == "conv")
    shape = (inn, GRID, GRID)
    w, a = (jacobian(part, shape) for part in (net.conv, net.down))
    if kind == "projection-plus-identity":
        a = a + pooled(inn, out, stride)
    truth = np.linalg.svd(0.7 * a - 1.3 * w, compute_uv=False)
    assert values_of(layer.maps["skip"]) == pytest.approx(truth, rel=1e-6, abs=1e-8)
    assert layer.layer.skip.kind == kind
    if inn == out and stride == 1:
        assert layer.tau is not None
        ends = np.linalg.eigvalsh(w + w.T)[[0, -1]]
        assert (layer.tau.min, layer.tau.max) == pytest.approx(tuple(ends))
    assert layer.skip_curve is not None
    for beta, top, low in zip(
        layer.skip_curve.beta[::8],
        layer.skip_curve.sigma_max[::8],
        layer.skip_curve.sigma_min[::8],
        strict=True,
    ):
        expected = np.linalg.svd(0.7 * a + beta * w, compute_uv=False)
        assert (top, low) == pytest.approx((expected[0], expected[-1]), rel=1e-6, abs=1e-8)


class Dense(nn.Module):
    def __init__(self, inn: int, out: int) -> None:
        super().__init__()
        self.fc, self.project = nn.Linear(inn, out), nn.Linear(inn, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.fc(x)) + self.project(x)


@pytest.mark.parametrize(("inn", "out"), [(5, 5), (7, 4), (4, 7)])
def test_dense_layers_and_their_activated_map(inn: int, out: int) -> None:
    net = randomised(Dense(inn, out))
    report = specinspect.inspect(net, rho=0.7, beta=1.5, spectra=True, bounds=True)
    layer = report.layers[0]
    assert (layer.layer.name, layer.layer.skip.kind, layer.layer.skip.source) == ("fc", "projection", "model")
    w, a = net.fc.weight.detach().numpy(), net.project.weight.detach().numpy()  # type: ignore[union-attr, operator]
    truth = np.linalg.svd(0.7 * a + 1.5 * w, compute_uv=False)
    assert values_of(layer.maps["skip"]) == pytest.approx(truth, rel=1e-6)
    s, t = (np.linalg.svd(matrix, compute_uv=False) for matrix in (1.5 * w, 0.7 * a))
    bounds = {check.id: check for check in layer.bounds if check.of == "skip"}
    assert bounds["r3.upper.simple"].bound == pytest.approx(t[0] + s[0])
    for id_, lower in (("r3.lower.simple", t[-1] - s[0]), ("r3.lower.weyl", s[-1] - t[0])):
        assert bounds[id_].verdict == ("holds" if lower > 0 else "vacuous")
    assert bounds["r4.sharp"].verdict == "not_applicable"


@pytest.mark.parametrize(("out", "inn"), [(5, 5), (4, 7), (7, 4)])
@pytest.mark.parametrize("plus", [False, True])
def test_with_a_diagonal(out: int, inn: int, plus: bool) -> None:
    rng = np.random.default_rng(0)
    w, a, d = rng.standard_normal((out, inn)), rng.standard_normal((out, inn)), rng.uniform(-1, 1, out)
    linear, plan = DenseMap(torch.from_numpy(w), "f64"), Plan("cpu")
    diagonals = Diagonals(torch.from_numpy(d)[None], torch.ones(1))
    kind = "projection-plus-identity" if plus else "projection"
    question = Question(0.7, 1.5, kind, diagonals, DenseMap(torch.from_numpy(a), "f64"))
    weight = measure([linear], plan, keep_values=True)[0].spectrum
    found = measure_maps(linear, weight, question, plan, keep_values=True).maps
    beside = 0.7 * (a + np.eye(out, inn) if plus else a)
    for name, matrix in (("skip", w), ("skip_chain", d[:, None] * w)):
        truth = np.linalg.svd(beside + 1.5 * matrix, compute_uv=False)
        assert values_of(found[name]) == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("kind", ["projection", "projection-plus-identity"])
@pytest.mark.parametrize("convolution", [False, True])
def test_a_layer_held_ready(kind: str, convolution: bool) -> None:
    net = randomised(Strided(2, 4, 2) if convolution else Dense(4, 6))
    name = "conv" if convolution else "fc"
    source = open_source(net, Settings(grid=GRID, rules=(specinspect_rule(name, skip=kind),), spectra=True))
    layer = next(item for item in source.layers if item.name == name)
    weight = specinspect.inspect(net, grid=GRID, maps=("weight",), spectra=True).layers[0].maps["weight"]
    study = study_layer(source, layer, weight)
    assert study is not None
    shape = (2, GRID, GRID) if convolution else (4,)
    parts = (net.conv, net.down) if convolution else (net.fc, net.project)
    w, a = (jacobian(part, shape) for part in parts)
    if kind == "projection-plus-identity":
        a = a + (pooled(2, 4, 2) if convolution else np.eye(6, 4))
    truth = np.linalg.svd(0.7 * a + 1.5 * w, compute_uv=False)
    assert values_of(study.skip(0.7, 1.5)) == pytest.approx(truth, rel=1e-6, abs=1e-8)
    curve = study.curve((0.5,))
    assert curve is not None
    ends = np.linalg.svd(a + 0.5 * w, compute_uv=False)[[0, -1]]
    assert (curve.sigma_max[0], curve.sigma_min[0]) == pytest.approx(tuple(ends), rel=1e-6, abs=1e-8)


def test_the_rounding_of_the_shortcut_counts() -> None:
    a = DenseMap(torch.ones(30, 30, dtype=torch.float64), "bf16")
    assert shortcut_floor(None) == 0
    # ulp 2⁻⁷ everywhere: √(m)+√(n) times ulp/√12 (MATH R19).
    assert shortcut_floor(a) == pytest.approx(2 * np.sqrt(30) * 2**-7 / np.sqrt(12), rel=1e-6)


def test_a_shortcut_that_cannot_be_used_is_said() -> None:
    net = randomised(Strided(2, 4, 2))
    padded = specinspect.inspect(net, grid=GRID, conv_operator="padded").layers[0]
    assert "skip" not in padded.maps
    assert "no skip map: a shortcut that is a layer is only measured on the periodic grid" in padded.notes
    with torch.no_grad():
        net.down[0].weight[0, 0] = float("nan")  # type: ignore[union-attr, index]
    broken = specinspect.inspect(net, grid=GRID, curve=True).layers[0]
    assert "no skip map: NaN or infinite values in its shortcut" in broken.notes
    assert set(broken.maps) == {"weight", "chain"}
    assert broken.skip_curve is None


def specinspect_rule(glob: str, **facts: Any) -> Any:
    from specinspect.layers.rules import Rule

    return Rule(glob, **facts)
