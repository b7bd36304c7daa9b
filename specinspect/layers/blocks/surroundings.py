"""What stands beside the layers of a named block: normalisations before, inside and behind, layer scale."""

from __future__ import annotations

import re
from collections.abc import Sequence

from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import Scale, layer_names
from specinspect.layers.blocks.walk import NotUnderstoodError, Walk
from specinspect.layers.model import Layer
from specinspect.layers.names import join, listed, split_name

_MLP_NORMS = (
    "pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "ln2", "norm2", "layernorm_after",
    "layer_norm2", "ffn_norm", "norm_2", "ln_mlp",
)  # fmt: skip
_VALUE_NORMS = (
    "input_layernorm", "ln_1", "ln1", "norm1", "layernorm_before", "layer_norm1", "attention_norm", "norm_1",
    "ln_attn",
)  # fmt: skip
_BEHIND_MLP, _BEHIND_ATTENTION = "post_feedforward_layernorm", "post_attention_layernorm"
"""Inside the branch, at its end, where both are there (Gemma 2, OLMo 2)."""
_T5 = frozenset({"SelfAttention", "DenseReluDense"})
"""Modules whose sibling layer_norm comes first, though the file lists it last."""

_MLP_SCALES = (
    "ls2.gamma", "ls_2.gamma", "ls2", "gamma_2", "lambda_2", "layer_scale2.lambda1", "layer_scale2.scale",
    "layer_scale_2.scale", "layer_scale_2",
)  # fmt: skip
_VALUE_SCALES = tuple(name.replace("2", "1", 1) for name in _MLP_SCALES)
_SCALES = (
    "gamma", "layer_scale", "layer_scale_parameter", "layerscale", "lambda1", "ls.gamma", "layer_scale.gamma",
    "layer_scale.lambda1", "layer_scale.scale", "layerscale.gamma",
)  # fmt: skip
"""Of a module with one branch."""


def normalise_first(walk: Walk, parent: str, layers: Sequence[Layer], *, attention: bool) -> None:
    """Fold in the gain of the normalisation that stands before a block, or say why none is.

    It is known by its name in the families that use it, any other by its place in the file if it is alone.
    """
    known, width = walk.known, layers[0].matrix_shape[1]
    usual, others = (_VALUE_NORMS, _MLP_NORMS) if attention else (_MLP_NORMS, _VALUE_NORMS)
    for container in _containers(parent):
        beside = known.norms_in(container, width)
        if join(container, "linear1") in known.by_name:
            if beside:
                walk.assumptions.append(f"{listed(beside)} taken to follow the sums, as torch's layers do")
            return
        for name in usual:
            path = join(container, name)
            if path in beside and path not in _behind(known, container):
                walk.norm(known.norm(path, "assumed"), path, first=True)
                return
    for container in _containers(parent):
        beside = known.norms_in(container, width)
        if len(beside) > 1:
            elsewhere = {*(join(container, name) for name in others), *_behind(known, container)}
            beside = [path for path in beside if path not in elsewhere]
        if beside:
            _by_place(walk, parent, layers, beside, others)
            return


def _by_place(
    walk: Walk, parent: str, layers: Sequence[Layer], beside: Sequence[str], others: Sequence[str]
) -> None:
    known, path = walk.known, beside[0]
    place, reason = None, ""
    if len(beside) == 1:
        if split_name(path)[1] in others:  # one for both branches, which then stand side by side
            place, reason = "before", "the only one there"
        elif split_name(parent)[1] in _T5:
            place, reason = "before", "as in T5"
        else:
            place, reason = known.place(path, layers), "as in the file"
    if place == "before":
        walk.norm(known.norm(path, "assumed"), path, first=True)
        walk.assumptions.append(f"{path} taken to stand in front of it: {reason}")
    elif place == "after":
        walk.assumptions.append(f"{path} taken to follow the sum: {reason}")
    else:
        walk.assumptions.append(
            f"gain of {listed(list(beside))} left out: nothing tells whether it stands in front of the block"
        )


