"""An app over canned results: the pilot does not wait, and nothing depends on LAPACK."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from specinspect.bounds.model import BoundCheck
from specinspect.checkpoint.model import Checkpoint
from specinspect.comparison.model import LayerComparison
from specinspect.engine import Inspection
from specinspect.errors import CheckpointError
from specinspect.inputs import NO_INPUTS
from specinspect.layers import Discovery
from specinspect.layers.blocks import Apply, Block, Shortcut
from specinspect.layers.model import Activation, Layer
from specinspect.layers.rules import ruled_activation
from specinspect.report.model import BadTensor, BlockResult, LayerResult
from specinspect.settings import Settings
from specinspect.spectra.model import SkipCurve, Spectrum
from specinspect.spectra.summary import summarise
from specinspect.tui.app import Inspector
from specinspect.tui.events import PairDone
from specinspect.tui.work import Pass, Second, Task
from tests.report.canned import patterned, report


def inspection(
    results: Sequence[LayerResult], path: str = "runs/model.pt", settings: Settings | None = None
) -> Inspection:
    """Return an opened checkpoint with the layers of some results."""
    layers = tuple(result.layer for result in results)
    checkpoint = Checkpoint(path, "torch-zip", (path,), 1234, {})
    return Inspection(checkpoint, Discovery(layers, ()), settings or Settings(), NO_INPUTS, layers)


@dataclass
class Stub:
    """Canned results, each at once unless it is held back."""

    results: dict[str, LayerResult]
    broken: dict[str, str] = field(default_factory=dict)
    """Layer → the message of the error that computing it raises."""
    held: dict[str, threading.Event] = field(default_factory=dict)
    """Layer → what it waits for."""
    slow: Set[str] = frozenset()
    """Layers whose weight comes before their other maps."""
    kept: Set[str] = frozenset()
    """Layers that are in the cache."""
    seconds: dict[str, dict[str, LayerComparison]] = field(default_factory=dict)
    """Path of a second checkpoint → layer → what comparing it gives."""
    bad: tuple[BadTensor, ...] = ()
    blocks: tuple[BlockResult, ...] = ()
    besides: list[tuple[int, tuple[float, float], dict[str, str]]] = field(default_factory=list)
    """Layers all of whose maps were compared, with ρ, β and edited facts."""
    refused: str = ""
    """Why all maps cannot be compared."""
    stays: bool = False
    """Whether blocks take too long to be measured again."""
    studied: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)

    def known(self, given: Inspection) -> Iterator[tuple[int, LayerResult] | BlockResult]:
        for index, layer in enumerate(given.discovery.layers):
            if layer.name in self.kept:
                yield index, self.results[layer.name]

    def plan(self, given: Inspection, layers: Set[int], blocks: Set[str]) -> Pass:
        wanted = [(i, layer) for i, layer in enumerate(given.discovery.layers) if i not in layers]
        tasks = tuple(self._task(i, layer) for i, layer in wanted)
        of_blocks = tuple(
            Task((), block.block.name, 1.0, 1000, partial(lambda found: found, block))
            for block in self.blocks
        )
        return Pass(tasks, of_blocks, "cpu", 1)

    def bad_tensors(self, given: Inspection) -> tuple[BadTensor, ...]:
        return self.bad

    def again(self, given: Inspection, index: int) -> tuple[Task, ...]:
        return (self._task(index, given.discovery.layers[index]),)

    def told(self, given: Inspection, settings: Settings) -> Inspection:
        layers = tuple(self._ruled(layer, settings) for layer in given.discovery.layers)
        return replace(given, discovery=replace(given.discovery, layers=layers), settings=settings)

    def _ruled(self, layer: Layer, settings: Settings) -> Layer:
        original = self.results[layer.name].layer
        activation = ruled_activation(layer, settings.rules)
        return replace(layer, activation=activation or original.activation)

    def second(self, given: Inspection, path: str) -> Second:
        if path not in self.seconds:
            raise CheckpointError(f"no such file: {path!r}")
        pairs = self.seconds[path]
        tasks = []
        for index, layer in enumerate(given.discovery.layers):
            if layer.name in pairs:
                run = partial(PairDone, index, pairs[layer.name], path)
                tasks.append(Task((), layer.name, 1.0, 1000, run, pair=index))
        return Second(path, tuple(tasks), len(given.discovery.layers) - len(tasks), 0)

    def study(self, given: Inspection, layer: Layer, weight: Spectrum) -> Study | None:
        self.studied.append(layer.name)
        return Study()

    def beside(
        self,
        given: Inspection,
        second: Second,
        index: int,
        scale: tuple[float, float],
        facts: Mapping[str, str],
    ) -> Task:
        def run() -> PairDone:
            self.besides.append((index, scale, dict(facts)))
            if self.refused:
                return PairDone(index, None, second.path, scale, self.refused)
            pair = self.seconds[second.path][given.discovery.layers[index].name]
            a, b = diagonal(scale, 1.0), diagonal(scale, 2.0)
            pair = replace(pair, a=replace(pair.a, maps=a), b=replace(pair.b, maps=b))
            return PairDone(index, replace(pair, spectral_distance={"skip": 0.25}), second.path, scale)

        return Task((), "beside", 1.0, 1000, run, pair=index)

    def block(self, given: Inspection, block: Block) -> StudyOfBlock | None:
        return None if self.stays else StudyOfBlock()

    def _task(self, index: int, layer: Layer) -> Task:
        def run() -> tuple[LayerResult, ...]:
            if layer.name in self.held:
                self.held[layer.name].wait(10)
            self.computed.append(layer.name)
            if layer.name in self.broken:
                raise RuntimeError(self.broken[layer.name])
            return (replace(self.results[layer.name], layer=layer),)

        def weight() -> tuple[LayerResult, ...]:
            found = self.results[layer.name]
            return (replace(found, layer=layer, maps={"weight": found.maps["weight"]}, bounds=()),)

        return Task((index,), layer.name, 1.0, 1000, run, weight=weight if layer.name in self.slow else None)


@dataclass
class Study:
    """A diagonal layer, diag(1 … 4): the singular values of ρI + βW are ρ + βk."""

    patterns: int = 2
    columns: int = 4

    def skip(self, rho: float, beta: float) -> Spectrum:
        return spectrum_of(np.abs(rho + beta * np.arange(1.0, 5.0)))

    def skip_chain(self, rho: float, beta: float, pattern: int | None) -> Spectrum:
        zeroed = np.arange(4) >= 2 if pattern is None else np.arange(4) == pattern
        return spectrum_of(np.abs(rho + beta * np.where(zeroed, 0.0, np.arange(1.0, 5.0))))

    def chain(self, pattern: int) -> Spectrum:
        values = np.delete(np.arange(1.0, 5.0), pattern)
        return spectrum_of(np.append(values, 0.0), zeros=1)

    def curve(self, betas: Sequence[float], pattern: int | None = None) -> SkipCurve | None:
        tops = tuple(1 + 4 * t for t in betas)
        lows = tuple(1 + t for t in betas)
        return SkipCurve(tuple(betas), tops, lows, tuple(a / b for a, b in zip(tops, lows, strict=True)))


def diagonal(scale: tuple[float, float], size: float) -> dict[str, Spectrum]:
    """Return the maps of size·diag(1 … 4), all but that with D and the skip."""
    rho, beta = scale
    values = size * np.arange(1.0, 5.0)
    kept = spectrum_of(np.abs(rho + beta * values))
    return {"weight": spectrum_of(values), "chain": patterned(spectrum_of(values[1:])), "skip": kept}


class StudyOfBlock:
    """J = diag(-0.5, 0.5)."""

    def skip(self, rho: float, beta: float) -> Spectrum:
        return spectrum_of(np.abs(rho + beta * np.array([-0.5, 0.5])))


def spectrum_of(values: np.ndarray, zeros: int = 0) -> Spectrum:
    return summarise(
        np.sort(values)[::-1],
        structural_zeros=zeros,
        storage_floor=1e-9,
        computation_floor=1e-15,
        method="by hand",
        device="cpu",
        keep_values=True,
    )


def canned(count: int = 8) -> list[LayerResult]:
    """Return layers of every kind; the names mean harm."""
    return list(report().layers)[:count] if count < 15 else list(report().layers)


def with_block(*layers: str, stays: bool = False) -> tuple[Inspector, Stub]:
    """Return an app whose layers of these names make a block: J = diag(-0.5, 0.5) beside an identity."""
    found = canned(15)
    shortcut = Shortcut("identity", "assumed")
    block = Block("blk[/]", "residual", tuple(map(Apply, layers)), shortcut, "assumed")
    chain = spectrum_of(np.array([0.5, 0.5]))
    checks = (BoundCheck("r2", "skip", "holds", 1.5, 1.6, 0.06, None, "of the block", ()),)
    result = BlockResult(block, chain, StudyOfBlock().skip(1.0, 1.0), bounds=checks)
    work = Stub({result.layer.name: result for result in found}, blocks=(result,), stays=stays)
    return Inspector(replace(inspection(found), blocks=(block,)), work=work), work


def app(results: Sequence[LayerResult] | None = None, **stub: object) -> tuple[Inspector, Stub]:
    """Return an app over canned results, and the engine behind it."""
    found = list(results) if results is not None else canned(15)
    work = Stub({result.layer.name: result for result in found}, **stub)  # type: ignore[arg-type]
    return Inspector(inspection(found), work=work), work


def relu(result: LayerResult) -> LayerResult:
    return replace(result, layer=replace(result.layer, activation=Activation("relu", "assumed")))
