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
    from specinspect.bounds.model import Advice, BoundCheck
    from specinspect.spectra.model import PaddingBounds, Spectrum
    from specinspect.spectra.quantities import LayerQuantities


def wants_bounds(settings: Settings) -> bool:
    """Say whether bounds are computed: never for weights alone, which they would slow down."""
    return settings.bounds and set(settings.maps) != {"weight"} and settings.quantities == "spectrum"


def bounds_of(
    layer: Layer,
    quantities: LayerQuantities | None,
    maps: Mapping[str, Spectrum],
    padding: PaddingBounds | None,
    job: Job,
) -> tuple[BoundCheck, ...]:
    """Return the verdicts of theory on the maps that are shown."""
    from specinspect.bounds.checks import check_layer
    from specinspect.checkpoint.read import read_tensor

    settings, given = job.settings, job.inputs.per_layer.get(layer.name)
    if not wants_bounds(settings):
        return ()
    inputs = None
    if given is not None and layer.conv is None:
        inputs = checked_inputs(layer, read_tensor(given)).numpy()
    checks = check_layer(
        quantities and _named(quantities, layer),
        padding,
        maps,
        boundary=BOUNDARIES[settings.conv_operator],
        delta=settings.delta,
        init=settings.init,
        inputs=inputs,
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


def _named(quantities: LayerQuantities, layer: Layer) -> LayerQuantities:
    """Return the quantities with what only the layer knows."""
    return replace(quantities, kind=layer.kind, activation=layer.activation.name)
