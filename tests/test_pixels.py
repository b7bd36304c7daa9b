"""A D for every pixel at the user's own images: a real ResNet against torch's Jacobians."""

from __future__ import annotations

import importlib
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import specinspect
from specinspect.engine import open_source
from specinspect.errors import SettingsError
from specinspect.report.model import LayerResult
from specinspect.report.table import print_table
from specinspect.settings import Settings

MODULE = """
import torch
from torch import nn

class Basic(nn.Module):
    def __init__(self, inn, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inn, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or inn != out:
            self.downsample = nn.Sequential(nn.Conv2d(inn, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def branch(self, x):
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def summed(self, x):
        beside = x if self.downsample is None else self.downsample(x)
        return self.branch(x) + beside

    def forward(self, x):
        return self.relu(self.summed(x))

class Bottleneck(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(2)
        self.conv2 = nn.Conv2d(2, 2, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(2)
        self.conv3 = nn.Conv2d(2, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def branch(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))

    def summed(self, x):
        return self.branch(x) + x

    def forward(self, x):
        return self.relu(self.summed(x))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 5, 2, 2)
        self.norm = nn.GroupNorm(3, 3)
        self.layer1 = nn.Sequential(Basic(3, 3, 1), Bottleneck(3))
        self.layer2 = nn.Sequential(Basic(3, 4, 2), Basic(4, 4, 1))
        self.up = nn.ConvTranspose2d(4, 2, 3, 2, 1, 1)
        self.same = nn.Conv2d(2, 2, 2, padding="same")
        self.fc = nn.Linear(2, 3)
        self.double()

    def forward(self, x):
        x = self.layer2(self.layer1(torch.relu(self.norm(self.conv1(x)))))
        x = torch.relu(self.same(torch.nn.functional.silu(self.up(x))))
        return self.fc(x.mean((2, 3)))
"""
BLOCKS = ("layer1.0", "layer1.1", "layer2.0", "layer2.1")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "pixel_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("pixel_net", None)
    made: Any = importlib.import_module("pixel_net").Net()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.is_floating_point():
                fresh = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(fresh.abs() + 0.5 if "var" in name else fresh)
    torch.save(made.state_dict(), tmp_path / "net.pt")
    return made.eval()


