"""Which activation and which normalisation follow a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from specinspect.architecture.activations import HOMOGENEOUS, IDENTITY
from specinspect.architecture.graph import Graph, Node
from specinspect.architecture.model import Activation

_THROUGH = frozenset({"pass", "part", "reshape", "pool", "shift", "linear"})
"""An activation behind these still acts on the layer's own outputs, entry by entry or averaged."""
_KEEPS_ENTRIES = frozenset({"cat", "concat", "concatenate", "stack"})
_STARTS_LINEAR = frozenset({"MultiheadAttention", "LSTM", "GRU", "RNN"})
"""Modules taken as one thing that are known to begin with a layer."""


@dataclass(frozen=True, slots=True)
class Follower:
    """What one use of a layer's output meets before the next layer."""

    activation: Activation | None
    """None where it is unknown."""
    norm: str | None = None
    statistic: bool = False
    """Only a mean of it is used, as in a normalisation that is written out."""


def followers(graph: Graph, layer: Node) -> list[Follower]:
    """Return what follows on each path from the layer's output, in the order in which forward uses it.

    Statistics of the output are left out, unless nothing else is made of it.
    """
    found = list(dict.fromkeys(_walk(graph, layer, _State(), set())))
    return [item for item in found if not item.statistic] or found


@dataclass(frozen=True, slots=True)
class _State:
    norm: str | None = None
    scaled: bool = False
    """Times a number or a tensor on the way."""
    turned: bool = False
    """Perhaps times something negative."""
    mixed: bool = False
    """Put together with other tensors: a norm behind that is not the layer's alone."""


def _walk(graph: Graph, node: Node, state: _State, seen: set[tuple[int, _State]]) -> Iterator[Follower]:
    if (node.index, state) in seen:
        return
    seen.add((node.index, state))
    for index in node.users:
        user = graph.nodes[index]
        if user.role == "scale" or (user.role == "linear" and user.detail in {"mul", "div"}):
            yield from _walk(graph, user, _scaled(state, user), seen)
        elif user.role in _THROUGH:
            yield from _walk(graph, user, state, seen)
        elif user.role == "join" and user.detail in _KEEPS_ENTRIES:
            yield from _walk(graph, user, replace(state, mixed=True), seen)
        elif user.role == "norm" and not state.mixed and user.step is not None:
            yield from _walk(graph, user, replace(state, norm=state.norm or user.step.path or None), seen)
        elif _is_rescaling(graph, user):
            yield from _walk(graph, user, replace(state, scaled=True, turned=True), seen)
        else:
            yield Follower(_meets(user, state, whole=graph.whole), state.norm, _is_statistic(graph, user))


def _is_statistic(graph: Graph, node: Node) -> bool:
    users = [graph.nodes[index] for index in node.users]
    means = all(user.role == "pool" and user.detail.startswith("mean(") for user in users)
    known = node.step.activation if node.role == "activation" and node.step is not None else None
    return known is not None and known.name in {"square", "abs"} and bool(users) and means


def _is_rescaling(graph: Graph, node: Node) -> bool:
    """Whether a value is multiplied by a statistic of itself: a normalisation that is written out."""
    source = graph.dominator(node.index)
    if node.role != "join" or node.detail != "mul" or source is None:
        return False
    between = graph.between(source, node.index)
    means = any(inner.role == "pool" and inner.detail.startswith("mean(") for inner in between)
    return means and not any(inner.role in {"layer", "opaque"} for inner in between)


def _scaled(state: _State, node: Node) -> _State:
    number = node.role == "scale" and node.step is not None and not node.step.path
    positive = number and float(node.detail) > 0
    return replace(state, scaled=True, turned=state.turned or not positive)


def _meets(user: Node, state: _State, *, whole: bool) -> Activation | None:
    if user.role == "activation" and user.step is not None and user.step.activation is not None:
        found = user.step.activation
        # φ(c·z) is not c·φ(z): say nothing rather than something wrong.
        return None if state.turned or (state.scaled and found.name not in HOMOGENEOUS) else found
    if user.role in {"layer", "add"} or (user.role == "output" and whole):
        return IDENTITY
    if user.role == "join" and user.detail in {"mul", "matmul", "attention"}:
        return IDENTITY
    if user.role == "opaque" and user.detail in _STARTS_LINEAR:
        return IDENTITY
    return None
