"""Whether a model's tensors are those of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice, zip_longest

from specinspect.architecture.model import Architecture
from specinspect.checkpoint.text import quote
from specinspect.errors import SettingsError

_SHOWN = 5


def check_match(architecture: Architecture, names_and_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the model's tensors with a checkpoint's; forgive step counters and tied names.

    Raises:
        SettingsError: they differ; the message shows the first differences and counts them all.
    """
    model = {name: shape for name, shape in architecture.shapes.items() if not _forgiven(name)}
    found = {name: tuple(shape) for name, shape in names_and_shapes.items() if not _forgiven(name)}
    present = {architecture.tied.get(name, name) for name in found}
    differ = [
        f"{_name(name)}: checkpoint {_shape(found[name])}, model {_shape(shape)}"
        for name, shape in model.items()
        if name in found and found[name] != shape
    ]
    missing = [
        f"missing in the checkpoint: {_name(name)}"
        for name in model
        if name not in found and architecture.tied.get(name, name) not in present
    ]
    extra = [f"not in the model: {_name(name)}" for name in found if name not in model]
    total = len(differ) + len(missing) + len(extra)
    if not total:
        return
    counts = ", ".join(
        f"{len(group)} {what}"
        for group, what in (
            (differ, "of another shape"),
            (missing, "missing in the checkpoint"),
            (extra, "not in the model"),
        )
        if group
    )
    shown = _first(differ, missing, extra)
    more = f"; and {total - len(shown)} more" if total > len(shown) else ""
    raise SettingsError(
        f"expected the model to have the checkpoint's tensors, found differences ({counts}): "
        f"{'; '.join(shown)}{more}",
        _hint(set(model), set(found)),
    )


def _first(*groups: list[str]) -> list[str]:
    """Take a few of the differences, every kind among them, each kind in its own order."""
    mixed = (item for item in chain.from_iterable(zip_longest(*groups)) if item is not None)
    taken = set(islice(mixed, _SHOWN))
    return [item for group in groups for item in group if item in taken]


def _hint(model: set[str], found: set[str]) -> str:
    """Say so where the two differ by nothing but a prefix; otherwise give the general advice."""
    if not model & found:
        for outer, inner, text in (
            (
                found,
                model,
                "the checkpoint's names start with {!r}: give the factory that makes the outer module",
            ),
            (model, found, "the model's names start with {!r}: give the factory that makes the inner module"),
        ):
            for prefix in _prefixes(outer):
                if len({prefix + name for name in inner} & outer) * 2 > len(inner):
                    return text.format(prefix)
    return "build the model with the arguments that the checkpoint was trained with"


def _prefixes(names: Iterable[str]) -> list[str]:
    return sorted(
        {name[: end + 1] for name in names for end, sign in enumerate(name) if sign == "."}, key=len
    )


def _forgiven(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _name(name: str) -> str:
    return name if name.isprintable() and len(name) <= 120 else quote(name)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
