"""Names and facts from whole modules: pickled ones (as stand-ins), TorchScript ones, and live ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specinspect.checkpoint.inert import StandIn, is_tensor
from specinspect.checkpoint.model import ModuleFacts
from specinspect.errors import CheckpointError

_DEEPEST = 200
_MOST_WORK = 32_000_000
"""Bound on the characters of all names: modules that share children can have exponentially many paths."""


def is_module(value: object) -> bool:
    """Whether a stand-in is an nn.Module or a TorchScript object."""
    if not isinstance(value, StandIn):
        return False
    fields = value.fields
    if isinstance(fields.get("_modules"), dict) or isinstance(fields.get("_parameters"), dict):
        return True
    return value.type.module.startswith("__torch__") and isinstance(value.state, dict)


def walk_module(root: StandIn) -> tuple[dict[str, object], dict[str, ModuleFacts]]:
    """Return the state dict of a module, in its own order, and the plain attributes of every module in it.

    Raises:
        CheckpointError: the modules nest without end, or too deep.
    """
    tensors: dict[str, object] = {}
    facts: dict[str, ModuleFacts] = {}
    work = 0
    stack: list[tuple[str, StandIn, int]] = [("", root, 0)]
    while stack:
        prefix, module, depth = stack.pop()
        if depth > _DEEPEST:
            raise CheckpointError(
                f"expected modules at most {_DEEPEST} deep, found deeper ones", "save a state dict"
            )
        facts[prefix] = ModuleFacts(module.type.name, plain_attributes(module.fields))
        own, parts = _split(module)
        lead = f"{prefix}." if prefix else ""
        # A module's state dict lists its own tensors first, then each child's.
        tensors.update({lead + name: value for name, value in own.items()})
        stack.extend((lead + name, child, depth + 1) for name, child in reversed(parts.items()))
        work += 16 + sum(len(lead) + len(name) + 16 for name in (*own, *parts)) + len(module.fields)
        if work > _MOST_WORK:
            raise CheckpointError(
                "expected modules with fewer names, found modules that share children without end"
            )
    return tensors, facts


def plain_attributes(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the public attributes whose values are numbers, text, None or tuples of these."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(name, str) and not name.startswith("_"):
            # TorchScript keeps what was a tuple or a list of integers as a list.
            plain = tuple(value) if type(value) is list and len(value) <= 64 else value
            if _is_plain(plain):
                found[name] = plain
    return found


def _split(module: StandIn) -> tuple[dict[str, object], dict[str, StandIn]]:
    fields = module.fields
    own: dict[str, object] = {}
    parts: dict[str, StandIn] = {}
    if module.type.module.startswith("__torch__"):
        for name, value in fields.items():
            if isinstance(name, str) and is_tensor(value):
                own[name] = value
            elif isinstance(name, str) and is_module(value):
                parts[name] = value
        return own, parts
    hidden = fields.get("_non_persistent_buffers_set")
    not_saved = hidden if isinstance(hidden, list) else []
    for group in ("_parameters", "_buffers"):
        members = fields.get(group)
        own |= {
            name: value
            for name, value in (members.items() if isinstance(members, dict) else ())
            if isinstance(name, str) and is_tensor(value) and not (group == "_buffers" and name in not_saved)
        }
    children = fields.get("_modules")
    parts |= {
        name: value
        for name, value in (children.items() if isinstance(children, dict) else ())
        if isinstance(name, str) and isinstance(value, StandIn)
    }
    return own, parts


def _is_plain(value: object) -> bool:
    if value is None or type(value) in {bool, int, float, str}:
        return True
    return (
        type(value) is tuple
        and len(value) <= 64
        and all(item is None or type(item) in {bool, int, float, str} for item in value)
    )
