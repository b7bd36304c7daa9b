"""How channels flow from layer to layer, as far as names and order tell."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from specinspect.layers.names import join, numbered, split_name

MAX_LEVELS = 4
"""How many levels of a module path are climbed in search of the layer before."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A layer that sets the number of channels."""

    path: str
    rows: int
    columns: int
    """The first two axes as stored; a plain layer has `rows` outputs."""
    kernel: tuple[int, ...]
    transposed: bool = False

    @property
    def outputs(self) -> int:
        """Channels that leave it."""
        return self.columns if self.transposed else self.rows

    @property
    def pointwise(self) -> bool:
        """Whether it only mixes channels."""
        return prod(self.kernel) == 1


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The layer before another one, and how sure that is."""

    path: str
    rows: int
    columns: int
    outputs: int
    pointwise: bool
    direct: bool
    """Both are numbered members of one module: conv1 and conv2, convs.0 and convs.1."""


class Channels:
    """Answers which layer comes before another one."""

    def __init__(self, carriers: Mapping[str, Carrier]) -> None:
        """Index the carriers, given in checkpoint order."""
        self._carriers = carriers
        self._order = list(carriers)
        self._place = {path: i for i, path in enumerate(self._order)}
        self._last: dict[str, str] = {}
        members: dict[tuple[str, str], set[int]] = {}
        for path in carriers:
            for ancestor in _ancestors(path):
                self._last[ancestor] = path
                parent, last = split_name(ancestor)
                if found := numbered(last):
                    members.setdefault((parent, found[0]), set()).add(found[1])
        self._members = {key: sorted(numbers) for key, numbers in members.items()}

    def before(self, path: str) -> Predecessor | None:
        """Return the layer before: the member before in a numbered list, else the one before in the file."""
        for ancestor in _ancestors(path):
            earlier = self._earlier_member(ancestor)
            if earlier is not None:
                direct = ancestor == path and earlier in self._carriers
                return _predecessor(self._carriers[self._last[earlier]], direct=direct)
        place = self._place.get(path, 0)
        return _predecessor(self._carriers[self._order[place - 1]], direct=False) if place else None

    def pointwise_after(self, path: str, inputs: int) -> bool:
        """Say whether the next layer in the file is a 1×1 convolution of so many channels."""
        place = self._place.get(path)
        if place is None or place + 1 >= len(self._order):
            return False
        after = self._carriers[self._order[place + 1]]
        return after.pointwise and bool(after.kernel) and after.columns == inputs

    def _earlier_member(self, path: str) -> str | None:
        parent, last = split_name(path)
        found = numbered(last)
        if found is None:
            return None
        numbers = self._members.get((parent, found[0]), [])
        place = bisect_left(numbers, found[1])
        while place > 0:
            place -= 1
            earlier = join(parent, f"{found[0]}{numbers[place]}")
            # 'conv02' and 'conv2' count alike: only a name that exists is one.
            if earlier in self._last:
                return earlier
        return None


def _predecessor(carrier: Carrier, *, direct: bool) -> Predecessor:
    return Predecessor(
        carrier.path, carrier.rows, carrier.columns, carrier.outputs, carrier.pointwise, direct
    )


def _ancestors(path: str) -> Iterator[str]:
    """Yield a path and the paths above it, nearest first."""
    for _ in range(MAX_LEVELS):
        if not path:
            return
        yield path
        path = split_name(path)[0]
