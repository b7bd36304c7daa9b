"""All blocks of a checkpoint, from a traced model and from names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specinspect.architecture.model import Architecture
from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.blocks.known import Known, branch_paths
from specinspect.layers.blocks.model import Block, BlockDiscovery
from specinspect.layers.blocks.named import Refusal, named_blocks, unsettled
from specinspect.layers.blocks.traced import Traced
from specinspect.layers.model import Layer
from specinspect.layers.names import split_name


def find_blocks(
    layers: tuple[Layer, ...],
    *,
    architecture: Architecture | None = None,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, TensorInfo] | None = None,
) -> tuple[Block, ...]:
    """Return `discover_blocks(…).blocks`."""
    return discover_blocks(layers, architecture=architecture, config=config, tensors=tensors).blocks


def discover_blocks(
    layers: tuple[Layer, ...],
    *,
    architecture: Architecture | None = None,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, TensorInfo] | None = None,
) -> BlockDiscovery:
    """Find the blocks: those of the traced model whose every step is understood, else those that names tell.

    Where a model was followed as a whole, names count only inside its residual blocks.

    Args:
        layers: all layers of the checkpoint, with their facts.
        architecture: of a model that matches the checkpoint.
        config: config.json, for the number of attention heads.
        tensors: headers of the checkpoint, for normalisations and scales that are in no layer.
    """
    known = Known(layers, architecture, config or {}, tensors or {})
    blocks: list[Block] = []
    skipped: list[Skipped] = []
    for traced in architecture.blocks if architecture else ():
        found = Traced(known, traced).block()
        if isinstance(found, Block):
            blocks.append(found)
        else:
            skipped.append(Skipped(traced.name, found))
    used = {name for block in blocks for name in block.layers}
    inside = known.residual_layers if architecture is not None and architecture.traced else None
    refused: list[Refusal] = []
    for block in named_blocks(known):
        if isinstance(block, Refusal):
            refused.append(block)
            continue
        names = block.layers
        if used.isdisjoint(names) and (inside is None or inside.issuperset(names)):
            blocks.append(block)
            used.update(names)
    by_name: dict[str, Block] = {}
    for block in blocks:
        name, count = block.name, 2
        while name in by_name:
            name, count = f"{block.name}#{count}", count + 1
        by_name[name] = replace(block, name=name)
    order = {layer.name: i for i, layer in enumerate(layers)}
    in_order = sorted(by_name.values(), key=lambda b: min(order[name] for name in b.layers))
    named = {name for block in in_order for name in (*block.layers, *block.shortcut_layers)}
    return BlockDiscovery(
        tuple(in_order),
        tuple(s for s in skipped if not _covered(known, s.name, architecture, named)),
        unsettled(known, [r for r in refused if r.name not in by_name]) if architecture is None else (),
    )


def _covered(known: Known, name: str, architecture: Architecture | None, named: set[str]) -> bool:
    """Say whether names told everything about a traced block that could not be followed."""
    for block in architecture.blocks if architecture else ():
        if block.name == name:
            inside = [layer.name for path in branch_paths(block) for layer in known.at(path)]
            attention = ("q", "k", "query", "key", "q_proj", "k_proj", "q_lin", "k_lin", "wq", "wk")
            return bool(inside) and all(item in named or split_name(item)[1] in attention for item in inside)
    return False
