"""Record what `forward` does with symbolic inputs (torch.fx), as much of it as can be recorded."""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import fx, nn

from specinspect.architecture.activations import identify
from specinspect.architecture.norms import norm_facts
from specinspect.architecture.text import describe

_T = TypeVar("_T")

_MOST_RETRIES = 64
"""Traces of one root: each one leaves out at least one more module."""
_ENTERED = (
    nn.Sequential,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
"""Modules of torch.nn that are made of others and whose forward is followed."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded `forward`."""

    graph: fx.Graph
    root: nn.Module
    path: str
    """Path of the root in the whole network."""
    scopes: dict[fx.Node, str]
    """Node → path, within the root, of the module in whose forward it was recorded."""
    whole: bool
    """Whether the root is the network itself, so that its outputs are the network's."""


@dataclass(slots=True)
class Recording:
    """All traces of a network, and where tracing fell short."""

    traces: list[Trace] = field(default_factory=list)
    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(class, reason) → paths."""

    def fail(self, module: nn.Module, path: str, reason: str) -> None:
        """Remember that a module's forward could not be followed."""
        paths = self.failures.setdefault((type(module).__name__, reason), [])
        if path not in paths:
            paths.append(path)


def record(network: nn.Module) -> Recording:
    """Trace a network; where that fails, leave out the modules to blame and trace those by themselves.

    The network is in eval mode meanwhile and is left as it was.
    """
    recording = Recording()
    with undisturbed(network):
        _explore(network, "", recording, whole=True)
    return recording


@contextlib.contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Put a network in eval mode while it is followed, and leave it as it was."""
    # Besides the mode this undoes what tracing leaves behind: fx keeps tensors that forward makes as
    # attributes of the module, and a forward may store symbolic values on self.
    before = [
        (module, dict(vars(module)), dict(module._parameters), dict(module._buffers))
        for module in network.modules()
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        for module, *_ in before:
            module.training = False
        # The fast path of torch's encoder layers looks at values; the plain path computes the same.
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, attributes, parameters, buffers in before:
            _restore(vars(module), attributes)
            _restore(module._parameters, parameters)
            _restore(module._buffers, buffers)


def _restore(now: dict[str, _T], then: dict[str, _T]) -> None:
    now.clear()
    now.update(then)


def _explore(module: nn.Module, path: str, recording: Recording, *, whole: bool) -> None:
    """Trace a module, then by themselves the parts that had to be left out."""
    if type(module).forward is nn.Module.forward or is_leaf(module):
        left: dict[nn.Module, str] = dict.fromkeys(module.children(), "")
    else:
        left = _trace(module, path, recording, whole=whole)
    inner = {part: name for name, part in module.named_modules()}
    for part, reason in left.items():
        if part not in inner or part is module:
            continue
        name = join(path, inner[part])
        empty = next(part.parameters(), None) is None
        if reason and not (empty and identify(part)):
            recording.fail(part, name, reason)
        if not empty:
            _explore(part, name, recording, whole=False)


def _trace(module: nn.Module, path: str, recording: Recording, *, whole: bool) -> dict[nn.Module, str]:
    """Trace one module; return what was left out, and why. If nothing can be traced, that is its children."""
    left: dict[nn.Module, str] = {}
    reason = "too many of its parts cannot be traced"
    for _ in range(_MOST_RETRIES):
        outcome = _attempt(module, left)
        if isinstance(outcome, _Tracer):
            recording.traces.append(Trace(outcome.graph, module, path, outcome.scopes, whole))
            return left
        reason, culprit = outcome
        if culprit is None or culprit is module or culprit in left:
            break
        left[culprit] = reason
        if not type(culprit).__module__.startswith("torch.nn"):
            # Its siblings of the same class would fail one by one.
            alike = (part for part in module.modules() if type(part) is type(culprit) and part is not module)
            left = dict.fromkeys(alike, "") | left
    recording.fail(module, path, reason)
    return dict.fromkeys(module.children(), "")


def _attempt(module: nn.Module, left: dict[nn.Module, str]) -> _Tracer | tuple[str, nn.Module | None]:
    """Trace with optional arguments at their defaults; if that fails, with all of them given.

    Returns:
        The tracer, or why the first attempt failed and which module was running.
    """
    failed: tuple[str, nn.Module | None] | None = None
    defaults = _defaults(module)
    for fixed in (defaults, None) if defaults else (None,):
        tracer = _Tracer(left)
        try:
            tracer.trace(module, fixed)
        except (Exception, SystemExit) as error:
            failed = failed or (_reason(error), tracer.culprit)
        else:
            return tracer
    assert failed is not None
    return failed


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Return the defaults of all arguments of forward but the first."""
    try:
        parameters = list(inspect.signature(type(module).forward).parameters.values())[2:]
    except (TypeError, ValueError):
        return {}
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is None or isinstance(parameter.default, (bool, int, float, str))
    }


class _Tracer(fx.Tracer):
    """A tracer that stops at what is understood as a whole, and knows which module failed."""

    def __init__(self, left_out: dict[nn.Module, str]) -> None:
        super().__init__(param_shapes_constant=True)
        self._left_out = left_out
        self._stack = [""]
        self.culprit: nn.Module | None = None
        self.scopes: dict[fx.Node, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._left_out or is_leaf(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._stack.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        except (Exception, SystemExit):
            self.culprit = self.culprit or m
            raise
        finally:
            self._stack.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.scopes[node] = self._stack[-1]
        return node


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is taken as one thing: torch.nn's own, norms of any make, adapted layers."""
    if isinstance(module, _ENTERED) and _native(module):
        return False
    return _native(module) or is_norm(module) or is_adapted(module)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation, torch's or handwritten (RMSNorm, LayerNorm2d, frozen ones)."""
    if norm_facts(module) is not None:
        return True
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and not _native(module):
        return False  # a forward of its own may hold more: an activation, in many networks
    if "norm" not in type(module).__name__.lower() or next(module.children(), None) is not None:
        return False
    tensors = [*module.parameters(), *module.buffers()]
    if _native(module):
        return not type(module).__name__.startswith(("LocalResponse", "CrossMap"))
    # The weights of a norm are vectors; (C, 1, 1) is one too.
    return all(sum(size != 1 for size in tensor.shape) <= 1 for tensor in tensors)


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a layer with a low-rank adapter: one layer, not a residual block."""
    return any(name.startswith("lora_") for name, _ in module.named_children())


def _native(module: nn.Module) -> bool:
    """Whether forward is torch's: subclasses that override it are followed inside."""
    forward = getattr(type(module), "forward", None)
    return str(getattr(forward, "__module__", "")).startswith(("torch.nn.", "torch.ao."))


def _reason(error: BaseException) -> str:
    if isinstance(error, fx.proxy.TraceError):
        return "its control flow depends on the input"
    return describe(error)


def join(path: str, name: str) -> str:
    """Return the path of a part, given the path of what holds it."""
    return f"{path}.{name}" if path and name else path or name
