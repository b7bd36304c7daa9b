"""What the app asks of the engine, one piece of work at a time. Torch is loaded by the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from specinspect.errors import LayerError, ResourceError, SpecinspectError
from specinspect.schedule import FREE_BYTES
from specinspect.tui.events import PairDone

if TYPE_CHECKING:
    from specinspect.comparison.measure import PairJob
    from specinspect.comparison.model import LayerComparison
    from specinspect.engine import Inspection, Job
    from specinspect.layers.blocks import Block
    from specinspect.layers.model import Layer
    from specinspect.report.model import BadTensor, BlockResult, LayerResult
    from specinspect.schedule import Cost
    from specinspect.settings import Settings
    from specinspect.spectra.model import SkipCurve, Spectrum


NONE: Set[Any] = frozenset()
PATIENCE = 2e11
"""Operations, some five seconds, from which a layer's weight is shown before its other maps."""


@dataclass(frozen=True, slots=True)
class Task:
    """Layers to be computed together, or one block."""

    indices: tuple[int, ...]
    """Of the layers; empty for a block."""
    name: str
    """Of the first layer, or of the block."""
    work: float
    """Operations, roughly: what time left goes by."""
    bytes: int
    """Memory at the peak, roughly."""
    run: Callable[[], tuple[LayerResult, ...] | BlockResult | PairDone]
    parts: tuple[Task, ...] = ()
    """The same, one layer at a time: to find the one that fails."""
    pair: int | None = None
    """The layer that is compared with that of a second checkpoint."""
    weight: Callable[[], tuple[LayerResult, ...]] | None = None
    """Computes the weight alone, where all maps take long."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Everything that a run computes, and where."""

    layers: tuple[Task, ...]
    blocks: tuple[Task, ...]
    device: str
    workers: int
    notices: tuple[str, ...] = ()
    room: int = FREE_BYTES
    """Bytes that tasks may hold together."""


@dataclass(frozen=True, slots=True)
class Second:
    """A second checkpoint, and what is to be done to compare with it."""

    path: str
    tasks: tuple[Task, ...]
    only_here: int
    """Layers that have no counterpart in it."""
    only_there: int
    notices: tuple[str, ...] = ()
    opened: Inspection | None = None
    """The second checkpoint itself."""
    partners: Mapping[int, str] = field(default_factory=dict)
    """Layer of the first → name of that in the second."""


class Studied(Protocol):
    """A layer held ready; see `spectra.study.Study`, which this is."""

    @property
    def patterns(self) -> int:
        """Number of sampled D."""

    @property
    def columns(self) -> int:
        """Size of the eigenvalue problems."""

    def skip(self, rho: float, beta: float, /) -> Spectrum:
        """Return the spectrum of ρA + βW."""

    def skip_chain(self, rho: float, beta: float, pattern: int | None, /) -> Spectrum:
        """Return the spectrum of ρA + β·D·W."""

    def chain(self, pattern: int, /) -> Spectrum:
        """Return the spectrum of D·W."""

    def curve(self, betas: Sequence[float], /) -> SkipCurve | None:
        """Return the extremes of A + βW along β."""


class StudiedBlock(Protocol):
    """A block held ready; see `engine.blocks.BlockStudy`, which this is."""

    def skip(self, rho: float, beta: float, /) -> Spectrum | None:
        """Return the spectrum of ρA + βJ."""


class Work(Protocol):
    """The engine as the app sees it; tests put canned results in its place."""

    def known(self, inspection: Inspection, /) -> Iterator[tuple[int, LayerResult] | BlockResult]:
        """Yield what is in the cache: layers with their indices, and blocks."""

    def plan(self, inspection: Inspection, /, layers: Set[int], blocks: Set[str]) -> Pass:
        """Return all tasks of a run but for the layers and blocks that are known."""

    def bad_tensors(self, inspection: Inspection, /) -> tuple[BadTensor, ...]:
        """Return the tensors in no layer that have NaN or infinite entries."""

    def again(self, inspection: Inspection, index: int, /) -> tuple[Task, ...]:
        """Return the tasks that a changed layer makes necessary: itself, and the blocks it is in."""

    def told(self, inspection: Inspection, settings: Settings, /) -> Inspection:
        """Return the inspection under other settings."""

    def second(self, inspection: Inspection, path: str, /) -> Second:
        """Open a second checkpoint and match its layers."""

    def beside(
        self,
        inspection: Inspection,
        second: Second,
        index: int,
        scale: tuple[float, float],
        facts: Mapping[str, str],
        /,
    ) -> Task:
        """Return the task that compares all maps of a layer; what it finds is told even where it fails.

        Args:
            inspection: the first checkpoint, edits included.
            second: the other one.
            index: of the layer in the first.
            scale: ρ and β.
            facts: what was edited of the layer; it is to hold on both sides.
        """

    def study(self, inspection: Inspection, layer: Layer, weight: Spectrum, /) -> Studied | None:
        """Return a layer ready for any ρ and β, None where it has no maps beside its weight."""

    def block(self, inspection: Inspection, block: Block, /) -> StudiedBlock | None:
        """Return a block ready for any ρ and β, None where it has no shortcut or takes too long."""


