"""Where D is taken: behind the normalisation that stands between a layer and its activation."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import specinspect
from specinspect.layers.model import Activation, Layer, Normalization, Stored
from specinspect.maps.patterns import probe_outputs, probe_seed
from specinspect.maps.question import Probes, activated
from specinspect.report.model import LayerResult

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.plane = nn.Conv2d(2, 4, 3, padding=1)
        self.groups = nn.GroupNorm(2, 4)
        self.last = nn.Conv2d(4, 4, 1)
        self.channels = nn.LayerNorm(4, eps=1e-3)
        self.each = nn.Conv2d(4, 4, 3, padding=1)
        self.instance = nn.InstanceNorm2d(4)
        self.volume = nn.Conv2d(4, 3, 1)
        self.over = nn.LayerNorm([3, 5, 4])
        self.fc1 = nn.Linear(3, 8)
        self.ln = nn.LayerNorm(8)
        self.fc2 = nn.Linear(8, 8)
        self.rms = nn.RMSNorm(8, eps=1e-2)
        self.fc3 = nn.Linear(8, 6)
        self.gn = nn.GroupNorm(3, 6)
        self.fc4 = nn.Linear(6, 6)
        self.plain = nn.LayerNorm(6, elementwise_affine=False)
        self.head = nn.Linear(6, 2)
        self.double()

    def forward(self, x):
        x = torch.relu(self.groups(self.plane(x)))
        x = torch.tanh(self.channels(self.last(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = torch.relu(self.instance(self.each(x)))
        x = torch.relu(self.over(self.volume(x))).mean((2, 3))
        x = self.ln(self.fc1(x)).abs()
        x = torch.relu(self.rms(self.fc2(x)))
        x = torch.nn.functional.gelu(self.gn(self.fc3(x)))
        return self.head(torch.relu(self.plain(self.fc4(x))))

def make():
    return Net()
"""
PAIRS = {
    "plane": "groups", "last": "channels", "each": "instance", "volume": "over",
    "fc1": "ln", "fc2": "rms", "fc3": "gn", "fc4": "plain",
}  # fmt: skip
FUNCTIONS: dict[str, Any] = {"last": torch.tanh, "fc1": torch.abs, "fc3": nn.functional.gelu}


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "regions_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("regions_net", None)
    made: Any = importlib.import_module("regions_net").make()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in made.parameters():  # offsets that the normalisations take away again
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5)
    torch.save(made.state_dict(), tmp_path / "net.pt")
    return made.eval()


def slopes(name: str, z: Tensor) -> Tensor:
    """Return φ′(z) by autograd."""
    z = z.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(FUNCTIONS.get(name, torch.relu)(z).sum(), z)
    return found


def chain_top(net: Any, name: str, slope: Tensor) -> float:
    """Return σ_max of D·W with one slope per channel, as the periodic convolution at one 8×8 grid."""
    weight = net.get_submodule(name).weight.detach()
    assert isinstance(weight, Tensor)
    d = slope.numpy()
    if weight.ndim == 2:
        return float(np.linalg.svd(d[:, None] * weight.numpy(), compute_uv=False)[0])
    symbol = np.fft.fft2(weight.numpy(), (8, 8)).transpose(2, 3, 0, 1)
    return float(np.linalg.svd(d[:, None] * symbol, compute_uv=False).max())


