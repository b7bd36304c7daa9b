"""Why a tensor that no rule took is no layer: biases, gains, vectors, scalars."""

from __future__ import annotations

from collections.abc import Mapping

from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.bias import bias_path
from specinspect.layers.context import Context
from specinspect.layers.model import Layer
from specinspect.layers.names import is_norm, split_name
from specinspect.layers.norms import WORDS, Norm


class Attachments:
    """What belongs to a layer without being its weight."""

    def __init__(self, layers: tuple[Layer, ...], norms: Mapping[str, Norm]) -> None:
        """Index the layers by bias and by normalisation."""
        # The bias of a packed weight belongs to the module, not to the last of its parts.
        self._bias = {layer.bias: layer.name for layer in layers if layer.bias and not layer.bias_rows}
        self._norm = {layer.normalization.name: layer.name for layer in layers if layer.normalization}
        self._norms = norms

    def reason(self, context: Context, info: TensorInfo) -> str:
        """Say what a tensor is if it belongs to a layer or to a normalisation, '' otherwise."""
        if owner := self._bias.get(info.name):
            return f"bias of {owner}"
        module, leaf = split_name(info.name)
        if (norm := self._norms.get(module)) and info.size:
            after = self._norm.get(module)
            if after:
                return f"{WORDS[norm.kind]} after {after}"
            role = _ROLES.get(leaf)
            return f"{role} of {WORDS[norm.kind]} {module}" if role else ""
        return ""


_ROLES = {
    "weight": "gain", "gamma": "gain", "scale": "gain",
    "bias": "shift", "beta": "shift", "offset": "shift",
    "running_mean": "running statistics", "running_var": "running statistics",
    "num_batches_tracked": "counter",
}  # fmt: skip


def leftover(context: Context, info: TensorInfo) -> str:
    """Say why a tensor without any rule of its own is no layer."""
    if not info.shape:
        return "scalar"
    module, leaf = split_name(info.name)
    if len(info.shape) > 1:
        return f"{len(info.shape)}-D parameter: not a linear map"
    if owner := bias_path(context, info.name):
        return f"shift of normalisation {owner}" if is_norm(owner) else f"bias of {owner}"
    if leaf in {"weight", "gamma"} and is_norm(module):
        return f"gain of normalisation {module}"
    return "vector"
