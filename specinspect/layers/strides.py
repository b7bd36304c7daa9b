"""Strides that names and shapes tell: of the first blocks of a ResNet's later stages, of patch embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from specinspect.layers.model import Fact, Layer
from specinspect.layers.names import join

_PROJECTION = re.compile(
    r"(?P<block>(?:.*\.)?(?:layer|stage)s?(?P<stage>[0-9]+)\.0)\."
    r"(?:downsample|shortcut)(?:\.(?P<place>[0-9]+)(?:\.conv)?)?",
    re.DOTALL,
)
_PATCHES = re.compile(
    r"(?:.*\.)?(?:patch_embed\w*(?:\..*)?|conv_proj|visual\.conv1|stem\.0|stem_0|"
    r"downsample(?:_layers\.[0-9]+)?\.[01]|features\.0\.0)",
    re.DOTALL,
)


def guessed_strides(layers: tuple[Layer, ...]) -> Mapping[str, int]:
    """Return layer → the stride that it has in the families that use its name, where no one knows better.

    The first block of every stage but the first halves its images where it has a 1×1 shortcut: in its second
    convolution if it has three (torchvision, timm), in its first if it has two. Kernels of even sides at the
    entrance of a stage cut images into patches that do not overlap (ViT, ConvNeXt).
    """
    by_name = {layer.name: layer for layer in layers if _unknown(layer)}
    found: dict[str, int] = {}
    for name, layer in by_name.items():
        match = _PROJECTION.fullmatch(name)
        if match and int(match["stage"]) > 1 and layer.conv is not None and max(layer.conv.kernel) == 1:
            branch = [join(match["block"], f"conv{number}") for number in (1, 2, 3)]
            strided = branch[1] if branch[2] in by_name else branch[0]
            if branch[0] in by_name and branch[1] in by_name:
                found[strided] = 2
                # At the second place an average pool without tensors comes first, and strides instead.
                if match["place"] != "1":
                    found[name] = 2
        elif makes_patches(layer) and layer.conv is not None:
            found[name] = layer.conv.kernel[0]
    return found


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
