"""What one layer is heard to put out when a network runs, up to its activation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What a layer was seen to put out, up to its activation."""

    values: torch.Tensor
    """(n, out) at some positions, or (n, out, *places) for whole images; float64."""
    normalized: bool = False
    """Whether these are the outputs of the normalisation behind the layer."""
    sides: tuple[int, ...] = ()
    """Of whole images: those of what came in, of a transposed convolution those of what went out."""


@dataclass(slots=True)
class Listener:
    """Hooks of a layer and of the normalisation behind it: the first call of each counts."""

    samples: int
    """Positions (of batch, sequence or image) that are kept."""
    generator: torch.Generator
    whole: bool = False
    """Of convolutions, keep whole images instead of positions."""
    observed: Observed | None = None
    _shape: tuple[int, ...] = ()
    """Of the layer's output."""
    _channels: int = -1
    """Which axis of it those are."""
    _sides: tuple[int, ...] = field(default=())
    _waiting: bool = False
    """Whether the layer was called and its normalisation not yet."""

    def layer(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep what the layer puts out."""
        if self.observed is not None or not isinstance(output, torch.Tensor) or not output.ndim:
            return
        axes = spatial_axes(module)
        if axes is not None and output.ndim == axes + 1:  # one image without a batch
            output = output[None]
        self._shape = tuple(output.shape)
        self._channels = output.ndim - 1 if axes is None else 1
        image = output if getattr(module, "transposed", False) else next(iter(inputs), None)
        if axes is not None and self.whole and isinstance(image, torch.Tensor):
            self._sides = tuple(image.shape[-axes:])
        self._keep(output, self._channels, normalized=False)
        self._waiting = True

    def norm(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        """Keep instead what the next call of the normalisation puts out, if that is the layer's."""
        if not self._waiting or not isinstance(output, torch.Tensor):
            return
        self._waiting = False
        if self._sides and output.ndim == len(self._shape) - 1:
            output = output[None]
        channels = self._axis(module, tuple(output.shape))
        if channels is not None:
            self._keep(output, channels, normalized=True)

    def _axis(self, module: nn.Module, shape: tuple[int, ...]) -> int | None:
        """Return which axis the layer's channels are in a normalised output, None where that is unclear."""
        width, last = self._shape[self._channels], len(shape) - 1
        # torch's own act on the last axes.
        native = type(module).forward in {nn.LayerNorm.forward, nn.RMSNorm.forward}
        behind = native and len(getattr(module, "normalized_shape", ())) == 1
        if shape == self._shape and not (behind and self._channels != last):
            return self._channels
        if sorted(shape) != sorted(self._shape):
            return None if self._sides or shape[last] != width else last
        if shape[last] == width:
            return last
        return 1 if len(shape) > 1 and shape[1] == width else None

    def _keep(self, output: torch.Tensor, channels: int, *, normalized: bool) -> None:
        if self._sides:
            rows = output.movedim(channels, 1)
        else:
            rows = output.movedim(channels, -1).reshape(-1, output.shape[channels])
        chosen = torch.randperm(len(rows), generator=self.generator)[
            : self.samples
        ]  # all where there are few
        self.observed = Observed(rows[chosen].to(torch.float64).cpu(), normalized, self._sides)


def spatial_axes(module: nn.Module) -> int | None:
    """Return how many axes a convolution slides along, None for any other layer."""
    size = getattr(module, "kernel_size", None)
    return len(size) if isinstance(size, tuple) else None
