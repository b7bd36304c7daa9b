"""Guesses from names and places: strides, patches, slopes in a bare list, choices of a traced model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import specinspect
from specinspect.architecture import read_architecture
from specinspect.checkpoint import from_module, from_state_dict
from specinspect.layers import Layer, Rule, apply_facts, discover, with_architecture
from specinspect.layers.blocks import Apply, discover_blocks


def layers_of(state: Mapping[str, torch.Tensor], *rules: Rule) -> dict[str, Layer]:
    source = from_state_dict(state)
    return {layer.name: layer for layer in apply_facts(discover(source), source, rules=rules).layers}


def norm(path: str, width: int) -> dict[str, torch.Tensor]:
    return {f"{path}.{leaf}": torch.ones(width) for leaf in ("weight", "bias", "running_mean", "running_var")}


def stage(
    number: int, inn: int, out: int, convs: int, downsample: str = "downsample.0"
) -> dict[str, torch.Tensor]:
    """Return a ResNet stage's first block as torchvision and timm name it."""
    path, state, width = f"layer{number}.0", {}, inn
    for i in range(1, convs + 1):
        side = 1 if convs == 3 and i != 2 else 3
        state[f"{path}.conv{i}.weight"] = torch.ones(out, width, side, side)
        state |= norm(f"{path}.bn{i}", out)
        width = out
    if downsample:
        state[f"{path}.{downsample}.weight"] = torch.ones(out, inn, 1, 1)
        place = downsample.split(".")
        state |= norm(f"{path}.{place[0]}.{int(place[1]) + 1}", out)
    return state


@pytest.mark.parametrize(("convs", "strided"), [(2, "conv1"), (3, "conv2")])
def test_the_first_block_of_a_later_stage_strides(convs: int, strided: str) -> None:
    state = {**stage(1, 4, 8, convs), **stage(2, 8, 16, convs)}
    found = layers_of(state)
    strides = {name: layer.conv.stride.value for name, layer in found.items() if layer.conv}
    twos = {name for name, stride in strides.items() if stride == (2, 2)}
    assert twos == {f"layer2.0.{strided}", "layer2.0.downsample.0"}
    layer = found[f"layer2.0.{strided}"]
    assert layer.conv is not None
    assert layer.conv.stride.source == "assumed"
    assert any(
        note.startswith("stride 2, ") and note.endswith("not stored in the checkpoint")
        for note in layer.assumptions
    )
    assert layer.skip.kind == "average-pool"
    # The block agrees with its layers.
    (_, block) = discover_blocks(tuple(found.values()), tensors=from_state_dict(state).tensors).blocks
    own = {f.layer: f.stride for f in block.factors if isinstance(f, Apply)}
    assert own[f"layer2.0.{strided}"] in {2, None}


def test_beside_a_pool_the_shortcut_itself_does_not_stride() -> None:
    found = layers_of({**stage(1, 4, 8, 2), **stage(2, 8, 16, 2, "downsample.1")})
    shortcut, branch = found["layer2.0.downsample.1"].conv, found["layer2.0.conv1"].conv
    assert shortcut is not None
    assert branch is not None
    assert (shortcut.stride.value, branch.stride.value) == ((1, 1), (2, 2))


def test_what_is_told_counts_more() -> None:
    state = {**stage(1, 4, 8, 2), **stage(2, 8, 16, 2)}
    conv = layers_of(state, Rule("layer2.0.conv1", stride=1))["layer2.0.conv1"].conv
    assert conv is not None
    assert (conv.stride.value, conv.stride.source) == ((1, 1), "config")
    without = layers_of({**stage(1, 4, 8, 2), **stage(2, 8, 8, 2, "")})
    assert all(max(layer.conv.stride.value) == 1 for layer in without.values() if layer.conv)


@pytest.mark.parametrize("name", ["patch_embed.proj", "conv_proj", "stem.0", "stages.1.downsample.1"])
def test_patches(name: str) -> None:
    conv = nn.Conv2d(3, 6, 4, stride=4)
    state = {f"{name}.weight": conv.weight.detach(), "head.weight": torch.ones(2, 6)}
    layer = layers_of(state)[name]
    assert layer.conv is not None
    assert (layer.conv.stride.value, layer.activation.name) == ((4, 4), "identity")
    assert layer.conv.padding is not None
    assert layer.conv.padding.value == (0, 0)
    assert any("stride 4" in note and "no padding" in note for note in layer.assumptions)
    odd = layers_of({f"{name}.weight": torch.ones(6, 3, 3, 3), "head.weight": torch.ones(2, 6)})[name]
    assert odd.conv is not None
    assert odd.conv.stride.value == (1, 1)


def test_slopes_in_a_bare_list() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 4, 3), nn.PReLU(), nn.Flatten(),
        nn.Linear(4, 4), nn.PReLU(), nn.Linear(4, 4), nn.LayerNorm(4, bias=False), nn.Linear(4, 2),
    )  # fmt: skip
    found = layers_of(net.state_dict())
    slopes = {name: layer.activation.parameter for name, layer in found.items()}
    assert slopes == {"0": "2.weight", "3": "4.weight", "6": "7.weight", "8": None, "10": None}
    assert found["8"].activation.name == "relu"
    assert "PReLU 4 taken to follow it, by its name and length" in found["3"].assumptions


def test_a_vector_behind_a_matrix_may_be_slopes_and_a_rule_tells() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.PReLU(8), nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, 2))
    source = from_state_dict(net.state_dict())
    found = apply_facts(discover(source), source)
    for name, vector in (("0", "1.weight"), ("2", "3.weight")):
        layer = next(layer for layer in found.layers if layer.name == name)
        assert (layer.activation.name, layer.activation.source) == ("relu", "assumed")
        (sentence,) = [s for s in layer.assumptions if "ReLU assumed" in s]
        assert sentence.endswith(
            f"; {vector} may be slopes of a PReLU (a rule can say so) or a normalisation's gain"
        )
        reason = next(skip.reason for skip in found.skipped if skip.name == vector)
        assert reason == f"slopes of a PReLU after {name}, or gain of a normalisation"
    told = layers_of(net.state_dict(), Rule("0", activation="prelu"))["0"]
    assert told.activation.parameter == "1.weight"
    assert told.activation.slope is None


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.b(torch.tanh(self.a(torch.relu(self.a(x)))))


def test_an_ambiguous_choice_stands_beside_the_layer() -> None:
    architecture = read_architecture(Twice())
    source = with_architecture(from_module(Twice()), architecture)
    found = apply_facts(discover(source), source, architecture=architecture).layers
    assert found[0].activation.name == "relu"
    assert "what follows a differs between its uses (relu, tanh): the first is taken" in found[0].assumptions
    assert found[1].assumptions == ()


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return x + self.b(self.a(x).softmax(-1))


def test_a_block_that_is_not_understood_is_no_skipped_tensor() -> None:
    report = specinspect.inspect(Odd())
    assert {item.name for item in report.skipped} == {"a.bias", "b.bias"}
    assert any(
        sentence.startswith("block ") and "softmax" in sentence for sentence in report.checkpoint.assumptions
    )


def test_a_curve_without_its_map_is_said() -> None:
    report = specinspect.inspect(Odd(), maps=("weight",), curve=True)
    assert (
        "--curve: no curve, since --maps leaves out the map skip that it is of"
        in report.checkpoint.assumptions
    )
    assert not any("--curve" in s for s in specinspect.inspect(Odd(), curve=True).checkpoint.assumptions)
