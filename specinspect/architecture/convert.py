"""From a recorded `forward` to the graph of its data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from specinspect.architecture import vocabulary
from specinspect.architecture.activations import IDENTITY, identify, of_call, of_module
from specinspect.architecture.formulas import recognise
from specinspect.architecture.graph import Graph, Node, Role
from specinspect.architecture.model import Activation, Step
from specinspect.architecture.trace import Trace, is_adapted, is_norm, join
from specinspect.architecture.vocabulary import call_name

_OF_NORMS = frozenset({"weight", "bias", "running_mean", "running_var"})


def convert(trace: Trace) -> Graph:
    """Turn a trace into a graph of what happens to the data."""
    return _Converter(trace).run()


class _Converter:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._modules = dict(trace.root.named_modules())
        self._stored: dict[str, torch.Tensor] = trace.root.state_dict(keep_vars=True)
        self._order = {node: place for place, node in enumerate(trace.graph.nodes)}
        self._nodes: dict[int, Node] = {}
        self._data: dict[fx.Node, int] = {}
        """fx node → the node that holds its present value (in-place operations move it on)."""
        self._constants: dict[fx.Node, tuple[str, ...]] = {}
        """fx node that depends on nothing but stored tensors → their names."""
        self._computed: set[fx.Node] = set()
        """Those that are more than another view of the stored tensor."""

    def run(self) -> Graph:
        for node in self._trace.graph.nodes:
            self._add(node)
        self._drop_unused()
        return Graph(self._nodes, self._trace.whole)

    def _add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._put(node, "input", None, ())
        elif node.op == "get_attr":
            self._constants[node] = (str(node.target),)
        elif node.op == "output":
            self._put(node, "output", None, self._inputs(node))
        else:
            self._call(node)

    def _call(self, node: fx.Node) -> None:
        inputs = self._inputs(node)
        name = "" if node.op == "call_module" else call_name(node)
        is_attribute = node.op == "call_function" and getattr(node.target, "__name__", "") == "getattr"
        if name in vocabulary.PLAIN or (is_attribute and name not in vocabulary.ATTRIBUTES):
            return
        if node.op == "call_module":
            self._module(node, inputs)
            return
        constants = self._constant_names(node)
        if not inputs:
            if constants:
                self._constants[node] = constants
                if name not in vocabulary.VIEWS or any(a in self._computed for a in node.all_input_nodes):
                    self._computed.add(node)
            elif name == "embedding":  # of positions: a table that is added
                self._constants[node] = ()
            return
        self._function(node, name, inputs, constants)
        # After an in-place operation the old name holds the new value.
        changed = node.args[0] if node.args else None
        if isinstance(changed, fx.Node) and changed in self._data and node in self._data and _in_place(node):
            self._data[changed] = self._data[node]

    def _module(self, node: fx.Node, inputs: tuple[int, ...]) -> None:
        if not inputs:
            # An embedding of fixed positions: a constant, as a stored table would be.
            self._constants[node] = (f"{node.target}.weight",)
            return
        module = self._modules[str(node.target)]
        path = join(self._trace.path, str(node.target))
        role, step = _torch_module(module, path) or _foreign_module(module, path)
        # A module of several inputs (attention) may get one value for all of them.
        self._put(node, role, step, dict.fromkeys(inputs))
        if role == "activation" and getattr(module, "inplace", False):
            self._data[node.all_input_nodes[0]] = self._data[node]

    def _function(
        self, node: fx.Node, name: str, inputs: tuple[int, ...], constants: tuple[str, ...]
    ) -> None:
        formula = recognise(node, call_name, self._modules, self._order)
        if formula is not None and formula.source in self._data:
            self._activation(node, formula.activation, (self._data[formula.source],), formula.name)
            return
        weight = self._weight(constants) if name in vocabulary.LAYERS and len(set(inputs)) == 1 else ""
        if weight:
            self._put(node, "layer", Step("layer", self._owner(weight), detail=name), inputs[:1])
        elif name in vocabulary.NORMS:
            self._put(node, "norm", Step("norm", self._norm(constants), detail=name), inputs[:1])
        elif name in vocabulary.ADD:
            self._sum(node, name, inputs)
        elif name in vocabulary.MUL or name == "neg":
            self._product(node, name, inputs)
        elif name == "prelu" and constants:
            self._activation(node, Activation("prelu", parameter=self._name(constants[0])), inputs[:1], name)
        elif len(set(inputs)) > 1:
            detail = "attention" if name == "scaled_dot_product_attention" else name
            detail = "matmul" if name in vocabulary.PRODUCTS else detail
            self._put(node, "join", Step("other", "", detail=detail), inputs)
        else:
            self._unary(node, name, inputs[:1])

    def _unary(self, node: fx.Node, name: str, inputs: tuple[int, ...]) -> None:
        activation = of_call(name, [_number(value) for value in node.args[1:]], dict(node.kwargs))
        source = self._nodes[inputs[0]]
        if activation is not None:
            self._activation(node, activation, inputs, name)
        elif name in vocabulary.PASS:
            self._put(node, "pass", None, inputs)
        elif name in vocabulary.PARTS:
            self._put(node, "part", Step("other", "", detail=name), inputs)
        elif (
            name == "getitem"
            and not isinstance(node.args[1], (tuple, slice))
            and source.role
            in {
                "opaque",
                "other",
                "input",
                "norm",
            }
        ):
            self._put(node, "pass", None, inputs)
        elif name == "getitem" and isinstance(node.args[1], int) and source.role == "part":
            step = Step("other", "", detail=f"part[{node.args[1]}]")
            self._put(node, "part", step, inputs, number=node.args[1])
        elif name in vocabulary.RESHAPE:
            self._put(node, "reshape", Step("reshape", "", detail=f"{name}({_arguments(node)})"), inputs)
        elif name in vocabulary.POOLS:
            self._put(node, "pool", Step("pool", "", detail=f"{name}({_arguments(node)})"), inputs)
        elif name in vocabulary.LINEAR:
            self._put(node, "linear", Step("other", "", detail=name), inputs)
        else:
            self._put(node, "other", Step("other", "", detail=name), inputs)

    def _sum(self, node: fx.Node, name: str, inputs: tuple[int, ...]) -> None:
        first, second = _operands(node)
        alpha = node.kwargs.get("alpha", 1)
        factor = float(alpha) if isinstance(alpha, (int, float)) else None
        minus = name in {"sub", "subtract", "isub"}
        if factor is None or (minus and not self._is_data(first)):
            self._put(
                node, "other" if len(set(inputs)) == 1 else "join", Step("other", "", detail=name), inputs
            )
        elif self._is_data(first) and self._is_data(second):
            self._put(
                node,
                "add",
                Step("other", "", detail="add"),
                (self._data[first], self._data[second]),
                factors=(1.0, -factor if minus else factor),
            )
        elif 0 in (first, second):
            self._put(node, "pass", None, inputs)
        else:
            term = second if self._is_data(first) else first
            self._put(node, "shift", Step("shift", self._stored_name(term), detail=_text(term)), inputs)

    def _product(self, node: fx.Node, name: str, inputs: tuple[int, ...]) -> None:
        if name == "neg":
            self._put(node, "scale", Step("scale", "", detail="-1.0"), inputs)
            return
        first, second = _operands(node)
        divides = name not in {"mul", "multiply", "imul"}
        if self._is_data(first) and self._is_data(second):
            self._put(node, "join", Step("other", "", detail="div" if divides else "mul"), inputs)
            return
        other = second if self._is_data(first) else first
        plain = isinstance(other, (int, float))
        if divides and not self._is_data(first):
            self._put(node, "other", Step("other", "", detail="div"), inputs)
        elif divides and (not plain or other == 0):
            self._put(node, "linear", Step("other", "", detail="div"), inputs)
        elif plain:
            value = 1 / float(other) if divides else float(other)
            self._put(node, "scale", Step("scale", "", detail=repr(value)), inputs)
        elif self._stored_name(other):
            self._put(node, "scale", Step("scale", self._stored_name(other)), inputs)
        else:
            self._put(node, "linear", Step("other", "", detail="mul"), inputs)

    def _activation(self, node: fx.Node, activation: Activation, inputs: tuple[int, ...], name: str) -> None:
        if activation.name == "identity":
            self._put(node, "pass", None, inputs)
        else:
            self._put(node, "activation", Step("activation", "", activation, name), inputs)

    def _put(
        self,
        node: fx.Node,
        role: Role,
        step: Step | None,
        inputs: Iterable[int],
        *,
        factors: tuple[float, ...] = (),
        number: int | None = None,
    ) -> None:
        index = len(self._nodes)
        scope = join(self._trace.path, self._trace.scopes.get(node, ""))
        self._nodes[index] = Node(index, role, step, tuple(inputs), scope, factors, number)
        self._data[node] = index

    def _inputs(self, node: fx.Node) -> tuple[int, ...]:
        """Return the data that a call takes, in order, with repetitions."""
        found: list[int] = []

        def note(argument: fx.Node) -> fx.Node:
            if argument in self._data:
                found.append(self._data[argument])
            return argument

        fx.node.map_arg((node.args, node.kwargs), note)
        return tuple(found)

    def _constant_names(self, node: fx.Node) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for a in node.all_input_nodes for name in self._constants.get(a, ())))

    def _weight(self, constants: tuple[str, ...]) -> str:
        """Return the name of the matrix or kernel among a call's stored tensors, or ''."""
        stored = [name for name in constants if name in self._stored]
        return next((name for name in stored if self._stored[name].dim() > 1), stored[0] if stored else "")

    def _is_data(self, value: Any) -> bool:
        return isinstance(value, fx.Node) and value in self._data

    def _name(self, target: str) -> str:
        return join(self._trace.path, target)

    def _stored_name(self, value: Any) -> str:
        """Return the name of the stored tensor that an operand is, or '' if forward makes it."""
        names = self._constants.get(value, ()) if isinstance(value, fx.Node) else ()
        known = len(names) == 1 and names[0] in self._stored and value not in self._computed
        return self._name(names[0]) if known else ""

    def _owner(self, target: str) -> str:
        """Return the layer's path for a weight's name: the module that holds it, or the tensor itself."""
        name = self._name(target)
        return "" if name == "weight" else name.removesuffix(".weight")

    def _norm(self, constants: tuple[str, ...]) -> str:
        """Return the path of the norm that holds some tensors, in whatever order forward names them."""
        for name in constants:
            holder, _, last = name.rpartition(".")
            if holder and last in _OF_NORMS:
                return self._name(holder)
        return self._owner(constants[0]) if constants else ""

    def _drop_unused(self) -> None:
        """Forget values that nothing uses: sizes that were asked for, pieces of recognised formulas."""
        used: set[int] = set()
        front = [node.index for node in self._nodes.values() if node.role == "output"]
        while front:
            index = front.pop()
            if index not in used:
                used.add(index)
                front.extend(self._nodes[index].inputs)
        self._nodes = {index: node for index, node in self._nodes.items() if index in used}
        for node in self._nodes.values():
            for index in dict.fromkeys(node.inputs):
                self._nodes[index].users.append(node.index)


