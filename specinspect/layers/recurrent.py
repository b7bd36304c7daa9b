"""LSTM, GRU and RNN: every gate is its own map, cut from the rows of the packed weights.

Gate orders are torch's: input, forget, cell, output (LSTM); reset, update, new (GRU).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.bias import bias_for
from specinspect.layers.context import Claims, Context, Remaining
from specinspect.layers.model import Layer, Stored
from specinspect.layers.names import join, split_name
from specinspect.layers.weights import stored

_LEAF = re.compile(r"weight_(?P<which>ih|hh|hr)(?P<level>(?:_l[0-9]+)?(?:_reverse)?)")
_GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n"), 1: ("",)}
_NAMES = {4: "LSTM", 3: "GRU", 1: "plain RNN"}
_TYPES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3, "RNN": 1, "RNNCell": 1, "RNNBase": 1}


def claim_recurrent(context: Context, remaining: Remaining) -> Claims:
    """Split the packed weights of recurrent modules into their gates."""
    cells: dict[tuple[str, str], dict[str, TensorInfo]] = defaultdict(dict)
    for name, info in remaining.items():
        module, leaf = split_name(name)
        match = _LEAF.fullmatch(leaf)
        if match and len(info.shape) == 2:
            cells[module, match["level"]][match["which"]] = info
    layers: list[Layer] = []
    for (module, _), parts in cells.items():
        gates, note = _gate_count(context, module, parts)
        for which, info in parts.items():
            layers += _split(context, info, 1 if which == "hr" else gates, note if which != "hr" else "")
    return Claims(tuple(layers))


def _gate_count(context: Context, module: str, parts: dict[str, TensorInfo]) -> tuple[int, str]:
    """Return the number of gates from the module's type, else from the recurrent weight's shape."""
    if known := _TYPES.get(context.type_of(module)):
        return known, ""
    hidden = parts.get("hh")
    if hidden is None:
        return 1, "gates not separated: the recurrent weight is missing"
    # With a projection the recurrent weight takes the projected state: its columns are not the cell's size.
    size = parts["hr"].shape[1] if "hr" in parts else hidden.shape[1]
    gates, rest = divmod(hidden.shape[0], size)
    if rest or gates not in _GATES:
        return 1, f"gates not separated: {hidden.shape[0]} rows for a state of {size}"
    return gates, f"taken as {_NAMES[gates]} from its shapes" + (", gates in torch's order" * (gates > 1))


def _split(context: Context, info: TensorInfo, gates: int, note: str) -> Iterator[Layer]:
    rows, columns = info.shape
    if rows % gates:
        gates, note = 1, f"gates not separated: {rows} rows do not divide by {gates}"
    size = rows // gates
    bias = bias_for(context, stored(info), rows)
    for i, gate in enumerate(_GATES[gates]):
        part = ((i * size, (i + 1) * size),) if gate else None
        yield Layer(
            name=join(info.name, gate) if gate else info.name,
            kind="recurrent",
            parameters=(info.name,),
            shape=info.shape,
            matrix_shape=(size, columns),
            dtype=info.dtype,
            weight=Stored(info.name, rows=part),
            bias=bias,
            assumptions=(note,) if note else (),
            bias_rows=part if bias else None,
        )
