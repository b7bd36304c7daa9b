"""The normalisations that are not folded into D, run forward: D is taken behind them (MATH §0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specinspect.layers.blocks import GAINS, SHIFTS
from specinspect.layers.model import Normalization
from specinspect.layers.names import join
from specinspect.maps.build import Read

if TYPE_CHECKING:
    import torch

PARTS = (*GAINS, *SHIFTS)
"""The tensors that a normalisation may hold."""
_EACH_PLACE = frozenset({"layer_norm", "rms_norm"})


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """z → gain·ẑ + shift, with ẑ normalised by its own mean and variance."""

    norm: Normalization
    gain: torch.Tensor | None
    """(channels,) float64."""
    shift: torch.Tensor | None

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Return the normalised (n, channels, *places), float64."""
        from torch.nn.functional import group_norm

        norm = self.norm
        if norm.kind in {"group_norm", "instance_norm"}:
            groups = norm.groups or z.shape[1]
            return group_norm(z, groups, self._on(z, self.gain), self._on(z, self.shift), norm.eps)
        if norm.kind == "layer_norm":
            z = z - z.mean(1, keepdim=True)
        z = z * (z.square().mean(1, keepdim=True) + norm.eps).rsqrt()
        places = (-1, *(1,) * (z.ndim - 2))
        gain, shift = self._on(z, self.gain), self._on(z, self.shift)
        z = z if gain is None else z * gain.reshape(places)
        return z if shift is None else z + shift.reshape(places)

    @staticmethod
    def _on(z: torch.Tensor, vector: torch.Tensor | None) -> torch.Tensor | None:
        return None if vector is None else vector.to(z)


def normaliser(
    norm: Normalization | None, out: int, read: Read, available: frozenset[str], *, places: bool, whole: bool
) -> Normaliser | None:
    """Return what stands between a layer and its activation, as far as it can be run on what is at hand.

    Args:
        norm: of the layer; a batch normalisation is folded into D instead.
        out: channels of the layer.
        read: name → tensor.
        available: names that can be read.
        places: whether the layer's outputs have places, as a convolution's.
        whole: whether outputs at all places are at hand, not at one place alone.

    Returns:
        None where there is none, where its statistics reach beyond what is at hand, or where the stored gain
        has another length.
    """
    import torch

    if norm is None or norm.kind == "batch_norm" or norm.axes > 1:
        return None
    if norm.kind not in _EACH_PLACE and (places and not whole):
        return None
    if norm.kind == "group_norm" and (norm.groups is None or out % norm.groups):
        return None
    if norm.kind == "instance_norm" and not places:
        return None
    found: list[torch.Tensor | None] = []
    for leaves in (GAINS, SHIFTS):
        name = next((n for leaf in leaves if (n := join(norm.name, leaf)) in available), None)
        vector = None if name is None else read(name).to(torch.float64).flatten()
        if vector is not None and len(vector) != out:
            return None
        found.append(vector)
    return Normaliser(norm, found[0], found[1])
