"""Which activation and norm follow each layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specinspect.architecture import Activation, read_architecture
from specinspect.architecture.activations import identify
from tests.architecture import nets, truth

IDENTITY = Activation("identity")


def test_sequential() -> None:
    found = read_architecture(nets.mlp())
    assert found.activations == {"0": Activation("relu"), "3": Activation("tanh"), "5": IDENTITY}
    assert found.traced
    assert not found.notes
    assert not found.blocks
    assert found.modules["0"].attributes["in_features"] == 4
    assert found.shapes["3.weight"] == (8, 8)


def test_functional_and_written_out() -> None:
    found = read_architecture(nets.FunctionalMLP())
    names = [
        "relu",
        "leaky_relu",
        "gelu_tanh",
        "relu",
        "tanh",
        "quick_gelu",
        "relu",
        "gelu_tanh",
        "relu_squared",
    ]
    expected = {f"l.{place}": Activation(name) for place, name in enumerate(names)}
    expected["l.1"] = Activation("leaky_relu", 0.2)
    expected[""] = Activation("elu", 0.5)  # of the matrix that the network itself holds
    assert found.activations == expected


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.LeakyReLU(0.3), Activation("leaky_relu", 0.3)),
        (nn.PReLU(), Activation("prelu", parameter="1.weight")),
        (nn.GELU("tanh"), Activation("gelu_tanh")),
        (nn.ELU(0.7), Activation("elu", 0.7)),
        (nn.CELU(0.7), Activation("celu", 0.7)),
        (nn.ReLU6(), Activation("relu6")),
        (nn.Hardtanh(), Activation("hardtanh")),
        (nn.Hardtanh(0, 6), Activation("relu6")),
        (nn.Hardtanh(-2, 2), Activation("hardtanh(-2.0, 2.0)")),
        (nn.Softplus(), Activation("softplus")),
        (nn.Softplus(2), Activation("softplus(2.0, 20.0)")),
        (nn.Threshold(0, 0), Activation("relu")),
        (nn.RReLU(0.1, 0.3), Activation("leaky_relu", 0.2)),
        (nn.Softmax(-1), Activation("softmax")),
        (nn.Hardswish(), Activation("hardswish")),
        (nets.CustomSwish(), Activation("silu")),
        (nn.Identity(), IDENTITY),
    ],
    ids=repr,
)
def test_modules(module: nn.Module, expected: Activation) -> None:
    found = read_architecture(nn.Sequential(nn.Linear(3, 3), module, nn.Linear(3, 3)))
    assert found.activations["0"] == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x * F.softplus(x).tanh(), Activation("mish")),
        (lambda x: torch.where(x > 0, x, 0.2 * x), Activation("leaky_relu", 0.2)),
        (lambda x: torch.maximum(x, 0.3 * x), Activation("leaky_relu", 0.3)),
        (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), Activation("gelu")),
        (lambda x: x * F.relu6(x + 3) / 6, Activation("hardswish")),
        (lambda x: x.clamp(min=0), Activation("relu")),
        (lambda x: x.clamp(0, 6), Activation("relu6")),
        (lambda x: x.clamp(0, 20), None),
        (lambda x: x.clamp(-1, 1), Activation("hardtanh")),
        (lambda x: torch.log(1 + torch.exp(x)), Activation("softplus")),
        # Normalised by hand: where the activation acts is not told by the outputs alone.
        (lambda x: F.relu(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)), None),
        (lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6), IDENTITY),
        (lambda x: F.relu_(x), Activation("relu")),
        (lambda x: x.sigmoid_(), Activation("sigmoid")),
        (lambda x: x.view(-1).abs(), Activation("abs")),
        (lambda x: F.relu(2.0 * x), Activation("relu")),
        (lambda x: F.relu(-x), None),
        (lambda x: torch.sin(30.0 * x), None),  # 30·cos(30z) is not what 'sin' would say
        (lambda x: torch.fft.fft(x).real, None),
        (lambda x: x[:, :1], IDENTITY),
    ],
)
def test_formulas(function: object, expected: Activation | None) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            assert callable(function)
            return self.b(function(self.a(x)))

    assert read_architecture(Net()).activations.get("a") == expected


def test_identify_rejects_what_it_does_not_know() -> None:
    assert identify(lambda x: x**3) is None
    assert identify(lambda x: x[0]) is None
    assert identify(lambda x: F.linear(x, x[0, :3])) is None
    assert identify(lambda _: None) is None


@pytest.mark.parametrize(
    ("network", "example"),
    [
        (nets.mlp(), torch.randn(3, 4)),
        (nets.ResNet(), torch.randn(2, 3, 8, 8)),
        (nets.PreNormBlock(), torch.randn(2, 5, 8)),
        (nets.ConvNeXtBlock(), torch.randn(2, 8, 9, 9)),
    ],
    ids=["mlp", "resnet", "pre-norm", "convnext"],
)
def test_agrees_with_a_real_forward_pass(network: nn.Module, example: Tensor) -> None:
    found = read_architecture(network).activations
    seen = truth.followers(network, example)
    functional = {"conv1"} if isinstance(network, nets.ResNet) else set()  # F.relu has no hook
    assert {path: found[path].name for path in seen if path not in functional} == {
        path: name.lower() or "identity" for path, name in seen.items() if path not in functional
    }


def test_norms() -> None:
    found = read_architecture(nets.ResNet()).normalizations
    assert found["layer2.0.downsample.0"] == "layer2.0.downsample.1"
    assert found["layer1.1.conv2"] == "layer1.1.bn2"
    assert "fc" not in found
    # Behind a flatten the norm's channels are not the layer's, behind the activation it is too late.
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.BatchNorm1d(16), nn.ReLU(), nn.BatchNorm1d(16))
    assert read_architecture(flat).normalizations == {}
    late = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4))
    assert read_architecture(late).normalizations == {}


def test_layer_used_twice() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.same = self.a

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.same(F.relu(self.a(x))))

    found = read_architecture(Net())
    assert found.activations == {"a": Activation("relu"), "same": Activation("relu")}
    assert found.notes == ("what follows a differs between its uses (relu, tanh): the first is taken",)
    assert found.tied == {
        name: f"a.{name.split('.')[1]}" for name in ("a.weight", "a.bias", "same.weight", "same.bias")
    }


def test_in_place_moves_the_value_on() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            self.relu(x)  # the result is dropped; x holds it all the same
            return self.b(x) + x

    found = read_architecture(Net())
    assert found.activations == {"a": Activation("relu"), "b": IDENTITY}
    (block,) = found.blocks
    assert [step.path for step in block.branch] == ["b"]


def test_norm_and_activation_in_one_subclass() -> None:
    class LinearReLU(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(super().forward(x))

    found = read_architecture(nn.Sequential(LinearReLU(3, 3), nn.Linear(3, 3)))
    assert found.activations == {"0": Activation("relu"), "1": IDENTITY}


def test_module_is_left_as_it_was() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.seen: object = None

        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return self.a(x) * torch.tensor(2.0)

    net = Net().train()
    before = {name: set(vars(part)) for name, part in net.named_modules()}
    read_architecture(net)
    assert net.training
    assert net.seen is None
    assert {name: set(vars(part)) for name, part in net.named_modules()} == before
    assert net(torch.zeros(1, 3)).shape == (1, 3)


def test_a_norm_that_names_its_statistics_first() -> None:
    """As timm's batch norm with an activation does: the path is the module's, not a tensor's."""

    class NormAct(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)
            return F.silu(y)

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), NormAct(4)
            self.act = nn.Sequential(nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.bn(self.conv(x)).mean((2, 3)))

    found = read_architecture(Stem())
    assert found.normalizations == {"conv": "bn"}
    assert found.activations["conv"] == Activation("silu")
