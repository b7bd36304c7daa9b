"""Tensors that cannot be a weight: empty, scalar, tied, integer or complex, and tables known by name."""

from __future__ import annotations

import re

from specinspect.checkpoint.model import Skipped
from specinspect.checkpoint.tensors import FLOAT_DTYPES, TensorInfo
from specinspect.layers.context import Claims, Context, Remaining
from specinspect.layers.names import dimensions, is_norm, split_name

_INTEGERS = {
    "num_batches_tracked": "counter of batch normalisation",
    "position_ids": "position numbers",
    "token_type_ids": "token types",
    "relative_position_index": "relative position numbers",
    "relative_coords_table": "relative position table",
}

_TABLES = tuple(
    (re.compile(pattern), least, reason)
    for pattern, least, reason in (
        (r"(?:^|[._])(?:mask|masks|tril)$", 1, "mask"),
        (r"(?:^|\.)(?:masked_)?bias$", 2, "mask or bias table, not a linear map"),
        (r"(?:^|[._])(?:attention_biases|attn_bias|rel(?:ative)?_pos\w*_table|rel_pos_[hwt])$", 2,
         "relative position table"),
        (r"(?:^|[._])(?:pos(?:ition(?:al)?)?_?(?:embed|emb|embd|embedding|encoding)s?|pe)(?:\.weights?)?$", 3,
         "position table, not a linear map"),
        (r"(?:^|\.)(?:pe|embed_positions\.weights|pos_encoding|positional_encoding)$", 2,
         "position table, not a linear map"),
        (r"(?:^|[._])(?:cls|class|dist|mask|register|reg|query|pad|sep|bos|eos)_tokens?$", 1,
         "learned token, not a linear map"),
        (r"(?:^|[._])(?:inv_freq|freqs|freqs_cis|cos_cached|sin_cached|rope_freqs)$", 1,
         "rotary frequencies"),
        (r"(?:^|\.)running_(?:mean|var)$", 1, "running statistics of normalisation"),
        (r"(?:^|[._])(?:mel_basis|mel_filters|mel_fb|melw|filter_?bank|fb|forward_basis|inverse_basis)$", 1,
         "fixed filter bank"),
        (r"(?:^|[._])(?:hann_|stft_)?window$", 1, "window function"),
        (r"(?:^|\.)i?stft\.", 1, "fixed Fourier basis"),
        (r"(?:^|[._])(?:blur\w*|upsample|downsample|resample)(?:\.[0-9]+)*\.(?:kernel|filter|filt)$", 1,
         "fixed filter"),
        (r"(?:^|[._])a_log$", 1, "state-space parameter"),
        (r"(?:^|[._])(?:layer_?scale\w*|ls[0-9]*\.gamma|gamma_[0-9])$", 1, "layer scale"),
        (r"(?:^|[._])scale_shift_table$", 1, "modulation table"),
        (r"(?:^|[._])(?:embed_avg|ema_\w+|cluster_size)$", 1, "running average of a codebook"),
        (r"(?:^|[._])(?:anchors?|anchor_grid|anchor_points)$", 1, "anchor boxes"),
        (r"(?:^|\.)(?:pixel|image|data)_?(?:mean|std)$", 1, "input statistics"),
    )
)  # fmt: skip
"""Pattern of the lower-case name, fewest axes, reason."""


def claim_unusable(context: Context, remaining: Remaining) -> Claims:
    """Skip what is no weight whatever its name."""
    skipped = []
    for name, info in remaining.items():
        reason = _why_not_numeric(name, info)
        if reason:
            skipped.append(Skipped(name, reason))
    return Claims(skipped=tuple(skipped))


def claim_tied(context: Context, remaining: Remaining) -> Claims:
    """Skip a second name of bytes that an earlier name already stands for."""
    first: dict[tuple[object, ...], str] = {}
    skipped = []
    for name, info in remaining.items():
        earlier = first.setdefault(info.identity, name)
        if earlier != name:
            skipped.append(Skipped(name, f"same storage as {earlier}"))
    return Claims(skipped=tuple(skipped))


def claim_tables(context: Context, remaining: Remaining) -> Claims:
    """Skip tables, masks and tokens that their names give away."""
    skipped = []
    for name, info in remaining.items():
        reason = _table(name, info) or _stacked(context, name, info)
        if reason:
            skipped.append(Skipped(name, reason))
    return Claims(skipped=tuple(skipped))


def _why_not_numeric(name: str, info: TensorInfo) -> str:
    leaf = split_name(name)[1]
    if info.size == 0:
        return f"no elements ({dimensions(info.shape)})"
    if info.dtype in {"c64", "c128"}:
        return f"complex ({info.dtype})"
    if info.dtype not in FLOAT_DTYPES:
        return _INTEGERS.get(leaf) or ("mask" if info.dtype == "bool" else f"integers ({info.dtype})")
    return ""


def _table(name: str, info: TensorInfo) -> str:
    lower = name.lower()
    for pattern, least, reason in _TABLES:
        if len(info.shape) >= least and pattern.search(lower):
            return reason
    return ""


def _stacked(context: Context, name: str, info: TensorInfo) -> str:
    """Say why a tensor of three or more axes is no convolution."""
    module, leaf = split_name(name)
    if len(info.shape) < 2:
        return ""
    bias = context.sibling(module, "bias")
    if leaf == "weight" and is_norm(module) and (info.shape[0] == 1 or (bias and bias.shape == info.shape)):
        return "gain of normalisation"
    if len(info.shape) != 3:
        return ""
    if any(part in {"experts", "expert", "moe"} for part in name.lower().split(".")):
        return f"stacked experts ({dimensions(info.shape)}): not analysed"
    if context.type_of(module) == "Bilinear" or "bilinear" in split_name(module)[1].lower():
        return f"bilinear form ({dimensions(info.shape)}), not a linear map"
    if leaf == "weight" and bias is not None and len(bias.shape) > 1:
        return f"stack of linear maps ({dimensions(info.shape)}): not analysed"
    return ""
