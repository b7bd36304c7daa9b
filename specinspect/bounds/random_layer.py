"""The random layer that a layer is compared with (MATH E), and the range of its D."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from specinspect.bounds.fresh import freshness, scale_of
from specinspect.spectra.quantities import LayerQuantities

RANGES: Mapping[str, tuple[float, float]] = {
    "identity": (1.0, 1.0),
    "relu": (0.0, 1.0),
    "relu6": (0.0, 1.0),
    "hardtanh": (0.0, 1.0),
    "tanh": (0.0, 1.0),
    "softplus": (0.0, 1.0),
    "sigmoid": (0.0, 0.25),
    "hardsigmoid": (0.0, 1 / 6),
    "abs": (-1.0, 1.0),
    "gelu": (-0.13, 1.13),
    "gelu_tanh": (-0.13, 1.13),
    "silu": (-0.1, 1.1),
    "quick_gelu": (-0.1, 1.1),
    "mish": (-0.12, 1.1),
    "hardswish": (-0.5, 1.5),
    "selu": (0.0, 1.7581),
    "elu": (0.0, 1.0),
    "celu": (0.0, 1.0),
}
"""Where φ′ lies, rounded outwards: the D that R18 takes all at once; of others the sampled range is taken."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A layer of random weights: what it would be, and how far this one is from it."""

    shape: tuple[int, int]
    std: float
    """Of the entries of the matrix; of a convolution, of a Fourier block's."""
    delta: float
    """Of this layer alone."""
    doubt: str
    """Why the entries cannot be independent with this scale; empty where they can."""
    gaussian_doubt: str
    """Why results on Gaussian entries do not apply."""
    assumptions: tuple[str, ...]

    @property
    def n(self) -> int:
        """The smaller side, on which τ lives."""
        return min(self.shape)

    @property
    def c(self) -> float:
        """s·√n."""
        return self.std * sqrt(self.n)


def fresh_layer(q: LayerQuantities, delta: float, init: str | None) -> Fresh | None:
    """Return the random layer that this one is compared with, None where its entries are not known.

    Args:
        q: the layer.
        delta: failure probability.
        init: how the weights were drawn, None to estimate their scale.
    """
    if q.entries is None or q.entries.standard_deviation == 0:
        return None
    conv = q.kind.startswith("conv")
    scale = scale_of(q.entries, init)
    found = freshness(q.entries, None if conv else q.weight[0])
    std = scale.std
    assumptions = [
        scale.sentence,
        f"δ = {delta:.3g}: that asked for, divided by the number of layers",
    ]
    doubt = scale.doubt or found.doubt
    gaussian = doubt
    if not doubt and found.family == "uniform":
        gaussian = "not proven for uniform entries, only for Gaussian ones"
    if conv:
        # Parseval: the mean square over all frequencies, relative to that of the kernel's entries.
        energy = float((q.weight**2).sum(1) @ q.multiplicity) / float(q.multiplicity.sum())
        std *= sqrt(energy / (q.shape[0] * q.shape[1])) / q.entries.standard_deviation
        gaussian = doubt or "proven for dense matrices, not for convolutions"
        assumptions.append("every Fourier block taken as a matrix of independent entries (MATH R52)")
    return Fresh(q.shape, std, delta, doubt, gaussian, tuple(assumptions))


def pattern_range(q: LayerQuantities) -> tuple[float, float, str]:
    """Return between which values D's entries lie, and why R18 does not apply where that is a guess."""
    values = np.concatenate([p.diagonal for p in q.patterns]) if q.patterns else np.ones(1)
    low, high = float(values.min()), float(values.max())
    known = RANGES.get(q.activation)
    if known is not None and known[0] <= low and high <= known[1]:
        return *known, ""
    if known is None and (low, high) == (min(low, 1.0), 1.0):
        return low, high, ""  # leaky ReLU and its like: a slope that is part of the network
    return low, high, "D's range is known from samples only: a normalisation is folded into it"
