"""Example inputs for a network that has to be run once to be followed."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

import torch
from torch import nn

_SIDES = (224, 32, 64, 28)
"""Of images, the usual ones first."""
_LENGTHS = (64, 1024, 16000)
"""Of signals in one dimension."""
_TOKENS = 8
_MOST_ENTRIES = 2**27
"""Of a guessed example, which takes memory: 512 MiB in single precision."""
_CARRIED = ("example_input_array", "dummy_inputs")
"""Attributes under which Lightning and Hugging Face networks carry an example."""


@dataclass(frozen=True, slots=True)
class Example:
    """Arguments of one call of `forward`."""

    args: tuple[Any, ...]
    words: str
    """What they are, to say which example a network was followed with."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    assumption: str = ""
    """A sentence for what rests on the example, where it is a guess."""


def examples(network: nn.Module, batch: torch.Tensor | None = None) -> Iterator[Example]:
    """Yield what forward may take: the given batch alone, else what the network carries, else guesses.

    Args:
        network: whose floating-point type and device the examples get.
        batch: the user's own.
    """
    parameter = next((p for p in network.parameters() if p.is_floating_point()), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    device = torch.device("cpu") if parameter is None or parameter.is_meta else parameter.device

    def fitted(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            kind = dtype if value.is_floating_point() else value.dtype
            return torch.zeros(value.shape, dtype=kind, device=device)  # values are never looked at
        return value

    if batch is not None:
        yield Example((fitted(batch),), f"the given inputs, {_size(batch.shape)}")
        return
    for name in _CARRIED:
        value = None
        with contextlib.suppress(Exception, SystemExit):  # a property of foreign code
            value = getattr(network, name, None)
        if isinstance(value, Mapping) and value:
            kwargs = {key: fitted(item) for key, item in value.items()}
            yield Example((), f"its own {name}", kwargs)
        elif isinstance(value, torch.Tensor) or (isinstance(value, tuple) and value):
            args = value if isinstance(value, tuple) else (value,)
            yield Example(tuple(fitted(item) for item in args), f"its own {name}")
    count = _required(network)
    for shape, kind in _shapes(network):
        # Attributes of foreign layers; a lazy one does not know its size yet.
        if not all(isinstance(size, int) and size > 0 for size in shape) or prod(shape) > _MOST_ENTRIES:
            continue
        zeros = torch.zeros(shape, dtype=kind or dtype, device=device)
        yield Example(
            (zeros,) * count,
            f"inputs of a guessed shape, {_size(shape)} (--inputs gives it real ones)",
            assumption=f"the model was followed with inputs of a guessed shape, {_size(shape)}",
        )


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "one number"


def _required(network: nn.Module) -> int:
    """Return how many arguments forward cannot do without."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    needed = (p for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty)
    return max(1, sum(1 for _ in needed))


def _shapes(network: nn.Module) -> Iterator[tuple[tuple[int, ...], torch.dtype | None]]:
    """Yield shapes for the first layer that was made: most networks make their layers in order of use."""
    for module in network.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield (2, _TOKENS), torch.int64
        elif isinstance(module, nn.modules.conv._ConvNd):
            axes = len(module.kernel_size)
            sides = _LENGTHS if axes == 1 else _SIDES if axes == 2 else (16, 32)
            yield from (((2, module.in_channels, *(side,) * axes), None) for side in sides)
        elif isinstance(module, nn.Linear):
            # Vectors, sequences, then images of as many numbers, which forward flattens.
            lead: tuple[tuple[int, ...], ...] = ((2,), (2, _TOKENS))
            yield from (((*first, module.in_features), None) for first in lead)
            for channels, side in product((1, 3), _SIDES):
                if channels * side**2 == module.in_features:
                    yield (2, channels, side, side), None
        elif isinstance(module, nn.RNNBase):
            yield (2, _TOKENS, module.input_size), None
        elif isinstance(module, nn.MultiheadAttention):
            yield (2, _TOKENS, module.embed_dim), None
        else:
            continue
        return
