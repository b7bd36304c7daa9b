"""Quantised and packed weights: which scheme it is, and why its numbers are not a weight yet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.context import Claims, Context, Remaining
from specinspect.layers.model import Layer
from specinspect.layers.names import split_name

_PACKED: Mapping[str, tuple[str, ...]] = {
    "qweight": ("qweight", "qzeros", "scales", "g_idx"),
    "W_q": ("W_q", "scale", "zero", "meta"),
    "weight_packed": (
        "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
        "weight_global_scale", "input_global_scale",
    ),
    "SCB": ("weight", "SCB", "weight_format"),
}  # fmt: skip
"""Leaf that gives a scheme away → all the leaves it owns."""

_SCHEMES = {"W_q": "HQQ", "weight_packed": "compressed-tensors", "SCB": "bitsandbytes 8-bit"}
_STATE_4BIT = re.compile(r"(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*)")
_SCALES = ("weight_scale", "weight_scale_inv", "scale_weight")
_SCALE_LEAVES = frozenset({*_SCALES, "input_scale", "scale_input", "output_scale", "k_scale", "v_scale"})
_OBSERVER = re.compile(r"(?:^|\.)(?:weight_fake_quant|activation_post_process|_packed_params)(?:\.|$)")
_MX = re.compile(r"(.*)_(?:blocks|scales)", re.DOTALL)


def claim_quantised(context: Context, remaining: Remaining) -> Claims:
    """Skip quantised weights together with their scales and tables."""
    reasons: dict[str, str] = {}
    for name in remaining:
        for found, reason in _group(context, name):
            reasons.setdefault(found, reason)
    return Claims(skipped=tuple(Skipped(n, r) for n, r in reasons.items() if n in remaining))


def _group(context: Context, name: str) -> Iterator[tuple[str, str]]:
    """Yield the tensors of the scheme that this tensor gives away, with the reason."""
    module, leaf = split_name(name)
    if leaf in _PACKED:
        for other in _PACKED[leaf]:
            info = context.sibling(module, other)
            if info is not None:
                yield info.name, f"{_scheme(context, module, leaf)} packed weight of {module}: not unpacked"
    head, mark, state = name.partition(".weight.")
    if mark and _STATE_4BIT.fullmatch(state):
        for found in (name, f"{head}.weight"):
            if found in context.tensors:
                yield found, f"bitsandbytes 4-bit weight of {head}: not unpacked"
    if _OBSERVER.search(name):
        yield name, "quantisation observer"
    mx = _MX.fullmatch(name)
    if mx and all(_is_bytes(context, f"{mx[1]}{end}") for end in ("_blocks", "_scales")):
        yield name, f"MXFP4 packed weight {mx[1]}: not unpacked"
    if leaf in _SCALE_LEAVES:
        yield name, f"quantisation scale of {module}"
        weight = context.sibling(module, "weight")
        if leaf in _SCALES and weight is not None and context.tensors[name].size != 1:
            yield weight.name, f"{weight.dtype} weight with one scale per block or channel: not rescaled"


def _scheme(context: Context, module: str, leaf: str) -> str:
    if leaf == "qweight":
        return "GPTQ" if context.sibling(module, "g_idx") else "GPTQ or AWQ"
    return _SCHEMES[leaf]


def _is_bytes(context: Context, name: str) -> bool:
    info = context.tensors.get(name)
    return info is not None and info.dtype == "u8"


def note_scale(context: Context, layer: Layer) -> Layer:
    """Say when one stored factor multiplies the weight and has not been applied."""
    for name in layer.parameters:
        module, leaf = split_name(name)
        if leaf != "weight":
            continue
        scale = next((s for s in _SCALES if context.sibling(module, s)), None)
        # BigGAN keeps its last estimate of σ_max and divides by it in every forward pass.
        if scale is None and context.sibling(module, "u0") and _single(context.sibling(module, "sv0")):
            scale = "sv0"
        if scale is not None:
            note = f"stored factor {scale} not applied: singular values are up to that factor"
            return replace(layer, assumptions=(*layer.assumptions, note))
    return layer


def _single(info: TensorInfo | None) -> bool:
    return info is not None and info.size == 1
