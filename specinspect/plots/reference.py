"""What a spectrum is compared with: its floors, and the bulk of a fresh random layer of the same scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from specinspect.plots.series import Line

if TYPE_CHECKING:
    from specinspect.layers.model import Layer
    from specinspect.spectra.model import Spectrum


def floors(spectrum: Spectrum) -> tuple[Line, ...]:
    """Return the storage floor and the computation floor, where they are known."""
    found = (("storage floor", spectrum.storage_floor), ("computation floor", spectrum.computation_floor))
    return tuple(
        Line(value, label, "floor") for label, value in found if value is not None and 0 < value < math.inf
    )


def bulk_edges(layer: Layer, weight: Spectrum) -> tuple[float, float] | None:
    """Return where the singular values of W would lie if its entries were independent, of equal variance.

    Between s(√m-√n) and s(√m+√n) for an m×n matrix with m ≥ n and entries of standard deviation s
    (Marchenko and Pastur; Bai and Yin; MATH R19). The scale is that of W: s = ‖W‖_F/√(mn). A convolution on a
    periodic grid is one matrix of channels per frequency (MATH R60): m and n are then channels, and s is the
    root mean square over all frequencies.

    Args:
        layer: whose weight it is.
        weight: its spectrum, with `frobenius_norm` and `count`.

    Returns:
        The edges; None where the scale is not known, and for strided, transposed or grouped convolutions.
    """
    norm, (m, n) = weight.frobenius_norm, layer.matrix_shape
    if norm is None or not 0 < norm < math.inf or min(m, n) == 0:
        return None
    blocks = 1.0
    if layer.conv is not None:
        stride, groups = layer.conv.stride.value, layer.conv.groups.value
        if layer.conv.transposed or groups != 1 or max(stride) > 1:
            return None
        blocks = weight.count / min(m, n)
    scale = norm / math.sqrt(blocks) / math.sqrt(m) / math.sqrt(n)
    return scale * abs(math.sqrt(m) - math.sqrt(n)), scale * (math.sqrt(m) + math.sqrt(n))


def bulk(layer: Layer, weight: Spectrum) -> tuple[Line, ...]:
    """Return the bulk edges as lines; the lower one of a square matrix is zero and has no place."""
    edges = bulk_edges(layer, weight)
    if edges is None:
        return ()
    labels = ("random bulk from", "random bulk to")
    return tuple(Line(edge, label, "bulk") for edge, label in zip(edges, labels, strict=True) if edge > 0)
