"""Several maps packed into one matrix: query, key and value; gate and up projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.bias import bias_for
from specinspect.layers.context import Claims, Context, Remaining
from specinspect.layers.dense import stored_transposed
from specinspect.layers.model import Layer, Stored
from specinspect.layers.names import join, split_name
from specinspect.layers.weights import stored

Rows = tuple[tuple[int, int], ...]

_PARALLEL = frozenset({"qkv", "wqkv", "to_qkv", "qkv_proj", "w_pack", "in_proj_qkv", "qkv_linear", "c_attn"})
"""Names whose rows hold all queries, then all keys, then all values."""
_PER_HEAD = frozenset({"query_key_value", "wqkv"})
"""Names that some models use for rows grouped by head."""
_PER_HEAD_MODELS = frozenset(
    {"gpt_neox", "gpt_neox_japanese", "bloom", "falcon", "refinedweb", "refinedwebmodel", "persimmon",
     "internlm2", "megatron-bert", "megatron_gpt2"}
)  # fmt: skip
_OTHER_ORDER = frozenset({"codegen"})
"""Models that shuffle the rows for tensor parallelism."""
_ATTENTION = ("attn", "attention")
_HALVES = frozenset({"gate_up_proj", "gate_up", "w12", "up_gate_proj"})


@dataclass(frozen=True, slots=True)
class _Heads:
    """Sizes of an attention block from config.json."""

    queries: int
    keys: int
    size: int

    @property
    def rows(self) -> int:
        return (self.queries + 2 * self.keys) * self.size


def claim_packed(context: Context, remaining: Remaining) -> Claims:
    """Split packed projections into their parts."""
    layers: list[Layer] = []
    for name, info in remaining.items():
        if len(info.shape) != 2:
            continue
        module, leaf = split_name(name)
        last = split_name(module)[1].lower()
        if leaf == "in_proj_weight" and info.shape[0] % 3 == 0:
            layers += _parts(context, info, join(module, "in_proj"), _thirds(info.shape[0]))
        elif leaf == "weight" and last in _HALVES and info.shape[0] % 2 == 0:
            half = info.shape[0] // 2
            first, second = ("up", "gate") if last.startswith("up_") else ("gate", "up")
            halves: Mapping[str, Rows] = {first: ((0, half),), second: ((half, 2 * half),)}
            note = f"first half of the rows taken as {first}, second as {second}"
            layers += _parts(context, info, module, halves, (note,))
        elif leaf == "weight" and _is_attention(module, last):
            layers += _attention(context, info, module, last)
    return Claims(tuple(layers))


def _is_attention(module: str, last: str) -> bool:
    if last in _PARALLEL or last in _PER_HEAD:
        return True
    # Mamba calls something else in_proj.
    return last == "in_proj" and any(word in split_name(module)[0].lower() for word in _ATTENTION)


def _attention(context: Context, info: TensorInfo, module: str, last: str) -> list[Layer]:
    weight = stored(info)
    transposed, notes = stored_transposed(context, weight)
    rows, columns = info.shape[::-1] if transposed else info.shape
    parts, note = _layout(context, last, rows, columns)
    if parts is not None:
        return _parts(context, info, module, parts, (*notes, note), transposed=transposed)
    whole = Layer(
        name=module,
        kind="linear",
        parameters=(info.name,),
        shape=info.shape,
        matrix_shape=(rows, columns),
        dtype=info.dtype,
        weight=Stored(info.name, transpose=transposed),
        bias=bias_for(context, weight, rows),
        assumptions=(*notes, note),
    )
    return [whole]


def _layout(context: Context, last: str, rows: int, columns: int) -> tuple[Mapping[str, Rows] | None, str]:
    """Return the rows of q, k and v and a sentence about the guess; None where the layout is not known."""
    unknown = "query, key and value not separated: their layout is not known"
    model, heads = context.model_type, _heads(context, columns)
    fits = heads is not None and heads.rows == rows
    if model in _OTHER_ORDER:
        return None, unknown
    by_head = last == "query_key_value" and not model.startswith("chatglm")
    by_head |= last in _PER_HEAD and model in _PER_HEAD_MODELS
    by_head |= model == "gpt_bigcode" and context.config.get("multi_query") is False
    if by_head:
        if heads is None or not fits or heads.queries % heads.keys:
            return None, unknown
        return _grouped(heads), f"rows taken as grouped by head ({_describe(heads)} in the config)"
    if heads is not None and fits and heads.keys != heads.queries:
        q, k = heads.queries * heads.size, heads.keys * heads.size
        split: Mapping[str, Rows] = {"q": ((0, q),), "k": ((q, q + k),), "v": ((q + k, rows),)}
        return split, f"rows taken as queries, keys, values ({_describe(heads)} in the config)"
    equal = heads is not None and heads.keys == heads.queries
    if rows == 3 * columns or (equal and rows % 3 == 0):
        return _thirds(rows), "query, key and value taken as equal thirds of the rows"
    return None, unknown


def _describe(heads: _Heads) -> str:
    if heads.keys == heads.queries:
        return f"{heads.queries} heads"
    return f"{heads.queries} heads, {heads.keys} key-value heads"


def _heads(context: Context, columns: int) -> _Heads | None:
    queries = context.setting("num_attention_heads", "n_head", "num_heads", "n_heads")
    if queries is None:
        return None
    keys = context.setting("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    config = context.config
    # Falcon: num_kv_heads counts only in the new architecture; multi_query means one for all.
    if config.get("multi_query") is True and config.get("new_decoder_architecture") is not True:
        keys = keys if context.model_type.startswith("chatglm") else 1
    elif (
        context.model_type in {"falcon", "refinedweb"} and config.get("new_decoder_architecture") is not True
    ):
        keys = queries
    hidden = context.setting("hidden_size", "n_embd", "n_embed", "d_model") or columns
    size = context.setting("head_dim", "kv_channels") or hidden // queries
    return _Heads(queries, keys or queries, size) if size else None


def _thirds(rows: int) -> Mapping[str, Rows]:
    third = rows // 3
    return {part: ((i * third, (i + 1) * third),) for i, part in enumerate("qkv")}


def _grouped(heads: _Heads) -> Mapping[str, Rows]:
    """Per key-value head: its queries' rows, then its key's, then its value's."""
    share, size = heads.queries // heads.keys, heads.size
    block = (share + 2) * size
    starts = range(0, heads.keys * block, block)
    return {
        "q": tuple((s, s + share * size) for s in starts),
        "k": tuple((s + share * size, s + (share + 1) * size) for s in starts),
        "v": tuple((s + (share + 1) * size, s + block) for s in starts),
    }


def _parts(
    context: Context,
    info: TensorInfo,
    base: str,
    parts: Mapping[str, Rows],
    notes: tuple[str, ...] = (),
    *,
    transposed: bool = False,
) -> list[Layer]:
    outputs, columns = info.shape[::-1] if transposed else info.shape
    bias = bias_for(context, stored(info), outputs)
    return [
        Layer(
            name=join(base, part),
            kind="linear",
            parameters=(info.name,),
            shape=info.shape,
            matrix_shape=(sum(stop - start for start, stop in rows), columns),
            dtype=info.dtype,
            weight=Stored(info.name, transpose=transposed, rows=rows),
            bias=bias,
            assumptions=notes,
            bias_rows=rows if bias else None,
        )
        for part, rows in parts.items()
    ]
