from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from specinspect.checkpoint.model import ModuleFacts
from specinspect.layers.model import ConvGeometry, Fact
from tests.layers.build import Header, batch_norm, by_name, find, headers, reasons

ALL = "stride 1, dilation 1 and groups 1 assumed: not stored in the checkpoint"
KNOWN_GROUPS = "stride 1 and dilation 1 assumed: not stored in the checkpoint"
POINTWISE = "stride 1 assumed: not stored in the checkpoint"


def resnet(block: Sequence[tuple[str, tuple[int, ...]]], downsample: tuple[int, ...]) -> dict[str, Header]:
    """One stem and one block, in torchvision's names and order."""
    tensors: dict[str, Header] = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    for i, (name, shape) in enumerate(block, 1):
        tensors[f"layer1.0.{name}.weight"] = shape
        tensors |= batch_norm(f"layer1.0.bn{i}", shape[0])
    tensors["layer1.0.downsample.0.weight"] = downsample
    return tensors | batch_norm("layer1.0.downsample.1", downsample[0])


def groups(tensors: dict[str, Header]) -> dict[str, int]:
    found = find(tensors)
    return {layer.name: layer.conv.groups.value for layer in found.layers if layer.conv is not None}


def test_resnet18_and_50() -> None:
    basic = resnet([("conv1", (128, 64, 3, 3)), ("conv2", (128, 128, 3, 3))], (128, 64, 1, 1))
    found = by_name(find(basic))
    assert found["conv1"].assumptions == (ALL,)
    assert found["layer1.0.conv2"].assumptions == (KNOWN_GROUPS,)
    ones: Fact[tuple[int, ...]] = Fact((1, 1), "assumed")
    assert found["layer1.0.conv2"].conv == ConvGeometry((3, 3), ones, ones, Fact(1, "shape"))
    assert found["layer1.0.downsample.0"].conv == ConvGeometry(
        (1, 1), ones, Fact((1, 1), "shape"), Fact(1, "assumed")
    )
    norms = {name: layer.normalization.name for name, layer in found.items() if layer.normalization}
    assert norms == {
        "conv1": "bn1",
        "layer1.0.conv1": "layer1.0.bn1",
        "layer1.0.conv2": "layer1.0.bn2",
        "layer1.0.downsample.0": "layer1.0.downsample.1",
    }
    bottleneck = [("conv1", (64, 64, 1, 1)), ("conv2", (64, 64, 3, 3)), ("conv3", (256, 64, 1, 1))]
    assert set(groups(resnet(bottleneck, (256, 64, 1, 1))).values()) == {1}


def test_alphabetical_order_tells_the_same() -> None:
    blocks = [("conv1", (128, 64, 1, 1)), ("conv2", (128, 4, 3, 3)), ("conv3", (256, 128, 1, 1))]
    tensors = resnet(blocks, (256, 64, 1, 1))
    ordered = {name: tensors[name] for name in sorted(tensors)}
    assert groups(ordered) == groups(tensors)
    found, again = by_name(find(tensors)), by_name(find(ordered))
    assert {n: layer.normalization for n, layer in found.items()} == {
        n: layer.normalization for n, layer in again.items()
    }


def test_resnext_groups() -> None:
    blocks = [("conv1", (128, 64, 1, 1)), ("conv2", (128, 4, 3, 3)), ("conv3", (256, 128, 1, 1))]
    layer = by_name(find(resnet(blocks, (256, 64, 1, 1))))["layer1.0.conv2"]
    assert layer.conv is not None
    assert layer.conv.groups == Fact(32, "assumed")
    assert layer.matrix_shape == (128, 128)
    assert layer.assumptions == (
        "groups 32 inferred from the 128 channels of layer1.0.conv1",
        KNOWN_GROUPS,
    )


