"""The pass over all layers, on daemon threads: results are handed over one by one, progress is looked at.

Threads of our own rather than Textual's workers: cancelling one of those does not stop a decomposition, and
quitting would wait for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specinspect.schedule import FREE_BYTES
from specinspect.tui.events import (
    BlockDone,
    Event,
    LayerDone,
    LayerFailed,
    PairDone,
    Said,
    TensorsRead,
    WeightDone,
)
from specinspect.tui.work import Pass, Task, Work, reason

if TYPE_CHECKING:
    from specinspect.engine import Inspection


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the pass is."""

    done: int = 0
    """Layers, failed ones included."""
    layers: int = 0
    fraction: float = 0.0
    """Of the estimated work."""
    seconds_left: float | None = None
    """None until it can be told."""
    running: frozenset[int] = frozenset()
    """Indices of the layers in flight."""
    finished: bool = False
    blocks_left: int = 0
    seconds: float = 0.0
    """Since the start."""


class Runner:
    """Runs tasks in the order of the checkpoint, what is looked at first, the large ones alone.

    Args:
        work: the engine.
        inspection: what to compute.
        hand_over: called on a worker's thread with every event; must not block.
    """

    def __init__(self, work: Work, inspection: Inspection, hand_over: Callable[[Event], None]) -> None:
        self._work, self._inspection, self._hand_over = work, inspection, hand_over
        self._lock = threading.Condition()
        self._waiting: list[Task] = []
        self._running: dict[int, Task] = {}
        self._wanted: int | None = None
        self._alone = False
        self._stopped = False
        self._planned = False
        self._share = float(FREE_BYTES)
        self._workers = 1
        self._total = self._spent = 0.0
        self._layers = len(inspection.discovery.layers)
        self._finished: set[int] = set()
        self._start = self._begun = time.monotonic()
        self._seconds: float | None = None
        self.plan: Pass | None = None
        """Once torch is loaded."""

    def start(self) -> None:
        """Begin; torch is loaded on the thread that this starts."""
        threading.Thread(target=self._begin, name="specinspect-plan", daemon=True).start()

    def stop(self) -> None:
        """Start nothing more. What runs is left to the end of the process."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()

    def want(self, index: int | None) -> None:
        """Let a layer jump the queue."""
        with self._lock:
            self._wanted = index

    def add(self, tasks: Sequence[Task], *, first: bool = True) -> None:
        """Put tasks at the head of the queue (a layer that has changed), or at its end."""
        with self._lock:
            again = {index for task in tasks for index in task.indices}
            self._finished -= again
            place = 0 if first else len(self._waiting)
            self._waiting[place:place] = tasks
            self._total += sum(task.work for task in tasks)
            if self._seconds is not None:  # the clock stood still since
                self._start = time.monotonic() - self._seconds
            self._seconds = None
            self._lock.notify_all()

    @property
    def progress(self) -> Progress:
        """How far it is now: to be looked at, not waited for."""
        with self._lock:
            running = frozenset(i for task in self._running.values() for i in task.indices)
            finished = self._planned and not self._waiting and not self._running
            if finished and self._seconds is None:
                self._seconds = time.monotonic() - self._start
            seconds = self._seconds if self._seconds is not None else time.monotonic() - self._start
            fraction = self._spent / self._total if self._total else 0.0
            blocks = [t for t in (*self._waiting, *self._running.values()) if not t.indices]
            working = time.monotonic() - self._begun  # without the time that loading torch takes
            left = working * (1 - fraction) / fraction if fraction > 0.005 and not finished else None
            return Progress(
                len(self._finished), self._layers, fraction, left, running, finished, len(blocks), seconds
            )

    def _begin(self) -> None:
        # Many short waits for the interpreter's lock are what keeps keys quick while results are assembled.
        sys.setswitchinterval(0.001)
        layers, blocks = set(), set()
        try:
            for known in self._work.known(self._inspection):
                if isinstance(known, tuple):
                    layers.add(known[0])
                    self._hand_over(LayerDone(*known))
                else:
                    blocks.add(known.block.name)
                    self._hand_over(BlockDone(known))
                with self._lock:
                    self._finished |= layers
            plan = self._work.plan(self._inspection, layers, blocks)
        except BaseException as error:  # whatever it is, it belongs on the screen
            self._hand_over(Said(reason(error), error=True))
            with self._lock:
                self._planned = True
            return
        for sentence in plan.notices:
            self._hand_over(Said(sentence))
        with self._lock:
            self.plan = plan
            tasks = sorted(plan.layers, key=lambda task: task.indices)
            self._waiting += [*tasks, *plan.blocks]
            self._workers = plan.workers
            self._total += sum(task.work for task in self._waiting)
            largest = max((task.bytes for task in self._waiting), default=0)
            self._share = max(plan.room, largest) / plan.workers
            self._planned = True
            self._begun = time.monotonic()
        for number in range(plan.workers):
            threading.Thread(target=self._loop, name=f"specinspect-{number}", daemon=True).start()
        try:
            self._hand_over(TensorsRead(self._work.bad_tensors(self._inspection)))
        except Exception as error:
            self._hand_over(Said(reason(error), error=True))

    def _loop(self) -> None:
        while (task := self._take()) is not None:
            try:
                self._do(task)
            finally:
                with self._lock:
                    self._running.pop(threading.get_ident())
                    self._alone = False
                    self._spent += task.work
                    self._finished.update(task.indices)
                    self._lock.notify_all()

    def _take(self) -> Task | None:
        """Wait for the next task: large ones run alone, with all threads of the linear algebra."""
        with self._lock:
            while not self._stopped:
                task = self._next()
                large = task is not None and task.bytes > self._share
                if task is not None and not self._alone and not (large and self._running):
                    self._waiting.remove(task)
                    self._running[threading.get_ident()] = task
                    self._alone = large
                    return task
                self._lock.wait()
            return None

    def _next(self) -> Task | None:
        if self._wanted is not None:
            for task in self._waiting:
                if self._wanted in task.indices or task.pair == self._wanted:
                    return task
        return self._waiting[0] if self._waiting else None

    def _do(self, task: Task) -> None:
        try:
            # Not under the lock: the first of the workers loads torch here, and the others wait for it.
            _set_threads(self._workers if task.bytes > self._share else 1)
            if task.weight is not None:
                for index, result in zip(task.indices, task.weight(), strict=True):
                    self._hand_over(WeightDone(index, result))
            found = task.run()
        except Exception as error:
            if task.parts:
                for part in task.parts:
                    if not self._stopped:
                        self._do(part)
                return
            for index in task.indices:
                self._hand_over(LayerFailed(index, reason(error)))
            if not task.indices:
                self._hand_over(Said(f"{task.name}: {reason(error)}", error=True))
            return
        if isinstance(found, PairDone):
            self._hand_over(found)
        elif isinstance(found, tuple):
            for index, result in zip(task.indices, found, strict=True):
                self._hand_over(LayerDone(index, result))
        else:
            self._hand_over(BlockDone(found))


def _set_threads(count: int) -> None:
    """Say how many threads the linear algebra of this very thread may use."""
    import torch

    torch.set_num_threads(count)
