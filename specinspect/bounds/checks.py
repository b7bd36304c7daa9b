"""All bounds of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from specinspect.bounds import skip
from specinspect.bounds.model import BoundCheck

if TYPE_CHECKING:
    from specinspect.spectra.model import PaddingBounds, Spectrum
    from specinspect.spectra.quantities import LayerQuantities


def check_layer(
    quantities: LayerQuantities | None, padding: PaddingBounds | None, maps: Mapping[str, Spectrum]
) -> tuple[BoundCheck, ...]:
    """Return the verdict of every result that says something of a layer.

    Args:
        quantities: what most results rest on; None where it was not gathered (an embedding, NaN, zeros
            around a convolution).
        padding: what the periodic grid says of a zero-padded convolution (MATH R64, R65).
        maps: the spectra that are shown.
    """
    found: list[BoundCheck] = []
    if quantities is not None:
        found += skip.checks(quantities)
    return tuple(found)