def _operands(node: fx.Node) -> tuple[Any, Any]:
    values = [*node.args, *(node.kwargs[key] for key in ("input", "other") if key in node.kwargs), None, None]
    return values[0], values[1]


def _in_place(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op == "call_function" and getattr(node.target, "__module__", "") == "_operator":
        return name in {"iadd", "isub", "imul", "itruediv", "setitem"}
    return (name.endswith("_") and not name.endswith("__")) or node.kwargs.get("inplace") is True


def _number(value: Any) -> Any:
    return None if isinstance(value, fx.Node) else value


def _text(value: Any) -> str:
    return "" if isinstance(value, fx.Node) or value is None else str(value)


def _arguments(node: fx.Node) -> str:
    """Write the arguments after the tensor; what is only known at run time is '?'."""
    written = [_written(value) for value in node.args[1:]]
    return ", ".join([*written, *(f"{key}={_written(value)}" for key, value in node.kwargs.items())])


def _written(value: Any) -> str:
    if isinstance(value, fx.Node):
        return "?"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_written, value))})"
    return str(value)


def _pool_parameters(module: nn.Module) -> str:
    found = {name: getattr(module, name) for name in vocabulary.POOL_PARAMETERS if hasattr(module, name)}
    return ", ".join(
        f"{name}={value}" for name, value in found.items() if not isinstance(value, torch.Tensor)
    )


