"""D at the user's own inputs: per layer, and flowing through the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_per_layer_inputs_beside_a_model_that_gives_the_facts(net: Net, tmp_path: Path) -> None:
    x = torch.randn(1, 3)
    save_file({"fc1": x, "conv": torch.randn(2, 2, 6, 6)}, tmp_path / "inputs.safetensors")
    report = specinspect.inspect(
        "net.pt", model="inputs_net:Net", inputs="inputs.safetensors", spectra=True, device="cpu"
    )
    found = chain(report, "fc1")
    assert found.layer.activation.source == "model"
    d = torch.where(net.fc1(x)[0] > 0, 1.0, 0.1).double().detach().numpy()  # the model's leaky ReLU
    truth = np.linalg.svd(d[:, None] * net.fc1.weight.detach().double().numpy(), compute_uv=False)
    values = found.maps["chain"].singular_values
    assert values is not None
    assert np.abs(values - truth).max() < 1e-7
    for name in ("fc1", "conv"):
        assert not any("standard normal" in sentence for sentence in chain(report, name).assumptions)


def test_one_array_that_no_layer_is_called_after_is_the_batch(net: Net, tmp_path: Path) -> None:
    x = torch.randn(1, 2, 4, 4)
    save_file({"pixels": x}, tmp_path / "x.safetensors")
    np.save(tmp_path / "x.npy", x.numpy())
    assert net is not None
    found = [
        chain(specinspect.inspect("net.pt", model="inputs_net:Net", inputs=name, patterns=1), "fc1").maps
        for name in ("x.safetensors", "x.npy")
    ]
    assert found[0]["chain"].sigma_max == found[1]["chain"].sigma_max


def test_arrays_that_are_neither_a_batch_nor_of_layers(net: Net, tmp_path: Path) -> None:
    assert net is not None
    save_file({"fc11": torch.randn(2, 3), "b": torch.randn(2)}, tmp_path / "x.safetensors")
    with pytest.raises(
        SettingsError, match="expected one batch for the model, or arrays named after"
    ) as told:
        specinspect.inspect("net.pt", model="inputs_net:Net", inputs="x.safetensors")
    assert told.value.hint == "did you mean 'fc1'?"


UNTRACEABLE = """
from torch import nn
import torch

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 4)
        self.fc2 = nn.Linear(4, 2)

    def forward(self, x):
        if len(x.shape) > 2 or x.tolist() == []:
            x = x.flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))
"""


def test_an_array_of_a_layer_is_no_example_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inputs_odd.py").write_text(UNTRACEABLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    state = {"fc1.weight": torch.randn(4, 3), "fc2.weight": torch.randn(2, 4)}
    state |= {"fc1.bias": torch.zeros(4), "fc2.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "odd.pt")
    for arrays in ({"fc2": torch.randn(3, 4)}, {"fc1": torch.randn(3, 3), "fc2": torch.randn(3, 4)}):
        save_file(arrays, tmp_path / "x.safetensors")
        report = specinspect.inspect("odd.pt", model="inputs_odd:Odd", inputs="x.safetensors")
        assert not any("the given inputs" in sentence for sentence in report.checkpoint.assumptions)


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


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (torch.zeros(0, 3), r"expected an array of shape \(n, 3\) with at least one example, got \(0, 3\)"),
        (torch.ones(1, 3, dtype=torch.complex64), "expected real numbers, found complex ones"),
    ],
)
def test_arrays_of_layers_that_are_none(net: Net, tmp_path: Path, array: torch.Tensor, message: str) -> None:
    assert net is not None
    torch.save({"fc1": array}, tmp_path / "x.pt")
    with pytest.raises(SettingsError, match=message):
        specinspect.inspect("net.pt", inputs="x.pt", activation="relu")


# R14: what the inputs add to the conditioning of learning a layer

SHARED = """
import torch
from torch import nn

