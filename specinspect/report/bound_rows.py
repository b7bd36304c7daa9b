"""Bounds as lines of a table: per bound its verdicts over all layers, and where it is tightest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from specinspect.bounds.catalogue import CATALOGUE
from specinspect.report.text import ABSENT, layer_name, middle, number, visible

if TYPE_CHECKING:
    from specinspect.bounds.model import Advice, BoundCheck
    from specinspect.report.model import BlockResult, LayerResult

GUARANTEES = ("r4.best", "r63")
"""Ids of the bounds on κ(ρI + βW) of which the best stands beside the computed one."""
MAPS = ("weight", "chain", "skip", "skip_chain", "block")
HEADERS = ("bound", "of", "holds", "vacuous", "n/a", "violated", "tightest: value", "bound", "slack", "layer")
RIGHT = range(2, 9)


class _Line(NamedTuple):
    cells: tuple[str, ...]
    violated: bool


def guarantee(result: LayerResult) -> BoundCheck | None:
    """Return what is guaranteed of κ(ρI + βW) of a layer, None where nothing is."""
    found = [check for check in _tested(result) if check.verdict == "holds" and check.bound is not None]
    return min(found, key=lambda check: check.bound or 0.0, default=None)


def _tested(result: LayerResult) -> list[BoundCheck]:
    return [check for check in result.bounds if check.id in GUARANTEES and check.of == "skip"]


def bound_lines(
    layers: Sequence[LayerResult],
    width: int,
    *,
    blocks: Sequence[BlockResult] = (),
    network: Sequence[BoundCheck] = (),
    plain: bool,
    ellipsis: str,
) -> Iterator[Text]:
    """Yield a header and one line per bound and map that some layer was tested with; then those of blocks.

    What holds of layers and blocks in a row joins them, where there are any in a row.
    """
    groups: dict[tuple[str, str], list[tuple[str, BoundCheck]]] = {}
    for result in layers:
        for check in result.bounds:
            groups.setdefault((check.id, check.of), []).append((result.layer.name, check))
    for block in blocks:
        for check in block.bounds:
            groups.setdefault((check.id, "block"), []).append((block.block.name, check))
    for check in network:
        if check.verdict != "not_applicable":
            groups.setdefault((check.id, check.of), []).append(("network", check))
    if not groups:
        return
    order = {name: place for place, name in enumerate(CATALOGUE)}
    keys = sorted(groups, key=lambda key: (_place(key[1]), order.get(key[0], len(order))))
    lines = [_line(key, groups[key]) for key in keys]
    rows = [HEADERS, *(line.cells for line in lines)]
    sizes = [max(cell_len(row[column]) for row in rows) for column in range(len(HEADERS))]
    keep = [c for c in range(len(HEADERS)) if c != 5 or any(line.violated for line in lines)]
    while sum(sizes[c] for c in keep[:-1]) + 2 * (len(keep) - 1) + 12 > width and len(keep) > 4:
        keep.pop(-2)
    room = width - sum(sizes[c] for c in keep[:-1]) - 2 * (len(keep) - 1)
    sizes[-1] = max(min(sizes[-1], room), 5)
    for index, row in enumerate(rows):
        text = Text(no_wrap=True, overflow="crop")
        style = "bold" if index == 0 else "bold red" if lines[index - 1].violated else ""
        for place, column in enumerate(keep):
            cell = middle(row[column], sizes[column], ellipsis)
            blank = " " * (sizes[column] - cell_len(cell))
            text.append(("  " if place else "") + (blank + cell if column in RIGHT else cell + blank), style)
        text.rstrip()
        yield text
        if index == 0:
            total = sum(sizes[c] for c in keep) + 2 * (len(keep) - 1)
            yield Text(("-" if plain else "─") * min(total, width), style="dim", no_wrap=True)


def _place(of: str) -> int:
    return MAPS.index(of) if of in MAPS else len(MAPS)


def _line(key: tuple[str, str], checks: Sequence[tuple[str, BoundCheck]]) -> _Line:
    verdicts = Counter(check.verdict for _, check in checks)
    decided = [(name, c) for name, c in checks if c.verdict in {"holds", "violated"} and c.slack is not None]
    tightest = min(decided, key=lambda pair: pair[1].slack or 0.0, default=None)
    where = (ABSENT, ABSENT, ABSENT, "")
    if tightest is not None:
        name, check = tightest
        slack = (
            "" if check.slack is None else "> 999 %" if check.slack > 9.99 else f"{100 * check.slack:.1f} %"
        )
        where = (number(check.value), number(check.bound), slack, layer_name(name))
    counts = tuple(
        str(verdicts[verdict] or "") for verdict in ("holds", "vacuous", "not_applicable", "violated")
    )
    return _Line((*key, *counts, *where), bool(verdicts["violated"]))


def some_guarantee(layers: Sequence[LayerResult]) -> bool:
    """Say whether κ(ρI + βW) is guaranteed for some layer."""
    return any(guarantee(result) is not None for result in layers)


def guaranteed(layers: Sequence[LayerResult]) -> str:
    """Return what κ(ρI + βW) is guaranteed to be at most for all of some layers."""
    found = [guarantee(result) for result in layers]
    bounds = [check.bound for check in found if check is not None and check.bound is not None]
    return number(max(bounds)) if bounds and len(bounds) == len(found) else ABSENT


def about_guarantees(layers: Sequence[LayerResult]) -> str:
    """Return what the guarantees say, or that there are none; nothing where none was looked for."""
    if not any(_tested(result) for result in layers):
        return ""
    names = ", ".join(GUARANTEES)
    if some_guarantee(layers):
        return f"proven ≤: what theory guarantees of κ(skip) at most ({names}; {ABSENT}: nothing)."
    return f"theory guarantees no κ(skip) here ({names}); --bounds shows what holds."


def advice_lines(layers: Sequence[LayerResult]) -> list[str]:
    """Return one sentence per kind of advice: that of the layer with the smallest value."""
    groups: dict[tuple[str, str], list[tuple[str, Advice]]] = {}
    for result in layers:
        for item in result.advice:
            groups.setdefault((item.bound, item.quantity), []).append((layer_name(result.layer.name), item))
    lines = []
    for (bound, _), group in groups.items():
        name, least = min(group, key=lambda pair: inf if pair[1].value is None else pair[1].value)
        of = f", the least of {len(group)} layers" if len(group) > 1 else ""
        lines.append(f"{name}: {visible(least.sentence)} ({bound}{of})")
    return lines
