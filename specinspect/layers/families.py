"""From a weight to a layer by its number of axes; the claim on every weight that no special rule took."""

from __future__ import annotations

from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.tensors import FLOAT_DTYPES, TensorInfo
from specinspect.layers.channels import Carrier, Channels
from specinspect.layers.context import Claims, Context, Remaining
from specinspect.layers.conv import convolution, orientation
from specinspect.layers.dense import dense
from specinspect.layers.model import Layer
from specinspect.layers.names import is_embedding
from specinspect.layers.weights import Weight, stored

_CARRIER_LEAVES = (
    ".parametrizations.weight.original1", ".parametrizations.weight.original",
    ".weight", ".weight_v", ".weight_orig", ".weight_bar",
)  # fmt: skip


def layer_of(context: Context, weight: Weight) -> Layer | str:
    """Make the layer that a weight belongs to, or say why it is none."""
    axes = len(weight.shape)
    if axes == 2:
        return dense(context, weight)
    if 3 <= axes <= 5:
        return convolution(context, weight)
    return f"{axes}-D parameter: not a linear map"


def claim_plain(context: Context, remaining: Remaining) -> Claims:
    """Take every weight that is stored as it is used."""
    layers, skipped = [], []
    for name, info in remaining.items():
        if len(info.shape) < 2:
            continue
        made = layer_of(context, stored(info))
        if isinstance(made, Layer):
            layers.append(made)
        else:
            skipped.append(Skipped(name, made))
    return Claims(tuple(layers), tuple(skipped))


def find_channels(context: Context) -> Channels:
    """Look through all weights for how channels flow."""
    carriers = {}
    for name, info in context.tensors.items():
        module = next((name.removesuffix(end) for end in _CARRIER_LEAVES if name.endswith(end)), "")
        if module and module not in carriers and (carrier := _carrier(context, module, info)):
            carriers[module] = carrier
    return Channels(carriers)


def _carrier(context: Context, module: str, info: TensorInfo) -> Carrier | None:
    shape = info.shape
    if info.dtype not in FLOAT_DTYPES or not 2 <= len(shape) <= 5 or info.size == 0:
        return None
    if len(shape) == 2:
        return None if is_embedding(module) else Carrier(module, shape[0], shape[1], ())
    weight = Weight(module, "weight", shape, info.dtype, stored(info).recipe, (info.name,))
    return Carrier(module, shape[0], shape[1], shape[2:], orientation(context, weight)[0])
