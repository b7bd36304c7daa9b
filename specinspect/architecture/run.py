"""Real inputs through a real network: what each layer puts out, from which D is the network's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from specinspect.architecture.build import build_with_notes, quiet_stdout
from specinspect.architecture.listen import Listener, Observed, spatial_axes
from specinspect.architecture.text import describe
from specinspect.checkpoint.text import quote
from specinspect.errors import SettingsError


def layer_outputs(
    spec: str,
    arguments: str | None,
    state: Mapping[str, Callable[[], torch.Tensor]],
    layers: Mapping[str, str | None],
    inputs: torch.Tensor,
    samples: int,
    seed: int,
    entering: Iterable[str] = (),
    watch: Mapping[str, Callable[[torch.Tensor], None]] | None = None,
    *,
    whole: bool = False,
) -> tuple[dict[str, Observed], dict[str, torch.Tensor]]:
    """Run the network in eval mode and return samples of what its layers put out, and take in.

    Args:
        spec: MODULE:FACTORY, whose code is run.
        arguments: JSON arguments of the factory.
        state: tensor name → a function that reads it, under the checkpoint's names.
        layers: module paths to listen to, each with that of the normalisation behind it whose outputs are
            wanted instead, or None; those that the network does not call are left out.
        inputs: a batch, as the network's forward takes it.
        samples: how many positions (of batch, sequence or image) to keep per layer.
        seed: decides which.
        entering: module paths whose inputs are kept as well.
        watch: module path → what is told all that comes in, at every call: (n, in), of the network's dtype.
        whole: of convolutions, keep `samples` whole images instead of positions.

    Returns:
        Layer → samples of its outputs, bias included; and layer → (samples, in), of a convolution
        (samples, in, *sides): its inputs.

    Raises:
        SettingsError: the network cannot be built, loaded or run.
    """
    module = build_with_notes(spec, arguments, real=True).module
    own = module.state_dict()
    try:
        module.load_state_dict({name: state[name]() for name in own if name in state}, strict=False)
        module.eval()
        taken: dict[str, torch.Tensor] = {}
        paths = dict(module.named_modules())
        generator = torch.Generator().manual_seed(seed)
        listeners = {name: Listener(samples, generator, whole=whole) for name in layers if name in paths}
        for name, listener in listeners.items():
            paths[name].register_forward_hook(listener.layer)
            norm = paths.get(layers[name] or "")
            if norm is not None and layers[name]:
                norm.register_forward_hook(listener.norm)
        for name in entering:
            if name in paths:
                paths[name].register_forward_hook(partial(_take, taken, name, samples, generator))
        for name, tell in (watch or {}).items():
            if name in paths:
                paths[name].register_forward_pre_hook(partial(_tell, tell))
        parameter = next(iter(module.parameters()), None)
        floating = inputs.is_floating_point() and parameter is not None
        with torch.inference_mode(), quiet_stdout(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(inputs.to(parameter.dtype) if floating and parameter is not None else inputs)
    except (Exception, SystemExit) as error:
        if not floating and not inputs.is_floating_point() and "type" in str(error):
            raise SettingsError(
                f"--inputs: {quote(spec)} takes floating-point inputs, found {_dtype(inputs)}",
                "convert the array",
            ) from None
        raise SettingsError(
            f"--inputs: running {quote(spec)} on shape {tuple(inputs.shape)} raised {describe(error)}",
            "the file must hold one batch as the network's forward takes it",
        ) from None
    return {name: got for name, listener in listeners.items() if (got := listener.observed)}, taken


def _tell(tell: Callable[[torch.Tensor], None], _module: nn.Module, inputs: Any) -> None:
    if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].ndim:
        tell(inputs[0].reshape(-1, inputs[0].shape[-1]))


def _dtype(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _take(
    taken: dict[str, torch.Tensor],
    name: str,
    samples: int,
    generator: torch.Generator,
    module: nn.Module,
    inputs: Any,
    _output: Any,
) -> None:
    if name in taken or not inputs or not isinstance(inputs[0], torch.Tensor):
        return
    x = inputs[0]
    axes = spatial_axes(module)
    if axes is None:
        x = x.reshape(-1, x.shape[-1])
    elif x.ndim == axes + 1:  # one image without a batch
        x = x[None]
    chosen = torch.randperm(len(x), generator=generator)[:samples]
    taken[name] = x[chosen].to(torch.float64).cpu()
