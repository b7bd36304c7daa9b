"""Which of the dicts in a file are the weights.

A file may hold one flat state dict, or nest it beside optimizer state, averages, counters and other models.
The choice goes by names that training code uses; where names do not decide, it is the user's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from specinspect.checkpoint.inert import StandIn, children, count_tensors, is_container, is_tensor
from specinspect.checkpoint.model import ModuleFacts, Skipped
from specinspect.checkpoint.modules import is_module, walk_module
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.checkpoint.text import plural, quote, quote_list
from specinspect.errors import AmbiguousKeyError, CheckpointError

WEIGHTS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "params", "weights",
    "model_weights", "net_state_dict", "state",
)  # fmt: skip
"""Names of the trained weights, the usual ones first."""
AVERAGES = (
    "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema", "ema",
    "averaged_model", "swa_model",
)  # fmt: skip
"""Names of averaged weights: chosen only where nothing else is there."""

_RANKS = {name: rank for rank, name in enumerate(WEIGHTS)} | {
    name: 60 + rank for rank, name in enumerate(AVERAGES)
}
_OWN_RANK, _UNKNOWN_RANK = 50, 100
_TRAINING = re.compile(
    r"^(optim|opt$|opt_|.*optimizer|lr_sched|sched|.*scheduler|scaler$|grad_scaler|amp$|amp_|callbacks$|loops$|"
    r"rng_|.*rng_states?$|random_state|hyper_parameters$|hparams$|args$|history$|logs?$|metrics$|.*loss(es)?$)",
    re.IGNORECASE,
)
_MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "max_exp_avg_sq"})
_DEEPEST = 8
_LONGEST_LIST = 16


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tensors that were chosen, and what was left."""

    tensors: Mapping[str, TensorInfo]
    key: str | None = None
    modules: Mapping[str, ModuleFacts] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: tuple[str, ...]
    value: Any
    count: int

    @property
    def key(self) -> str:
        return ".".join(self.path) or "."


def choose(
    root: Any, key: str | None, describe: Callable[[str, object], TensorInfo | str], where: str
) -> Chosen:
    """Find the state dict in what a file holds.

    Args:
        root: dicts, lists, stand-ins and tensors.
        key: dotted path of the wanted state dict; '.' means everything as one; None to find it.
        describe: (name, tensor) → its description, or why it cannot be read.
        where: the file, quoted for messages.

    Raises:
        AmbiguousKeyError: several, and nothing to tell them apart.
        CheckpointError: none, or none at `key`.
    """
    if is_tensor(root):
        root = {"tensor": root}
    candidates = _candidates(root)
    if key is None:
        chosen = _best(candidates, root, where)
        flat = False
    else:
        chosen, flat = _by_key(candidates, root, key, where)
    named, modules, skipped = _members(chosen.value, flat=flat)
    tensors: dict[str, TensorInfo] = {}
    for name, value in named.items():
        info = describe(name, value)
        if isinstance(info, str):
            skipped.append(Skipped(name, info))
        else:
            tensors[name] = info
    beside = _beside(root, chosen.path)
    assumptions = []
    if chosen.path and key is None:
        others = [quote(item.name) for item in beside if not item.reason.startswith(_TRAINING_REASON)]
        rest = f"; beside it: {', '.join(others[:8])}" if others else ""
        assumptions.append(f"the weights are the state dict under {quote(chosen.key)}{rest}")
    if modules:
        assumptions.append("names were rebuilt from pickled modules, whose code was not loaded")
    return Chosen(
        tensors, chosen.key if chosen.path else None, modules, tuple(assumptions), (*skipped, *beside)
    )


_TRAINING_REASON = "training state"


def is_training_state(name: object, value: object) -> bool:
    """Whether a container is optimizer, scheduler or similar state rather than weights."""
    if isinstance(name, str) and _TRAINING.match(name):
        return True
    return isinstance(value, Mapping) and (
        ("param_groups" in value and "state" in value) or any(moment in value for moment in _MOMENTS)
    )