class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.first = nn.Linear(3, 4)
        self.qkv = nn.Linear(4, 12)
        self.twice = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(self.conv(x).flatten(2).mT)  # (images, pixels, 3)
        x = x + self.qkv(x).chunk(3, -1)[2]
        return self.last(self.twice(self.twice(x)) + x @ self.unused.weight)
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    (tmp_path / "inputs_shared.py").write_text(SHARED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    space: dict[str, type[nn.Module]] = {}
    exec(SHARED, space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = space["Shared"]().eval()
    torch.save(made.state_dict(), tmp_path / "shared.pt")
    return made


def data_factor(report: specinspect.Report, name: str) -> specinspect.bounds.model.BoundCheck:
    (found,) = [c for c in chain(report, name).bounds if c.id == "r14"]
    return found


def weight_jacobian(model: nn.Module, name: str, x: torch.Tensor) -> np.ndarray:
    """Return the derivative of all outputs in one weight, by autograd in float64."""
    model = model.double()
    rest = {k: v.detach() for k, v in model.state_dict().items() if k != name}

    def run(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, {**rest, name: weight}, (x.double(),)).flatten()

    weight = model.state_dict()[name].detach()
    return torch.autograd.functional.jacobian(run, weight).flatten(1).numpy()


def pseudo_kappa(matrix: np.ndarray) -> float:
    values = np.linalg.svd(matrix, compute_uv=False)
    positive = values[values > 1e-10 * values[0]]
    return float(positive[0] / positive[-1])


def test_the_data_factor_of_a_batch_through_the_network(shared: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(3, 2, 4, 4)
    np.save(tmp_path / "x.npy", x.numpy())
    report = specinspect.inspect("shared.pt", model="inputs_shared:Shared", inputs="x.npy", device="cpu")
    # What follows `last` is the identity, so that the factor is κ of the whole Jacobian, over all 48 rows.
    last = data_factor(report, "last")
    assert last.verdict == "holds"
    assert last.value == pytest.approx(pseudo_kappa(weight_jacobian(shared, "last.weight", x)), rel=1e-3)
    assert "48 inputs" in last.why
    # All that follows `first` is one linear map for every row: κ(J) = κ(M)·factor.
    w = {name: value.detach().double().numpy() for name, value in shared.named_parameters()}
    attended = np.eye(4) + w["qkv.weight"][8:]
    after = w["last.weight"] @ (w["twice.weight"] @ w["twice.weight"] + w["unused.weight"].T) @ attended
    found = data_factor(report, "first")
    truth = pseudo_kappa(weight_jacobian(shared, "first.weight", x))
    assert found.value is not None
    assert found.value * pseudo_kappa(after) == pytest.approx(truth, rel=1e-3)
    # The parts of a packed weight share their inputs.
    parts = [data_factor(report, f"qkv.{part}") for part in ("q", "k", "v")]
    assert len({part.value for part in parts}) == 1
    assert parts[0].value == pytest.approx(pseudo_kappa(rows_into(shared, "qkv", x)), rel=1e-3)


def rows_into(model: nn.Module, name: str, x: torch.Tensor) -> np.ndarray:
    kept = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    model.double()(x.double())
    hook.remove()
    return kept[0].detach().flatten(0, -2).numpy()


def test_only_layers_with_a_region_are_told_to_have_random_ones(shared: nn.Module, tmp_path: Path) -> None:
    """The parts of qkv are no modules, but have no activation either; nor has `unused`."""
    assert shared is not None
    np.save(tmp_path / "x.npy", torch.randn(3, 2, 4, 4).numpy())
    common: dict[str, Any] = {"model": "inputs_shared:Shared", "inputs": "x.npy"}
    plain = specinspect.inspect("shared.pt", **common)
    assert not any("random inputs there" in sentence for sentence in plain.checkpoint.assumptions)
    relu = specinspect.inspect("shared.pt", activation="relu", **common)
    assert (
        "--inputs: 4 layers with an activation are no modules that the network calls "
        "('qkv.q', 'qkv.k', 'qkv.v', …): random inputs there"
    ) in relu.checkpoint.assumptions


def test_where_there_is_no_data_factor(shared: nn.Module, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", torch.randn(3, 2, 4, 4).numpy())
    report = specinspect.inspect("shared.pt", model="inputs_shared:Shared", inputs="x.npy", device="cpu")
    for name, why in (
        ("twice", "calls it more than once"),
        ("unused", "does not call it"),
        ("conv", "speaks of dense layers"),
    ):
        found = data_factor(report, name)
        assert (found.verdict, found.value, found.bound) == ("not_applicable", None, None)
        assert why in found.why
    plain = specinspect.inspect("shared.pt", device="cpu")
    assert not [c for layer in plain for c in layer.bounds if c.id.startswith("r14")]


def test_other_inputs_are_another_result(
    shared: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache tells batches apart of which the same few samples of outputs were kept."""
    monkeypatch.setenv("SPECINSPECT_CACHE_DIR", str(tmp_path / "cache"))
    found = []
    for scale in (1.0, 1.0, 3.0):
        x = torch.ones(2, 2, 4, 4)
        x[1, 0, 0, 0] = scale + 1
        np.save(tmp_path / "x.npy", x.numpy())
        report = specinspect.inspect(
            "shared.pt", model="inputs_shared:Shared", inputs="x.npy", device="cpu", patterns=1, cache=True
        )
        found.append(data_factor(report, "last").value)
    assert found[0] == found[1] != found[2]
    assert shared is not None
