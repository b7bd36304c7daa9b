"""The rank that a layer has by construction, whatever its weights are."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specinspect.layers.model import Layer


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
