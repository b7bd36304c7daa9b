"""Two-dimensional weights: linear layers and embeddings, and which way round they are stored."""

from __future__ import annotations

from dataclasses import replace

from specinspect.layers.bias import bias_for, bias_length, is_weight_name
from specinspect.layers.context import Context
from specinspect.layers.model import Layer, Recipe, Stored
from specinspect.layers.names import is_embedding, split_name
from specinspect.layers.weights import Weight

CONV1D_NAMES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
"""Modules that GPT-2 and its kin store as (in, out); nanoGPT uses the same names for (out, in)."""

_CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})


def dense(context: Context, weight: Weight) -> Layer | str:
    """Make a linear layer or an embedding of a weight with two axes, or say why it is neither."""
    rows, columns = weight.shape
    if weight.leaf != "weight" and 1 in weight.shape and not is_weight_name(weight.leaf):
        return f"vector stored as {rows}×{columns}"
    embedding, notes = _embedding(context, weight)
    if embedding:
        return _layer(context, weight, "embedding", _transposed(weight.recipe), notes)
    transposed, notes = stored_transposed(context, weight)
    raw = not weight.module or weight.leaf not in {"weight", "kernel"}
    told = rows != columns and bias_length(context, weight) in weight.shape
    if raw and not notes and not told:
        notes = ("taken as a linear map (out, in): it is no module's weight",)
    recipe = _transposed(weight.recipe) if transposed else weight.recipe
    return _layer(context, weight, "linear", recipe, notes)


def _layer(context: Context, weight: Weight, kind: str, recipe: Recipe, notes: tuple[str, ...]) -> Layer:
    rows, columns = weight.shape
    turned = isinstance(recipe, Stored) and recipe.transpose
    outputs, inputs = (columns, rows) if turned else (rows, columns)
    return Layer(
        name=weight.layer,
        kind=kind,
        parameters=weight.parameters,
        shape=weight.shape,
        matrix_shape=(outputs, inputs),
        dtype=weight.dtype,
        weight=recipe,
        bias=bias_for(context, weight, outputs) if kind == "linear" else None,
        assumptions=(*weight.notes, *notes),
    )


def _transposed(recipe: Recipe) -> Recipe:
    # A recomposed weight keeps its stored orientation: transposing leaves the singular values alone.
    return replace(recipe, transpose=True) if isinstance(recipe, Stored) else recipe


def _embedding(context: Context, weight: Weight) -> tuple[bool, tuple[str, ...]]:
    known = context.type_of(weight.module) if weight.leaf == "weight" else ""
    if known.endswith(("Embedding", "EmbeddingBag")):
        return True, ()
    if known.endswith(("Linear", "Conv1D", "LinearWithBias")):
        return False, ()
    if is_embedding(weight.layer) and bias_length(context, weight) is None:
        return True, ("taken as an embedding by its name",)
    return False, ()


def stored_transposed(context: Context, weight: Weight) -> tuple[bool, tuple[str, ...]]:
    """Say whether a linear weight is stored as (in, out), with what had to be guessed for it."""
    if not isinstance(weight.recipe, Stored):
        return False, ()
    known = context.type_of(weight.module)
    if known == "Conv1D":
        return True, ()
    if known.endswith("Linear"):
        return False, ()
    rows, columns = weight.shape
    length = bias_length(context, weight)
    if rows != columns and length in {rows, columns}:
        return length == columns, ()
    if weight.leaf == "kernel":
        return True, ("taken as stored (in, out), as kernels are in Keras and Flax",)
    last = split_name(weight.module)[1]
    if last not in CONV1D_NAMES or weight.leaf != "weight":
        return False, ()
    if last == "c_attn" and rows != columns and 3 * min(rows, columns) == max(rows, columns):
        return columns > rows, ()
    kin = _kin(context, weight.module)
    if kin is not None:
        order = "(in, out)" if kin else "(out, in)"
        return kin, (f"taken as stored {order}, like the layers beside it",)
    if context.model_type in _CONV1D_MODELS:
        return True, (f"taken as stored (in, out), as {context.model_type} does",)
    if context.model_type:
        return False, (f"taken as stored (out, in): the model type is {context.model_type}",)
    return True, ("taken as stored (in, out) by its name, as in GPT-2",)


def _kin(context: Context, module: str) -> bool | None:
    """Read the orientation off the c_attn or c_fc of the same block, whose shapes are telling."""
    block = split_name(split_name(module)[0])[0]
    for name in ("attn.c_attn", "mlp.c_fc"):
        info = context.sibling(f"{block}.{name}" if block else name, "weight")
        if info is not None and len(info.shape) == 2 and info.shape[0] != info.shape[1]:
            # Both widen: more outputs than inputs.
            return info.shape[1] > info.shape[0]
    return None
