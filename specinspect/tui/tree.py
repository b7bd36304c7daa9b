"""Layers by module: a tree of paths, and the lines of it that are open. Plain data, no widgets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from specinspect.layers.names import numbered
from specinspect.tui.rows import Key

DEEPEST = 32
"""Levels of modules; a name with more dots keeps the rest as its label."""


@dataclass(slots=True, eq=False)
class Group:
    """A module with several layers below it."""

    path: str
    """Dotted path; unique."""
    label: str
    """What of it is not in its parent's."""
    depth: int
    parent: Group | None
    children: list[Group | int] = field(default_factory=list)
    """Groups, and indices of layers."""
    layers: int = 0
    """At any depth."""

    @property
    def repeated(self) -> bool:
        """Whether it is one of a numbered series, such as the blocks of an encoder."""
        return numbered(self.label.rpartition(".")[2]) is not None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a layer, or a group."""

    depth: int
    label: str
    """Not yet made visible."""
    index: int | None = None
    """Of the layer."""
    group: Group | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What the line is, whatever its place."""
        return ("", self.index) if self.index is not None else (self.group.path if self.group else "", -1)


class Tree:
    """The modules of a checkpoint, from the names of its layers."""

    def __init__(self, names: Sequence[str]) -> None:
        self.root = Group("", "", -1, None)
        self.parents: list[Group] = []
        """Of each layer."""
        self.labels: list[str] = []
        groups: dict[str, Group] = {}
        paths = [_parts(name) for name in names]
        inner = _branching(paths)
        for index, path in enumerate(paths):
            parent, start = self.root, 0
            for stop in range(1, len(path)):
                if path[:stop] not in inner:
                    continue
                whole = ".".join(path[:stop])
                if whole not in groups:
                    label = ".".join(path[start:stop])
                    groups[whole] = Group(whole, label, parent.depth + 1, parent)
                    parent.children.append(groups[whole])
                parent, start = groups[whole], stop
            parent.children.append(index)
            self.parents.append(parent)
            self.labels.append(".".join(path[start:]))
            above: Group | None = parent
            while above is not None:
                above.layers += 1
                above = above.parent
        self.groups: dict[str, Group] = groups

    def repeated(self) -> set[str]:
        """Return the paths of the outermost numbered groups: what collapses when blocks are folded."""
        found = set()
        for path, group in self.groups.items():
            above = group.parent
            while above is not None and not above.repeated:
                above = above.parent
            if group.repeated and above is None:
                found.add(path)
        return found

    def above(self, index: int) -> Iterator[Group]:
        """Yield the groups that a layer is in, the nearest first."""
        group: Group | None = self.parents[index]
        while group is not None and group is not self.root:
            yield group
            group = group.parent

    def lines(self, closed: Collection[str], keep: Callable[[int], bool] | None = None) -> list[Line]:
        """Return the open lines in checkpoint order.

        Args:
            closed: paths of groups whose contents are hidden.
            keep: which layers; groups with none of them vanish. None keeps all.
        """
        lines: list[Line] = []
        self._add(self.root, closed, keep, lines)
        return lines

    def _add(
        self, group: Group, closed: Collection[str], keep: Callable[[int], bool] | None, lines: list[Line]
    ) -> None:
        for child in group.children:
            if isinstance(child, int):
                if keep is None or keep(child):
                    lines.append(Line(group.depth + 1, self.labels[child], index=child))
            elif keep is None or any(keep(index) for index in members(child)):
                lines.append(Line(child.depth, child.label, group=child))
                if child.path not in closed:
                    self._add(child, closed, keep, lines)


def _parts(name: str) -> tuple[str, ...]:
    """Split a name at its dots, so that every part has letters: '.a..b.' is '.a', '.b.'."""
    parts: list[str] = []
    ahead = ""
    for part in name.split(".", DEEPEST):
        if part:
            parts.append(ahead + part)
            ahead = ""
        else:
            ahead += "."
    if not parts:
        return (name,)
    return (*parts[:-1], parts[-1] + ahead)


def _branching(paths: Sequence[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return the prefixes at which a group is worth a line: several layers, and more than one way on."""
    ways: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        for stop in range(1, len(path)):
            ways.setdefault(path[:stop], set()).add(path[stop])
    return {prefix for prefix, next_ in ways.items() if len(next_) > 1}


def members(group: Group) -> Iterator[int]:
    """Yield the layers of a group at any depth."""
    for child in group.children:
        if isinstance(child, int):
            yield child
        else:
            yield from members(child)


class Worst:
    """The worst value of some columns below every group, kept up to date as results come in."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._keys: dict[tuple[str, str], tuple[Key, int]] = {}

    def add(self, index: int, keys: Mapping[str, Key | None]) -> None:
        """Take in a layer that is known now."""
        for group in self._tree.above(index):
            for name, key in keys.items():
                known = self._keys.get((group.path, name))
                if key is not None and (known is None or key > known[0]):
                    self._keys[group.path, name] = (key, index)

    def clear(self) -> None:
        """Forget everything: a layer has become better."""
        self._keys.clear()

    def layer(self, group: Group, name: str) -> int | None:
        """Return the layer with the worst value of a column below a group."""
        found = self._keys.get((group.path, name))
        return None if found is None else found[1]
