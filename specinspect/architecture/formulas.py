"""Activations that are written out: x·sigmoid(x), 0.5·x·(1 + tanh(…)), torch.where(x > 0, x, 0.1·x)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from specinspect.architecture.activations import identify, of_module
from specinspect.architecture.model import Activation

_LARGEST = 16
_CALLS = frozenset({"call_function", "call_method"})
_ENDS = frozenset({
    "mul", "div", "truediv", "add", "sub", "where", "maximum", "minimum", "max", "min", "clamp", "clip",
    "clamp_min", "clamp_max", "pow", "square", "imul", "itruediv", "log", "log1p",
})  # fmt: skip
_ELEMENTWISE = _ENDS | frozenset({
    "sigmoid", "tanh", "exp", "erf", "softplus", "relu", "relu6", "hardsigmoid", "hardtanh", "leaky_relu",
    "silu", "sqrt", "log", "log1p", "expm1", "neg", "abs", "sign", "gt", "lt", "ge", "le", "zeros_like",
    "ones_like", "float", "reciprocal", "logsigmoid",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Formula:
    """A written-out activation and the value it is applied to."""

    activation: Activation
    source: fx.Node
    name: str


def recognise(
    end: fx.Node,
    name_of: Callable[[fx.Node], str],
    modules: Mapping[str, nn.Module],
    order: Mapping[fx.Node, int],
) -> Formula | None:
    """Recognise an activation that ends in this call, by its values.

    The formula is taken back to the first single value that all of it depends on, and further (relu(x)² is
    not x² after relu) as long as nothing else uses what lies between.

    Args:
        end: the call.
        name_of: names a call.
        modules: by path within the traced root.
        order: of the graph's nodes.
    """
    if end.op == "call_module" or name_of(end) not in _ENDS:
        return None

    def elementwise(node: fx.Node) -> bool:
        if node.op == "call_module":
            module = modules[str(node.target)]
            known = None if isinstance(module, nn.PReLU) else of_module(module, "")
            return known is not None and "softmax" not in known.name
        return node.op in _CALLS and name_of(node) in _ELEMENTWISE and bool(node.all_input_nodes)

    region = [end]
    front = set(end.all_input_nodes)
    best: Formula | None = None
    while front and len(region) <= _LARGEST:
        if len(front) == 1:
            (last,) = front
            if last.op == "get_attr":
                return None
            steps = region[::-1]
            activation = identify(lambda x, steps=steps, last=last: _evaluate(steps, last, modules, x))  # type: ignore[misc]
            best = best if activation is None else Formula(activation, last, name_of(end))
            if not all(user in region for user in last.users):
                break
        else:
            last = max(front, key=order.__getitem__)
        if not elementwise(last):
            break
        region.append(last)
        front.remove(last)
        front.update(last.all_input_nodes)
    return best


def _evaluate(
    steps: list[fx.Node], source: fx.Node, modules: Mapping[str, nn.Module], x: torch.Tensor
) -> Any:
    values: dict[fx.Node, Any] = {source: x}
    for node in steps:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "call_method":
            values[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        elif node.op == "call_module":
            values[node] = modules[str(node.target)](*args, **kwargs)
        else:
            assert callable(node.target)
            values[node] = node.target(*args, **kwargs)
    return values[steps[-1]]