def test_mobilenet_depthwise() -> None:
    tensors: dict[str, Header] = {
        "features.0.0.weight": (32, 3, 3, 3), "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1), "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3), "features.2.conv.2.weight": (24, 96, 1, 1),
    }  # fmt: skip
    assert list(groups(tensors).values()) == [1, 32, 1, 1, 96, 1]
    timm: dict[str, Header] = {
        "blocks.0.conv_dw.weight": (32, 1, 3, 3),
        "blocks.0.conv_pw.weight": (16, 32, 1, 1),
    }
    assert list(groups(timm).values()) == [32, 1]


def test_regnet_wide_groups_and_grey_input() -> None:
    regnet: dict[str, Header] = {
        "stem.0.weight": (32, 3, 3, 3), "b1-0.proj.0.weight": (336, 32, 1, 1),
        "b1-0.f.a.0.weight": (336, 32, 1, 1), "b1-0.f.b.0.weight": (336, 168, 3, 3),
    }  # fmt: skip
    assert groups(regnet)["b1-0.f.b.0"] == 2
    assert groups({"conv1.weight": (16, 1, 3, 3), "conv2.weight": (32, 16, 3, 3)}) == {"conv1": 1, "conv2": 1}


def test_parallel_branches_are_not_groups() -> None:
    text_cnn: dict[str, Header] = {f"convs.{i}.weight": (100, 1, 3 + i, 300) for i in range(3)}
    assert set(groups(text_cnn).values()) == {1}
    hrnet: dict[str, Header] = {
        "fuse.2.0.1.0.weight": (128, 32, 3, 3), "fuse.2.1.0.0.weight": (128, 64, 3, 3),
    }  # fmt: skip
    assert set(groups(hrnet).values()) == {1}
    heads: dict[str, Header] = {"head1.weight": (256, 64, 3, 3), "head2.weight": (128, 64, 3, 3)}
    assert set(groups(heads).values()) == {1}


def test_hifigan_discriminator_groups() -> None:
    shapes = [(128, 1, 15), (128, 32, 41), (256, 8, 41), (512, 16, 41), (1024, 32, 41), (1024, 1024, 5)]
    found = groups({f"convs.{i}.weight": shape for i, shape in enumerate(shapes)})
    assert list(found.values()) == [1, 4, 16, 16, 16, 1]


def test_densenet_normalises_first() -> None:
    tensors: dict[str, Header] = {"features.conv0.weight": (64, 3, 7, 7), **batch_norm("features.norm0", 64)}
    for i, width in enumerate((64, 96), 1):
        at = f"features.denseblock1.denselayer{i}"
        tensors |= batch_norm(f"{at}.norm1", width)
        tensors[f"{at}.conv1.weight"] = (128, width, 1, 1)
        tensors |= batch_norm(f"{at}.norm2", 128)
        tensors[f"{at}.conv2.weight"] = (32, 128, 3, 3)
    found = find(tensors)
    norms = {layer.name: layer.normalization and layer.normalization.name for layer in found.layers}
    assert norms == {
        "features.conv0": "features.norm0",
        "features.denseblock1.denselayer1.conv1": "features.denseblock1.denselayer1.norm2",
        "features.denseblock1.denselayer1.conv2": None,
        "features.denseblock1.denselayer2.conv1": "features.denseblock1.denselayer2.norm2",
        "features.denseblock1.denselayer2.conv2": None,
    }
    assert set(groups(tensors).values()) == {1}
    skipped = reasons(found)["features.denseblock1.denselayer1.norm1.running_mean"]
    assert skipped == "running statistics of batch normalisation features.denseblock1.denselayer1.norm1"


