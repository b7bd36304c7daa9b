"""Which bias belongs to a weight, and what its length says about the weight's orientation."""

from __future__ import annotations

import re

from specinspect.checkpoint.tensors import FLOAT_DTYPES, TensorInfo
from specinspect.layers.context import Context
from specinspect.layers.names import join
from specinspect.layers.weights import Weight

_LEADING_W = re.compile(r"[Ww](?:eights?)?(?=_|[0-9]|$)")
_TRAILING_W = re.compile(r"_(?:w|W|weights?|kernel)(?=[0-9]*$)")


def bias_of(context: Context, weight: Weight) -> TensorInfo | None:
    """Return the vector that stands beside a weight, whatever its length."""
    for leaf in _leaves(weight.leaf):
        info = context.sibling(weight.module, leaf)
        if info is not None and len(info.shape) == 1 and info.dtype in FLOAT_DTYPES and info.size:
            return info
    return None


def bias_length(context: Context, weight: Weight) -> int | None:
    """Return the length of the bias, which is the number of outputs; None without one."""
    info = bias_of(context, weight)
    return info.shape[0] if info else None


def bias_for(context: Context, weight: Weight, outputs: int) -> str | None:
    """Return the name of the bias if it has one entry per output."""
    info = bias_of(context, weight)
    return info.name if info is not None and info.shape[0] == outputs else None


def is_weight_name(leaf: str) -> bool:
    """Say whether a leaf is a way to call a weight, as weight, kernel, W1 and conv_w are."""
    return leaf == "kernel" or bool(_LEADING_W.match(leaf) or _TRAILING_W.search(leaf))


def weight_leaves(bias: str) -> tuple[str, ...]:
    """Return what the weight beside a bias may be called: 'b1' → 'W1', 'w1', 'weight1'."""
    if bias == "bias":
        return ("weight", "kernel")
    if match := re.fullmatch(r"(?:b|bias)(_?[0-9].*|_.*|)", bias, re.DOTALL):
        return tuple(f"{start}{match[1]}" for start in ("W", "w", "weight"))
    if match := re.search(r"_(?:b|bias)([0-9]*)$", bias):
        stem = bias[: match.start()]
        return tuple(f"{stem}_{end}{match[1]}" for end in ("w", "W", "weight", "kernel"))
    return ()


def _leaves(leaf: str) -> tuple[str, ...]:
    if leaf in {"weight", "kernel"}:
        return ("bias",)
    found = []
    if match := _LEADING_W.match(leaf):
        found += [start + leaf[match.end() :] for start in ("b", "bias")]
    if match := _TRAILING_W.search(leaf):
        found += [leaf[: match.start()] + end + leaf[match.end() :] for end in ("_b", "_bias")]
    return tuple(found)


def bias_path(context: Context, name: str) -> str | None:
    """Return the path of the weight or module that a vector is the bias of, None if it is not called one."""
    module, _, leaf = name.rpartition(".")
    for other in weight_leaves(leaf):
        if context.sibling(module, other):
            return module if other == "weight" and module else join(module, other)
    if leaf.startswith("bias") or leaf.endswith("_bias"):
        return module or None
    return None
