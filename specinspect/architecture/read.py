"""From a module to its architecture: facts of every module, what follows each layer, residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from specinspect.architecture.activations import IDENTITY
from specinspect.architecture.blocks import find_blocks, name_blocks
from specinspect.architecture.convert import convert
from specinspect.architecture.examples import examples
from specinspect.architecture.export import UNDECIDABLE, trace_by_export
from specinspect.architecture.follow import Follower, followers
from specinspect.architecture.graph import Graph
from specinspect.architecture.model import Activation, Architecture
from specinspect.architecture.norms import NormFacts, learn_norms
from specinspect.architecture.trace import Recording, Trace, record, undisturbed
from specinspect.checkpoint.model import ModuleFacts
from specinspect.checkpoint.modules import plain_attributes
from specinspect.checkpoint.text import kind_of
from specinspect.errors import SettingsError

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
_NORM_SIZES = ("num_features", "num_channels", "normalized_shape")


def read_architecture(
    network: Any, notes: Sequence[str] = (), batch: Callable[[], torch.Tensor | None] = lambda: None
) -> Architecture:
    """Trace a module and return what is known of it: by torch.fx, and where that fails by torch.export.

    Raises:
        SettingsError: it is no nn.Module.
    """
    if not isinstance(network, nn.Module):
        raise SettingsError(f"expected a torch.nn.Module, found {kind_of(network)}", "pass the model itself")
    while (inner := _WRAPPERS.get(type(network).__name__)) and isinstance(
        getattr(network, inner, None), nn.Module
    ):
        network = getattr(network, inner)
    tensors = {
        name: tensor
        for name, tensor in network.state_dict(keep_vars=True).items()
        if isinstance(tensor, torch.Tensor) and not nn.parameter.is_lazy(tensor)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with undisturbed(network):
        norms_found = learn_norms(network)
    facts = {
        path: ModuleFacts(type(part).__name__, plain_attributes(vars(part)) | _of_norm(norms_found.get(path)))
        for path, part in network.named_modules(remove_duplicate=False)
    }
    recording, fallen_short, assumption = _record(network, batch)
    graphs = [convert(trace) for trace in recording.traces]
    activations, norms, choices = _following(graphs, shapes, facts)
    blocks, again = name_blocks(found for graph in graphs for found in find_blocks(graph))
    repeated = [
        f"the residual block {name} is applied {count} times and listed once" for name, count in again.items()
    ]
    same = _same_modules(network)
    return Architecture(
        modules=facts,
        shapes=shapes,
        activations=activations | {path: activations[first] for path, first in same if first in activations},
        normalizations=norms | {path: norms[first] for path, first in same if first in norms},
        blocks=blocks,
        traced=not recording.failures,
        notes=(*notes, *fallen_short, *choices.values(), *repeated),
        ambiguous=choices | {path: choices[first] for path, first in same if first in choices},
        assumption=assumption,
        tied=_tied(tensors),
    )


def _of_norm(found: NormFacts | None) -> dict[str, float | str]:
    """Return what is known of a handwritten normalisation, as attributes of its module."""
    if found is None:
        return {}
    return {"norm_kind": found.kind, "eps": found.eps, "norm_offset": found.offset}


def _record(
    network: nn.Module, batch: Callable[[], torch.Tensor | None]
) -> tuple[Recording, tuple[str, ...], str]:
    """Follow a network. Return also sentences on where and how that fell short, and what was assumed."""
    recording = record(network)
    if not recording.failures:
        return recording, (), ""
    failures = tuple(_failures(recording))
    more = f", and {len(failures) - 1} parts more" if len(failures) > 1 else ""
    name = type(network).__name__
    reason = "it needs an example of what forward takes, and none can be guessed; --inputs may hold one"
    for example in examples(network, batch()):
        outcome = trace_by_export(network, example)
        if isinstance(outcome, Trace):
            how = f"torch.export followed {name} with {example.words}, since torch.fx could not"
            return Recording([outcome]), (f"{how}: {failures[0]}{more}",), example.assumption
        reason = f"with {example.words}: {outcome}"
        if outcome == UNDECIDABLE:
            break
    return recording, (*failures, f"torch.export could not follow {name} either: {reason}"), ""


def _following(
    graphs: Sequence[Graph], shapes: dict[str, tuple[int, ...]], facts: dict[str, ModuleFacts]
) -> tuple[dict[str, Activation], dict[str, str], dict[str, str]]:
    activations: dict[str, Activation] = {}
    norms: dict[str, str] = {}
    notes: dict[str, str] = {}
    for path, found in _by_layer(graphs).items():
        first = found[0]
        if len({item.activation for item in found}) > 1:
            words = ", ".join(dict.fromkeys(_word(item.activation) for item in found))
            choice = "left open" if first.activation is None else "the first is taken"
            notes[path] = f"what follows {path or 'the weight'} differs between its uses ({words}): {choice}"
        if first.activation is not None:
            activations[path] = first.activation
        if first.norm is not None and _fits(path, first.norm, shapes, facts):
            norms[path] = first.norm
    return activations, norms, notes


def _by_layer(graphs: Sequence[Graph]) -> dict[str, list[Follower]]:
    found: dict[str, list[Follower]] = {}
    for graph in graphs:
        for node in graph.nodes.values():
            if node.step is None:
                continue
            if node.role == "layer":
                found.setdefault(node.step.path, []).extend(followers(graph, node))
            elif node.role == "opaque" and node.detail == "MultiheadAttention":
                # Not looked into, but known: attention between the two, nothing else.
                inner, outer = node.step.inside
                found.setdefault(inner, [Follower(IDENTITY)])
                found.setdefault(outer, []).extend(followers(graph, node))
    return {path: items for path, items in found.items() if items}


def _fits(layer: str, norm: str, shapes: dict[str, tuple[int, ...]], facts: dict[str, ModuleFacts]) -> bool:
    """Whether a norm has as many channels as the layer has outputs: not so after a flatten."""
    weight = shapes.get(f"{layer}.weight" if layer else "weight")
    attributes = facts[norm].attributes if norm in facts else {}
    size = next((attributes[name] for name in _NORM_SIZES if name in attributes), None)
    sizes = size if isinstance(size, tuple) else (size,)
    if weight is None or not sizes or not isinstance(sizes[0], int) or layer not in facts:
        return True
    ends = {sizes[0], sizes[-1]}  # (channels, *places), or (…, channels)
    kind = facts[layer].type
    if kind == "Embedding":
        return weight[-1] in ends
    groups = facts[layer].attributes.get("groups", 1) if kind.startswith("ConvTranspose") else 0
    outputs = weight[1] * groups if groups else weight[0]
    return outputs in ends


def _word(activation: Activation | None) -> str:
    if activation is None:
        return "unknown"
    return activation.name if activation.slope is None else f"{activation.name}:{activation.slope:g}"


def _failures(recording: Recording) -> Iterator[str]:
    for (kind, reason), paths in recording.failures.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        where = f" ({paths[0]}{more})" if paths[0] else ""
        yield f"the forward of {kind}{where} could not be followed: {reason}"


def _same_modules(network: nn.Module) -> list[tuple[str, str]]:
    """Return the further paths of modules that have several, each with the first one."""
    first: dict[nn.Module, str] = {}
    pairs = (
        (path, first.setdefault(part, path)) for path, part in network.named_modules(remove_duplicate=False)
    )
    return [(path, known) for path, known in pairs if path != known]


def _tied(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    first: dict[int, str] = {}
    groups = {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}
    several = {known for name, known in groups.items() if name != known}
    return {name: known for name, known in groups.items() if known in several}
