from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from specinspect.checkpoint.model import ModuleFacts
from specinspect.layers.model import Layer, SpectralNorm, Stored, WeightNorm
from tests.layers.build import by_name, find, headers, reasons


def rebuilt(layer: Layer, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The weight as torch documents it, from the recipe alone."""
    recipe = layer.weight
    if isinstance(recipe, WeightNorm):
        g, v = state[recipe.g], state[recipe.v]
        return g * v / torch.norm_except_dim(v, 2, -1 if recipe.dim is None else recipe.dim)
    assert isinstance(recipe, SpectralNorm)
    original = state[recipe.original]
    flat = original.movedim(recipe.dim, 0).flatten(1)
    return original / torch.dot(state[recipe.u], flat @ state[recipe.v])


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_parametrization(dim: int | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(parametrizations.weight_norm(nn.Conv1d(6, 4, 3), dim=dim))  # type: ignore[arg-type]
    layer = find(headers(net)).layers[0]
    assert isinstance(layer.weight, WeightNorm)
    assert (layer.name, layer.kind, layer.weight.dim, layer.bias) == ("0", "conv1d", dim, "0.bias")
    torch.testing.assert_close(rebuilt(layer, net.state_dict()), net[0].weight)


@pytest.mark.parametrize("module", [nn.Linear(5, 3), nn.Conv2d(6, 4, 3), nn.ConvTranspose2d(6, 4, 4)])
def test_spectral_norm_parametrization(module: nn.Module) -> None:
    net = nn.Sequential(parametrizations.spectral_norm(module)).eval()
    layer = find(headers(net)).layers[0]
    assert isinstance(layer.weight, SpectralNorm)
    assert layer.name == "0"
    torch.testing.assert_close(rebuilt(layer, net.state_dict()), net[0].weight)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_spelling() -> None:
    convs = nn.Sequential(
        torch.nn.utils.weight_norm(nn.Conv1d(6, 4, 3)),
        torch.nn.utils.spectral_norm(nn.ConvTranspose1d(6, 4, 4)),
        torch.nn.utils.spectral_norm(nn.Linear(6, 4)),
    ).eval()
    found = find(headers(convs))
    assert [layer.kind for layer in found.layers] == ["conv1d", "conv_transpose1d", "linear"]
    for module, shape in zip(convs, ((2, 6, 9), (2, 6, 9), (2, 6)), strict=True):
        module(torch.randn(shape))  # the hooks recompute the weight
    for i, layer in enumerate(found.layers):
        torch.testing.assert_close(rebuilt(layer, convs.state_dict()), convs[i].weight)
    assert isinstance(found.layers[1].weight, SpectralNorm)
    assert found.layers[1].weight.dim == 1


def test_hifigan_upsampling_old_and_new() -> None:
    for g, v in (("weight_g", "weight_v"), tuple(f"parametrizations.weight.original{i}" for i in "01")):
        found = find(
            {"conv_pre.bias": (512,), f"conv_pre.{g}": (512, 1, 1), f"conv_pre.{v}": (512, 80, 7),
             "ups.0.bias": (256,), f"ups.0.{g}": (512, 1, 1), f"ups.0.{v}": (512, 256, 16),
             "resblocks.0.convs1.0.bias": (256,), f"resblocks.0.convs1.0.{g}": (256, 1, 1),
             f"resblocks.0.convs1.0.{v}": (256, 256, 3)}
        )  # fmt: skip
        layers = by_name(found)
        assert list(layers) == ["conv_pre", "ups.0", "resblocks.0.convs1.0"]
        up = layers["ups.0"]
        assert (up.kind, up.matrix_shape, up.bias) == ("conv_transpose1d", (256, 512), "ups.0.bias")
        assert up.weight == WeightNorm(f"ups.0.{g}", f"ups.0.{v}", 0)
        assert up.parameters == (f"ups.0.{g}", f"ups.0.{v}")


def test_wav2vec2_position_convolution() -> None:
    found = find(
        {"e.pos_conv_embed.conv.weight_g": (1, 1, 128), "e.pos_conv_embed.conv.weight_v": (768, 48, 128)}
    )
    layer = found.layers[0]
    assert isinstance(layer.weight, WeightNorm)
    assert layer.conv is not None
    assert (layer.weight.dim, layer.conv.groups.value, layer.matrix_shape) == (2, 16, (768, 768))


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_unknown_parametrisations_are_skipped() -> None:
    net = nn.ModuleDict(
        {
            "orthogonal": parametrizations.orthogonal(nn.Linear(4, 4)),
            "twice": nn.Linear(4, 4),
            "plain": nn.Linear(4, 4),
            "two": parametrizations.spectral_norm(nn.Linear(4, 4)),
        }
    )
    parametrize.register_parametrization(net["twice"], "weight", Double())
    parametrizations.orthogonal(net["two"])
    # A second parametrisation without tensors of its own shows only where the module itself is known.
    facts = {"two.parametrizations.weight.1": ModuleFacts("_Orthogonal", {})}
    found = find(headers(net), modules=facts)
    assert [layer.name for layer in found.layers] == ["plain"]
    skipped = reasons(found)
    assert (
        skipped["twice.parametrizations.weight.original"]
        == "parametrisation of twice.weight that is not known"
    )
    assert skipped["orthogonal.parametrizations.weight.original"].startswith("parametrisation of orthogonal")
    assert "two.parametrizations.weight.original" in skipped


def test_incomplete_sets_are_skipped() -> None:
    found = find(
        {"ok.weight": (4, 4), "a.weight_orig": (4, 4), "a.weight_mask": (4, 4), "b.weight_orig": (4, 4),
         "b.weight_u": (4,), "c.weight_g": (3, 1), "c.weight_v": (4, 4), "d.weight_bar": (4, 6),
         "d.weight_u": (4,), "d.weight_v": (6,)}
    )  # fmt: skip
    assert [layer.name for layer in found.layers] == ["ok", "d"]
    skipped = reasons(found)
    assert skipped["a.weight_orig"] == "pruned weight of a.weight: the mask is not applied"
    assert skipped["b.weight_u"] == "original weight of b.weight without the rest of its parametrisation"
    assert skipped["c.weight_v"] == "weight normalisation of c.weight whose shapes do not fit"
    assert found.layers[0].weight == Stored("ok.weight")
