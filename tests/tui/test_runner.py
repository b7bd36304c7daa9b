"""The pass over the layers on threads of its own."""

from __future__ import annotations

import queue
import time
from typing import Any

import pytest

from specinspect.tui import runner
from specinspect.tui.events import Event, LayerDone, LayerFailed
from specinspect.tui.runner import Runner
from specinspect.tui.work import Task
from tests.report import canned
from tests.tui.stub import Stub, inspection


def start(count: int) -> tuple[Runner, queue.Queue[Event]]:
    results = [canned.linear(f"layer{i}") for i in range(count)]
    events: queue.Queue[Event] = queue.Queue()
    made = Runner(Stub({r.layer.name: r for r in results}), inspection(results), events.put)
    made.start()
    return made, events


def wait(made: Runner) -> None:
    end = time.monotonic() + 20
    while not made.progress.finished and time.monotonic() < end:
        time.sleep(0.01)
    assert made.progress.finished


def test_every_layer_arrives_once() -> None:
    made, events = start(20)
    wait(made)
    done = [event for event in events.queue if isinstance(event, LayerDone)]
    assert sorted(event.index for event in done) == list(range(20))
    assert made.progress.done == 20


def test_a_failure_in_setting_up_is_a_failed_layer_not_a_lost_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen: torch half imported by one worker when another asked it for its threads."""
    calls = 0

    def fails_once(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise AttributeError("partially initialized module 'torch'")

    monkeypatch.setattr(runner, "_set_threads", fails_once)
    made, events = start(5)
    wait(made)
    failed = [event for event in events.queue if isinstance(event, LayerFailed)]
    assert len(failed) == 1
    assert made.progress.done == 5


def test_the_clock_stands_still_while_nothing_is_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = start(3)
    wait(made)
    before = made.progress.seconds
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 1000)  # somebody reads for a while
    assert made.progress.seconds == before
    made.add([Task((), "again", 1.0, 1000, lambda: ())])
    wait(made)
    assert before <= made.progress.seconds < before + 100


def test_only_slow_layers_with_other_maps_show_their_weight_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real engine: what comes first is the weight alone, and what comes then is the whole."""
    import torch

    from specinspect.engine import open_source
    from specinspect.settings import Settings
    from specinspect.tui import work
    from specinspect.tui.events import WeightDone

    state = {"fc1.weight": torch.eye(64), "fc2.weight": torch.diag(torch.arange(1.0, 9.0))}
    monkeypatch.setattr(work, "PATIENCE", 1e6)

    def run(**settings: Any) -> list[LayerDone | WeightDone]:
        events: list[Event] = []
        made = Runner(work.EngineWork(), open_source(state, Settings(cache=False, **settings)), events.append)
        made.start()
        wait(made)
        return [event for event in events if isinstance(event, LayerDone | WeightDone)]

    found = run()
    assert [(type(e).__name__, e.index) for e in found if e.index == 0] == [
        ("WeightDone", 0),
        ("LayerDone", 0),
    ]
    assert [type(e).__name__ for e in found if e.index == 1] == ["LayerDone"]
    first, whole = (e.result for e in found if e.index == 0)
    assert set(first.maps) == {"weight"}
    assert {"weight", "skip"} <= set(whole.maps)
    assert first.maps["weight"].sigma_max == whole.maps["weight"].sigma_max == pytest.approx(1.0)
    assert [type(e).__name__ for e in run(maps=("weight",))] == ["LayerDone"] * 2