class EngineWork:
    """The real engine."""

    def known(self, inspection: Inspection) -> Iterator[tuple[int, LayerResult] | BlockResult]:
        """Yield what is in the cache: layers with their indices, and blocks. Loads no torch on a CPU."""
        from specinspect.engine import recalled_blocks, recalled_layers
        from specinspect.spectra.plan import choose_plan

        plan = choose_plan(inspection.settings.device)
        yield from recalled_layers(inspection, plan)
        for _, result in recalled_blocks(inspection, plan):
            yield result

    def plan(self, inspection: Inspection, layers: Set[int] = NONE, blocks: Set[str] = NONE) -> Pass:
        """Return all tasks of a run but for the layers and blocks that are known."""
        from specinspect.engine import block_jobs, layer_jobs, layers_job, room_beside, run_block, run_job
        from specinspect.schedule import cost
        from specinspect.spectra.plan import choose_plan, default_jobs, return_large_blocks

        plan = choose_plan(inspection.settings.device)
        jobs = inspection.settings.jobs or default_jobs()
        workers = jobs if plan.device == "cpu" else 1
        left = tuple(block for block in inspection.blocks if block.name not in blocks)
        if not left and len(layers) == len(inspection.discovery.layers):
            return Pass((), (), plan.device, workers, plan.notices)
        return_large_blocks()
        tasks = []
        for indices, job, total in zip(*layer_jobs(inspection, plan, layers), strict=True):
            parts: tuple[Task, ...] = ()
            if len(indices) > 1:
                singles = [layers_job(inspection, [layer], plan) for layer in job.layers]
                costs = [cost(layer, inspection.settings) for layer in job.layers]
                parts = tuple(
                    _task((i,), one, c, run_job) for i, one, c in zip(indices, singles, costs, strict=True)
                )
            tasks.append(replace(_task(indices, job, total, run_job), parts=parts))
        of_blocks = [
            Task((), job.block.name, c.operations, c.bytes, partial(run_block, job))
            for job, c in zip(*block_jobs(replace(inspection, blocks=left), plan), strict=True)
        ]
        room = room_beside(inspection.settings)
        return Pass(tuple(tasks), tuple(of_blocks), plan.device, workers, plan.notices, room)

    def bad_tensors(self, inspection: Inspection) -> tuple[BadTensor, ...]:
        """Return the tensors in no layer that have NaN or infinite entries."""
        from specinspect.engine import bad_tensors

        return tuple(bad_tensors(inspection))

    def again(self, inspection: Inspection, index: int) -> tuple[Task, ...]:
        """Return the tasks that a changed layer makes necessary: itself, and the blocks it is in."""
        layer = inspection.discovery.layers[index]
        blocks = tuple(b for b in inspection.blocks if layer.name in (*b.layers, *b.shortcut_layers))
        only = replace(
            inspection,
            discovery=replace(inspection.discovery, layers=(layer,)),
            blocks=blocks,
        )
        made = self.plan(only)
        return (*(replace(task, indices=(index,)) for task in made.layers), *made.blocks)

    def told(self, inspection: Inspection, settings: Settings) -> Inspection:
        """Return the inspection under other settings."""
        from specinspect.engine import open_source

        return open_source(inspection.checkpoint, settings)

    def second(self, inspection: Inspection, path: str) -> Second:
        """Open a second checkpoint and match its layers."""
        from specinspect.comparison.measure import PairJob, run_pair
        from specinspect.comparison.run import open_pair
        from specinspect.engine import layers_job
        from specinspect.schedule import cost
        from specinspect.spectra.plan import choose_plan

        # Opened with the maps of the run: for the weight alone no activation would be assumed of its layers.
        pairing = open_pair(inspection.checkpoint, path, replace(inspection.settings, spectra=True))
        weights = replace(pairing.settings, maps=("weight",))
        sides = [replace(side, settings=weights) for side in (pairing.a, pairing.b)]
        plan = choose_plan(weights.device)
        places = {layer.name: index for index, layer in enumerate(inspection.discovery.layers)}
        tasks = []
        for a, b in pairing.match.pairs:
            if a.name not in places:
                continue
            jobs = PairJob(
                *(layers_job(side, [each], plan) for side, each in zip(sides, (a, b), strict=True))
            )
            needed = cost(a, weights)
            index = places[a.name]
            run = partial(_compare, run_pair, jobs, index, path)
            tasks.append(Task((), a.name, 3 * needed.operations, needed.bytes, run, pair=index))
        return Second(
            path,
            tuple(tasks),
            len(pairing.match.only_in_a),
            len(pairing.match.only_in_b),
            pairing.notices,
            pairing.b,
            {places[a.name]: b.name for a, b in pairing.match.pairs if a.name in places},
        )

    def beside(
        self,
        inspection: Inspection,
        second: Second,
        index: int,
        scale: tuple[float, float],
        facts: Mapping[str, str],
    ) -> Task:
        """Return the task that compares all maps of a layer; what it finds is told even where it fails."""
        from specinspect.comparison.run import settings_for
        from specinspect.schedule import cost

        layer = inspection.discovery.layers[index]
        rho, beta = scale
        settings = replace(settings_for(inspection.settings), rho=rho, beta=beta, spectra=True)
        needed = cost(layer, settings)
        run = partial(_beside, replace(inspection, settings=settings), second, index, facts)
        return Task((), layer.name, 3 * needed.operations, needed.bytes, run, pair=index)

    def study(self, inspection: Inspection, layer: Layer, weight: Spectrum) -> Studied | None:
        """Return a layer ready for any ρ and β, None where it has no maps beside its weight."""
        from specinspect.engine import study_layer

        return study_layer(inspection, layer, weight)

    def block(self, inspection: Inspection, block: Block) -> StudiedBlock | None:
        """Return a block ready for any ρ and β, None where it has no shortcut or takes too long."""
        from specinspect.engine import study_block

        return study_block(inspection, block)


