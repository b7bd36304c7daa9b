"""All bounds of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from specinspect.bounds import activation, convolution, data, entries, gaussian, projection, skip
from specinspect.bounds.model import BoundCheck

if TYPE_CHECKING:
    from specinspect.bounds.data import LayerInputs
    from specinspect.spectra.model import PaddingBounds, Spectrum
    from specinspect.spectra.quantities import LayerQuantities


def check_layer(
    quantities: LayerQuantities | None,
    padding: PaddingBounds | None,
    maps: Mapping[str, Spectrum],
    *,
    boundary: str = "circular",
    delta: float = 0.01,
    init: str | None = None,
    inputs: LayerInputs | None = None,
) -> tuple[BoundCheck, ...]:
    """Return the verdict of every result that says something of a layer.

    Args:
        quantities: what most results rest on; None where it was not gathered (an embedding, NaN, zeros
            around a convolution).
        padding: what the periodic grid says of a zero-padded convolution (MATH R64, R65).
        maps: the spectra that are shown.
        boundary: of a convolution's grid, 'circular' or 'zeros'.
        delta: what is random may fail with this probability, for each result on this layer.
        init: how fresh weights were drawn; None takes their scale from the entries.
        inputs: what the layer's own are like, where the user gave some.
    """
    found: list[BoundCheck] = []
    if quantities is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # a bound beyond float64 says nothing
            found += skip.checks(quantities)
            found += projection.layer_checks(quantities)
            found += activation.checks(quantities)
            found += entries.checks(quantities)
            found += data.checks(inputs)
            found += gaussian.checks(quantities, delta=delta, init=init)
    if padding is not None:
        # R65 speaks of ρI+βT: beside another shortcut there is nothing to say of the skip map.
        other = quantities is not None and quantities.skip is None
        zeros = convolution.checks(padding, maps, boundary)
        found += [check for check in zeros if not (other and check.of == "skip")]
    return tuple(found)