@pytest.fixture(params=[(16, 12), (13, 9)], ids=["even", "odd"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Tensor:
    """One image whose sides the strides divide, or do not."""
    x = torch.randn(1, 2, *request.param, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    np.save(tmp_path / "x.npy", x.numpy())
    return x


def entering(net: Any, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(name).register_forward_pre_hook(
            lambda _m, inputs, name=name: kept.__setitem__(name, inputs[0].detach().clone())
        )
        for name in names
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return kept


def jacobian(function: Any, x: Tensor) -> NDArray[np.float64]:
    j = torch.autograd.functional.jacobian(function, x)
    return np.asarray(j.reshape(-1, x.numel()))


def assert_values(found: Any, matrix: NDArray[np.float64]) -> None:
    truth = np.linalg.svd(matrix, compute_uv=False)
    assert found is not None
    assert found.singular_values is not None
    assert np.abs(np.asarray(found.singular_values) - truth).max() < 1e-6 * truth[0]


def one(report: specinspect.Report, name: str) -> LayerResult:
    return next(result for result in report if result.layer.name == name)


def inspect(**more: Any) -> specinspect.Report:
    common: dict[str, Any] = {"conv_operator": "padded", "conv_pattern": "pixel", "spectra": True, "grid": 5}
    return specinspect.inspect("net.pt", model="pixel_net:Net", **common, **more)


def test_blocks_of_a_resnet(net: Any, images: Tensor) -> None:
    report = inspect(inputs="x.npy", beta=0.8, rho=0.6)
    came_in = entering(net, images, BLOCKS)
    blocks = {found.block.name: found for found in report.blocks}
    assert set(BLOCKS) <= set(blocks)
    for name in BLOCKS:
        block, module, x = blocks[name], net.get_submodule(name), came_in[name]
        j, summed = jacobian(module.branch, x), jacobian(module.summed, x)
        assert block.chain is not None
        assert "zero-padded, a diagonal per pixel" in block.chain.method
        assert_values(block.chain, j)
        assert_values(block.skip, 0.6 * (summed - j) + 0.8 * j)
        text = "×".join(map(str, x.shape[2:]))
        assert f"{text} grid with zeros around it: the sides of the inputs given" in block.assumptions
        assert block.grid == tuple(x.shape[2:])


def printed(report: specinspect.Report) -> str:
    file = StringIO()
    print_table(report, file)
    return " ".join(file.getvalue().split())


def test_the_table_says_whose_inputs_they_are(net: Any, images: Tensor) -> None:
    assert images is not None
    text = printed(inspect(inputs="x.npy", layers=("layer1.*",)))
    assert "D at given inputs" in text
    text = printed(inspect(layers=("layer1.*",)))
    assert "D at random inputs" in text
    assert net is not None


def test_large_images_are_told_to_take_long(net: Any, tmp_path: Path) -> None:
    assert net is not None
    np.save(tmp_path / "large.npy", np.ones((1, 2, 70, 70)))  # 3·35² columns
    opened = open_source(
        "net.pt",
        Settings(
            model="pixel_net:Net", inputs="large.npy", conv_operator="padded", conv_pattern="pixel", grid=5
        ),
    )
    assert any("; smaller images in --inputs are quicker" in sentence for sentence in opened.notices)


def layer_functions(net: Any) -> dict[str, Any]:
    first, last, silu = net.layer2[0], net.layer1[1], nn.functional.silu
    return {
        "layer2.0.conv1": (first.conv1, lambda x: torch.relu(first.bn1(first.conv1(x)))),
        "layer2.0.conv2": (first.conv2, lambda x: first.bn2(first.conv2(x))),
        "layer1.1.conv2": (last.conv2, lambda x: torch.relu(last.bn2(last.conv2(x)))),
        "up": (net.up, lambda x: silu(net.up(x))),
    }


def test_layers_at_a_batch_through_the_network(net: Any, images: Tensor) -> None:
    report = inspect(inputs="x.npy", blocks=False)
    functions = layer_functions(net)
    came_in = entering(net, images, tuple(functions))
    for name, (linear, function) in functions.items():
        found, x = one(report, name), came_in[name]
        sides = linear(x).shape[2:] if name == "up" else x.shape[2:]
        assert found.grid == tuple(sides)
        no_bias = jacobian(linear, x)
        assert_values(found.maps["weight"], no_bias)
        assert_values(found.maps["chain"], jacobian(function, x))
        text = "×".join(map(str, sides))
        assert f"{text} grid with zeros around it: the sides of the images given" in found.assumptions
        assert not any("standard normal" in sentence for sentence in found.assumptions)


def test_the_region_behind_a_normalisation_over_the_whole_image(net: Any, images: Tensor) -> None:
    found = one(inspect(inputs="x.npy", blocks=False), "conv1")
    d = (net.norm(net.conv1(images)) > 0).double().flatten()
    assert_values(found.maps["chain"], d.numpy()[:, None] * jacobian(net.conv1, images))
    sentence = "D is taken behind group normalisation norm, whose own Jacobian is left out of D·W"
    assert sentence in found.assumptions


def test_layers_at_images_of_their_own(net: Any, tmp_path: Path) -> None:
    functions = layer_functions(net)
    x = {"layer2.0.conv1": torch.randn(1, 3, 7, 4), "layer1.1.conv2": torch.randn(1, 2, 3, 5)}
    x["conv1"] = torch.randn(1, 2, 8, 7)
    save_file({name: image.double() for name, image in x.items()}, tmp_path / "x.safetensors")
    report = inspect(inputs="x.safetensors", blocks=False)
    for name in ("layer2.0.conv1", "layer1.1.conv2"):
        found = one(report, name)
        assert_values(found.maps["chain"], jacobian(functions[name][1], x[name].double()))
    d = (net.norm(net.conv1(x["conv1"].double())) > 0).double().flatten()
    truth = d.numpy()[:, None] * jacobian(net.conv1, x["conv1"].double())
    assert_values(one(report, "conv1").maps["chain"], truth)
    assert "D sampled at standard normal images, pixel by pixel" in one(report, "up").assumptions


def test_several_images_are_several_patterns(net: Any, tmp_path: Path) -> None:
    x = torch.randn(3, 2, 3, 5, dtype=torch.float64)
    save_file({"layer1.1.conv2": x}, tmp_path / "x.safetensors")
    function = layer_functions(net)["layer1.1.conv2"][1]
    truth = sorted(np.linalg.norm(jacobian(function, image[None]), 2) for image in x)
    patterns = one(inspect(inputs="x.safetensors", blocks=False), "layer1.1.conv2").maps["chain"].patterns
    assert patterns is not None
    assert patterns.n == 3
    top = patterns.scalars["sigma_max"]
    assert [top.min, top.median, top.max] == pytest.approx(truth, rel=1e-6)


def test_a_convolution_that_pads_unevenly(net: Any, images: Tensor) -> None:
    assert images is not None
    found = one(inspect(inputs="x.npy", blocks=False), "same")
    sides = found.layer.sides or ()
    assert_values(found.maps["weight"], jacobian(net.same, torch.zeros(1, 2, *sides, dtype=torch.float64)))
    assert not any("its outputs in the network are" in sentence for sentence in found.assumptions)


def test_images_too_small_for_a_kernel(net: Any, tmp_path: Path) -> None:
    assert net is not None
    torch.save({"same": torch.randn(1, 2, 1, 1), "fc": torch.randn(1, 2)}, tmp_path / "x.pt")
    with pytest.raises(SettingsError, match=r"layer 'same': inputs of \(1, 2, 1, 1\) are too small"):
        inspect(inputs="x.pt", blocks=False)
