"""ResNet blocks that normalise first (He and others 2016b), and how to tell them from those that do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import Block, Shortcut
from specinspect.layers.blocks.resnet import assumed_stride, branch_of, projected, projection_of
from specinspect.layers.blocks.walk import NotUnderstoodError, Walk, assumed, check_spatial, check_square
from specinspect.layers.context import is_alphabetical
from specinspect.layers.model import Layer, Normalization
from specinspect.layers.names import join

Order = Literal["after", "before"]


def resnet_orders(known: Known, parents: Iterable[str]) -> Mapping[str, Order | None]:
    """Return for each block whether its normalisations come after or before its convolutions.

    By the channels of the norm beside a convolution whose inputs and outputs differ in number; else as in the
    other blocks of the network; else by the order in the file, unless that is alphabetical. None: nothing
    tells, or the widths contradict each other.
    """
    votes = {parent: set(_votes(known, parent)) for parent in parents}
    common = set().union(*votes.values())
    alphabetical = bool(known.tensors) and is_alphabetical(known.tensors)
    position = {name: i for i, name in enumerate(known.tensors)}
    orders: dict[str, Order | None] = {}
    for parent, own in votes.items():
        told = own or common
        if told:
            orders[parent] = next(iter(told)) if len(told) == 1 else None
        elif not known.tensors:
            orders[parent] = "after"
        else:
            orders[parent] = None if alphabetical else _listed(known, parent, position)
    return orders


def _votes(known: Known, parent: str) -> Iterator[Order]:
    for number in (1, 2, 3):
        conv = known.by_name.get(join(parent, f"conv{number}"))
        path = _norm_path(known, parent, number)
        if conv is None or path is None:
            continue
        if conv.normalization is not None and conv.normalization.source != "assumed":
            yield "after"
        length = next(
            t.size
            for leaf in ("running_mean", "weight", "gamma", "scale")
            if (t := known.tensors.get(join(path, leaf)))
        )
        outputs, inputs = conv.matrix_shape
        if outputs != inputs and length in {outputs, inputs}:
            yield "after" if length == outputs else "before"


def _norm_path(known: Known, parent: str, number: int) -> str | None:
    paths = (join(parent, f"{word}{number}") for word in ("bn", "norm"))
    return next((path for path in paths if known.norm(path, "assumed") is not None), None)


def _listed(known: Known, parent: str, position: Mapping[str, int]) -> Order | None:
    """Return what the places in the file of the first norm and convolution say."""
    convs = [known.by_name.get(join(parent, f"conv{number}")) for number in (1, 2)]
    norms = [_norm_path(known, parent, number) for number in (1, 2)]

    def place(conv: Layer | None) -> int | None:
        return None if conv is None else min(position[name] for name in conv.parameters)

    def first(path: str | None) -> int | None:
        places = [i for name, i in position.items() if path is not None and name.startswith(f"{path}.")]
        return min(places, default=None)

    conv1, norm1, norm2 = place(convs[0]), first(norms[0]), first(norms[1])
    if conv1 is None or norm1 is None or norm2 is None:
        return "after"  # whatever it is, no block will be made of it
    if conv1 < norm1:
        return "after"
    return "before" if conv1 < norm2 else None


def preactivation_block(known: Known, parent: str) -> Block:
    """Make a block norm-act-conv-norm-act-conv, with a third such pair in a bottleneck.

    Where the shortcut is a projection, both it and the branch read what the first activation puts out, as in
    timm: that is then where the block begins.
    """
    branch = branch_of(known, parent)
    norms = [_batch_norm(known, parent, number) for number in range(1, len(branch) + 1)]
    projection = projection_of(known, parent, branch)
    if projection is not None and not projection.name.removeprefix(f"{parent}.").startswith("downsample"):
        raise NotUnderstoodError("a shortcut that may read its input before or after the first norm")
    activation = branch[0].activation
    if activation.parameter is not None:
        raise NotUnderstoodError("an activation with slopes of its own for every layer")
    walk, notes = Walk(known, [], []), ["batch norms taken to come before the convolutions"]
    strided, stride = assumed_stride(parent, branch, projection)
    for conv, norm in zip(branch, norms, strict=True):
        if projection is None or conv is not branch[0]:
            walk.norm(norm, norm.name, first=False)
            walk.activate(activation)
        walk.factors.append(walk.layer(conv, stride=stride if conv is strided else None))
    shortcut = Shortcut("identity", "assumed")
    if projection is None:
        check_square(walk)
    else:
        notes.append(f"its input is what {norms[0].name} and the activation put out, for the shortcut too")
        if stride:
            notes.append(
                f"stride 2 of {strided.name} and of the shortcut assumed: not stored in the checkpoint"
            )
        shortcut = projected(known, walk, projection, stride)
    sentences = assumed(known, walk.factors, "residual block", notes)
    block = Block(parent, "residual", tuple(walk.factors), shortcut, "assumed", sentences)
    check_spatial(known, block)
    return block


def _batch_norm(known: Known, parent: str, number: int) -> Normalization:
    path = _norm_path(known, parent, number)
    norm = None if path is None else known.norm(path, "assumed")
    if norm is None or norm.kind != "batch_norm":
        raise NotUnderstoodError("not every convolution has a batch norm before it")
    return norm
