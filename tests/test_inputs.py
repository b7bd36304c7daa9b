"""D at the user's own inputs: per layer, and flowing through the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import specinspect
from specinspect.errors import SettingsError

MODULE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.fc1 = nn.Linear(3, 5)
        self.fc2 = nn.Linear(5, 5)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.fc2(nn.functional.leaky_relu(self.fc1(x), 0.1))
"""


class Net(nn.Module):
    """The same as MODULE, to compute the truth with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.fc1 = nn.Linear(3, 5)
        self.fc2 = nn.Linear(5, 5)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    (tmp_path / "inputs_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Net().eval()
    torch.save(made.state_dict(), tmp_path / "net.pt")
    return made


def chain(report: specinspect.Report, name: str) -> specinspect.report.model.LayerResult:
    return next(r for r in report if r.layer.name == name)


def test_per_layer_inputs(net: Net, tmp_path: Path) -> None:
    x = torch.randn(1, 3)
    save_file({"fc1": x, "nobody": x.clone()}, tmp_path / "inputs.safetensors")
    report = specinspect.inspect(
        "net.pt", inputs="inputs.safetensors", activation="relu", spectra=True, device="cpu"
    )
    d = (net.fc1(x)[0] > 0).double().detach().numpy()
    truth = np.linalg.svd(d[:, None] * net.fc1.weight.detach().double().numpy(), compute_uv=False)
    found = chain(report, "fc1")
    values = found.maps["chain"].singular_values
    assert values is not None
    assert np.abs(values - truth).max() < 1e-7
    assert not any("standard normal" in sentence for sentence in found.assumptions)
    assert any("standard normal" in sentence for sentence in chain(report, "conv").assumptions)
    assert any("'nobody'" in sentence for sentence in report.checkpoint.assumptions)


def test_a_batch_through_the_network(net: Net, tmp_path: Path) -> None:
    x = torch.randn(1, 2, 4, 4)
    np.save(tmp_path / "x.npy", x.numpy())
    report = specinspect.inspect(
        "net.pt", model="inputs_net:Net", inputs="x.npy", patterns=1, spectra=True, device="cpu"
    )
    with torch.no_grad():
        hidden = net.norm(net.conv(x)).relu().mean((2, 3))
        d = torch.where(net.fc1(hidden)[0] > 0, 1.0, 0.1).double().numpy()
    truth = np.linalg.svd(d[:, None] * net.fc1.weight.detach().double().numpy(), compute_uv=False)
    found = chain(report, "fc1")
    assert found.layer.activation.name == "leaky_relu"
    assert found.layer.activation.source == "model"
    values = found.maps["chain"].singular_values
    assert values is not None
    assert np.abs(values - truth).max() < 1e-7
    assert "chain" in chain(report, "conv").maps


def test_convolutions_take_images(net: Net, tmp_path: Path) -> None:
    save_file({"conv": torch.randn(2, 2, 6, 6)}, tmp_path / "inputs.safetensors")
    report = specinspect.inspect("net.pt", inputs="inputs.safetensors", device="cpu", grid=4)
    patterns = chain(report, "conv").maps["chain"].patterns
    assert patterns is not None
    assert patterns.n == 8


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fc1": torch.randn(2, 7)}, r"expected an array of shape \(n, 3\), got \(2, 7\)"),
        ({"fc1": torch.full((2, 3), torch.nan)}, "NaN"),
        ({"fc11": torch.randn(2, 3)}, "did you mean 'fc1'"),
        ({"conv": torch.randn(2, 2)}, r"\(n, 2, \*sides\)"),
    ],
)
def test_bad_inputs(net: Net, tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    assert net is not None
    save_file(tensors, tmp_path / "inputs.safetensors")
    with pytest.raises(SettingsError, match=message):
        specinspect.inspect("net.pt", inputs="inputs.safetensors", activation="relu", device="cpu")


def test_a_batch_needs_the_network(net: Net, tmp_path: Path) -> None:
    assert net is not None
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 4, 4)))
    with pytest.raises(SettingsError, match="needs the network"):
        specinspect.inspect("net.pt", inputs="x.npy", device="cpu")
    np.save(tmp_path / "x.npy", np.zeros((1, 5)))
    with pytest.raises(SettingsError, match="raised"):
        specinspect.inspect("net.pt", inputs="x.npy", model="inputs_net:Net", device="cpu")
    np.save(tmp_path / "x.npy", np.full((1, 2, 4, 4), np.nan))
    with pytest.raises(SettingsError, match="NaN"):
        specinspect.inspect("net.pt", inputs="x.npy", model="inputs_net:Net", device="cpu")
    with pytest.raises(SettingsError, match="cannot read"):
        specinspect.inspect("net.pt", inputs="nowhere.npy", device="cpu")


def test_few_rows_are_all_taken_once(net: Net, tmp_path: Path) -> None:
    assert net is not None
    np.save(tmp_path / "x.npy", torch.randn(3, 2, 4, 4).numpy())
    report = specinspect.inspect("net.pt", model="inputs_net:Net", inputs="x.npy", device="cpu")
    patterns = chain(report, "fc1").maps["chain"].patterns
    assert patterns is not None
    assert patterns.n == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((0, 2, 4, 4), np.float32),
            r"expected at least one example, found an array of \(0, 2, 4, 4\)",
        ),
        (np.ones((1, 2, 4, 4), np.int64), "takes floating-point inputs, found int64"),
        (np.ones((1, 2, 4, 4), np.complex64), "expected real numbers, found complex ones"),
    ],
)
def test_a_batch_that_is_none(net: Net, tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(SettingsError, match=message):
        specinspect.inspect("net.pt", model="inputs_net:Net", inputs="x.npy")


@pytest.mark.parametrize("array", [torch.zeros(0, 3), torch.ones(1, 3, dtype=torch.complex64)])
def test_arrays_of_layers_that_are_none(net: Net, tmp_path: Path, array: torch.Tensor) -> None:
    torch.save({"fc1": array}, tmp_path / "x.pt")
    with pytest.raises(SettingsError, match="--inputs"):
        specinspect.inspect("net.pt", inputs="x.pt", activation="relu")
