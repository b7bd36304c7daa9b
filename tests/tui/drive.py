"""Running an app in a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot

from specinspect.tui.app import Inspector
from specinspect.tui.table import LayerTable

WIDE, USUAL, SMALL = (200, 60), (140, 40), (80, 24)


def drive(
    app: Inspector, steps: Callable[[Pilot[Any]], Awaitable[None]], size: tuple[int, int] = USUAL
) -> None:
    """Run the steps in an app of some size; an error inside the app fails the test."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(pilot)

    asyncio.run(run())


async def until(pilot: Pilot[Any], holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        await pilot.pause(0.01)


async def computed(pilot: Pilot[Any]) -> None:
    """Wait until every layer has been computed and shown."""
    app = pilot.app
    assert isinstance(app, Inspector)
    await until(pilot, lambda: all(row.state in {"done", "failed"} for row in app.session.rows))
    await until(pilot, lambda: app._progress.finished and not app._dirty)


def table(app: Inspector) -> LayerTable:
    return app.query_one(LayerTable)


def screen(app: Inspector) -> str:
    """Return what is on the screen as text."""
    from specinspect.tui.export import screen_text

    return screen_text(app.screen)
