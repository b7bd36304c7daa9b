"""The rank that a layer has by construction, whatever its weights are."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specinspect.layers.model import Layer
    from specinspect.report.model import LayerResult


def full_rank(layer: Layer, count: int) -> int:
    """Return the rank that the weights of a layer can reach.

    A stride beyond the kernel skips inputs: of the s^D·c_in columns of a Fourier block (MATH R61) those with
    the residues t·dilation mod s of the kernel's taps t are left. That is how a ResNet halves its grid, and
    no illness.

    Args:
        layer: of any kind; for low-rank adapters their own rank is not known here, and `count` comes back.
        count: min(m, n) of the whole operator.
    """
    conv = layer.conv
    if conv is None or not count:
        return count
    out, inn = (channels // conv.groups.value for channels in layer.matrix_shape)
    if conv.transposed:
        out, inn = inn, out
    axes = zip(conv.kernel, conv.stride.value, conv.dilation.value, strict=True)
    read = prod(len({tap * dilation % stride for tap in range(taps)}) for taps, stride, dilation in axes)
    per_block = min(out, prod(conv.stride.value) * inn)
    return count // per_block * min(out, read * inn)


def lost(full: int, rank: int) -> bool:
    """Say whether more rank is lost than rounding takes from a healthy layer in a 16-bit dtype."""
    return full - rank > max(2, full // 50)


def singular_by_construction(result: LayerResult) -> bool:
    """Say whether κ of W and of D·W is infinite by the layer's construction alone, with nothing wrong in it.

    So it is where a stride skips inputs, and where an adapter has low rank.
    """
    weight = result.maps["weight"]
    if weight.condition_number_status != "infinite" or not weight.sigma_max:
        return False
    if result.layer.kind == "lora":
        return True
    full, rank = full_rank(result.layer, weight.count), weight.numerical_rank
    return full < weight.count and not any(result.zeros or ()) and not (rank is not None and lost(full, rank))
