"""What the inputs add to the conditioning of learning a layer (MATH D)."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from specinspect.bounds.judge import absent
from specinspect.bounds.model import BoundCheck

Array = NDArray[np.float64]

PROXY = "P0 diagonal-feature proxy"
"""The label of the paper's own formula, which is no bound."""


def batch_factor(inputs: Array) -> float:
    """Return √κ(ZᵀZ/N): σ_1(Z) over the smallest non-zero σ of Z (MATH R14).

    Args:
        inputs: Z, (N, n_in), one input of the layer per row.

    Returns:
        The factor; infinite where Z is zero. Rank is decided at 64-bit rounding error, max(N, n_in)·ε·σ_1.
    """
    values = np.linalg.svd(np.asarray(inputs, float), compute_uv=False)
    positive = values[values > max(inputs.shape) * np.finfo(float).eps * values.max(initial=0.0)]
    return float(positive[0] / positive[-1]) if len(positive) else inf


def feature_proxy(inputs: Array) -> float:
    """Return max over min (non-zero) of the features' root mean squares: the paper's (54), (57)-(63).

    It drops the products z_j·z_k, and equals `batch_factor` only where ZᵀZ is diagonal.
    """
    sizes = np.sqrt((np.asarray(inputs, float) ** 2).mean(0))
    positive = sizes[sizes > 0]
    return float(positive.max() / positive.min()) if len(positive) else inf


def checks(inputs: Array | None) -> tuple[BoundCheck, ...]:
    """Return R14 for the inputs that a layer was given, and nothing without inputs.

    Args:
        inputs: (N, n_in) of a dense layer; None where none were given.
    """
    if inputs is None:
        return ()
    factor, proxy = batch_factor(inputs), feature_proxy(inputs)
    if factor == inf:
        return (absent("r14", "weight", "every input is zero"),)
    many = f"{len(inputs)} input{'s' if len(inputs) > 1 else ''} of this layer"
    exact = BoundCheck(
        "r14",
        "weight",
        "holds",
        factor,
        factor,
        0.0,
        None,
        f"over {many}, the Jacobian in these weights has {factor:.4g} times the κ of the layers after",
        ("all inputs in one linear region of the layers after", "exact: the factor itself, no inequality"),
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