def test_transposed_by_bias_norm_or_name() -> None:
    found = find(
        {"a.weight": (16, 8, 4, 4), "a.bias": (8,),
         "main.0.weight": (100, 64, 4, 4), **batch_norm("main.1", 64),
         "deconv.weight": (8, 8, 3, 3), "ups.1.weight": (8, 8, 4), "upconv1.weight": (8, 8, 3, 3),
         "deconv_dw.weight": (8, 1, 4, 4), "deconv_dw.bias": (8,)}
    )  # fmt: skip
    layers = by_name(found)
    assert layers["a"].kind == "conv_transpose2d"
    assert (layers["a"].matrix_shape, layers["a"].bias) == ((8, 16), "a.bias")
    assert layers["a"].assumptions[0] == "taken as transposed: the bias has 8 entries"
    assert layers["main.0"].kind == "conv_transpose2d"
    assert layers["main.0"].normalization is not None
    assert layers["deconv"].assumptions[0] == "taken as transposed by its name"
    assert layers["ups.1"].kind == "conv_transpose1d"
    assert layers["upconv1"].kind == "conv2d"
    depthwise = layers["deconv_dw"]
    assert depthwise.conv is not None
    assert (depthwise.conv.groups.value, depthwise.matrix_shape) == (8, (8, 8))


def test_facts_win() -> None:
    facts = {"stride": (2, 2), "dilation": 3, "groups": 2, "kernel_size": (3, 3), "transposed": False}
    found = find({"deconv.weight": (8, 2, 3, 3)}, modules={"deconv": ModuleFacts("Conv2d", facts)})
    layer = found.layers[0]
    assert layer.kind == "conv2d"
    assert layer.conv == ConvGeometry(
        (3, 3), Fact((2, 2), "model"), Fact((3, 3), "model"), Fact(2, "model"), transposed=False
    )
    assert (layer.assumptions, layer.matrix_shape) == ((), (8, 4))


def test_facts_that_make_no_sense_are_ignored() -> None:
    facts = {"stride": "two", "dilation": (0, 1), "groups": 3, "kernel_size": 3}
    layer = find({"c.weight": (8, 2, 3, 3)}, modules={"c": ModuleFacts("Conv2d", facts)}).layers[0]
    assert layer.conv is not None
    assert {layer.conv.stride.source, layer.conv.dilation.source, layer.conv.groups.source} == {"assumed"}


def test_what_is_no_convolution() -> None:
    found = find(
        {"fc.weight": (4, 4), "experts.w1": (8, 16, 4), "moe.experts.gate_up_proj": (8, 32, 4),
         "pair.weight": (4, 3, 3), "pair.bias": (4, 3), "b.weight": (5, 3, 4), "x.alpha": (1, 8, 1),
         "seven.weight": (1, 2, 1, 2, 1, 2, 1), "norm.weight": (4, 5, 5), "norm.bias": (4, 5, 5),
         "odd.weight": (6, 4, 3), "odd.bias": (7,)},
        modules={"b": ModuleFacts("Bilinear", {})},
    )  # fmt: skip
    assert [layer.name for layer in found.layers] == ["fc"]
    skipped = reasons(found)
    assert skipped["experts.w1"] == "stacked experts (8×16×4): not analysed"
    assert skipped["pair.weight"] == "stack of linear maps (4×3×3): not analysed"
    assert skipped["b.weight"] == "bilinear form (5×3×4), not a linear map"
    assert skipped["x.alpha"] == "3-D parameter that is no module's weight: not a linear map"
    assert skipped["norm.weight"] == "gain of normalisation"
    assert skipped["odd.weight"] == "3-D weight with a bias of length 7: no convolution's layout"


def test_every_convolution_of_torch() -> None:
    for kind, module in {
        "conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d,
        "conv_transpose1d": nn.ConvTranspose1d, "conv_transpose2d": nn.ConvTranspose2d,
        "conv_transpose3d": nn.ConvTranspose3d,
    }.items():  # fmt: skip
        with torch.device("meta"):
            net = nn.Sequential(module(6, 4, 3))
        layer = find(headers(net)).layers[0]
        assert (layer.kind, layer.matrix_shape, layer.bias) == (kind, (4, 6), "0.bias")
