"""Low-rank adapters: the product of two factors, times the adapter's scale."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.context import Claims, Context, Remaining
from specinspect.layers.model import ConvGeometry, Fact, Layer, Product
from specinspect.layers.names import dimensions

_PEFT = re.compile(
    r"(?P<base>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])"
    r"(?:\.(?P<adapter>(?!weight$)[^.]+))?(?:\.weight)?"
)
_KOHYA = re.compile(
    r"(?P<base>.+?)(?:\.lora_|\.lora\.|_lora\.|\.lora_linear_layer\.)(?P<side>down|up)\.weight"
)
_MAGNITUDE = re.compile(r"(?P<base>.+)\.(?:lora_magnitude_vector(?:\..+)?|dora_scale)")
_OTHER = re.compile(r".+\.(?:hada_[wt].*|lokr_[wt].*|oft_.*|boft_.*|ia3_.*|vera_.*|lora_mid\.weight)")


@dataclass(slots=True)
class _Pair:
    """The factors found for one base layer and one adapter."""

    base: str
    adapter: str
    down: TensorInfo | None = None
    up: TensorInfo | None = None


def claim_lora(context: Context, remaining: Remaining) -> Claims:
    """Pair the factors of low-rank adapters; skip factors without a partner."""
    pairs: dict[tuple[str, str, str], _Pair] = {}
    skipped: list[Skipped] = []
    magnitudes: set[str] = set()
    for name, info in remaining.items():
        match = _PEFT.fullmatch(name) or _KOHYA.fullmatch(name)
        if match:
            parts: Mapping[str, str | None] = match.groupdict()
            base, adapter = match["base"], parts.get("adapter") or ""
            pair = pairs.setdefault(
                (base, adapter, parts.get("embedding") or ""),
                _Pair(base, "" if adapter == "default" else adapter),
            )
            if match["side"] in {"A", "down"}:
                pair.down = info
            else:
                pair.up = info
        elif magnitude := _MAGNITUDE.fullmatch(name):
            magnitudes.add(magnitude["base"])
            skipped.append(Skipped(name, "DoRA magnitude: not applied"))
        elif _OTHER.fullmatch(name):
            skipped.append(Skipped(name, "adapter factor of a kind that is not recomposed"))
    layers = []
    for pair in pairs.values():
        made = _layer(context, pair, pair.base in magnitudes)
        if isinstance(made, Layer):
            layers.append(made)
        else:
            skipped += [Skipped(info.name, made) for info in (pair.down, pair.up) if info is not None]
    return Claims(tuple(layers), tuple(skipped))


def _layer(context: Context, pair: _Pair, magnitude: bool) -> Layer | str:
    """Make the layer, or say why the factors make none."""
    down, up = pair.down, pair.up
    if down is None or up is None:
        return f"low-rank factor of {pair.base} without its partner"
    axes = len(down.shape)
    fits = axes == len(up.shape) and 2 <= axes <= 5 and up.shape[1] == down.shape[0]
    if not fits or any(k != 1 for k in up.shape[2:]):
        return f"low-rank factors do not multiply ({dimensions(up.shape)} and {dimensions(down.shape)})"
    kernel = down.shape[2:]
    product, alpha, notes = _scaled(context, pair.base, down, up)
    if magnitude:
        notes += ("DoRA magnitude not applied",)
    conv = None
    if kernel:
        ones = (1,) * len(kernel)
        assumed = Fact(ones, "assumed")
        conv = ConvGeometry(kernel, assumed, assumed, Fact(1, "assumed"))
        notes += ("stride 1, dilation 1 and groups 1 assumed: not stored in the checkpoint",)
    return Layer(
        name=".".join(filter(None, (pair.base, "lora", pair.adapter))),
        kind="lora",
        parameters=(up.name, down.name, *alpha),
        shape=(up.shape[0], *down.shape[1:]),
        matrix_shape=(up.shape[0], down.shape[1]),
        dtype=up.dtype,
        weight=product,
        conv=conv,
        assumptions=notes,
    )


def _scaled(
    context: Context, base: str, down: TensorInfo, up: TensorInfo
) -> tuple[Product, tuple[str, ...], tuple[str, ...]]:
    """Return the recipe with its scale, the alpha tensor if there is one, and what was assumed."""
    alpha = context.tensors.get(f"{base}.alpha")
    if alpha is not None and alpha.size == 1:
        return Product(up.name, down.name, alpha=alpha.name), (alpha.name,), ()
    adapter = context.config.get("adapter_config")
    settings = adapter if isinstance(adapter, Mapping) else context.config
    value = _alpha(settings, base)
    if value is None:
        return Product(up.name, down.name), (), ("adapter scale 1 assumed: no alpha stored",)
    rank = down.shape[0]
    scale = value / (sqrt(rank) if settings.get("use_rslora") is True else rank)
    return Product(up.name, down.name, scale), (), ()


def _alpha(settings: Mapping[str, object], base: str) -> float | None:
    """Read lora_alpha, or the base layer's own one from alpha_pattern (as a plain suffix of its path)."""
    value = settings.get("lora_alpha")
    patterns = settings.get("alpha_pattern")
    if isinstance(patterns, Mapping):
        for key, own in patterns.items():
            if isinstance(key, str) and (base == key or base.endswith(f".{key}")):
                value = own
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)
