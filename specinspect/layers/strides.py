"""Strides that names and shapes tell: of stems, of the first blocks of later stages, of patch embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from specinspect.layers.model import Fact, Layer
from specinspect.layers.names import join


@dataclass(frozen=True, slots=True)
class _Residual:
    """How a family calls the first blocks of its stages."""

    shortcut: re.Pattern[str]
    """Of its 1×1 convolution: the block, its stage, and the place in a list if it has one."""
    first: int
    """Number of the stage that keeps the size."""
    branch: tuple[str, str, str]
    needs: str = ""
    """What must stand beside the stages."""


_RESIDUAL = (
    _Residual(
        re.compile(
            r"(?P<block>(?P<before>(?:.*\.)?)(?:layer|stage)s?(?P<stage>[0-9]+)\.0)\."
            r"(?:downsample|shortcut)(?:\.(?P<place>[0-9]+)(?:\.conv)?)?",
            re.DOTALL,
        ),
        1,
        ("conv1", "conv2", "conv3"),
    ),
    _Residual(
        re.compile(
            r"(?P<block>(?P<before>(?:.*\.)?)encoder\.stages\.(?P<stage>[0-9]+)\.layers\.0)\."
            r"shortcut\.convolution(?P<place>)",
            re.DOTALL,
        ),
        0,
        ("layer.0.convolution", "layer.1.convolution", "layer.2.convolution"),
        "embedder.embedder.convolution",
    ),
)
"""torchvision and timm; transformers."""

_STEMS = (
    (r"conv1", 7, "layer1.0.conv1"),
    (r"conv1\.0", 3, "conv1.3 conv1.6 layer1.0.conv1"),
    (r"conv0", 7, "denseblock1.denselayer1.conv1"),
    (r"embedder\.embedder\.convolution", 7, "encoder.stages.0.layers.0.layer.0.convolution"),
    (r"conv2d_1a\.conv", 3, "conv2d_2a.conv repeat_1.0.branch0.conv"),
    (r"conv2d_4b\.conv", 3, "conv2d_4a.conv repeat_1.0.branch0.conv"),
    (r"mixed_6a\.(?:branch0|branch1\.2)\.conv", 3, "repeat_1.0.branch0.conv repeat_2.0.branch0.conv"),
    (r"mixed_7a\.(?:branch[01]\.1|branch2\.2)\.conv", 3, "repeat_2.0.branch0.conv repeat_3.0.branch0.conv"),
)
"""Name, side of the kernel, and what must stand beside it: the first convolutions of ResNet, ResNet-D,
DenseNet and transformers' ResNet, and all of Inception-ResNet that stride. Their stride is 2."""
_NAMED_STEMS = tuple(
    (re.compile(rf"(?P<before>(?:.*\.)?)(?:{end})", re.DOTALL), side, needs.split())
    for end, side, needs in _STEMS
)

_PATCHES = re.compile(
    r"(?:.*\.)?(?:patch_embed\w*(?:\..*)?|conv_proj|visual\.conv1|stem\.0|stem_0|"
    r"downsampl(?:e(?:_layers\.[0-9]+)?|ing_layer)\.[01]|features\.(?:0\.0|[0-9]*[02468]\.1))",
    re.DOTALL,
)


def guessed_strides(layers: tuple[Layer, ...]) -> Mapping[str, int]:
    """Return layer → the stride that it has in the families that use its name, where no one knows better.

    The first convolutions of ResNets and their kin halve the images. So does the first block of every stage
    but the first where it has a 1×1 shortcut: in its second convolution if it has three (torchvision, timm,
    transformers), in its first if it has two. Kernels of even sides at the entrance of a stage cut images
    into patches that do not overlap (ViT, ConvNeXt).
    """
    by_name = {layer.name: layer for layer in layers if _unknown(layer)}
    found: dict[str, int] = {}
    for name, layer in by_name.items():
        found.update(dict.fromkeys(_halving(name, layer, by_name), 2))
        if makes_patches(layer) and layer.conv is not None:
            found[name] = layer.conv.kernel[0]
        elif _is_stem(name, layer, by_name):
            found[name] = 2
    return found


def _halving(name: str, layer: Layer, by_name: Mapping[str, Layer]) -> Iterator[str]:
    """Yield the convolutions that stride in the block that this one is the shortcut of."""
    if layer.conv is None or max(layer.conv.kernel) > 1:
        return
    for family in _RESIDUAL:
        match = family.shortcut.fullmatch(name)
        if match is None or int(match["stage"]) <= family.first:
            continue
        if family.needs and join(match["before"].rstrip("."), family.needs) not in by_name:
            continue
        first, second, third = (join(match["block"], part) for part in family.branch)
        if first in by_name and second in by_name:
            yield second if third in by_name else first
            # At the second place an average pool without tensors comes first, and strides instead.
            if match["place"] != "1":
                yield name


def _is_stem(name: str, layer: Layer, by_name: Mapping[str, Layer]) -> bool:
    for pattern, side, needs in _NAMED_STEMS:
        match = pattern.fullmatch(name)
        if match is not None and layer.conv is not None and set(layer.conv.kernel) == {side}:
            before = match["before"].rstrip(".")
            return all(join(before, part) in by_name for part in needs)
    return False


def makes_patches(layer: Layer) -> bool:
    """Say whether a convolution cuts images into patches, by its name and its kernel."""
    if layer.conv is None or layer.conv.transposed or not _PATCHES.fullmatch(layer.name):
        return False
    sides = set(layer.conv.kernel)
    return len(sides) == 1 and sides.pop() % 2 == 0


def with_stride(layer: Layer, stride: int) -> Layer:
    """Return the convolution with an assumed stride; patches have no padding."""
    conv = layer.conv
    if conv is None:
        return layer
    patches = stride == conv.kernel[0] and conv.padding is None
    padding = Fact((0,) * len(conv.kernel), "assumed") if patches else conv.padding
    return replace(
        layer, conv=replace(conv, stride=Fact((stride,) * len(conv.kernel), "assumed"), padding=padding)
    )


def _unknown(layer: Layer) -> bool:
    conv = layer.conv
    return (
        conv is not None
        and layer.kind != "lora"
        and not conv.transposed
        and conv.stride.source == "assumed"
        and len(conv.kernel) == 2
    )
