"""Which layers have the checkpoint's own shortcut beside them, from a traced model or by rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from specinspect.architecture import read_architecture
from specinspect.checkpoint import from_module
from specinspect.errors import SettingsError
from specinspect.layers import discover
from specinspect.layers.facts import apply_facts, with_architecture
from specinspect.layers.model import Layer
from specinspect.layers.rules import Rule


class Alone(nn.Module):
    """relu(bn(conv(x))) + bn(project(x)), twice: once to another width, once around a plain linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(5)
        self.down = nn.Sequential(nn.Conv2d(3, 5, 1, stride=2, bias=False), nn.BatchNorm2d(5))
        self.fc, self.project = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x))) + self.down(x)
        x = x.mean((2, 3))
        return torch.relu(self.fc(x)) + self.project(x)


class Basic(nn.Module):
    """A basic block: no layer is alone on the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(5, 5, 3, padding=1)
        self.down = nn.Conv2d(3, 5, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.down(x))


def facts(module: nn.Module, *rules: Rule, traced: bool = True) -> dict[str, Layer]:
    checkpoint = from_module(module)
    architecture = read_architecture(module) if traced else None
    if architecture is not None:
        checkpoint = with_architecture(checkpoint, architecture)
    found = apply_facts(discover(checkpoint), checkpoint, rules=rules, architecture=architecture)
    return {layer.name: layer for layer in found.layers}


def skips(layers: dict[str, Layer]) -> dict[str, tuple[str, str, str | None]]:
    return {
        name: (la.skip.kind, la.skip.source, la.skip.shortcut.name if la.skip.shortcut else None)
        for name, la in layers.items()
    }


def test_a_layer_alone_beside_a_projection() -> None:
    found = facts(Alone())
    assert skips(found)["conv"] == ("projection", "model", "down.0")
    assert skips(found)["fc"] == ("projection", "model", "project")
    assert skips(found)["down.0"] == ("average-pool", "assumed", None)
    norm = found["conv"].skip.shortcut
    assert norm is not None
    assert norm.normalization is not None
    assert norm.normalization.name == "down.1"


def test_in_a_longer_branch_only_on_request() -> None:
    assert skips(facts(Basic()))["conv1"] == ("average-pool", "assumed", None)
    asked = skips(facts(Basic(), Rule("conv1", skip="projection-plus-identity")))
    assert asked["conv1"] == ("projection-plus-identity", "config", "down")
    assert asked["conv2"] == ("identity", "assumed", None)


def test_named_by_rule() -> None:
    by_name = skips(facts(Alone(), Rule("fc", shortcut="project"), traced=False))
    assert by_name["fc"] == ("projection", "config", "project")
    assert by_name["conv"][0] == "average-pool"
    nested = nn.ModuleDict({"a": Alone()})
    relative = skips(facts(nested, Rule("a.fc", skip="projection", shortcut=".project"), traced=False))
    assert relative["a.fc"] == ("projection", "config", "a.project")


def test_a_later_rule_wins() -> None:
    rules = (Rule("fc", shortcut="project"), Rule("*", skip="none"))
    assert skips(facts(Alone(), *rules))["fc"] == ("none", "config", None)
    assert skips(facts(Alone(), *reversed(rules)))["fc"] == ("projection", "config", "project")
    assert skips(facts(Alone(), Rule("conv", skip="average-pool")))["conv"][:2] == ("average-pool", "config")


@pytest.mark.parametrize(
    ("rule", "message", "hint"),
    [
        (
            Rule("conv2", skip="projection"),
            "no shortcut of its own is known beside layer 'conv2'",
            "name its",
        ),
        (Rule("conv1", shortcut="dawn"), "shortcut 'dawn' is no layer of the checkpoint", "mean 'down'"),
        (Rule("conv2", shortcut="down"), "does not fit layer 'conv2': 5×5 beside 5×3", "narrow"),
        (Rule("down", shortcut="down"), "it is the layer itself", "narrow"),
        (Rule("conv1", skip="average-pool", shortcut="down"), "takes no shortcut, got 'down'", "projection"),
    ],
)
def test_what_does_not_fit(rule: Rule, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as error:
        facts(Basic(), rule, traced=rule.glob != "conv2")
    assert message in error.value.message
    assert hint in (error.value.hint or "")


def test_strides_must_agree() -> None:
    with pytest.raises(SettingsError, match=r"stride \(2, 2\) beside \(1, 1\)"):
        facts(Basic(), Rule("conv1", shortcut="down"), Rule("down", stride=1))


def test_slopes_by_rule() -> None:
    found = facts(Basic(), Rule("conv1", activation="leaky_relu", slope=0.2))["conv1"].activation
    assert (found.name, found.slope, found.source) == ("leaky_relu", 0.2, "config")
    net = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.3), nn.Linear(3, 3))
    known = facts(net, Rule("0", slope=0.5))["0"].activation
    assert (known.name, known.slope, known.source) == ("leaky_relu", 0.5, "model")
    with pytest.raises(SettingsError, match="slope: activation 'relu' of layer '0' takes none"):
        facts(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), Rule("0", slope=0.5))
    with pytest.raises(SettingsError, match="the slope is given twice"):
        Rule("a", activation="leaky_relu:0.1", slope=0.2)
    with pytest.raises(SettingsError, match="slope: expected a finite number, got nan"):
        Rule("a", slope=float("nan"))
