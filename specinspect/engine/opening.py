"""From a source to an Inspection: what is in it, and nothing computed yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from specinspect.architecture import Architecture, build_with_notes, check_match, read_architecture
from specinspect.cache.results import ResultCache, open_cache
from specinspect.checkpoint import Checkpoint, from_module, from_state_dict, open_checkpoint
from specinspect.checkpoint.text import quote
from specinspect.engine.effort import long_work
from specinspect.errors import LayerError, SettingsError
from specinspect.inputs import Inputs, example_batch, read_inputs
from specinspect.layers import Discovery, discover, select
from specinspect.layers.blocks import Block, BlockDiscovery, compose, discover_blocks
from specinspect.layers.facts import apply_facts, with_architecture
from specinspect.layers.model import Activation, Layer
from specinspect.layers.rules import unmatched_rules
from specinspect.settings import Settings

if TYPE_CHECKING:
    import torch

    Source = str | os.PathLike[str] | Mapping[str, torch.Tensor] | torch.nn.Module | Checkpoint

LOADING = 1 << 30
"""Bytes of a checkpoint that are hashed in about the time that loading torch takes."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """An opened source and the layers chosen in it; nothing has been computed."""

    checkpoint: Checkpoint
    discovery: Discovery
    settings: Settings
    inputs: Inputs
    layers: tuple[Layer, ...]
    """All of the checkpoint's, of which `discovery` may be a selection."""
    blocks: tuple[Block, ...] = ()
    """Measured after the layers."""
    notices: tuple[str, ...] = ()
    """What tracing could not follow, and rules that match nothing."""
    cache: ResultCache | None = None


def open_source(source: Source, settings: Settings) -> Inspection:
    """Open a path, a state dict, a module or a Checkpoint, and find its layers. Reads headers only.

    Raises:
        SpecinspectError: it cannot be read, or holds no layer that was asked for.
    """
    checkpoint = _checkpoint(source, settings)
    try:
        return _chosen(source, checkpoint, settings)
    except LayerError as error:
        if checkpoint.format == "memory":
            raise
        raise LayerError(f"{quote(checkpoint.path)}: {error.message}", error.hint) from error


def _chosen(source: Source, checkpoint: Checkpoint, settings: Settings) -> Inspection:
    """Find the layers and blocks of an opened checkpoint."""
    architecture = _architecture(source, checkpoint, settings)
    if architecture is not None:
        checkpoint = with_architecture(checkpoint, architecture)
    discovery = apply_facts(
        discover(checkpoint),
        checkpoint,
        rules=settings.rules,
        architecture=architecture,
        activation=settings.activation,
    )
    if set(settings.maps) == {"weight"} and not settings.compose:
        discovery = replace(discovery, layers=tuple(_without_activation(la) for la in discovery.layers))
    notices = (
        *(architecture.notes if architecture is not None else ()),
        *unmatched_rules(discovery.layers, settings.rules),
    )
    everything = discovery
    if settings.layers or settings.exclude:
        discovery = select(discovery, settings.layers, settings.exclude)
    blocks = _blocks(everything, discovery, checkpoint, architecture, settings)
    inputs = read_inputs(settings, checkpoint, discovery.layers, [block.layers[0] for block in blocks.blocks])
    if settings.conv_pattern == "pixel":
        everything, discovery = _on_given_images(everything, inputs), _on_given_images(discovery, inputs)
    not_understood = [f"block {item.name} of the model: {item.reason}" for item in blocks.skipped]
    return Inspection(
        checkpoint,
        discovery,
        settings,
        inputs,
        everything.layers,
        blocks.blocks,
        (
            *notices,
            *_options_without_effect(settings),
            *not_understood,
            *blocks.notes,
            *inputs.notices,
            *long_work(discovery.layers, blocks.blocks, settings),
        ),
        open_cache() if settings.cache and _worth_keeping(checkpoint, settings) else None,
    )


def _on_given_images(found: Discovery, inputs: Inputs) -> Discovery:
    """Return the layers with the sides of the images that they are given."""
    layers = tuple(
        layer if (sides := inputs.sides_of(layer)) is None else replace(layer, sides=sides)
        for layer in found.layers
    )
    return replace(found, layers=layers)


def _worth_keeping(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Say whether results are looked up and kept: not where hashing takes as long as reading."""
    entries_alone = settings.quantities == "entries" and settings.conv_operator != "padded"
    return not entries_alone or checkpoint.bytes < LOADING


def _options_without_effect(settings: Settings) -> tuple[str, ...]:
    """Return one sentence for each option that the choice of maps leaves without effect."""
    if settings.curve and set(settings.maps) == {"weight"}:
        return ("--curve: no curve, since --maps leaves out the map skip that it is of",)
    return ()


def _blocks(
    everything: Discovery,
    selected: Discovery,
    checkpoint: Checkpoint,
    architecture: Architecture | None,
    settings: Settings,
) -> BlockDiscovery:
    """Find the blocks whose layers are all selected, and those that the user composed."""
    composed = tuple(compose(text, everything.layers) for text in settings.compose)
    if not settings.blocks or set(settings.maps) == {"weight"}:
        return BlockDiscovery(composed)
    found = discover_blocks(
        everything.layers,
        architecture=architecture,
        config=checkpoint.config,
        tensors=checkpoint.tensors,
    )
    names = {layer.name for layer in selected.layers}
    blocks = tuple(b for b in found.blocks if names.issuperset((*b.layers, *b.shortcut_layers)))
    return BlockDiscovery((*blocks, *composed), found.skipped, found.notes)


def _without_activation(layer: Layer) -> Layer:
    """Leave out what was assumed of an activation that no map will use: always the last sentence."""
    if layer.activation.source != "assumed":
        return layer
    return replace(layer, activation=Activation("identity", "assumed"), assumptions=layer.assumptions[:-1])


def _architecture(source: Source, checkpoint: Checkpoint, settings: Settings) -> Architecture | None:
    """Trace the network, where the caller holds it or asked for its code to be run."""
    if settings.model is not None:
        built = build_with_notes(settings.model, settings.model_args)
        path = settings.inputs
        architecture = read_architecture(
            built.module, built.notes, lambda: None if path is None else example_batch(path, checkpoint)
        )
        check_match(architecture, {name: info.shape for name, info in checkpoint.tensors.items()})
        return architecture
    if settings.model_args is not None:
        raise SettingsError("--model-args: expected --model beside it", "say which factory they are for")
    return read_architecture(source) if hasattr(source, "named_modules") else None


def _checkpoint(source: Source, settings: Settings) -> Checkpoint:
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, str | os.PathLike):
        return open_checkpoint(os.fspath(source), settings.key)
    if settings.key is not None:
        raise SettingsError("key: only a file can hold several state dicts", "pass the one that is meant")
    if isinstance(source, Mapping):
        return from_state_dict(source)
    if hasattr(source, "named_modules"):
        return from_module(source)
    raise SettingsError(
        f"expected a path, a state dict or a torch.nn.Module, got {type(source).__name__}",
    )


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Return the Settings of keyword arguments.

    Raises:
        SettingsError: no such setting, or a value that makes no sense.
    """
    known = Settings.__dataclass_fields__
    for name in values:
        if name not in known:
            raise SettingsError(f"unknown setting {name!r}", f"known are {', '.join(known)}")
    return Settings(**values)
