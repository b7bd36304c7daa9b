"""What the engine asks of a layer or a block, as keys of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from specinspect.bounds.data import LayerInputs
from specinspect.cache.keys import deciding
from specinspect.cache.results import Request
from specinspect.checkpoint.dtypes import TORCH
from specinspect.checkpoint.tensors import InMemory, TensorInfo
from specinspect.layers.blocks import Block
from specinspect.layers.model import Layer
from specinspect.report.model import BlockResult, LayerResult
from specinspect.settings import Settings
from specinspect.spectra.plan import Plan

if TYPE_CHECKING:
    from specinspect.architecture.listen import Observed


def layer_request(
    layer: Layer,
    tensors: Mapping[str, TensorInfo],
    settings: Settings,
    plan: Plan,
    *,
    inputs: TensorInfo | None = None,
    observed: Observed | None = None,
    flowing: tuple[LayerInputs | None] | None = None,
    others: Mapping[str, object] | None = None,
) -> Request[LayerResult]:
    """Ask for everything that is said of one layer.

    Args:
        layer: its facts; the name is one, since random inputs are drawn from a stream of its own.
        tensors: all that is read for it.
        settings: of the run.
        plan: where it is computed.
        inputs: the user's own, for this layer.
        observed: what the layer put out when the network was run.
        flowing: what is known of all that came into the layer then; None where the network was not run.
        others: whatever else the result may depend on.
    """
    read = {f"stored {name}": info for name, info in tensors.items()}
    if inputs is not None:
        read["inputs"] = inputs
    heard: tuple[object, ...] = ()
    if observed is not None:
        outputs, heard = observed.values, (observed.normalized, observed.sides)
        read["outputs"] = TensorInfo(
            "outputs",
            TORCH[str(outputs.dtype).removeprefix("torch.")],
            tuple(outputs.shape),
            InMemory(outputs),
        )
    decided = deciding(settings, convolution=layer.conv is not None)
    return Request(LayerResult, {"layer": layer}, (decided, plan.device, others or {}, flowing, heard), read)


def block_request(
    block: Block,
    layers: Mapping[str, Layer],
    tensors: Mapping[str, TensorInfo],
    settings: Settings,
    plan: Plan,
    *,
    others: Mapping[str, object] | None = None,
) -> Request[BlockResult]:
    """Ask for what is measured of one block.

    Args:
        block: what it is made of.
        layers: the facts of its layers.
        tensors: all that is read for it.
        settings: of the run.
        plan: where it is computed.
        others: whatever else the result may depend on.
    """
    read = {f"stored {name}": info for name, info in tensors.items()}
    context = (deciding(settings, convolution=True), plan.device, layers, others or {})
    return Request(BlockResult, {"block": block}, context, read)
