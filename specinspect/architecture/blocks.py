"""Residual blocks: additions whose terms come from one value, by way of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from specinspect.architecture.activations import IDENTITY
from specinspect.architecture.graph import Graph, Node
from specinspect.architecture.model import Activation, Gated, ResidualBlock, Step

_SILENT = frozenset({"pass", "reshape", "part"})
_AFFINE = frozenset({"layer", "norm", "pool", "scale", "shift", "reshape", "other"})
_TRAILING = frozenset({"scale", "reshape", "pool"})
"""Steps with which a number commutes."""


@dataclass(frozen=True, slots=True)
class Found:
    """A block and the module in whose forward its addition happens."""

    scope: str
    block: ResidualBlock


@dataclass(frozen=True, slots=True)
class _Term:
    steps: tuple[Step, ...]
    factor: float

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(path for step in self.steps for path in _layers(step))


def find_blocks(graph: Graph) -> list[Found]:
    """Return the residual blocks of one graph, inner ones before those that hold them; without names yet."""
    additions = [node for node in graph.nodes.values() if node.role == "add"]
    inner = {index for node in additions for index in _nested(graph, node)}
    found = (_block(graph, node) for node in additions if node.index not in inner)
    return [block for block in found if block is not None]


def name_blocks(found: Iterable[Found]) -> tuple[tuple[ResidualBlock, ...], dict[str, int]]:
    """Give every block a name of its own.

    Returns:
        The blocks, each once, and how often the blocks that are applied more than once are.
    """
    times = Counter(found)
    scopes = Counter(item.scope for item in times)
    named: list[ResidualBlock] = []
    again: dict[str, int] = {}
    taken: set[str] = set()
    for item, count in times.items():
        name = _name(item, alone=scopes[item.scope] == 1, taken=taken)
        taken.add(name)
        block = item.block
        named.append(ResidualBlock(name, block.branch, block.shortcut, block.after, block.scale, block.norm))
        if count > 1:
            again[name] = count
    return tuple(named), again


def _name(item: Found, *, alone: bool, taken: set[str]) -> str:
    if alone and item.scope and item.scope not in taken:
        return item.scope
    layers = list(dict.fromkeys(path for step in item.block.branch for path in _layers(step)))
    parts = [path.split(".") for path in layers]
    shared: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    common = ".".join(shared)
    if len(common) <= len(item.scope) or not common.startswith(item.scope):
        # Nothing tells it apart but the layers it is made of.
        last = layers[-1].removeprefix(f"{common}.") if common else layers[-1]
        common = layers[0] if len(layers) == 1 else f"{layers[0]}..{last}"
    name, number = common, 1
    while name in taken:
        number += 1
        name = f"{common}#{number}"
    return name


def _nested(graph: Graph, node: Node) -> list[int]:
    """Return the additions that are mere terms of this one: x + attention(x) + mlp(x) is one sum of three."""
    source = _source(graph, node)
    found: list[int] = []
    for index in node.inputs:
        term = _through_pass(graph, index)
        if term.role == "add" and len(term.users) == 1 and _source(graph, term) == source is not None:
            found += [term.index, *_nested(graph, term)]
    return found


def _source(graph: Graph, node: Node) -> int | None:
    """Return the x of x + f(x): a term that the other is made of, else the last value that all terms share.

    The first matters where f has another input beside x, as in attention to an encoder's output.
    """
    ends = [_through_pass(graph, index).index for index in node.inputs]
    first, last = min(ends), max(ends)
    if len(ends) == 2 and any(first in between.inputs for between in graph.between(first, last)):
        return first
    return first if first in graph.nodes[last].inputs else graph.dominator(node.index)


def _block(graph: Graph, node: Node) -> Found | None:
    source = _source(graph, node)
    if source is None:
        return None
    nested = set(_nested(graph, node))
    terms = _terms(graph, node, source, nested, 1.0)
    if any(step.detail in {"Embedding", "embedding"} for term in terms for step in term.steps):
        return None  # the sum of token and position embeddings skips nothing
    if not any(term.layers for term in terms):
        return None
    shortcut = min(reversed(terms), key=lambda term: (len(term.layers), len(term.steps)))
    if not _is_shortcut(shortcut):
        return None
    rest = [term for term in terms if term is not shortcut]
    if not rest:
        return None
    branch, scale = _branch(rest)
    after, norm = _after(graph, node)
    block = ResidualBlock("", branch, _with_factor(shortcut), after, scale, norm)
    return Found(node.scope, block)


def _terms(graph: Graph, node: Node, source: int, nested: set[int], factor: float) -> list[_Term]:
    found: list[_Term] = []
    for index, own in zip(node.inputs, node.factors, strict=True):
        term = _through_pass(graph, index)
        if term.index in nested:
            found += _terms(graph, term, source, nested, factor * own)
        else:
            found.append(_Term(_path(graph, index, source), factor * own))
    return found


def _is_shortcut(term: _Term) -> bool:
    return all(step.kind in _AFFINE and not step.inside for step in term.steps)


def _branch(terms: list[_Term]) -> tuple[tuple[Step, ...], float]:
    if len(terms) > 1:
        inside = tuple(dict.fromkeys(path for term in terms for path in term.layers))
        return (Step("other", "", detail="sum", inside=inside),), 1.0
    steps, scale = list(terms[0].steps), terms[0].factor
    for place in range(len(steps) - 1, -1, -1):
        if steps[place].kind not in _TRAILING:
            break
        if steps[place].kind == "scale" and not steps[place].path:
            scale *= float(steps.pop(place).detail)
    return tuple(steps), scale


def _with_factor(term: _Term) -> tuple[Step, ...]:
    if term.factor == 1.0:
        return term.steps
    return (*term.steps, Step("scale", "", detail=repr(term.factor)))


def _after(graph: Graph, node: Node) -> tuple[Activation | None, str | None]:
    """Return the activation or the norm that takes the sum, if nothing else does."""
    while len(node.users) == 1:
        node = graph.nodes[node.users[0]]
        if node.role == "pass":
            continue
        if node.role == "activation" and node.step is not None:
            return node.step.activation, None
        if node.role == "norm" and node.step is not None:
            return None, node.step.path or None
        break
    return None, None


def _path(graph: Graph, end: int, start: int) -> tuple[Step, ...]:
    """Return the steps from one node to another, in order; one step for data paths that join."""
    steps: list[Step] = []
    index = end
    while index != start:
        node = graph.nodes[index]
        gate = _gate(graph, node)
        if gate is not None and gate[1] >= start:
            steps.append(gate[0])
            index = gate[1]
        elif len(set(node.inputs)) == 1:
            if node.step is not None:
                steps.append(node.step)
            index = node.inputs[0]
        else:
            source = graph.dominator(index)
            # A path from elsewhere joins where the dominator is not behind the start.
            source = start if source is None else max(source, start)
            step, index = _join(graph, node, source, start)
            steps.append(step)
    return tuple(reversed(steps))


def _join(graph: Graph, node: Node, source: int, start: int) -> tuple[Step, int]:
    """Return the step for data paths that join, and the node that they come from, not before the start."""
    makers = _attention(graph, node)
    if makers is not None:
        inside = tuple(maker.step.path for maker in makers if maker.step is not None)
        # One layer for queries, keys and values belongs to the attention as three layers would.
        first = makers[0]
        if all(maker is first for maker in makers) and first.inputs[0] >= start:
            source = first.inputs[0]
        return Step("other", "", detail="attention", inside=inside), source
    own = node.step.path if node.step else ""
    found = dict.fromkeys(
        path
        for between in (*graph.between(source, node.index), node)
        if between.step is not None and between.role in {"layer", "opaque"}
        for path in _layers(between.step)
    )
    return Step("other", own, detail=node.detail or node.role, inside=tuple(found)), source


def _gate(graph: Graph, node: Node) -> tuple[Step, int] | None:
    """Return the join of a gated MLP as a step, and the node that it takes its input from."""
    if node.role == "other" and node.detail == "glu":
        layer = _through(graph, node.inputs[0], _SILENT)
        if layer.role != "layer" or layer.step is None:
            return None
        path = layer.step.path
        gated = Gated(path, Activation("sigmoid"), path, half=1)
        return Step("gate", "", detail="glu", gated=gated, inside=(path,)), layer.inputs[0]
    if node.role != "join" or node.detail != "mul" or len(node.inputs) != 2:
        return None
    sides = [_side(graph, index) for index in node.inputs]
    if any(side is None for side in sides):
        return None
    first, second = (side for side in sides if side is not None)
    if first.activation is not None and second.activation is not None:
        return None
    gate, up = (second, first) if second.activation is not None else (first, second)
    gate_step, up_step = gate.layer.step, up.layer.step
    if gate_step is None or up_step is None:
        return None
    one = gate.layer is up.layer
    sources = {_through(graph, side.layer.inputs[0], frozenset({"pass"})).index for side in (gate, up)}
    if len(sources) > 1 or (one and gate.part is None):
        return None
    gated = Gated(gate_step.path, gate.activation or IDENTITY, up_step.path, gate.part if one else None)
    inside = tuple(dict.fromkeys((gate_step.path, up_step.path)))
    return Step("gate", "", detail="mul", gated=gated, inside=inside), sources.pop()


@dataclass(frozen=True, slots=True)
class _Side:
    layer: Node
    activation: Activation | None
    part: int | None


def _side(graph: Graph, index: int) -> _Side | None:
    """Follow one factor of a product back to the layer that makes it."""
    activation: Activation | None = None
    part: int | None = None
    node = graph.nodes[index]
    while node.role != "layer":
        if node.role == "activation" and activation is None and node.step is not None:
            activation = node.step.activation
        elif node.role not in _SILENT:
            return None
        part = node.number if node.number is not None else part
        node = graph.nodes[node.inputs[0]]
    return _Side(node, activation, part)


def _attention(graph: Graph, node: Node) -> tuple[Node, Node, Node] | None:
    """Return the query, key and value layers of softmax(q·k)·v, or None if it is something else."""
    if node.detail == "attention" and len(node.inputs) >= 3:
        operands = node.inputs[:3]
    elif node.detail == "matmul" and len(node.inputs) == 2:
        products = _products(graph, node.inputs[0])
        if products is None:
            return None
        operands = (*products.inputs, node.inputs[1])
    else:
        return None
    query, key, value = (_maker(graph, index) for index in operands)
    return None if query is None or key is None or value is None else (query, key, value)


def _products(graph: Graph, index: int) -> Node | None:
    """Go back from attention weights, past a softmax, to the product of queries and keys."""
    softmax = False
    node = graph.nodes[index]
    while not (node.detail == "matmul" and len(node.inputs) == 2):
        step = node.step
        softmax = softmax or bool(step and step.activation and step.activation.name == "softmax")
        if not node.inputs or (len(set(node.inputs)) > 1 and node.role not in {"add", "join"}):
            return None
        # Masks and position biases are added to the products, which are the first term.
        node = graph.nodes[node.inputs[0]]
    return node if softmax else None


def _maker(graph: Graph, index: int) -> Node | None:
    """Return the nearest layer that a value comes from, past rotations and splits into heads."""
    node = graph.nodes[index]
    while node.role != "layer":
        back = graph.dominator(node.index)
        if back is None:
            return None
        node = graph.nodes[back]
    return node


def _layers(step: Step) -> tuple[str, ...]:
    return (step.path,) if step.kind == "layer" else step.inside


def _through_pass(graph: Graph, index: int) -> Node:
    return _through(graph, index, frozenset({"pass"}))


def _through(graph: Graph, index: int, roles: frozenset[str]) -> Node:
    node = graph.nodes[index]
    while node.role in roles and len(set(node.inputs)) == 1:
        node = graph.nodes[node.inputs[0]]
    return node
