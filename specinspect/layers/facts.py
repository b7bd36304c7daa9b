"""What follows each layer, and what goes around it: from rules, a model, config.json, names and defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from specinspect.architecture.model import Activation as Applied
from specinspect.architecture.model import Architecture
from specinspect.checkpoint.model import Checkpoint, Skipped
from specinspect.checkpoint.tensors import FLOAT_DTYPES
from specinspect.layers.context import Context
from specinspect.layers.conv import refine, with_geometry
from specinspect.layers.discover import Discovery
from specinspect.layers.guesses import NOT_STORED, Guesses, Known
from specinspect.layers.leftovers import Attachments, leftover
from specinspect.layers.model import Activation, Layer, Normalization, Source, Stored
from specinspect.layers.names import join, split_name
from specinspect.layers.norms import EPSILONS, Norm, find_norms, kind_of_type
from specinspect.layers.prelu import find_prelus, perhaps_prelus
from specinspect.layers.projections import with_projections
from specinspect.layers.rules import Rule, ruled_activation, ruled_geometry, ruled_skip, ruled_slope
from specinspect.layers.sequence import Following, Sequences
from specinspect.layers.skips import layers_alone, skip_of
from specinspect.layers.strides import guessed_strides, with_stride
from specinspect.layers.vocabulary import SLOPES, parse_activation, usable


def apply_facts(
    discovery: Discovery,
    checkpoint: Checkpoint,
    *,
    rules: Sequence[Rule] = (),
    architecture: Architecture | None = None,
    activation: str | None = None,
) -> Discovery:
    """Return the same layers with activation, skip, normalisation and geometry, and where each comes from.

    Of each fact the first of these that knows it counts: the rules, the activation asked for, the model,
    whole modules in the file, slopes stored in the file, config.json, the names of common families, a
    default. Every activation whose source is 'assumed' has one sentence in `assumptions`.

    Args:
        discovery: all layers of the checkpoint, before any selection: what follows a layer may depend on the
            others.
        checkpoint: where they come from.
        rules: the last one that matches counts.
        architecture: of a model that matches the checkpoint. `with_architecture` lets `discover` profit too.
        activation: for every layer but embeddings; None or 'auto' to find out.

    Raises:
        SettingsError: a rule that does not fit a layer it matches, or an unknown activation.
    """
    asked = None
    if activation is not None and activation != "auto":
        name, slope = parse_activation(activation, "--activation")
        asked = Activation(name, "config", slope)
    if architecture is not None:
        checkpoint = with_architecture(checkpoint, architecture)
    context = Context.of(checkpoint)
    norms = find_norms(context)
    evidence = _Evidence(context, discovery.layers, norms, architecture)
    alone = layers_alone(architecture.blocks if architecture else ())
    layers = []
    refined = tuple(refine(context, found, _owner(found)) for found in discovery.layers)
    strides = guessed_strides(refined)
    for found in refined:
        layer = with_stride(found, strides[found.name]) if found.name in strides else found
        if layer.conv is not None:
            layer = with_geometry(layer, layer.conv)
        layer = ruled_geometry(context, layer, rules)
        layer = replace(layer, normalization=evidence.normalization(layer))
        follows, sentence = _activation(layer, rules, asked, evidence)
        follows = ruled_slope(layer, rules, follows)
        layers.append(
            replace(
                layer,
                activation=follows,
                skip=ruled_skip(layer, rules) or skip_of(layer, alone),
                assumptions=(*layer.assumptions, *([sentence] if sentence else [])),
            )
        )
    done = with_projections(layers, rules, architecture.blocks if architecture else ())
    return Discovery(done, _reasons(context, discovery, done, norms))


def with_architecture(checkpoint: Checkpoint, architecture: Architecture) -> Checkpoint:
    """Return the checkpoint with the modules of a model: `discover` then knows kinds, strides and groups."""
    return replace(checkpoint, modules={**checkpoint.modules, **architecture.modules})


def _activation(layer: Layer, rules: Sequence[Rule], asked: Activation | None, evidence: _Evidence) -> Known:
    ruled = ruled_activation(layer, rules)
    if ruled is None and layer.kind != "embedding":
        ruled = asked
    if ruled is not None:
        return evidence.with_slopes(layer, ruled)
    return (
        evidence.traced(layer)
        or evidence.listed(layer)
        or evidence.stored_slopes(layer)
        or evidence.guesses.configured(layer)
        or evidence.guessed(layer)
    )


@dataclass(frozen=True)
class _Evidence:
    """Everything that is known of a checkpoint's architecture, in one place."""

    context: Context
    layers: tuple[Layer, ...]
    norms: Mapping[str, Norm]
    architecture: Architecture | None

    @cached_property
    def guesses(self) -> Guesses:
        return Guesses(self.context, self.layers)

    @cached_property
    def sequences(self) -> Sequences:
        return Sequences(self.context.modules)

    @cached_property
    def prelus(self) -> Mapping[str, str]:
        return find_prelus(self.context, self.layers)

    def with_slopes(self, layer: Layer, told: Activation) -> Known:
        """Give a PReLU that the user told of its stored slopes, or say that the usual one is taken."""
        if told.name != "prelu":
            return told, ""
        tensor = self.prelus.get(layer.name, self.perhaps.get(layer.name))
        if tensor is None:
            traced = self.traced(layer)
            tensor = traced[0].parameter if traced is not None else None
        if tensor is not None:
            return replace(told, slope=None, parameter=tensor), ""
        return told, "" if told.slope != SLOPES[
            "prelu"
        ] else "PReLU slope 0.25 assumed: no stored slopes found for it"

    @cached_property
    def perhaps(self) -> Mapping[str, str]:
        return perhaps_prelus(self.context, self.layers)

    def guessed(self, layer: Layer) -> Known:
        """Return what usually follows a layer of this name, or what is assumed of any other."""
        known, sentence = self.guesses.named(layer) or self._default(layer)
        if self.architecture is not None:
            sentence = sentence.replace(NOT_STORED, "the model does not tell")
        return known, sentence

    def _default(self, layer: Layer) -> Known:
        """Return what is assumed where nothing is known, and what a vector behind the layer may mean."""
        known, sentence = self.guesses.default(layer)
        tensor = self.perhaps.get(layer.name)
        if tensor is None:
            return known, sentence
        unclear = f"{tensor} may be slopes of a PReLU (a rule can say so) or a normalisation's gain"
        return known, f"{sentence}; {unclear}"

    @cached_property
    def parents_with_prelu(self) -> frozenset[str]:
        return frozenset(split_name(name)[0] for name in self.prelus)

    @cached_property
    def gates(self) -> Mapping[tuple[str, int | None], Applied]:
        """(layer, half of its rows or None for all) → what follows it in a gated MLP."""
        found: dict[tuple[str, int | None], Applied] = {}
        for block in self.architecture.blocks if self.architecture else ():
            for step in block.branch:
                if step.gated is not None:
                    half = step.gated.half
                    found[step.gated.gate, half] = step.gated.activation
                    other = None if half is None else 1 - half
                    found.setdefault((step.gated.up, other), Applied("identity"))
        return found

    def traced(self, layer: Layer) -> Known | None:
        """Return what a model was seen to apply."""
        if self.architecture is None or layer.kind == "lora":
            return None
        whole, part = _place(layer)
        applied = self.gates.get((whole, part)) if part is not None else None
        applied = applied or self.architecture.activations.get(whole)
        if applied is None:
            return None
        known, sentence = self._usable(layer, applied.name, applied.slope, applied.parameter)
        choice = self.architecture.ambiguous.get(whole, "") if part is None else ""
        return known, "; ".join(filter(None, (choice, sentence, self.architecture.assumption)))

    def listed(self, layer: Layer) -> Known | None:
        """Return what stands behind a layer in a list of modules that run in order."""
        following = self._following(layer)
        if following is None:
            return None
        slopes = None
        if following.activation == "prelu" and following.module is not None:
            slopes = join(following.module, "weight")
        return self._usable(layer, following.activation, following.slope, slopes)

    def stored_slopes(self, layer: Layer) -> Known | None:
        """Return the PReLU whose slopes the file holds, or none where only its neighbours have one."""
        tensor = self.prelus.get(layer.name)
        if tensor is not None:
            module = split_name(tensor)[0]
            known, _ = usable("prelu", "assumed", None, tensor)
            return known, f"PReLU {module} taken to follow it, by its name and length"
        parent = split_name(layer.name)[0]
        hidden = layer.kind in {"linear", "conv1d", "conv2d", "conv3d"}
        # A list of modules mixes activations freely; layers and PReLUs called by name do not.
        listed = self.context.type_of(parent) == "Sequential" or split_name(layer.name)[1].isdigit()
        if hidden and parent in self.parents_with_prelu and not listed:
            sentence = "no activation assumed after it: no slopes are stored, unlike beside it"
            return Activation("identity", "assumed"), sentence
        return None

    def normalization(self, layer: Layer) -> Normalization | None:
        """Return the normalisation behind a layer: the model's if it was seen, else the guessed one."""
        guessed = layer.normalization
        seen, path = self._seen_norm(layer)
        if not seen:
            return self._detailed(guessed, layer) if guessed else None
        if path is None:
            return None
        norm = self.norms.get(path)
        if norm is not None and norm.length == layer.matrix_shape[0]:
            return self._detailed(Normalization(norm.kind, norm.path, "model"), layer)
        # Without a gain of its own, or with one for every place.
        kind = kind_of_type(self.context.type_of(path)) if norm is None else None
        known = Normalization(kind, path, "model") if kind and kind != "batch_norm" else None
        return self._detailed(known, layer) if known else None

    def _seen_norm(self, layer: Layer) -> tuple[bool, str | None]:
        """Say whether it is known what follows a layer, and which normalisation that is."""
        architecture = self.architecture
        if architecture is not None:
            whole, _ = _place(layer)
            path = architecture.normalizations.get(whole)
            if path is not None or whole in architecture.activations:
                return True, path
        following = self._following(layer)
        return (False, None) if following is None else (True, following.norm)

    def _detailed(self, norm: Normalization, layer: Layer) -> Normalization:
        """Add what its module or config.json tells of a normalisation."""
        facts = self.context.modules.get(norm.name)
        attributes = facts.attributes if facts else {}
        shape, groups = attributes.get("normalized_shape"), attributes.get("num_groups")
        norm = replace(
            norm,
            axes=len(shape) if isinstance(shape, tuple) and shape else 1,
            groups=groups if isinstance(groups, int) else None,
        )
        names: tuple[str, ...] = ("batch_norm_eps",)
        if norm.kind in {"layer_norm", "rms_norm"}:
            names = ("layer_norm_eps", "rms_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps")
        values: tuple[tuple[Any, Source], ...] = (
            (attributes.get("eps"), "model"),
            (attributes.get("variance_epsilon"), "model"),
            *((self.context.config.get(name), "config") for name in names),
        )
        for value, source in values:
            if isinstance(value, float) and 0 <= value < 1:
                return replace(norm, eps=value, eps_source=source)
        if norm.kind == "rms_norm" and "eps" in attributes and attributes["eps"] is None:
            return replace(norm, eps=EPSILONS.get(layer.dtype, EPSILONS["f32"]), eps_source="model")
        return norm

    def _following(self, layer: Layer) -> Following | None:
        if layer.kind == "lora" or not self.context.modules:
            return None
        return self.sequences.following(layer.name)

    def _usable(self, layer: Layer, name: str, slope: float | None, slopes: str | None) -> Known:
        info = self.context.tensors.get(slopes) if slopes else None
        fits = info is not None and info.dtype in FLOAT_DTYPES and info.size in {1, layer.matrix_shape[0]}
        return usable(name, "model", slope, slopes if fits else None)