def _task(
    indices: tuple[int, ...], job: Job, total: Cost, run: Callable[[Job], tuple[LayerResult, ...]]
) -> Task:
    work = partial(_run_if_affordable, run, job, total.bytes)
    weight = None
    if total.operations > PATIENCE and len(indices) == 1 and set(job.settings.maps) != {"weight"}:
        alone = replace(job, settings=replace(job.settings, maps=("weight",)), cache=None)
        weight = partial(_run_if_affordable, run, alone, total.bytes)
    return Task(indices, job.layers[0].name, total.operations, total.bytes, work, weight=weight)


def _compare(run: Callable[[PairJob], LayerComparison], jobs: PairJob, index: int, path: str) -> PairDone:
    return PairDone(index, run(jobs), path)


def _beside(inspection: Inspection, second: Second, index: int, facts: Mapping[str, str]) -> PairDone:
    """Compare all maps of a layer at the ρ and β of the settings."""
    from specinspect.comparison.measure import PairJob, run_pair
    from specinspect.engine import layers_job, open_source
    from specinspect.inputs import NO_INPUTS
    from specinspect.spectra.plan import choose_plan
    from specinspect.tui.edits import rule_of

    settings, other = inspection.settings, second.opened
    scale = (settings.rho, settings.beta)
    try:
        if other is None or index not in second.partners:
            raise LayerError("the second checkpoint has no such layer")
        name = second.partners[index]
        if facts:  # under the name that the layer has there
            rules = (*other.settings.rules, rule_of(name, facts))
            other = open_source(other.checkpoint, replace(other.settings, rules=rules))
        layer = next(layer for layer in other.discovery.layers if layer.name == name)
        plan = choose_plan(settings.device)
        jobs = [
            layers_job(replace(side, settings=settings, inputs=NO_INPUTS), [each], plan)
            for side, each in ((inspection, inspection.discovery.layers[index]), (other, layer))
        ]
        return PairDone(index, run_pair(PairJob(*jobs)), second.path, scale)
    except Exception as error:  # whatever it is, it belongs on the screen
        return PairDone(index, None, second.path, scale, reason(error))


def _run_if_affordable(
    run: Callable[[Job], tuple[LayerResult, ...]], job: Job, needed: int
) -> tuple[LayerResult, ...]:
    """Refuse a layer that does not fit into memory, where the system would kill the whole process."""
    from specinspect.spectra.plan import available_memory

    free = available_memory()
    if job.plan.device == "cpu" and free is not None and needed > free:
        raise ResourceError(
            f"layer {job.layers[0].name!r} needs about {needed / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free",
            "leave it out with --exclude, or use a larger machine",
        )
    return run(job)


def reason(error: BaseException) -> str:
    """Return why something failed, on one line."""
    text = str(error) if isinstance(error, SpecinspectError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
