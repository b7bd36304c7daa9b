"""Basic and bottleneck blocks of torchvision, timm and transformers, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import Block, Pool, Shortcut
from specinspect.layers.blocks.walk import NotUnderstoodError, Walk, assumed, check_spatial, check_square
from specinspect.layers.model import Layer
from specinspect.layers.names import join

_STAGE = re.compile(r"(?:.*\.)?(?:layer|stage)s?([0-9]+)\.0", re.DOTALL)

_TIMM_STAGE = re.compile(r"(?:.*\.)?stages\.([0-9]+)\.blocks\.0", re.DOTALL)
"""Counted from 0."""


_TRANSFORMERS = re.compile(
    r"(?P<block>(?P<before>(?:.*\.)?)encoder\.stages\.[0-9]+\.layers\.[0-9]+)\.layer\.0\.convolution",
    re.DOTALL,
)


def transformers_blocks(known: Known) -> Iterator[str]:
    """Yield the modules that are blocks of transformers' ResNet: its normalisations all come after."""
    for layer in known.layers:
        match = _TRANSFORMERS.fullmatch(layer.name)
        # RegNet has the same names and other strides.
        stem = match and join(match["before"].rstrip("."), "embedder.embedder.convolution")
        if match and stem in known.by_name:
            yield match["block"]


def resnet_block(known: Known, parent: str) -> Block:
    """Make a basic or bottleneck block of torchvision, timm or transformers."""
    branch = branch_of(known, parent)
    if any(conv.normalization is None or conv.normalization.kind != "batch_norm" for conv in branch):
        raise NotUnderstoodError("not every convolution has a batch norm after it")
    projection = projection_of(known, parent, branch)
    walk, notes = Walk(known, [], []), []
    strided, stride = assumed_stride(parent, branch, projection)
    if projection and (stride or _assumed_two(strided)):
        notes.append(f"stride 2 of {strided.name} and of the shortcut assumed: not stored in the checkpoint")
    for conv in branch:
        walk.factors.append(walk.layer(conv, stride=stride if conv is strided else None))
        if conv.normalization is not None:
            walk.norm(conv.normalization, conv.normalization.name, first=False)
        if conv is not branch[-1]:
            walk.activate(conv.activation)
    shortcut = Shortcut("identity", "assumed")
    if projection is None:
        check_square(walk)
    else:
        shortcut = projected(known, walk, projection, stride)
    last = branch[-1].activation
    after = last if last.name != "identity" else replace(branch[0].activation, parameter=None)
    block = Block(
        parent,
        "residual",
        tuple(walk.factors),
        shortcut,
        "assumed",
        assumed(known, walk.factors, "residual block", notes),
        None if after.name == "identity" else after,
    )
    check_spatial(known, block)
    return block


def branch_of(known: Known, parent: str) -> list[Layer]:
    """Return the two or three convolutions of a block, in order."""
    names = ["conv1", "conv2", "conv3"]
    if join(parent, names[0]) not in known.by_name:
        names = [f"layer.{i}.convolution" for i in range(3)]
    convs = [known.by_name.get(join(parent, name)) for name in names]
    branch = [conv for conv in convs if conv is not None and conv.conv is not None]
    if len(branch) < 2 or (convs[2] is not None and len(branch) < 3) or convs[1] is None:
        raise NotUnderstoodError("not two or three convolutions")
    return branch


def projection_of(known: Known, parent: str, branch: Sequence[Layer]) -> Layer | None:
    """Return the convolution on a block's shortcut, None for an identity."""
    side = [
        layer
        for layer in known.layers
        if layer.name.startswith(f"{parent}.") and layer not in branch and layer.kind != "lora"
    ]
    projection = side[0] if len(side) == 1 else None
    words = ("downsample.", "shortcut.", "downsample", "shortcut")
    if side and (projection is None or not projection.name.removeprefix(f"{parent}.").startswith(words)):
        raise NotUnderstoodError("other layers beside its convolutions")
    return projection


def assumed_stride(
    parent: str, branch: Sequence[Layer], projection: Layer | None
) -> tuple[Layer, int | None]:
    """Return the convolution of a block that has the stride, and the stride where only the name tells it."""
    stage, timm = _STAGE.fullmatch(parent), _TIMM_STAGE.fullmatch(parent)
    later = (stage and int(stage[1]) > 1) or (timm and int(timm[1]) > 0)
    strided = branch[0] if len(branch) == 2 else branch[1]
    return strided, 2 if projection and later and _unknown_stride(strided) else None


def _unknown_stride(layer: Layer) -> bool:
    return layer.conv is not None and layer.conv.stride.source == "assumed"


def _assumed_two(layer: Layer) -> bool:
    return layer.conv is not None and _unknown_stride(layer) and max(layer.conv.stride.value) == 2


def projected(known: Known, branch: Walk, layer: Layer, stride: int | None) -> Shortcut:
    """Return the shortcut that a projection makes."""
    walk = Walk(known, [], [], inputs=branch.inputs, width=branch.inputs, axes=branch.axes)
    if layer.conv is None:
        raise NotUnderstoodError("a shortcut that is no convolution")
    own = stride if _unknown_stride(layer) else None
    if layer.name.endswith(".1") and own:  # ResNet-D: an average pool without tensors comes first
        walk.factors.append(Pool((own,) * len(layer.conv.kernel)))
        own = None
    walk.factors.append(walk.layer(layer, stride=own))
    if layer.normalization is not None:
        walk.norm(layer.normalization, layer.normalization.name, first=False)
    if walk.width != branch.width:
        raise NotUnderstoodError(f"shortcut of {walk.width} channels beside {branch.width}")
    return Shortcut("layers", "assumed", tuple(walk.factors))