def _behind(known: Known, container: str) -> tuple[str, ...]:
    """Return the normalisations at the ends of an attention's and an MLP's branch, where there are both."""
    paths = (join(container, _BEHIND_ATTENTION), join(container, _BEHIND_MLP))
    return paths if all(known.gain(path) is not None for path in paths) else ()


def normalise_inside(walk: Walk, parent: str, hidden: int) -> None:
    """Take in the normalisation of an MLP's hidden units, which stands before its last layer."""
    if not _is_module_of_an_mlp(parent) or hidden == walk.inputs:
        return
    found = walk.known.norms_in(parent, hidden)
    if len(found) > 1:
        raise NotUnderstoodError(f"{listed(found)} may stand anywhere inside it", tell=True)
    for path in found:
        _with_jacobian(walk, path)


def normalise_behind(walk: Walk, parent: str, *, attention: bool) -> None:
    """Take in the normalisation at the end of a branch; an attention's stays out, to see its heads."""
    known = walk.known
    for container in _containers(parent):
        paths = _behind(known, container)
        if paths and attention:
            walk.assumptions.append(f"{paths[0]} at the end of the branch left out")
        elif paths:
            _with_jacobian(walk, paths[1])
        if paths:
            return


def _with_jacobian(walk: Walk, path: str) -> None:
    norm = walk.known.norm(path, "assumed")
    if norm is not None and walk.known.told_eps is None and norm.kind != "batch_norm":
        walk.assumptions.append(f"ε = {norm.eps:g} of {path} assumed: not stored in the checkpoint")
    walk.norm(norm, path, first=False)


def scale_branch(walk: Walk, parent: str, *, attention: bool) -> None:
    """Take in the layer scale at the end of a branch, or say that what looks like one is left out."""
    known, width = walk.known, walk.width or 0
    for container in _containers(parent):
        for leaf in _VALUE_SCALES if attention else _MLP_SCALES:
            name = join(container, leaf)
            if known.is_scale(name, width):
                walk.factors.append(Scale(tensor=name))
                walk.assumptions.append(f"scaled by {name} at its end, by that name")
                return
    for container in _containers(parent):
        found = [name for leaf in _SCALES if known.is_scale(name := join(container, leaf), width)]
        if not found:
            continue
        own = set(layer_names(walk.factors))
        inside = [layer.name for layer in known.layers if layer.name.startswith(f"{container}.")]
        alone = all(name in own or (parent != container and name.startswith(f"{parent}.")) for name in inside)
        if len(found) == 1 and alone:
            walk.factors.append(Scale(tensor=found[0]))
            walk.assumptions.append(f"scaled by {found[0]} at its end, by that name")
        else:
            walk.assumptions.append(f"{listed(found)} left out: nothing tells which branch it scales")
        return


def refuse_more_inside(walk: Walk, parent: str) -> None:
    """Refuse an MLP with more inside than its layers and normalisations, whose place no name tells."""
    known = walk.known
    if not _is_module_of_an_mlp(parent):
        return
    own = set(layer_names(walk.factors))
    more = [
        layer.name
        for layer in known.layers
        if layer.name.startswith(f"{parent}.") and layer.kind != "lora" and layer.name not in own
    ]
    if more:
        raise NotUnderstoodError(f"{more[0]} stands inside it, too", tell=True)
    responses = join(parent, "grn")
    if any(name.startswith(f"{responses}.") for name in known.tensors):
        raise NotUnderstoodError(f"the global response normalisation {responses} has no map here", tell=True)


def _containers(parent: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((split_name(parent)[0], parent)))


def _is_module_of_an_mlp(parent: str) -> bool:
    return _MLP.search(split_name(parent)[1].lower()) is not None


_MLP = re.compile(r"(?:^|_)(?:mlp|ffn?|feed_?forward)(?:[_0-9]|$)")
