"""The user's own inputs: where D is taken instead of at random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from specinspect.bounds.data import LayerInputs
from specinspect.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from specinspect.checkpoint.model import InMemory
from specinspect.errors import SettingsError
from specinspect.layers.model import Layer, Stored
from specinspect.layers.names import split_name
from specinspect.settings import Settings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is known of the points at which D is wanted; empty for random ones."""

    per_layer: Mapping[str, TensorInfo] = field(default_factory=dict)
    """Layer → its inputs, still in the file."""
    outputs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Layer → (n, out) samples of what it put out when the network was run."""
    entering: Mapping[str, TensorInfo] = field(default_factory=dict)
    """First layer of a block → samples of what it took in, from the file or from the network."""
    flowing: Mapping[str, LayerInputs] | None = None
    """Dense layer → all that came into it when the network was run, as far as bounds rest on it; None where
    no batch flowed through the network."""
    notices: tuple[str, ...] = ()


NO_INPUTS = Inputs()
"""D is taken at random inputs."""


def read_inputs(
    settings: Settings, checkpoint: Checkpoint, layers: Sequence[Layer], first: Sequence[str] = ()
) -> Inputs:
    """Open --inputs: one array per layer, or one batch that flows through --model.

    Args:
        settings: of the run.
        checkpoint: whose layers they are for.
        layers: those chosen.
        first: the first layers of blocks, whose inputs are wanted as such.

    Raises:
        SettingsError: not readable, no array for any layer, or a network that does not take it.
    """
    if settings.inputs is None:
        return NO_INPUTS
    if settings.model is not None:
        return _through_the_model(settings, checkpoint, layers, first)
    if _is_npy(settings.inputs):
        raise SettingsError(
            "--inputs: a .npy file holds one batch, which needs the network to flow through",
            "give --model, or a safetensors file with one array per layer name",
        )
    tensors = open_checkpoint(settings.inputs).tensors
    names = {layer.name for layer in layers}
    found = {name: info for name, info in tensors.items() if name in names}
    unknown = [name for name in tensors if name not in names]
    if not found:
        close = get_close_matches(unknown[0], names, n=1) if unknown else []
        raise SettingsError(
            f"--inputs: expected arrays named after layers, found {', '.join(map(repr, unknown[:3]))}",
            f"did you mean {close[0]!r}?" if close else "",
        )
    notices = (f"--inputs: no layer is called {', '.join(map(repr, unknown[:3]))}",) if unknown else ()
    return Inputs(found, entering={name: found[name] for name in first if name in found}, notices=notices)


def _through_the_model(
    settings: Settings, checkpoint: Checkpoint, layers: Sequence[Layer], first: Sequence[str]
) -> Inputs:
    from specinspect.architecture.run import layer_outputs

    batch = read_batch(settings.inputs or "")
    dense = [layer for layer in layers if layer.conv is None and settings.wants_bounds]
    modules = {layer.name: _module_of(layer) for layer in dense}
    found: dict[str, LayerInputs] = {}
    outputs, entering = layer_outputs(
        settings.model or "",
        settings.model_args,
        {name: lambda name=name: checkpoint.read(name) for name in checkpoint.tensors},  # type: ignore[misc]
        [layer.name for layer in layers],
        batch,
        settings.patterns,
        settings.seed,
        first,
        {name: partial(_reduce, found, name) for name in modules.values()},
    )
    missing = [layer.name for layer in layers if layer.name not in outputs]
    notices = (
        (f"--inputs: {len(missing)} layers are no modules that the network calls: random inputs there",)
        if missing
        else ()
    )
    held = {name: TensorInfo(name, "f64", tuple(x.shape), InMemory(x)) for name, x in entering.items()}
    flowing = {layer: found[module] for layer, module in modules.items() if module in found}
    return Inputs(outputs=outputs, entering=held, flowing=flowing, notices=notices)


def _module_of(layer: Layer) -> str:
    """Return the path of the module that a layer's inputs come into: of a part of one, the whole."""
    module, leaf = split_name(layer.parameters[0])
    return module if isinstance(layer.weight, Stored) and leaf == "weight" else layer.name


def _reduce(found: dict[str, LayerInputs], name: str, x: torch.Tensor) -> None:
    """Leave a few numbers of all that comes into a module in `found`."""
    if name in found:
        why = "the network calls it more than once: the Jacobian in its weights is a sum over the calls"
        found[name] = LayerInputs.unknown(why)
    elif not x.is_floating_point() or not x.numel():
        found[name] = LayerInputs.unknown("it takes in no real numbers")
    else:
        found[name] = LayerInputs.of(x)


def read_batch(path: str) -> torch.Tensor:
    """Return the one batch that flows through the model, without running anything from its file.

    Raises:
        SettingsError: not readable, more than one array, or nothing that a network could take.
    """
    import torch

    batch = _array(path)
    if batch.ndim == 0 or not batch.numel():
        raise SettingsError(
            f"--inputs: expected at least one example, found an array of {tuple(batch.shape)}"
        )
    if batch.is_complex():
        raise SettingsError("--inputs: expected real numbers, found complex ones")
    if batch.is_floating_point() and not bool(torch.isfinite(batch).all()):
        raise SettingsError("--inputs: NaN or infinite values in the inputs")
    return batch


def _is_npy(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(6) == b"\x93NUMPY"
    except OSError as error:
        raise SettingsError(f"--inputs: cannot read {path!r}: {error.strerror}") from error


def _array(path: str) -> torch.Tensor:
    import numpy as np
    import torch

    if not _is_npy(path):
        opened = open_checkpoint(path)
        if len(opened.tensors) != 1:
            raise SettingsError(
                f"--inputs: expected one array to feed the model, found {len(opened.tensors)} in {path!r}"
            )
        return opened.read(next(iter(opened.tensors))).clone()
    try:
        array = np.load(path, allow_pickle=False)
        return torch.from_numpy(np.ascontiguousarray(array))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"--inputs: {path!r} is no .npy array of numbers: {error}") from error
