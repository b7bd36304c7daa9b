"""Blocks that names tell: MLPs, gated MLPs and attention of the common transformers, ResNets, ConvNeXt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from specinspect.layers.blocks.convnext import convnext_block, convnext_parents
from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import Block, BlockKind, Shortcut
from specinspect.layers.blocks.preactivation import preactivation_block, resnet_orders
from specinspect.layers.blocks.resnet import resnet_block, transformers_blocks
from specinspect.layers.blocks.surroundings import (
    normalise_behind,
    normalise_first,
    normalise_inside,
    refuse_more_inside,
    scale_branch,
)
from specinspect.layers.blocks.walk import (
    ATTENTION,
    NotUnderstoodError,
    Walk,
    assumed,
    check_square,
    gated_factor,
    spread_heads,
)
from specinspect.layers.model import Layer
from specinspect.layers.names import join, split_name
from specinspect.layers.vocabulary import left_out

_NOT_A_BLOCK = frozenset({"se", "squeeze", "squeeze_excite", "fc", "gate", "head", "classifier"})

_RESNET = re.compile(r"(.*\.[0-9]+|[a-z_]*[0-9]+)\.conv1", re.DOTALL)

_RESNET_BLOCKS = {"after": resnet_block, "before": preactivation_block}

_CROSS = re.compile(r"cross|encoder_attn|EncDec|encdec|attn2")

_PAIRS = (
    ("intermediate.dense", "output.dense"), ("intermediate_dense", "output_dense"), ("c_fc", "c_proj"),
    ("fc1", "fc2"), ("lin1", "lin2"), ("linear1", "linear2"), ("dense_h_to_4h", "dense_4h_to_h"),
    ("fc_in", "fc_out"), ("wi", "wo"), ("up_proj", "down_proj"), ("mlp.0", "mlp.2"), ("mlp.0", "mlp.3"),
    ("linear_1", "linear_2"), ("ffn", "ffn_output"), ("w1", "w2"),
)  # fmt: skip
"""First and second layer of an MLP, from the same module."""

_GATED = (
    ("gate_proj", "up_proj", "down_proj"), ("gate_up_proj.gate", "gate_up_proj.up", "down_proj"),
    ("up_gate_proj.gate", "up_gate_proj.up", "down_proj"), ("w1", "w3", "w2"),
    ("w12.gate", "w12.up", "w3"), ("wi_0", "wi_1", "wo"),
)  # fmt: skip
"""Gate, up and down."""

_VALUES = (
    ("self.value", "output.dense"), ("attention.value", "output.dense"), ("v_proj", "o_proj"),
    ("v_proj", "out_proj"), ("c_attn.v", "c_proj"), ("qkv.v", "proj"), ("in_proj.v", "out_proj"),
    ("query_key_value.v", "dense"), ("v_lin", "out_lin"), ("qkv_proj.v", "o_proj"), ("wv", "wo"),
    ("Wqkv.v", "out_proj"), ("Wqkv.v", "Wo"), ("to_v", "to_out.0"), ("SelfAttention.v", "SelfAttention.o"),
)  # fmt: skip
"""Value and output layer of an attention."""


def named_blocks(known: Known) -> Iterator[Block | Refusal]:
    """Yield the blocks that names tell, and those that names promise without telling enough.

    Those of convolutions come first, gated MLPs before plain ones: the others share their layers.
    """
    inside = set()
    for parent, spelling in convnext_parents(known):
        inside.add(join(parent, spelling.first))
        yield from _understood(convnext_block, known, parent, spelling)
    orders = resnet_orders(known, _resnets(known))
    for layer in known.layers:
        match = _RESNET.fullmatch(layer.name) if layer.conv is not None else None
        if match:
            order = orders[match[1]]
            if order is not None:
                yield from _understood(_RESNET_BLOCKS[order], known, match[1])
    for parent in transformers_blocks(known):
        yield from _understood(resnet_block, known, parent)
    for table, make in ((_GATED, _named_gated), (_PAIRS, _named_pair), (_VALUES, _named_attention)):
        for layer in known.layers:
            for members in table:
                head, end = layer.name[: -len(members[0])], layer.name[-len(members[0]) :]
                # A whole component, in a module of its own.
                whole = end == members[0] and head.endswith(".")
                if not whole or layer.conv is not None or layer.name in inside:
                    continue
                rest = [known.by_name.get(head + name) for name in members[1:]]
                if all(other is not None and other.conv is None for other in rest):
                    found = [layer, *(other for other in rest if other is not None)]
                    yield from _understood(make, known, head[:-1], found)


def _resnets(known: Known) -> list[str]:
    """Return the modules that may be blocks of a ResNet."""
    matches = [_RESNET.fullmatch(layer.name) for layer in known.layers if layer.conv is not None]
    return [match[1] for match in matches if match]


def unsettled(known: Known, refused: Sequence[Refusal]) -> tuple[str, ...]:
    """Say which blocks that names promise are left out, and why.

    Args:
        known: everything about the checkpoint.
        refused: what `named_blocks` yielded of them.
    """
    orders = resnet_orders(known, _resnets(known))
    names = [
        parent
        for parent, order in orders.items()
        if order is None and any(_understood(resnet_block, known, parent))
    ]
    reason = (
        "neither widths nor the order in the file tell whether its batch norms come before or after its "
        "convolutions"
    )
    notes = [f"no block {_first_of(names)}: {reason}; --model does"] if names else []
    reasons: dict[str, list[Refusal]] = {}
    for refusal in refused:
        # Alike but for the block's own name.
        reasons.setdefault(refusal.why.replace(refusal.name, ""), []).append(refusal)
    notes += [
        f"no block {_first_of([refusal.name for refusal in alike])}: {alike[0].why}"
        for alike in reasons.values()
    ]
    return tuple(notes)


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A block that names promise, and why there is none."""

    name: str
    why: str


