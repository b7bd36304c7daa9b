"""How much a layer costs, which layers run side by side, and with how many BLAS threads each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeVar

from specinspect.layers.model import Layer, Product, Stored
from specinspect.maps import grid_sides
from specinspect.maps.extent import is_written_out, padded_shape
from specinspect.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

FREE_BYTES = 128 << 20
"""Layers that together stay under this may always run side by side."""

SCANNING = 16 << 20
"""Bytes that reading the entries of a matrix takes, in one thread: several would wait for each other."""

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate, good enough to order jobs and to bound memory."""

    bytes: int
    """Peak, beside the mapped file."""
    operations: float
    """Floating-point operations."""


def cost(layer: Layer, settings: Settings) -> Cost:
    """Estimate what a layer's maps take.

    A map with D or a skip costs about as much as W does, once per sampled pattern where D is in it.
    """
    padded = settings.conv_operator == "padded" and layer.conv is not None
    weight = _padded_cost(layer, settings.grid) if padded else _weight_cost(layer, settings.grid)
    if settings.quantities == "entries" and layer.conv is None and isinstance(layer.weight, Stored):
        return Cost(SCANNING, 10.0 * prod(layer.shape))
    if settings.quantities != "spectrum" and not padded:
        return Cost(weight.bytes + 8 * prod(layer.shape), 100.0 * prod(layer.shape))
    if set(settings.maps) == {"weight"} or layer.kind in {"embedding", "lora"}:
        return weight
    without_d = layer.activation.name == "identity" or {"chain", "skip_chain"}.isdisjoint(settings.maps)
    patterns = 1 if without_d else 2 * settings.patterns
    again = 8 * 2 * prod(layer.shape)  # the matrix itself, made anew for the ill-conditioned
    return Cost(max(weight.bytes, again) + weight.bytes // 3, weight.operations * (3 + patterns))


def _weight_cost(layer: Layer, grid: int) -> Cost:
    """Estimate what the spectrum of W takes.

    A dense matrix needs its n × n Gram matrix, the solver's copy and one more; a convolution one batch of
    Fourier blocks as large as its kernel, three times over.
    """
    m, n = max(layer.matrix_shape), min(layer.matrix_shape)
    if isinstance(layer.weight, Product) and layer.conv is None:
        return Cost(8 * 3 * (m + n) * n, 8.0 * (m + n) * n * n)
    if layer.conv is None:
        return Cost(8 * 3 * n * n, 2.0 * m * n * n + 4.0 * n**3)
    sides = grid_sides(layer, grid) or ()
    groups, strides = layer.conv.groups.value, layer.conv.stride.value
    frequencies = prod(sides) // prod(strides) / 2 if prod(layer.conv.kernel) > 1 else 1
    out, inn = (c // groups for c in layer.matrix_shape)
    small = max(1, min(out, inn * prod(strides)))
    large = max(out, inn * prod(strides))
    values = 8 * 3 * groups * (prod(sides) // prod(strides)) * small
    return Cost(
        8 * 5 * prod(layer.shape) + values, groups * frequencies * 8.0 * small**2 * (large + 2 * small)
    )


def _padded_cost(layer: Layer, grid: int) -> Cost:
    """Estimate what the spectrum of a convolution with zeros around its grid takes.

    Written out: the matrix, its Gram matrix, and the solver's copies. Iterated: about a thousand products,
    each compared with a basis of a hundred vectors.
    """
    shape = padded_shape(layer, grid)
    if shape is None or layer.conv is None:
        raise AssertionError("only called for convolutions")
    n, m = min(shape), max(shape)
    groups = layer.conv.groups.value
    if is_written_out(*shape):
        return Cost(8 * 4 * m * n, groups * (2.0 * m * n * n + 4.0 * n**3))
    places = m // max(1, min(layer.matrix_shape) // groups)
    return Cost(8 * 128 * m, 1e3 * (4.0 * prod(layer.shape) * places + groups * 500.0 * n))


def run(
    jobs: Sequence[J],
    costs: Sequence[Cost],
    work: Callable[[J], R],
    *,
    workers: int,
    executor: Executor | None = None,
    room: int = FREE_BYTES,
) -> Iterator[tuple[int, R]]:
    """Run the jobs and yield (index, result) as they finish, the longest first.

    Jobs small enough for `workers` of them to fit into the memory of the largest one run side by side with
    one BLAS thread each; the others one at a time, with all threads. Memory is thus bounded by the largest
    layer.

    Args:
        jobs: plain data; `work` is a picklable function of one of them.
        costs: one per job.
        work: what to do.
        workers: jobs in flight at most.
        executor: where to run everything instead, at its own parallelism (a process pool, a cluster).
        room: bytes that jobs may hold together however small the largest is.
    """
    order = sorted(range(len(jobs)), key=lambda i: -costs[i].operations)
    if executor is not None:
        yield from _drain(executor, order, jobs, work)
        return
    share = max(room, max((c.bytes for c in costs), default=0)) / workers
    together = [i for i in order if costs[i].bytes <= share]
    alone = [i for i in order if costs[i].bytes > share]
    for indices, count, threads in ((alone, 1, workers), (together, workers, 1)):
        if indices:
            with _threads(count, threads) as pool:
                yield from _drain(pool, indices, jobs, work)


def _drain(
    executor: Executor, order: Sequence[int], jobs: Sequence[J], work: Callable[[J], R]
) -> Iterator[tuple[int, R]]:
    futures: dict[Future[R], int] = {executor.submit(work, jobs[i]): i for i in order}
    try:
        while futures:
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in done:
                yield futures.pop(future), future.result()
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def _threads(workers: int, blas_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose threads each use `blas_threads`; the caller's own setting comes back afterwards."""
    import torch

    before = torch.get_num_threads()
    # OpenMP keeps the number per thread and MKL per process, hence here and in every worker.
    torch.set_num_threads(blas_threads)
    pool = ThreadPoolExecutor(workers, "specinspect", torch.set_num_threads, (blas_threads,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(before)
