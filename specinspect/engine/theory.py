"""What theory says of one layer: its bounds, and the advice that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from specinspect.engine.jobs import BOUNDARIES, Job
from specinspect.layers.model import Layer
from specinspect.maps.question import checked_inputs
from specinspect.settings import Settings

if TYPE_CHECKING:
    from specinspect.bounds.data import LayerInputs
    from specinspect.bounds.model import Advice, BoundCheck
    from specinspect.spectra.model import PaddingBounds, Spectrum
    from specinspect.spectra.quantities import LayerQuantities


def bounds_of(
    layer: Layer,
    quantities: LayerQuantities | None,
    maps: Mapping[str, Spectrum],
    padding: PaddingBounds | None,
    job: Job,
) -> tuple[BoundCheck, ...]:
    """Return the verdicts of theory on the maps that are shown."""
    from specinspect.bounds.checks import check_layer

    settings = job.settings
    if not settings.wants_bounds:
        return ()
    checks = check_layer(
        quantities and _named(quantities, layer),
        padding,
        maps,
        boundary=BOUNDARIES[settings.conv_operator],
        delta=settings.delta,
        init=settings.init,
        inputs=None if quantities is None else _inputs_of(layer, job),
    )
    return tuple(check for check in checks if check.of in maps)


def advice_for(
    layer: Layer, quantities: LayerQuantities | None, maps: Mapping[str, Spectrum], settings: Settings
) -> tuple[Advice, ...]:
    """Return what follows from theory for a layer beside a skip."""
    from specinspect.bounds.advice import advise

    if quantities is None or "skip" not in maps:
        return ()
    return advise(_named(quantities, layer), settings.target_kappa, delta=settings.delta)


def _inputs_of(layer: Layer, job: Job) -> LayerInputs | None:
    """Return what the inputs of a layer are like; None where none were given."""
    from specinspect.bounds.data import LayerInputs
    from specinspect.checkpoint.read import read_tensor

    given = job.inputs.per_layer.get(layer.name)
    flowing = job.inputs.flowing
    if given is None and flowing is None:
        return None
    if layer.conv is not None:
        return LayerInputs.unknown("speaks of dense layers: a convolution uses each weight at every place")
    if given is not None:
        return LayerInputs.of(checked_inputs(layer, read_tensor(given)))
    if flowing is None:
        raise AssertionError("one of the two was given")
    found = flowing.get(layer.name)
    if found is None:
        return LayerInputs.unknown("the network does not call it as a module of its own")
    if not found.why_not and found.size != layer.matrix_shape[1]:
        return LayerInputs.unknown(f"its module takes in {found.size} features, not {layer.matrix_shape[1]}")
    return found


def _named(quantities: LayerQuantities, layer: Layer) -> LayerQuantities:
    """Return the quantities with what only the layer knows."""
    return replace(quantities, kind=layer.kind, activation=layer.activation.name)
