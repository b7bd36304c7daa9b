"""What solvers and allocators raise, in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from specinspect.errors import LayerError, ResourceError, SpecinspectError


def solver_errors() -> tuple[type[Exception], ...]:
    """Return what is raised where one map has no singular values to give; other layers may have theirs."""
    import torch

    return OverflowError, torch.linalg.LinAlgError  # type: ignore[attr-defined]


def why_failed(error: Exception) -> str:
    """Say why there are no singular values."""
    if isinstance(error, OverflowError):
        return "some singular values are beyond 1.8e308, the largest that float64 holds"
    return f"the eigenvalue solver did not converge ({error})"


@contextmanager
def named_errors(names: str) -> Iterator[None]:
    """Turn the errors of solvers and allocators into ours, with the layer's name."""
    try:
        with named_memory_errors(names):
            yield
    except solver_errors() as error:
        raise LayerError(f"layer {names!r}: {why_failed(error)}", "leave it out with --exclude") from error


@contextmanager
def named_memory_errors(names: str) -> Iterator[None]:
    """Turn the errors of allocators into ours, with the layer's name."""
    try:
        yield
    except SpecinspectError:
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error).lower():
            raise
        raise ResourceError(
            f"no memory to compute layer {names!r}", "leave it out with --exclude, or use a larger machine"
        ) from error
