"""Which files of a directory are the weights, and what stands beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specinspect.checkpoint.files import open_regular, read_exactly, stat_path
from specinspect.checkpoint.strict_json import parse_object
from specinspect.checkpoint.text import quote, quote_list
from specinspect.errors import CheckpointError

_KINDS = ((".safetensors",), (".bin", ".pt", ".pth", ".ckpt", ".pt2"), (".npz",))
"""Extensions that nominate a file, preferred ones first; what a file really is, its bytes tell later."""
_NOT_WEIGHTS = re.compile(
    r"^(optimizer|scheduler|training_args|rng_state|random_states|scaler|trainer_state|.*optim_states|.*-optim\b)",
    re.IGNORECASE,
)
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<end>\.[a-z]+)$")
_USUAL_STEMS = (
    "model", "diffusion_pytorch_model", "pytorch_model", "adapter_model", "consolidated", "consolidated.00",
    "weights",
)  # fmt: skip
_LONGEST_CONFIG = 10_000_000


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to open."""

    index: str | None = None
    files: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()


def select(directory: str) -> Selection:
    """Return the weights of a directory: an index, one file, or numbered shards.

    Raises:
        CheckpointError: none, several that are equally likely, or shards missing.
    """
    names = _list(directory)
    here = Path(directory)
    weights = [[name for name in names if _is_weights(here, name, ends)] for ends in _KINDS]
    index = _index(directory, [name for name in names if name.endswith(".index.json")])
    if index is not None:
        kind = 0 if ".safetensors" in index else 1
        others = [name for number, group in enumerate(weights) if number != kind for name in group]
        return Selection(index=index, assumptions=_instead(index, others))
    for kind, group in enumerate(weights):
        if group:
            chosen = _one_model(directory, group)
            others = [name for later in weights[kind:] for name in later if name not in chosen]
            return Selection(files=chosen, assumptions=_instead(chosen[0], others))
    raise _no_weights(directory, names)


def read_config(directory: str) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return config.json, with adapter_config.json under 'adapter_config', and what was wrong with them.

    They help to understand the weights but are not needed, so a damaged one is a remark, not an error.
    """
    config: dict[str, Any] = {}
    notes: list[str] = []
    for name, key in (("config.json", None), ("adapter_config.json", "adapter_config")):
        path = os.path.join(directory, name)  # noqa: PTH118 - keeps the spelling that the user gave
        if not os.path.isfile(path):  # noqa: PTH113
            continue
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size > _LONGEST_CONFIG:
                    notes.append(f"{name} was not read: {size} bytes are too many for a configuration")
                    continue
                value = parse_object(read_exactly(file, 0, size, name), path, "a configuration")
        except CheckpointError as error:
            notes.append(f"{name} was not used: {error.message}")
            continue
        config |= value if key is None else {key: value}
    return config, tuple(notes)


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208
    except PermissionError:
        raise CheckpointError(
            f"expected a readable directory, found no permission to list {quote(directory)}", "chmod +rx"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot list {quote(directory)}: {error.strerror}", "check the path") from None


def _is_weights(directory: Path, name: str, ends: tuple[str, ...]) -> bool:
    return name.lower().endswith(ends) and not _NOT_WEIGHTS.match(name) and (directory / name).is_file()


def _index(directory: str, names: list[str]) -> str | None:
    ranked = sorted(
        names, key=lambda name: (".safetensors." not in name, _stem_rank(name.split(".")[0]), len(name))
    )
    if len(ranked) > 1 and ranked[0].split(".")[0] not in _USUAL_STEMS:
        same = [name for name in ranked if (".safetensors." in name) == (".safetensors." in ranked[0])]
        if len(same) > 1:
            raise _several(directory, same)
    return ranked[0] if ranked else None


def _one_model(directory: str, group: list[str]) -> tuple[str, ...]:
    """Return the one file, or all shards of the one set, that is the model."""
    sets: dict[tuple[str, ...], list[str]] = {}
    for name in group:
        match = _SHARD.match(name)
        identity = (
            (match["stem"], match["total"], match["end"]) if match else (name.rsplit(".", 1)[0], "", name)
        )
        sets.setdefault(identity, []).append(name)
    ranked = sorted(sets, key=lambda identity: (_stem_rank(identity[0]), identity))
    if len(ranked) > 1 and _stem_rank(ranked[0][0]) == _stem_rank(ranked[1][0]):
        raise _several(directory, group)
    chosen = sets[ranked[0]]
    stem, total, end = ranked[0]
    if total:
        expected = [
            f"{stem}-{number:05d}-of-{total}{end}" for number in range(1, min(int(total), 10_000) + 1)
        ]
        missing = [name for name in expected if name not in chosen]
        if missing:
            raise CheckpointError(
                f"{quote(directory)}: expected {int(total)} shards, found {len(chosen)}; "
                f"missing: {quote_list(missing)}",
                "fetch the missing shards",
            )
    return tuple(chosen)


def _stem_rank(stem: str) -> int:
    return _USUAL_STEMS.index(stem) if stem in _USUAL_STEMS else len(_USUAL_STEMS)


def _instead(chosen: str, others: list[str]) -> tuple[str, ...]:
    if not others:
        return ()
    return (f"the directory's weights are {quote(chosen)}; not read: {quote_list(others)}",)


def _several(directory: str, names: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{quote(directory)}: expected the weights of one model, found {quote_list(names)}",
        "give one of the files",
    )


def _no_weights(directory: str, names: list[str]) -> CheckpointError:
    found = quote_list(names) if names else "nothing"
    if "saved_model.pb" in names or any(re.search(r"\.data-\d{5}-of-\d{5}$", name) for name in names):
        found = "a TensorFlow model"
    kinds = ", ".join(f"*{end}" for kind in _KINDS for end in kind)
    message = f"{quote(directory)}: expected weights ({kinds}), found {found}"
    below = [name for name in names[:200] if _holds_weights(Path(directory) / name)]
    if below:
        return CheckpointError(
            message, f"weights lie in its sub-directories {quote_list(below)}: give one of those"
        )
    return CheckpointError(message, "give the directory or file that holds the weights")


def _holds_weights(path: Path) -> bool:
    try:
        names = os.listdir(path) if path.is_dir() else []  # noqa: PTH208
    except OSError:
        return False
    ends = tuple(end for kind in _KINDS for end in kind)
    return any(name.endswith(".index.json") or _is_weights(path, name, ends) for name in names[:1000])


def is_directory(path: str) -> bool:
    """Whether a path is a directory.

    Raises:
        CheckpointError: there is nothing, or it may not be looked at.
    """
    import stat

    return stat.S_ISDIR(stat_path(path).st_mode)