def _candidates(root: Any) -> list[_Candidate]:
    found: list[_Candidate] = []
    stack: list[tuple[tuple[str, ...], Any]] = [] if is_training_state(None, root) else [((), root)]
    seen = {id(root)}
    while stack:
        path, value = stack.pop()
        if is_module(value):
            if count := count_tensors(value):
                found.append(_Candidate(path, value, count))
            continue
        own = sum(1 for _, child in children(value) if is_tensor(child))
        if own:
            found.append(_Candidate(path, value, own))
        if len(path) == _DEEPEST or (isinstance(value, list | tuple) and len(value) > _LONGEST_LIST):
            continue
        below = []
        for name, child in children(value):
            if is_container(child) and id(child) not in seen and not is_training_state(name, child):
                seen.add(id(child))
                below.append(((*path, _text(name)), child))
        stack.extend(reversed(below))
    return found


def _best(candidates: list[_Candidate], root: Any, where: str) -> _Candidate:
    if not candidates:
        raise _no_tensors(root, where)
    nested = max((item.count for item in candidates if item.path and _preferred(item)), default=0)

    def rank(item: _Candidate) -> tuple[int, ...]:
        # Tensors right at the top are the model unless a nested, well-named state dict has more of them.
        if not item.path:
            return (-1,) if item.count >= nested else (_OWN_RANK,)
        return tuple(_RANKS.get(part.lower(), _UNKNOWN_RANK) for part in item.path)

    ranked = sorted(candidates, key=rank)
    first = ranked[0]
    tied = [item for item in ranked if _is_tied(first, item, rank)]
    if len(tied) > 1:
        listed = ", ".join(f"{quote(item.key)} ({plural(item.count, 'tensor')})" for item in tied[:10])
        more = f" and {len(tied) - 10} more" if len(tied) > 10 else ""
        raise AmbiguousKeyError(
            f"{where}: expected one state dict, found {len(tied)}: {listed}{more}",
            "choose one with --key NAME, or all as one with --key .",
        )
    return first


def _is_tied(first: _Candidate, other: _Candidate, rank: Callable[[_Candidate], tuple[int, ...]]) -> bool:
    """Whether names say nothing about which of two is meant: both unknown from some common level on."""
    if other.path[: len(first.path)] == first.path:
        return other is first  # what lies inside the first one is part of it
    for one, two in zip(rank(first), rank(other), strict=False):
        if one != two:
            return False
        if one == _UNKNOWN_RANK:
            return True
    return len(rank(first)) == len(rank(other))


def _preferred(item: _Candidate) -> bool:
    return all(part.lower() in WEIGHTS for part in item.path)


def _by_key(candidates: list[_Candidate], root: Any, key: str, where: str) -> tuple[_Candidate, bool]:
    if key == ".":
        return _Candidate((), root, count_tensors(root)), True
    path: tuple[str, ...] = ()
    value = root
    parts = key.split(".")
    while parts:
        for length in range(len(parts), 0, -1):  # keys may contain dots themselves
            name = ".".join(parts[:length])
            match = [
                child for other, child in children(value) if _text(other) == name and is_container(child)
            ]
            if match:
                path, value, parts = (*path, name), match[0], parts[length:]
                break
        else:
            known = [item.key for item in candidates if item.path]
            found = f"the state dicts {quote_list(known)}" if known else "one flat state dict"
            raise CheckpointError(
                f"{where}: expected a state dict under {quote(key)}, found {found}",
                "choose one of them with --key" if known else "leave --key out",
            )
    count = count_tensors(value)
    if not count:
        raise CheckpointError(
            f"{where}: expected tensors under {quote(key)}, found none", "choose another --key"
        )
    own = any(is_tensor(child) for _, child in children(value))
    return _Candidate(path, value, count), not own and not is_module(value)


