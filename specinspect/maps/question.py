"""From a layer's facts and tensors to D: which diagonals its activation puts on W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specinspect.checkpoint.model import TensorInfo
from specinspect.layers.model import Layer
from specinspect.layers.vocabulary import SLOPES
from specinspect.maps.activations import DERIVATIVES
from specinspect.maps.build import Read
from specinspect.maps.patterns import Affine, Diagonals, probe_seed, sample_diagonals

if TYPE_CHECKING:
    import torch

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True, eq=False)
class Activated:
    """D as far as it can be told, and what had to be assumed."""

    diagonals: Diagonals | None
    """None where D is the identity."""
    assumptions: tuple[str, ...] = ()
    bad: str = ""
    """Why D cannot be told (NaN in a bias); the maps with D are then left out."""


def side_tensors(layer: Layer, tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """Return the tensors beside the weight that D depends on, as far as the checkpoint has them."""
    names = [layer.bias, layer.activation.parameter]
    if layer.normalization is not None and layer.normalization.kind == "batch_norm":
        names += [f"{layer.normalization.name}.{part}" for part in _NORM_PARTS]
    return tuple(name for name in names if name is not None and name in tensors)


def activated(
    layer: Layer, kernel: torch.Tensor, read: Read, available: frozenset[str], patterns: int, seed: int
) -> Activated:
    """Sample D for a layer.

    Args:
        layer: its activation, normalisation and bias.
        kernel: (out, in·taps), as `patterns.sample_diagonals` takes it.
        read: name → tensor.
        available: names that can be read.
        patterns: how many samples.
        seed: the user's; each layer draws from its own stream.
    """
    import torch

    out = kernel.shape[0]
    assumptions = []
    affine = None
    if layer.normalization is not None:
        if layer.normalization.kind == "batch_norm":
            affine = _batch_norm(layer.normalization.name, layer.normalization.eps, out, read, available)
        else:
            assumptions.append("the normalisation after it depends on the input and is left out of D·W")
    name = layer.activation.name
    if name == "identity" and affine is None:
        return Activated(None, tuple(assumptions))
    if name not in DERIVATIVES:
        return Activated(None, tuple(assumptions), f"the derivative of {name} is not known here")
    slope = layer.activation.slope if layer.activation.slope is not None else SLOPES.get(name, 0.0)
    slopes = torch.tensor(slope, dtype=torch.float64)
    if layer.activation.parameter in available and layer.activation.parameter is not None:
        stored = read(layer.activation.parameter).to(torch.float64).flatten()
        if len(stored) in {1, out}:
            slopes = stored
    bias = None
    if layer.bias in available and layer.bias is not None:
        stored = read(layer.bias).flatten()
        if layer.bias_rows is not None:
            stored = torch.cat([stored[start:stop] for start, stop in layer.bias_rows])
        bias = stored if len(stored) == out else None
    if name == "identity":
        patterns = 1  # the folded normalisation alone: the same at every input
    else:
        assumptions.append("D sampled at standard normal inputs")
    seeded = probe_seed(seed, layer.name)
    diagonals = sample_diagonals(kernel, bias, affine, (name, slopes), patterns, seeded)
    if not bool(diagonals.values.isfinite().all()):
        return Activated(None, tuple(assumptions), "NaN or infinite values in its bias or normalisation")
    return Activated(diagonals, tuple(assumptions))


def _batch_norm(name: str, eps: float, out: int, read: Read, available: frozenset[str]) -> Affine | None:
    import torch

    parts = {
        part: read(f"{name}.{part}").to(torch.float64).flatten()
        for part in _NORM_PARTS
        if f"{name}.{part}" in available
    }
    if not {"running_mean", "running_var"} <= set(parts) or any(len(p) != out for p in parts.values()):
        return None
    one, zero = torch.ones(out, dtype=torch.float64), torch.zeros(out, dtype=torch.float64)
    scale = parts.get("weight", one) / (parts["running_var"] + eps).sqrt()
    return Affine(scale, parts.get("bias", zero) - scale * parts["running_mean"])