def _owner(layer: Layer) -> str:
    """Return the path of the module whose weight a layer is."""
    first = layer.parameters[0]
    before, found, _ = first.partition(".parametrizations.")
    return before if found else split_name(first)[0]


def _place(layer: Layer) -> tuple[str, int | None]:
    """Return the path under which a model knows a layer, and which part of it this is, None for all."""
    recipe = layer.weight
    if not isinstance(recipe, Stored) or recipe.rows is None or split_name(recipe.tensor)[1] != "weight":
        return layer.name, None
    return split_name(recipe.tensor)[0], recipe.rows[0][0] // layer.matrix_shape[0]


def _reasons(
    context: Context, discovery: Discovery, layers: tuple[Layer, ...], norms: Mapping[str, Norm]
) -> tuple[Skipped, ...]:
    """Say anew what the tensors beside the layers are, now that it is better known what belongs to what."""
    before, after = Attachments(discovery.layers, norms), Attachments(layers, norms)
    slopes: dict[str, str] = {}
    for layer in layers:
        if layer.activation.parameter:
            slopes.setdefault(layer.activation.parameter, f"slopes of the PReLU after {layer.name}")
    perhaps = {tensor: name for name, tensor in perhaps_prelus(context, layers).items()}
    skipped = []
    for skip in discovery.skipped:
        info = context.tensors.get(skip.name)
        reason = skip.reason
        if info is not None and reason == before.reason(context, info):
            reason = after.reason(context, info) or leftover(context, info)
        if reason == "vector" or (info is not None and len(info.shape) == 1 and "normalisation" in reason):
            reason = slopes.get(skip.name, reason)
        if reason == "vector" and skip.name in perhaps:
            reason = f"slopes of a PReLU after {perhaps[skip.name]}, or gain of a normalisation"
        skipped.append(Skipped(skip.name, reason))
    return tuple(skipped)