def _torch_module(module: nn.Module, path: str) -> tuple[Role, Step | None] | None:
    """Return what a module that is understood as a whole does."""
    kind, home = type(module).__name__, type(module).__module__
    activation = of_module(module, path)
    found: tuple[Role, Step | None] | None = None
    if activation is not None:
        found = "activation", Step("activation", path, activation, kind)
    elif isinstance(module, vocabulary.LAYER_MODULES) or is_adapted(module):
        found = "layer", Step("layer", path, detail=kind)
    elif is_norm(module):
        found = "norm", Step("norm", path, detail=kind)
    elif isinstance(module, vocabulary.PASS_MODULES):
        found = "pass", None
    elif home == "torch.nn.modules.pooling":
        found = "pool", Step("pool", path, detail=f"{kind}({_pool_parameters(module)})")
    elif isinstance(module, (nn.Flatten, nn.Unflatten)):
        found = "reshape", Step("reshape", path, detail=kind)
    elif home in vocabulary.LINEAR_MODULES:
        found = "linear", Step("other", path, detail=kind)
    elif isinstance(module, nn.MultiheadAttention):
        inside = (join(path, "in_proj"), join(path, "out_proj"))
        found = "opaque", Step("other", path, detail=kind, inside=inside)
    elif isinstance(module, nn.GLU):
        found = "other", Step("other", path, detail="glu")
    return found


def _foreign_module(module: nn.Module, path: str) -> tuple[Role, Step | None]:
    """Return what is known of a module that could not be followed: what it computes, if it has no tensors."""
    kind = type(module).__name__
    if [*module.parameters(), *module.buffers()]:
        inside = tuple(
            join(path, name)
            for name, part in module.named_modules()
            if isinstance(part, vocabulary.LAYER_MODULES)
        )
        return "opaque", Step("other", path, detail=kind, inside=inside or (path,))
    known = identify(module)
    if known is None:
        return "other", Step("other", path, detail=kind)
    return ("pass", None) if known == IDENTITY else ("activation", Step("activation", path, known, kind))
