"""The user's own inputs: where D is taken instead of at random ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from specinspect.bounds.data import LayerInputs
from specinspect.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from specinspect.checkpoint.tensors import InMemory
from specinspect.errors import SettingsError
from specinspect.layers.model import Layer, Stored
from specinspect.layers.names import split_name
from specinspect.maps.build import low_padding
from specinspect.settings import Settings

if TYPE_CHECKING:
    import torch

    from specinspect.architecture.listen import Observed


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is known of the points at which D is wanted; empty for random ones."""

    per_layer: Mapping[str, TensorInfo] = field(default_factory=dict)
    """Layer → its inputs, still in the file."""
    outputs: Mapping[str, Observed] = field(default_factory=dict)
    """Layer → samples of what it put out when the network was run."""
    entering: Mapping[str, TensorInfo] = field(default_factory=dict)
    """First layer of a block → samples of what it took in, from the file or from the network."""
    flowing: Mapping[str, LayerInputs] | None = None
    """Dense layer → all that came into it when the network was run, as far as bounds rest on it; None where
    no batch flowed through the network."""
    notices: tuple[str, ...] = ()

    def sides_of(self, layer: Layer) -> tuple[int, ...] | None:
        """Return the sides of the whole images at which a convolution's D is taken, None without any.

        Raises:
            SettingsError: they are too small for the layer's kernel.
        """
        observed, given = self.outputs.get(layer.name), self.per_layer.get(layer.name)
        if layer.conv is None:
            return None
        if observed is not None:
            return observed.sides or None
        if given is None or layer.conv.transposed or len(given.shape) != 2 + len(layer.conv.kernel):
            return None
        sides, conv = given.shape[2:], layer.conv
        axes = zip(sides, low_padding(conv), conv.kernel, conv.dilation.value, strict=True)
        if any(n + 2 * low <= d * (k - 1) for n, low, k, d in axes):
            raise SettingsError(
                f"--inputs: layer {layer.name!r}: inputs of {given.shape} are too small for its kernel"
            )
        return sides


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
    if _is_npy(settings.inputs):
        if settings.model is None:
            raise SettingsError(
                "--inputs: a .npy file holds one batch, which needs the network to flow through",
                "give --model, or a safetensors file with one array per layer name",
            )
        return _through_the_model(settings, checkpoint, layers, first)
    tensors = open_checkpoint(settings.inputs).tensors
    names = {layer.name for layer in layers}
    found = {name: info for name, info in tensors.items() if name in names}
    unknown = [name for name in tensors if name not in names]
    if not found and settings.model is not None and len(tensors) == 1:
        return _through_the_model(settings, checkpoint, layers, first)
    if not found:
        raise _no_array(settings, unknown, names)
    notices = (f"--inputs: no layer is called {', '.join(map(repr, unknown[:3]))}",) if unknown else ()
    return Inputs(found, entering={name: found[name] for name in first if name in found}, notices=notices)


def _no_array(settings: Settings, unknown: Sequence[str], names: Collection[str]) -> SettingsError:
    """Return what is wrong with a file in which no array is called after a layer."""
    close = [near for name in unknown[:100] for near in get_close_matches(name, names, n=1)]
    hint = f"did you mean {close[0]!r}?" if close else ""
    several = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    listed = f"{', '.join(map(repr, unknown[:3])) or 'none'}{several}"
    if settings.model is None:
        return SettingsError(f"--inputs: expected arrays named after layers, found {listed}", hint)
    return SettingsError(
        f"--inputs: expected one batch for the model, or arrays named after layers, found {listed}", hint
    )


def example_batch(path: str, checkpoint: Checkpoint) -> torch.Tensor | None:
    """Return the batch that --inputs holds for the model, None where it holds arrays of layers.

    Raises:
        SettingsError: as `read_batch`.
    """
    if not _is_npy(path):
        tensors = open_checkpoint(path).tensors
        name = next(iter(tensors), "")
        if len(tensors) != 1 or any(split_name(stored)[0] == name for stored in checkpoint.tensors):
            return None
    return read_batch(path)


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
        {layer.name: _norm_behind(layer) for layer in layers},
        batch,
        settings.patterns,
        settings.seed,
        first,
        {name: partial(_reduce, found, name) for name in modules.values()},
        whole=settings.conv_pattern == "pixel",
    )
    with_d = not {"chain", "skip_chain"}.isdisjoint(settings.maps)
    missing = [layer.name for layer in layers if layer.name not in outputs and _has_region(layer)]
    notices = (_not_called(missing),) if missing and with_d else ()
    held = {name: TensorInfo(name, "f64", tuple(x.shape), InMemory(x)) for name, x in entering.items()}
    flowing = {layer: found[module] for layer, module in modules.items() if module in found}
    return Inputs(outputs=outputs, entering=held, flowing=flowing, notices=notices)


def _has_region(layer: Layer) -> bool:
    """Say whether D depends on where it is taken."""
    return layer.activation.name != "identity" and layer.kind not in {"embedding", "lora"}


def _not_called(names: Sequence[str]) -> str:
    many = (
        f"{len(names)} layers with an activation are" if len(names) > 1 else "1 layer with an activation is"
    )
    listed = ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")
    modules = "no modules" if len(names) > 1 else "no module"
    return f"--inputs: {many} {modules} that the network calls ({listed}): random inputs there"


def _norm_behind(layer: Layer) -> str | None:
    """Return the module behind a layer whose outputs decide its region, None where its own do."""
    norm = layer.normalization
    decides = norm is not None and norm.kind != "batch_norm" and _has_region(layer)
    return norm.name if norm is not None and decides else None


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