def heard(net: Any, x: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(norm).register_forward_hook(
            lambda _m, _i, out, name=name: kept.__setitem__(name, out.detach())
        )
        for name, norm in PAIRS.items()
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    kept["last"] = kept["last"].movedim(-1, 1)
    return {name: z.movedim(1, -1).reshape(-1, z.shape[1]) for name, z in kept.items()}


def one(report: specinspect.Report, name: str) -> LayerResult:
    return next(result for result in report if result.layer.name == name)


def test_a_batch_through_the_network_gives_the_normalised_regions(net: Any, tmp_path: Path) -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    report = specinspect.inspect(
        "net.pt", model="regions_net:make", inputs="x.npy", grid=8, patterns=50, blocks=False
    )
    for name, z in heard(net, x).items():
        found = one(report, name)
        truth = sorted(chain_top(net, name, slope) for slope in slopes(name, z))
        patterns = found.maps["chain"].patterns
        assert patterns is not None
        assert (patterns.n, len(truth)) == (len(z), len(z))  # 20 pixels, or 1 vector
        assert patterns.scalars["sigma_max"].min == pytest.approx(truth[0], rel=1e-6)
        assert patterns.scalars["sigma_max"].max == pytest.approx(truth[-1], rel=1e-6)
        (told,) = [s for s in found.assumptions if "D is taken" in s]
        assert told.startswith("D is taken behind ")
        assert f" {PAIRS[name]}," in told


@pytest.mark.parametrize("name", ["fc1", "fc2", "fc3", "fc4"])
def test_inputs_of_one_layer_are_normalised(net: Any, name: str, tmp_path: Path) -> None:
    layer = net.get_submodule(name)
    x = torch.randn(1, layer.weight.shape[1], dtype=torch.float64)
    save_file({name: x}, tmp_path / "x.safetensors")
    report = specinspect.inspect(
        "net.pt", model="regions_net:make", inputs="x.safetensors", spectra=True, blocks=False
    )
    slope = slopes(name, net.get_submodule(PAIRS[name])(layer(x)))[0]
    found = one(report, name).maps["chain"]
    truth = np.linalg.svd(slope[:, None] * layer.weight.detach(), compute_uv=False)
    assert found.singular_values == pytest.approx(truth, rel=1e-6, abs=1e-9)


def test_images_of_one_layer_are_normalised_over_all_their_pixels(net: Any, tmp_path: Path) -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    save_file({"plane": x}, tmp_path / "x.safetensors")
    report = specinspect.inspect(
        "net.pt", model="regions_net:make", inputs="x.safetensors", grid=8, patterns=50, blocks=False
    )
    z = net.groups(net.plane(x))
    truth = [chain_top(net, "plane", slope) for slope in slopes("plane", z.movedim(1, -1).reshape(-1, 4))]
    patterns = one(report, "plane").maps["chain"].patterns
    assert patterns is not None
    assert patterns.scalars["sigma_max"].min == pytest.approx(min(truth), rel=1e-6)
    assert patterns.scalars["sigma_max"].max == pytest.approx(max(truth), rel=1e-6)


def test_random_regions_lie_behind_the_normalisation_too(net: Any) -> None:
    report = specinspect.inspect(net, blocks=False, patterns=4, grid=8)
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    for name in ("fc1", "fc2", "fc3", "fc4", "last"):
        found = one(report, name)
        kernel = state[f"{name}.weight"].flatten(1)
        z = probe_outputs(kernel, 4, probe_seed(0, name)) + state[f"{name}.bias"]
        z = net.get_submodule(PAIRS[name])(z).detach()
        truth = [chain_top(net, name, slope) for slope in slopes(name, z)]
        patterns = found.maps["chain"].patterns
        assert patterns is not None
        assert patterns.scalars["sigma_max"].min == pytest.approx(min(truth), rel=1e-6)
        assert patterns.scalars["sigma_max"].max == pytest.approx(max(truth), rel=1e-6)
    for name, kind in (("plane", "group"), ("each", "instance"), ("volume", "layer")):
        sentence = (
            f"D is taken in front of {kind} normalisation {PAIRS[name]}, which needs more than is at hand, "
            "and is left out of D·W"
        )
        assert sentence in one(report, name).assumptions


def test_a_bias_that_the_normalisation_removes_moves_no_region() -> None:
    """All entries of the bias alike: the mean that a layer normalisation subtracts."""
    state = {
        "0.weight": torch.randn(64, 64, generator=torch.Generator().manual_seed(0)),
        "0.bias": torch.full((64,), -50.0),
        "1.weight": torch.ones(64),
        "1.bias": torch.zeros(64),
        "3.weight": torch.randn(4, 64),
    }
    (found, _) = specinspect.inspect(state, activation="relu", blocks=False)
    assert found.layer.normalization is not None
    patterns = found.maps["chain"].patterns
    assert patterns is not None
    share = patterns.active_fraction.median
    assert share is not None
    assert 0.3 < share < 0.7  # all dead without it
    assert any(
        "D is taken behind layer normalisation 1 (taken to follow it by its name or place, ε = 1e-05 assumed)"
        in sentence
        for sentence in found.assumptions
    )


def test_nan_in_a_normalisation_is_no_region() -> None:
    layer = Layer(
        "a", "linear", ("a.weight",), (2, 2), (2, 2), "f64", Stored("a.weight"),
        normalization=Normalization("layer_norm", "n", "model"), activation=Activation("relu", "model"),
    )  # fmt: skip
    tensors = {"n.weight": torch.tensor([1.0, torch.nan])}
    found = activated(layer, torch.eye(2), tensors.__getitem__, frozenset(tensors), Probes(2, 0))
    assert found.diagonals is None
    assert found.bad
