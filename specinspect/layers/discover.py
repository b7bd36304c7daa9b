"""From a checkpoint's headers to its layers: an ordered list of rules, each claiming what it understands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from specinspect.checkpoint.model import Checkpoint, Skipped
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.errors import LayerError
from specinspect.layers.context import Claimer, Context
from specinspect.layers.families import claim_plain, find_channels
from specinspect.layers.leftovers import Attachments, leftover
from specinspect.layers.lora import claim_lora
from specinspect.layers.model import Layer
from specinspect.layers.names import matches
from specinspect.layers.norms import attach_norms, find_norms
from specinspect.layers.packed import claim_packed
from specinspect.layers.quantised import claim_quantised, note_scale
from specinspect.layers.recurrent import claim_recurrent
from specinspect.layers.reparam import claim_reparametrised
from specinspect.layers.unusable import claim_tables, claim_tied, claim_unusable

CLAIMERS: tuple[Claimer, ...] = (
    claim_quantised,
    claim_unusable,
    claim_tied,
    claim_lora,
    claim_reparametrised,
    claim_tables,
    claim_recurrent,
    claim_packed,
    claim_plain,
)
"""In this order: each sees only what those before it left. A new family of layers is one more rule."""

NOT_SELECTED = "not selected"


@dataclass(frozen=True, slots=True)
class Discovery:
    """The layers of a checkpoint, and every tensor that makes none."""

    layers: tuple[Layer, ...]
    """In checkpoint order; names are unique."""
    skipped: tuple[Skipped, ...]
    """Every tensor that is in no layer's `parameters`, with its reason."""


def discover(checkpoint: Checkpoint) -> Discovery:
    """Find the layers of a checkpoint from names, shapes and what is known of its modules.

    Every tensor is either among the `parameters` of a layer or in `skipped`; a packed tensor is among
    those of each of its parts.

    Raises:
        LayerError: there is no layer.
    """
    context = Context.of(checkpoint)
    context = context.with_channels(find_channels(context))
    claimed, reasons = _claim(context)
    norms = find_norms(context)
    layers = attach_norms(context, _in_order(context, claimed), norms)
    layers = tuple(note_scale(context, layer) for layer in layers)
    used = {name for layer in layers for name in layer.parameters}
    attachments = Attachments(layers, norms)
    skipped = tuple(
        Skipped(name, _reason(context, attachments, info, reasons.get(name)))
        for name, info in context.tensors.items()
        if name not in used
    )
    if not layers:
        raise LayerError(*_nothing((*skipped, *checkpoint.skipped)))
    return Discovery(layers, skipped)


def _claim(context: Context) -> tuple[list[Layer], dict[str, str]]:
    """Let every rule claim its tensors; return the layers, and the reason for each tensor that is none."""
    remaining = dict(context.tensors)
    layers: list[Layer] = []
    reasons: dict[str, str] = {}
    for claimer in CLAIMERS:
        claims = claimer(context, remaining)
        layers += claims.layers
        reasons |= {skip.name: skip.reason for skip in claims.skipped}
        for name in (
            *(name for layer in claims.layers for name in layer.parameters),
            *(skip.name for skip in claims.skipped),
        ):
            remaining.pop(name, None)
    return layers, reasons


def _reason(context: Context, attachments: Attachments, info: TensorInfo, claimed: str | None) -> str:
    # What a tensor belongs to says more than what kind of table it is; that it is tied says more still.
    if claimed and claimed.startswith("same storage"):
        return claimed
    return attachments.reason(context, info) or claimed or leftover(context, info)


def _in_order(context: Context, layers: list[Layer]) -> tuple[Layer, ...]:
    """Sort the layers by their first tensor and make their names unique."""
    ordered = sorted(layers, key=lambda layer: min(context.position[name] for name in layer.parameters))
    # A tensor's own name goes first: nothing else is called like it in the file.
    taken = {layer.name for layer in ordered if layer.name in context.tensors}
    seen: set[str] = set()
    result = []
    for layer in ordered:
        name, count = layer.name, 2
        own = name in layer.parameters
        if name in seen or (name in taken and not own):
            base = name = layer.parameters[0] if layer.parameters[0] not in taken else name
            while name in seen or name in taken:
                name = f"{base}#{count}"
                count += 1
        seen.add(name)
        result.append(layer if name == layer.name else replace(layer, name=name))
    return tuple(result)


def _nothing(skipped: tuple[Skipped, ...]) -> tuple[str, str]:
    if not skipped:
        return "no layer to analyse: the checkpoint holds no tensors", ""
    # "bias of a" and "bias of b" are one kind of reason.
    counts = Counter(skip.reason.partition(" of ")[0].partition(" (")[0] for skip in skipped)
    commonest = ", ".join(f"{reason} ({n})" for reason, n in counts.most_common(3))
    tensors = "1 tensor" if len(skipped) == 1 else f"{len(skipped)} tensors"
    return f"no layer to analyse in {tensors}: {commonest}", (
        "expected at least one weight with two or more axes in a floating-point dtype"
    )


def select(discovery: Discovery, include: Sequence[str], exclude: Sequence[str]) -> Discovery:
    """Keep the layers whose names match a glob of `include` (all if empty) and none of `exclude`.

    Tensors that are left without a layer join `skipped`.

    Raises:
        LayerError: no layer is left.
    """
    layers = tuple(
        layer
        for layer in discovery.layers
        if (not include or matches(layer.name, include)) and not matches(layer.name, exclude)
    )
    if not layers:
        raise _none_left([layer.name for layer in discovery.layers], include, exclude)
    used = {name for layer in layers for name in layer.parameters}
    dropped = dict.fromkeys(
        name for layer in discovery.layers for name in layer.parameters if name not in used
    )
    return Discovery(layers, (*discovery.skipped, *(Skipped(name, NOT_SELECTED) for name in dropped)))


def _none_left(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> LayerError:
    """Say which of the two choices left nothing, and what there is."""
    asked, out = (", ".join(repr(glob) for glob in globs) for globs in (include, exclude))
    if any(matches(name, include) for name in names) or not include:
        which = f"{asked} without {out}" if include else f"excluding {out}"
        return LayerError(
            f"no layer left: {which} keeps none of {len(names)} layers",
            "exclude less: names are those of `report`",
        )
    close = [hit for glob in include for hit in get_close_matches(glob.strip("*"), names, n=3, cutoff=0.3)]
    some = list(dict.fromkeys(close))[:3]
    hint = (
        f"did you mean {', '.join(map(repr, some))}?"
        if some
        else f"the first are {', '.join(map(repr, names[:3]))}"
    )
    return LayerError(f"no layer left: {asked} matches none of {len(names)} layers", hint)
