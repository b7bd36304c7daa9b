"""What follows a layer in the lists of modules that run one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from specinspect.checkpoint.model import ModuleFacts
from specinspect.layers.names import join, split_name
from specinspect.layers.vocabulary import of_class

_LISTS = frozenset({"ModuleList", "ModuleDict", "ParameterList", "ParameterDict"})
"""Numbered children that do not run in their order."""
_PASS = ("Dropout", "AlphaDropout", "Identity", "Flatten", "Unflatten", "DropPath", "StochasticDepth")
_LAYERS = ("Linear", "Conv", "Embedding", "Bilinear")


@dataclass(frozen=True, slots=True)
class Following:
    """The normalisation and the activation between a layer and the next one."""

    norm: str | None
    """Module path."""
    activation: str
    """As `vocabulary.of_class` calls it; identity where the next layer or the end comes first."""
    slope: float | None = None
    module: str | None = None
    """Path of the activation module."""


class Sequences:
    """The modules of a checkpoint that holds whole modules, as trees in their order."""

    def __init__(self, modules: Mapping[str, ModuleFacts]) -> None:
        """Index the modules, given parents first and children in order."""
        self._modules = modules
        self._children: dict[str, list[str]] = {}
        self._place: dict[str, int] = {}
        self._in_order: dict[str, bool] = {}
        for path in modules:
            parent = split_name(path)[0]
            if path and parent in modules:
                siblings = self._children.setdefault(parent, [])
                self._place[path] = len(siblings)
                siblings.append(path)

    def following(self, path: str) -> Following | None:
        """Return what follows a layer, None where its surroundings do not run in a known order."""
        if path not in self._place:
            return None
        norm: str | None = None
        for after in self._after(path):
            if after is None:
                return None
            facts = self._modules[after]
            if facts.type.startswith(_PASS):
                continue
            if "Norm" in facts.type:
                if norm is not None:
                    return None
                norm = after
                continue
            activation = of_class(facts)
            if activation is not None:
                return Following(norm, activation[0], activation[1], after)
            return Following(norm, "identity") if any(word in facts.type for word in _LAYERS) else None
        return Following(norm, "identity")

    def _after(self, path: str) -> Iterator[str | None]:
        """Yield the modules that run after one, in order; None where the order is not known any further."""
        while path:
            parent = split_name(path)[0]
            if not self._runs_in_order(parent):
                yield None
                return
            siblings = self._children[parent]
            for place in range(self._place[path] + 1, len(siblings)):
                yield from self._within(siblings[place])
            path = parent

    def _within(self, path: str) -> Iterator[str | None]:
        stack = [path]
        while stack:
            now = stack.pop()
            if not self._children.get(now):
                yield now
            elif self._runs_in_order(now):
                stack += reversed(self._children[now])
            else:
                yield None

    def _runs_in_order(self, path: str) -> bool:
        if path not in self._in_order:
            self._in_order[path] = self._is_sequence(path)
        return self._in_order[path]

    def _is_sequence(self, path: str) -> bool:
        facts = self._modules.get(path)
        children = self._children.get(path)
        if facts is None or not children:
            return False
        numbered = all(child == join(path, str(i)) for i, child in enumerate(children))
        return facts.type == "Sequential" or (numbered and facts.type not in _LISTS)