def _members(value: Any, *, flat: bool) -> tuple[dict[str, object], dict[str, ModuleFacts], list[Skipped]]:
    """Return the named tensors of a state dict or module."""
    if is_module(value):
        named, modules = walk_module(value)
        return named, modules, []
    if flat:
        return _flatten(value)
    named = {}
    skipped = []
    for name, child in children(value):
        if is_tensor(child):
            if _text(name) in named:
                skipped.append(Skipped(_text(name), "another tensor has the same name"))
            else:
                named[_text(name)] = child
        elif is_container(child) and (count := count_tensors(child)):
            if is_training_state(name, child):
                skipped += _skip(_text(name), child, training=True)
            else:
                what = f"{_kind(child)} with {plural(count, 'tensor')}, inside the state dict"
                skipped.append(Skipped(_text(name), what, counted=False))
    return named, {}, skipped


def _flatten(root: Any) -> tuple[dict[str, object], dict[str, ModuleFacts], list[Skipped]]:
    """Return all tensors below a container under dotted names; each container is entered once."""
    named: dict[str, object] = {}
    modules: dict[str, ModuleFacts] = {}
    skipped: list[Skipped] = []
    stack: list[tuple[str, Any]] = [("", root)]
    seen = {id(root)}
    length = 0
    while stack:
        name, value = stack.pop()
        length += len(name)
        if length > 64_000_000:
            raise CheckpointError(
                "expected nested dicts, found nesting without end", "choose a state dict with --key"
            )
        if is_tensor(value):
            named[name] = value
            continue
        lead = f"{name}." if name else ""
        if is_module(value):
            below, facts = walk_module(value)
            named |= {lead + path: tensor for path, tensor in below.items()}
            modules |= {(lead + path).rstrip("."): fact for path, fact in facts.items()}
            continue
        entries = []
        for key, child in children(value):
            if is_tensor(child):
                entries.append((lead + _text(key), child))
            elif is_container(child) and id(child) not in seen:
                seen.add(id(child))
                if is_training_state(key, child):
                    skipped += _skip(lead + _text(key), child, training=True)
                else:
                    entries.append((lead + _text(key), child))
        stack.extend(reversed(entries))
    return named, modules, skipped


def _beside(root: Any, path: tuple[str, ...]) -> list[Skipped]:
    """Return one entry for each container that holds tensors but is not on the way to the chosen one."""
    found: list[Skipped] = []
    value, lead = root, ""
    for part in path:
        following = None
        for name, child in children(value):
            if following is None and _text(name) == part and is_container(child):
                following = child
            elif is_tensor(child):
                found.append(
                    Skipped(lead + _text(name), "a tensor beside the chosen state dict", counted=False)
                )
            elif is_container(child):
                found += _skip(lead + _text(name), child, training=is_training_state(name, child))
        value, lead = following, f"{lead}{part}."
    return found


def _skip(name: str, value: Any, *, training: bool) -> list[Skipped]:
    count = count_tensors(value)
    if not count:
        return []
    tensors = plural(count, "tensor")
    if training:
        return [Skipped(name, f"{_TRAINING_REASON}, not weights: {tensors}", counted=False)]
    return [Skipped(name, f"another state dict, {tensors}: choose it with --key", counted=False)]


def _no_tensors(root: Any, where: str) -> CheckpointError:
    names = [_text(name) for name, _ in children(root)]
    found = f"{_kind(root)} with {quote_list(names)}" if names else _kind(root)
    if is_training_state(None, root):
        found = "optimizer state alone"
    return CheckpointError(
        f"{where}: expected tensors, found none: {found}", "save the model's state dict (model.state_dict())"
    )


def _kind(value: object) -> str:
    if isinstance(value, StandIn):
        return f"an object {quote(f'{value.type.module}.{value.type.name}')}"
    return f"a {type(value).__name__}"


def _text(name: object) -> str:
    """Return a key as text; keys that are neither text nor numbers get a mark (their text may be endless)."""
    if isinstance(name, str):
        return name
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace")
    return str(name) if isinstance(name, int | float) or name is None else f"<{type(name).__name__}>"
