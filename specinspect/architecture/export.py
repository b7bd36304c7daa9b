"""Follow a network that torch.fx cannot: torch.export runs `forward` once, on shapes without values.

An exported graph has torch's own operations in place of modules. Those of a module that is understood as a
whole (a layer, a norm, attention) are put together again, so that the graph reads as one of torch.fx.
"""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.graph_signature import OutputKind
from torch.utils._pytree import tree_map_only

from specinspect.architecture.build import quiet_stdout
from specinspect.architecture.examples import Example
from specinspect.architecture.text import describe
from specinspect.architecture.trace import Trace, is_leaf, undisturbed

UNDECIDABLE = "its control flow depends on values"
"""The reason that no other example of other shape would change."""
_INNER = "network"


def trace_by_export(network: nn.Module, example: Example) -> Trace | str:
    """Return what `forward` does with one example, or why it could not be followed.

    No value is computed: parameters and inputs stand for their shapes alone. What forward decides by shapes
    is decided as for this example.
    """
    with undisturbed(network), _quiet(), _without_cache(network):
        try:
            args, kwargs = _off_meta(network, example)
            program = torch.export.export(_Plain(network), args, kwargs, strict=False)
            if not any(isinstance(node, fx.Node) for node in program.graph.output_node().args[0]):
                return "nothing that forward returns is a tensor made from its inputs"
            if any(_mutates(node) for node in program.graph.nodes):
                # A part of a tensor that is overwritten becomes a new tensor, on which what follows depends.
                program = program.run_decompositions({})
            return _Rebuilder(network, program).run()
        except (Exception, SystemExit) as error:
            return UNDECIDABLE if "data-dependent" in str(error) else describe(error)


def _off_meta(network: nn.Module, example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let tensors on the meta device stand for ones on the CPU: autocast, among others, knows no meta device.

    They have no memory there either. `undisturbed` brings the network's own back.
    """
    stored = [*network.parameters(), *network.buffers()]
    if not any(tensor.is_meta for tensor in stored):
        return example.args, dict(example.kwargs)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, torch.Tensor] = {}

    def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
        with mode:
            empty = torch.empty_like(tensor, device="cpu")
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=False)
        return made.setdefault(id(tensor), empty)

    for module in network.modules():
        holders: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for held in holders:
            held.update({name: on_cpu(t) for name, t in held.items() if t is not None and t.is_meta})
    args, kwargs = tree_map_only(torch.Tensor, mode.from_tensor, (example.args, dict(example.kwargs)))
    return args, kwargs


@contextlib.contextmanager
def _without_cache(network: nn.Module) -> Iterator[None]:
    """Ask Hugging Face's decoders for their result alone, without the keys and values for the next call."""
    config: Any = getattr(network, "config", None)
    before = getattr(config, "use_cache", None)
    if not isinstance(before, bool):
        yield
        return
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = before


class _Plain(nn.Module):
    """A network whose output is a tuple of tensors, whatever classes its own output is made of."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(_tensors(self.network(*args, **kwargs), set()))


def _tensors(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    else:
        slots = [name for kind in type(value).__mro__ for name in _names(vars(kind).get("__slots__", ()))]
        parts = [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]
    for part in parts:
        yield from _tensors(part, seen)


def _names(slots: Any) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export's remarks, which are for the authors of networks, off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            quiet_stdout(),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _mutates(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


class _Rebuilder:
    """Makes the graph that torch.fx would have recorded of an exported program."""

    def __init__(self, network: nn.Module, program: torch.export.ExportedProgram) -> None:
        self._network = network
        self._program = program
        self._modules = dict(network.named_modules())
        known = {module: path for path, module in self._modules.items()}
        self._first = {path: known[module] for path, module in network.named_modules(remove_duplicate=False)}
        """Path → the first path of the same module."""
        self._graph = fx.Graph()
        self._scopes: dict[fx.Node, str] = {}
        self._new: dict[fx.Node, fx.Node] = {}
        """Node of the exported graph → the one that holds its value in the new one."""

    def run(self) -> Trace:
        signature = self._program.graph_signature
        stored = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        nodes = list(self._program.graph.nodes)
        owner = {node: self._leaf(node) for node in nodes}
        members: dict[str, list[fx.Node]] = {}
        for node, leaf in owner.items():
            if leaf:
                members.setdefault(leaf[0], []).append(node)
        for node in nodes:
            leaf = owner[node]
            if node.op == "placeholder":
                name = stored.get(node.name)
                new = self._graph.placeholder(node.name) if name is None else self._attribute(name)
                self._keep(node, new, "")
            elif node.op == "get_attr":
                self._keep(node, self._attribute(str(node.target)), "")
            elif node.op == "output":
                # What else an exported graph puts out goes into buffers and inputs: no output of forward.
                own = [
                    value
                    for value, spec in zip(node.args[0], signature.output_specs, strict=True)
                    if spec.kind is OutputKind.USER_OUTPUT
                ]
                self._keep(node, self._graph.output(self._renamed(tuple(own))), "")
            elif leaf is None:
                new = self._graph.create_node(
                    node.op, node.target, self._renamed(node.args), self._renamed(node.kwargs)
                )
                self._keep(node, new, self._stack(node)[-1][1] if self._stack(node) else "")
            elif node is members[leaf[0]][-1]:
                self._module(members[leaf[0]], leaf[1])
        return Trace(self._graph, self._network, "", self._scopes, whole=True)

    def _attribute(self, name: str) -> fx.Node:
        return self._graph.create_node("get_attr", _inside(name))

    def _keep(self, old: fx.Node, new: fx.Node, scope: str) -> None:
        self._new[old] = new
        self._scopes[new] = scope

    def _renamed(self, arguments: Any) -> Any:
        return fx.node.map_arg(arguments, self._new.__getitem__)

    def _module(self, members: list[fx.Node], path: str) -> None:
        """Put the operations of one call of a module together; several outputs become its items."""
        inner = set(members)
        taken = [
            self._new[node]
            for member in members
            for node in member.all_input_nodes
            if node not in inner and not self._is_own(self._new[node], path)
        ]
        call = self._graph.create_node("call_module", path, tuple(dict.fromkeys(taken)))
        self._scopes[call] = path
        given = [member for member in members if any(user not in inner for user in member.users)]
        for place, member in enumerate(given):
            if len(given) == 1:
                self._new[member] = call
            else:
                item = self._graph.create_node("call_function", operator.getitem, (call, place))
                self._keep(member, item, path)

    def _is_own(self, node: fx.Node, path: str) -> bool:
        """Whether a value is one of the module's own tensors."""
        return node.op == "get_attr" and str(node.target).startswith(f"{path}.")

    def _stack(self, node: fx.Node) -> list[tuple[str, str]]:
        """Return the modules in whose forward a node is, from the outside in: of each call, key and path."""
        stack = node.meta.get("nn_module_stack") or {}
        found = ((key, self._first.get(_inside(path))) for key, (path, _) in stack.items())
        return [(key, path) for key, path in found if path is not None]

    def _leaf(self, node: fx.Node) -> tuple[str, str] | None:
        """Return the call of a module that is taken as a whole and holds this node."""
        for key, path in self._stack(node):
            if path and is_leaf(self._modules[path]):
                return key, path
        return None


def _inside(path: str) -> str:
    """Return a path within the network, given the path within `_Plain`."""
    return "" if path == _INNER else path.removeprefix(f"{_INNER}.")
