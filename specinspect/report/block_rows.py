"""Blocks as lines of a table: what the branch does alone, and beside its shortcut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from specinspect.bounds.blocks import GUARANTEES
from specinspect.report.kappas import PARTIAL, severity
from specinspect.report.text import ABSENT, kappa, middle, number, visible

if TYPE_CHECKING:
    from specinspect.layers.blocks import Block
    from specinspect.report.model import BlockResult
    from specinspect.spectra.model import Spectrum

LISTED = 16
"""Blocks shown; of more, those with the worst κ beside their shortcut."""
HEADERS = ("block", "kind", "‖J‖", "κ(J)", "κ(A+J)")
PROVEN = "proven ≤"
KIND = {"attention-vo": "value-output", "gated-mlp": "gated MLP", "mlp": "MLP"}


class _Line(NamedTuple):
    cells: tuple[str, ...]
    badness: tuple[int, float]


def block_lines(blocks: Sequence[BlockResult], width: int, *, plain: bool, ellipsis: str) -> Iterator[Text]:
    """Yield a header and one line per block, at most LISTED of them, and what was left out."""
    lines = [_line(result) for result in blocks]
    shown = range(len(lines))
    if len(lines) > LISTED:
        worst = sorted(shown, key=lambda i: lines[i].badness, reverse=True)[:LISTED]
        shown = sorted(worst)  # type: ignore[assignment]
    rows = [(*HEADERS, PROVEN), *(lines[i].cells for i in shown)]
    if not some_guarantee(blocks):
        rows = [row[:-1] for row in rows]
    sizes = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    sizes[0] = min(sizes[0], max(width - sum(sizes[1:]) - 2 * len(sizes[1:]), 8))
    for number_, row in enumerate(rows):
        text = Text(no_wrap=True, overflow="crop")
        style = "bold" if number_ == 0 else ""
        for column, cell in enumerate(row):
            shown_cell = middle(cell, sizes[column], ellipsis)
            blank = " " * (sizes[column] - cell_len(shown_cell))
            gap = "  " if column else ""
            text.append(gap + (shown_cell + blank if column < 2 else blank + shown_cell), style)
        text.rstrip()
        yield text
        if number_ == 0:
            total = sum(sizes) + 2 * (len(sizes) - 1)
            yield Text(("-" if plain else "─") * min(total, width), style="dim", no_wrap=True)
    if len(lines) > LISTED:
        yield Text(f"the {LISTED} worst of {len(lines)} blocks; all are in --format json", style="dim")


def guarantee(result: BlockResult) -> float | None:
    """Return what theory guarantees of κ(ρA + βJ) at every sampled pattern, None for nothing."""
    found = [check for check in result.bounds if check.id in GUARANTEES and check.verdict == "holds"]
    return min((check.bound for check in found if check.bound is not None), default=None)


def some_guarantee(blocks: Sequence[BlockResult]) -> bool:
    """Say whether κ(ρA + βJ) is guaranteed for some block."""
    return any(guarantee(result) is not None for result in blocks)


def some_partial(blocks: Sequence[BlockResult]) -> bool:
    """Say whether κ of some block leaves out the singular values that are zero by construction."""
    return any(PARTIAL in _kappa(each) for result in blocks for each in (result.chain, result.skip))


def kind_words(block: Block) -> str:
    """Return what a block is, for people."""
    return KIND.get(block.kind, block.kind)


def _line(result: BlockResult) -> _Line:
    block = result.block
    name = visible(block.name)
    beside = result.skip
    return _Line(
        (
            name,
            kind_words(block),
            ABSENT if result.norm is None else number(result.norm),
            _kappa(result.chain),
            _kappa(beside),
            ABSENT if (found := guarantee(result)) is None else number(found),
        ),
        (-1, 0.0) if beside is None else severity(beside),
    )


def _kappa(spectrum: Spectrum | None) -> str:
    """Return κ, or the pseudo condition number with a mark where rank is lost by construction."""
    if spectrum is None:
        return ABSENT
    if spectrum.condition_number_status == "infinite" and spectrum.pseudo_condition_number is not None:
        return f"{number(spectrum.pseudo_condition_number)}{PARTIAL}"
    return kappa(spectrum)
