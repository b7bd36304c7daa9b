"""A progress bar on stderr, only where stderr is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specinspect.engine import Progress

LONG = 60.0
"""Seconds left from which it is said what would be quicker."""


@contextmanager
def progress(layers: int, quicker: Callable[[], str] = str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a callback that moves the bar, or None where nobody would see it.

    The bar and the time left follow the estimated work, not the number of layers: one embedding can take
    longer than fifty small layers. Once it shows that minutes are left, a line says what would be quicker.

    Args:
        layers: how many there are.
        quicker: tells what would be, '' for nothing.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[done]}"),
        BarColumn(),
        TimeElapsedColumn(),  # moves from the start: the first layer is the one that takes longest
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, done=f"0/{layers} layers")
        measured, told, began = 0, False, time.monotonic()

        def advance(state: Progress) -> None:
            nonlocal measured, told
            left = (time.monotonic() - began) * (1 / state.fraction - 1) if state.fraction else 0.0
            if not told and not state.blocks and left > LONG:
                told = True
                if ways := quicker():
                    bar.console.print(f"about {left / 60:.0f} minutes left; {ways}", highlight=False)
            if state.blocks and not measured:  # the time left is that of the blocks from now on
                bar.reset(task)
            measured = state.blocks
            text = f"{state.done}/{measured} blocks" if measured else f"{state.done}/{layers} layers"
            bar.update(task, completed=state.fraction, done=text)

        yield advance
