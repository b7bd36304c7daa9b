"""What the inputs add to the conditioning of learning a layer (MATH D)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from specinspect.bounds.judge import absent
from specinspect.bounds.model import BoundCheck

if TYPE_CHECKING:
    import torch

PROXY = "P0 diagonal-feature proxy"
"""The label of the paper's own formula, which is no bound."""


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """What counts of Z, the inputs of a dense layer, one per row: a few numbers, however many there are."""

    count: int
    """N, rows of Z."""
    size: int
    """Features, columns of Z."""
    rank: int
    """Singular values of Z above rounding: max(N, features)·ε·σ_1, ε that of the dtype of Z."""
    factor: float
    """√κ(ZᵀZ/N): σ_1(Z) over the smallest σ above rounding (MATH R14); infinite where there is none."""
    proxy: float
    """Max over min (non-zero) of the features' root mean squares: the paper's (54), (57)-(63), which drops
    the products z_j·z_k and equals `factor` only where ZᵀZ is diagonal."""
    why_not: str = ""
    """Why nothing is known, '' where it is."""

    @classmethod
    def unknown(cls, why: str) -> LayerInputs:
        """Return that of a layer on whose inputs there is nothing to say."""
        return cls(0, 0, 0, inf, inf, why)

    @classmethod
    def of(cls, inputs: torch.Tensor) -> LayerInputs:
        """Reduce Z.

        Args:
            inputs: (N, features), real. Its dtype says how far its entries are rounded: float64 stands for
                numbers that are exact.
        """
        import torch

        from specinspect.spectra.solve import Batch, singular_values
        from specinspect.spectra.summary import harmless_scale

        epsilon = torch.finfo(inputs.dtype).eps
        z = inputs.to(torch.float64)
        if not bool(z.isfinite().all()):
            return cls.unknown("NaN or infinite values among its inputs")
        largest = float(z.abs().max())
        if largest == 0:
            return cls.unknown("every input is zero")
        z = z * harmless_scale(largest)
        values = singular_values(Batch(z[None])).values[0]
        certain = values[values > max(z.shape) * epsilon * values[0]]
        if not len(certain):
            dtype = str(inputs.dtype).removeprefix("torch.")
            return cls.unknown(f"no singular value of {len(z):,} inputs is above the rounding of {dtype}")
        sizes = z.square().mean(0).sqrt()
        sizes = sizes[sizes > 0]
        return cls(
            len(z),
            z.shape[1],
            len(certain),
            float(certain[0] / certain[-1]),
            float(sizes.max() / sizes.min()),
        )


def checks(inputs: LayerInputs | None) -> tuple[BoundCheck, ...]:
    """Return R14 for the inputs of a layer, and nothing where none were given."""
    if inputs is None:
        return ()
    if inputs.why_not:
        return (absent("r14", "weight", inputs.why_not),)
    factor, proxy = inputs.factor, inputs.proxy
    many = f"{inputs.count:,} input{'s' if inputs.count > 1 else ''} of this layer"
    if inputs.rank < min(inputs.count, inputs.size):
        many += f" (of rank {inputs.rank:,}, the rest within rounding)"
    exact = BoundCheck(
        "r14",
        "weight",
        "holds",
        factor,
        factor,
        0.0,
        None,
        f"over {many}, √κ(ZᵀZ/N) is {factor:.4g}: κ of the Jacobian in these weights is that of the layers "
        "after times this",
        (
            "the layers after are one and the same linear map for all of these inputs; where they are not, "
            "this is the factor of an upper bound",
            "exact: the factor itself, no inequality",
        ),
    )
    label = BoundCheck(
        "r14.proxy",
        "weight",
        "not_applicable",
        factor,
        proxy,
        None,
        None,
        f"{PROXY}: {proxy:.4g} where the exact factor is {factor:.4g}; it is no bound",
        ("features without cross terms",),
    )
    return (exact, label)
