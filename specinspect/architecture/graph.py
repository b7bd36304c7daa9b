"""A network as a small graph of data: what happens to it, without torch's many spellings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from specinspect.architecture.model import Step

Role = Literal[
    "input",
    "output",
    "layer",
    "opaque",  # a module of several layers that is not looked into
    "norm",
    "activation",
    "pool",
    "scale",
    "shift",
    "pass",  # nothing happens in use (dropout, copies), or a tuple is opened
    "part",  # one of several pieces of a tensor
    "reshape",
    "linear",  # fixed and linear: padding, slices, resizing
    "add",
    "join",  # several data paths meet
    "other",
]


@dataclass(slots=True)
class Node:
    """One value that depends on the network's input."""

    index: int
    role: Role
    step: Step | None
    """How it appears on a path; None where it is left out."""
    inputs: tuple[int, ...]
    scope: str
    """Path of the module in whose forward it happens."""
    factors: tuple[float, ...] = ()
    """Of the terms of an addition."""
    number: int | None = None
    """Which piece a part is."""
    users: list[int] = field(default_factory=list)

    @property
    def detail(self) -> str:
        """What the step is called."""
        return self.step.detail if self.step else ""


@dataclass(slots=True)
class Graph:
    """Nodes by index; inputs have smaller indices than what is made of them."""

    nodes: dict[int, Node]
    whole: bool
    """Whether its outputs are the network's."""

    def dominator(self, index: int) -> int | None:
        """Return the nearest node through which all paths from the inputs to this one lead, or None."""
        front = set(self.nodes[index].inputs)
        while len(front) > 1:
            last = max(front)
            if not self.nodes[last].inputs:
                return None
            front.remove(last)
            front.update(self.nodes[last].inputs)
        return next(iter(front), None)

    def between(self, start: int, end: int) -> list[Node]:
        """Return the nodes on all paths from one node to another, both left out, in order."""
        seen: set[int] = set()
        front = [end]
        while front:
            for index in self.nodes[front.pop()].inputs:
                if index > start and index not in seen:
                    seen.add(index)
                    front.append(index)
        return [self.nodes[index] for index in sorted(seen)]
