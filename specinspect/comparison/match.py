"""Which layer of A is which layer of B: by name, as it is or without a prefix."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from specinspect.comparison.model import Prefixes
from specinspect.layers.model import Layer
from specinspect.layers.names import split_name


@dataclass(frozen=True, slots=True)
class Match:
    """Layers of two checkpoints, paired."""

    pairs: tuple[tuple[Layer, Layer], ...]
    """In the order of A."""
    only_in_a: tuple[Layer, ...]
    only_in_b: tuple[Layer, ...]
    prefixes: Prefixes | None


def match(a: Sequence[Layer], b: Sequence[Layer]) -> Match:
    """Pair the layers of two checkpoints, each with unique names.

    Layers of equal name belong together. Where more layers than that agree once one prefix is taken off the
    names in A and another off those in B (`bert.` and nothing, `model.` and `module.`), these are paired
    too: prefixes of whole components, the pair of them under which most layers of equal shape agree, if no
    other does as well and half of the unpaired layers on the smaller side find a partner.
    """
    by_name = {layer.name: layer for layer in b}
    partner = {layer.name: by_name[layer.name] for layer in a if layer.name in by_name}
    left = [layer for layer in a if layer.name not in partner]
    right = [layer for layer in b if layer.name not in partner]
    prefixes = _prefixes(left, right, len(partner))
    if prefixes is not None:
        stripped = {
            layer.name.removeprefix(prefixes.b): layer for layer in right if layer.name.startswith(prefixes.b)
        }
        for layer in left:
            short = layer.name.removeprefix(prefixes.a)
            if layer.name.startswith(prefixes.a) and short in stripped:
                partner[layer.name] = stripped[short]
    taken = {layer.name for layer in partner.values()}
    return Match(
        tuple((layer, partner[layer.name]) for layer in a if layer.name in partner),
        tuple(layer for layer in a if layer.name not in partner),
        tuple(layer for layer in b if layer.name not in taken),
        prefixes,
    )


def _prefixes(left: Sequence[Layer], right: Sequence[Layer], matched: int) -> Prefixes | None:
    """Return the pair of prefixes that most layers vote for, if they are many enough and agree."""
    alike: dict[object, list[Layer]] = defaultdict(list)
    for layer in right:
        alike[_key(layer)].append(layer)
    votes: Counter[tuple[str, str]] = Counter(
        _leading(one.name, other.name) for one in left for other in alike[_key(one)]
    )
    best = votes.most_common(2)
    if not best:
        return None
    (a, b), count = best[0]
    tied = len(best) > 1 and best[1][1] == count
    enough = count > matched and 2 * count >= min(len(left), len(right))
    return Prefixes(a, b) if enough and not tied else None


def _key(layer: Layer) -> object:
    return split_name(layer.name)[1], layer.kind, layer.shape


def _leading(a: str, b: str) -> tuple[str, str]:
    """Return what stands before the longest common tail of whole components, with its dot."""
    one, other = a.split("."), b.split(".")
    common = 0
    while common < min(len(one), len(other)) and one[-1 - common] == other[-1 - common]:
        common += 1
    parts = one[: len(one) - common], other[: len(other) - common]
    return "".join(f"{p}." for p in parts[0]), "".join(f"{p}." for p in parts[1])
