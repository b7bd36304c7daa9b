"""The app under load: 2,000 layers stream in while keys are pressed (`python -m tests.benchmarks.bench_app`).

Prints the time from a key to the end of the drawing it causes (median, 95th percentile, worst), the memory
before and after, and how long the pass took. Also κ along β of a 1024² layer: from a key to the new picture.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from textual.app import App
from textual.pilot import Pilot

from specinspect.engine import open_source
from specinspect.settings import Settings
from specinspect.tui.app import Inspector
from specinspect.tui.pauses import short_collections

LAYERS, SIDE = 2000, 96
KEYS = ("down", "down", "pagedown", "up", "right_square_bracket", "s", "n", "2", "1", "end", "home", "z")


def main() -> None:
    """Run both and print."""
    with short_collections():
        asyncio.run(soak())
        asyncio.run(live())


async def soak() -> None:
    """Press keys throughout a pass over many small layers."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"model.layers.{i // 8}.part{i % 8}.weight": torch.randn(SIDE, SIDE, generator=generator)
        for i in range(LAYERS)
    }
    app = Inspector(open_source(weights, Settings(activation="relu", spectra=True, blocks=False)))
    waits: list[float] = []
    memory: list[float] = []
    async with app.run_test(size=(160, 48)) as pilot:
        start = time.perf_counter()
        keys = itertools.cycle(KEYS)
        while not app._progress.finished:
            waits.append(await pressed(pilot, next(keys)))
            memory.append(resident())
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - start
        say(f"{LAYERS} layers of {SIDE}x{SIDE}: {seconds:.1f} s, {len(waits)} keys pressed")
        show("key to screen while computing", waits)
        results = memory[len(memory) // 10]
        say(f"memory: {results:.0f} MB early, {memory[-1]:.0f} MB at the end of the pass")
        after, own = [], []
        for key in itertools.islice(keys, 400):
            before = time.thread_time()
            after.append(await pressed(pilot, key))
            own.append(time.thread_time() - before)
        show("key to screen afterwards", after)
        show("processor time of that, whatever else the machine does", own)
        say(f"memory after 400 more keys: {resident():.0f} MB")


async def live() -> None:
    """Change β of a 1024² layer: from the key to the new extremes and picture."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1024, 1024, generator=generator) / 32
    app = Inspector(open_source({"fc.weight": weight}, Settings(spectra=True, patterns=1, blocks=False)))
    async with app.run_test(size=(160, 48)) as pilot:
        while not app._progress.finished:
            await asyncio.sleep(0.1)
        await pressed(pilot, "2")
        start = time.perf_counter()
        while len(app.session.looked.skip.order) < 16:
            await asyncio.sleep(0.02)
        say(f"1024x1024: whole spectra at 16 places along β after {time.perf_counter() - start:.1f} s")
        first, exact = [], []
        for key in ("right_square_bracket",) * 10 + ("left_square_bracket",) * 5:
            start = time.perf_counter()
            await pressed(pilot, key)
            while "skip" not in app.session.live_maps():
                await asyncio.sleep(0.001)
            while app._pane_timer is not None:
                await asyncio.sleep(0.001)
            await drawn(app)
            first.append(time.perf_counter() - start)
            while not app.session.live_maps()["skip"].exact:
                await asyncio.sleep(0.001)
            exact.append(time.perf_counter() - start)
        show("β key to extremes and picture", first)
        show("β key to exact values", exact)


async def pressed(pilot: Pilot[None], key: str) -> float:
    """Press a key, and return the seconds until what it caused is drawn.

    The pane beside the table may follow FOLLOW later; that is in the numbers of `live`.
    """
    start = time.perf_counter()
    app = pilot.app
    app.simulate_key(key)
    await asyncio.sleep(0)
    await drawn(app)
    return time.perf_counter() - start


async def drawn(app: App[None]) -> None:
    """Wait for the next refresh of the screen."""
    done = asyncio.Event()
    app.call_after_refresh(done.set)
    await done.wait()


def show(label: str, seconds: Sequence[float]) -> None:
    """Print median, 95th percentile and worst of some durations."""
    ordered = sorted(seconds)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    middle = statistics.median(ordered)
    say(f"{label}: median {1e3 * middle:.0f} ms, 95 % {1e3 * high:.0f} ms, worst {1e3 * ordered[-1]:.0f} ms")


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def resident() -> float:
    """Return the resident memory of this process, MB."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
