"""ConvNeXt blocks, as their authors, torchvision, timm and transformers call their parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import Block, Scale, Shortcut
from specinspect.layers.blocks.walk import NotUnderstoodError, Walk, assumed, check_spatial, check_square
from specinspect.layers.model import Layer
from specinspect.layers.names import join

_EPS = 1e-6
"""Of the layer normalisation inside, in all four."""


@dataclass(frozen=True, slots=True)
class _Spelling:
    depthwise: str
    norm: str
    first: str
    second: str
    scale: str
    responses: str
    """The global response normalisation of the second version."""


_SPELLINGS = (
    _Spelling("dwconv", "norm", "pwconv1", "pwconv2", "gamma", "grn"),
    _Spelling("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter", "grn"),
    _Spelling("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma", "mlp.grn"),
    _Spelling("block.0", "block.2", "block.3", "block.5", "layer_scale", "block.grn"),
)


def convnext_parents(known: Known) -> Iterator[tuple[str, _Spelling]]:
    """Yield (module, how its parts are called) of everything that may be a block."""
    for layer in known.layers:
        for spelling in _SPELLINGS:
            end = f".{spelling.depthwise}"
            if layer.conv is None or not layer.name.endswith(end):
                continue
            parent = layer.name.removesuffix(end)
            inside = (spelling.first, spelling.second)
            if all(join(parent, name) in known.by_name for name in inside) and known.gain(
                join(parent, spelling.norm)
            ):
                yield parent, spelling


def convnext_block(known: Known, parent: str, spelling: _Spelling) -> Block:
    """Make a block x + γ·pw₂(φ(pw₁(norm(dw(x)))))."""
    depthwise, first, second = (
        known.by_name[join(parent, name)] for name in (spelling.depthwise, spelling.first, spelling.second)
    )
    if not _is_depthwise(depthwise):
        raise NotUnderstoodError(f"{depthwise.name} is no depthwise convolution", tell=True)
    path = join(parent, spelling.responses)
    if any(name.startswith(f"{path}.") for name in known.tensors):
        raise NotUnderstoodError(f"the global response normalisation {path} has no map here", tell=True)
    if first.activation.name == "identity":
        raise NotUnderstoodError("no known activation inside", tell=True)
    walk = Walk(known, [], [])
    walk.factors.append(walk.layer(depthwise))
    norm = known.norm(join(parent, spelling.norm), "assumed")
    if norm is None or norm.kind != "layer_norm":
        raise NotUnderstoodError(f"{join(parent, spelling.norm)} is no layer normalisation", tell=True)
    walk.norm(replace(norm, eps=_EPS), norm.name, first=False)
    walk.assumptions.append(f"ε = {_EPS:g} of {norm.name} assumed: not stored in the checkpoint")
    walk.factors.append(walk.layer(first))
    walk.activate(first.activation)
    walk.factors.append(walk.layer(second))
    scale = join(parent, spelling.scale)
    if known.is_scale(scale, second.matrix_shape[0]):
        walk.factors.append(Scale(tensor=scale))
    check_square(walk)
    sentences = assumed(known, walk.factors, "residual block", walk.assumptions)
    block = Block(
        parent, "residual", tuple(walk.factors), Shortcut("identity", "assumed"), "assumed", sentences
    )
    check_spatial(known, block)
    return block


def _is_depthwise(layer: Layer) -> bool:
    conv = layer.conv
    return conv is not None and max(conv.kernel) > 1 and conv.groups.value == layer.matrix_shape[0]