def _understood(make: Callable[..., Block], known: Known, name: str, *more: Any) -> Iterator[Block | Refusal]:
    try:
        yield make(known, name, *more)
    except NotUnderstoodError as error:
        if error.tell:
            yield Refusal(name, str(error))


def _refuse_unknown(layer: Layer) -> None:
    name = left_out(layer)
    if name:
        reason = f"the derivative of {name}, the activation inside, is not known here"
        raise NotUnderstoodError(reason, tell=True)


def _named_gated(known: Known, parent: str, layers: Sequence[Layer]) -> Block:
    gate, up, down = layers
    _refuse_unknown(gate)
    walk = Walk(known, [], [])
    normalise_first(walk, parent, layers, attention=False)
    walk.factors.append(gated_factor(walk, gate, up, gate.activation))
    normalise_inside(walk, parent, gate.matrix_shape[0])
    walk.factors.append(walk.layer(down))
    return _transformer(walk, parent, "gated-mlp", "gated MLP")


def _named_pair(known: Known, parent: str, layers: Sequence[Layer]) -> Block:
    first, second = layers
    if split_name(parent)[1].lower() in _NOT_A_BLOCK or not any(c.isdigit() for c in parent):
        raise NotUnderstoodError("no block's name")
    _refuse_unknown(first)
    if first.activation.name == "identity":
        raise NotUnderstoodError("no activation between them")
    walk = Walk(known, [], [])
    normalise_first(walk, parent, layers, attention=False)
    walk.factors.append(walk.layer(first))
    walk.activate(first.activation)
    normalise_inside(walk, parent, first.matrix_shape[0])
    walk.factors.append(walk.layer(second))
    return _transformer(walk, parent, "mlp", "MLP")


def _named_attention(known: Known, parent: str, layers: Sequence[Layer]) -> Block:
    value, output = layers
    if _CROSS.search(parent):
        raise NotUnderstoodError("its values come from elsewhere")
    walk = Walk(known, [], [ATTENTION])
    normalise_first(walk, parent, layers, attention=True)
    walk.factors.append(walk.layer(value))
    heads = known.heads(value, output, parent)
    spread_heads(walk, heads)
    walk.factors.append(walk.layer(output))
    if heads is None:
        walk.assumptions.append("number of heads not known: the product of all of them")
    return replace(_transformer(walk, parent, "attention-vo", "attention"), heads=heads)


def _transformer(walk: Walk, name: str, kind: BlockKind, word: str) -> Block:
    attention = kind == "attention-vo"
    if not attention:
        refuse_more_inside(walk, name)
    normalise_behind(walk, name, attention=attention)
    scale_branch(walk, name, attention=attention)
    check_square(walk)
    assumptions = assumed(walk.known, walk.factors, f"{word} and the identity beside it", walk.assumptions)
    return Block(name, kind, tuple(walk.factors), Shortcut("identity", "assumed"), "assumed", assumptions)
