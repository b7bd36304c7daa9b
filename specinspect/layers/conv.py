"""Convolutions: plain or transposed, and the geometry that a bare kernel does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from specinspect.layers.bias import bias_for, bias_length, is_weight_name
from specinspect.layers.channels import Predecessor
from specinspect.layers.context import Context
from specinspect.layers.model import ConvGeometry, Fact, Layer
from specinspect.layers.names import (
    dimensions,
    is_depthwise,
    is_transposed,
    is_upsampling,
    join,
    listed,
    numbered,
    split_name,
)
from specinspect.layers.weights import Weight


def convolution(context: Context, weight: Weight) -> Layer | str:
    """Make a convolution of a weight with three to five axes, or say why it is none."""
    known = _known(context, weight.module)
    if not known:
        reason = _no_convolution(context, weight)
        if reason:
            return reason
    transposed, notes = orientation(context, weight)
    kernel = weight.shape[2:]
    groups, group_note = _groups(context, weight, transposed)
    stride = _sizes(context, weight.module, "stride", kernel)
    # A kernel of one tap has no dilation, whatever the module says.
    dilation = (
        Fact((1,) * len(kernel), "shape")
        if all(k == 1 for k in kernel)
        else _sizes(context, weight.module, "dilation", kernel)
    )
    if group_note:
        notes += (group_note,)
    stored_out, stored_in = weight.shape[1::-1] if transposed else weight.shape[:2]
    outputs = stored_out * (groups.value if transposed else 1)
    inputs = stored_in * (1 if transposed else groups.value)
    padding, mode = _padding(context, weight.module, kernel, dilation.value)
    uneven = context.attribute(weight.module, "padding") == "same"
    geometry = ConvGeometry(kernel, stride, dilation, groups, transposed, padding, mode, uneven)
    notes += tuple(_guessed(geometry))
    return Layer(
        name=weight.layer,
        kind=f"conv{'_transpose' if transposed else ''}{len(kernel)}d",
        parameters=weight.parameters,
        shape=weight.shape,
        matrix_shape=(outputs, inputs),
        dtype=weight.dtype,
        weight=weight.recipe,
        conv=geometry,
        bias=bias_for(context, weight, outputs),
        assumptions=(*weight.notes, *notes),
    )


_NOT_STORED = " assumed: not stored in the checkpoint"


def refine(context: Context, layer: Layer, module: str) -> Layer:
    """Replace what is known of a convolution's geometry by what its module says, if it is known."""
    conv = layer.conv
    if conv is None or not _known(context, module):
        return layer
    stride = _sizes(context, module, "stride", conv.kernel)
    dilation = _sizes(context, module, "dilation", conv.kernel)
    groups = context.attribute(module, "groups")
    padding, mode = _padding(context, module, conv.kernel, dilation.value)
    return with_geometry(
        layer,
        replace(
            conv,
            stride=stride if stride.source == "model" else conv.stride,
            dilation=dilation if dilation.source == "model" else conv.dilation,
            groups=Fact(groups, "model") if _divides(groups, layer.shape[0]) else conv.groups,
            padding=padding or conv.padding,
            padding_mode=mode,
            uneven=context.attribute(module, "padding") == "same" if padding else conv.uneven,
        ),
    )


def with_geometry(layer: Layer, conv: ConvGeometry) -> Layer:
    """Return the layer with another geometry, its channels and the sentence about guesses to match."""
    same = layer.conv is not None and layer.conv.groups == conv.groups
    kept = tuple(
        note
        for note in layer.assumptions
        if not note.endswith(_NOT_STORED)
        and (same or not (note.startswith("groups ") and " inferred from " in note))
    )
    first, second = layer.shape[:2]
    groups = conv.groups.value
    sides = (second * groups, first) if conv.transposed else (first, second * groups)
    return replace(
        layer,
        conv=conv,
        matrix_shape=sides,
        assumptions=(*kept, *_guessed(conv, centred=layer.kind != "lora")),
    )


def _guessed(conv: ConvGeometry, *, centred: bool = False) -> Iterator[str]:
    """Yield one sentence for what is guessed, the padding among it on request, if anything is."""
    words = [
        word
        for word, source in (
            (f"stride {max(conv.stride.value)}", conv.stride.source),
            ("dilation 1", conv.dilation.source),
        )
        if source == "assumed"
    ]
    # More groups than one have a sentence of their own, with the reason.
    if conv.groups == Fact(1, "assumed"):
        words.append("groups 1")
    if centred and conv.padding is None and max(conv.kernel) > 1:
        words.append("centred padding")
    if centred and conv.padding is not None and conv.padding.source == "assumed":
        words.append("no padding")
    if words:
        yield f"{listed(words)}{_NOT_STORED}"


def _known(context: Context, module: str) -> bool:
    """Say whether the module is known to be a convolution."""
    return "Conv" in context.type_of(module) and context.attribute(module, "kernel_size") is not None


def _no_convolution(context: Context, weight: Weight) -> str:
    axes = len(weight.shape)
    if weight.leaf == "kernel" and max(weight.shape[:-2]) < max(weight.shape[-2:]):
        return f"kernel in channels-last layout ({dimensions(weight.shape)}): not analysed"
    if weight.leaf == "weight" and weight.module:
        length = bias_length(context, weight)
        if length is None or length == weight.shape[0] or length % weight.shape[1] == 0:
            return ""
        return f"{axes}-D weight with a bias of length {length}: no convolution's layout"
    path = join(weight.module, weight.leaf).lower()
    if is_weight_name(weight.leaf) and (axes > 3 or "conv" in path):
        return ""
    return f"{axes}-D parameter that is no module's weight: not a linear map"


def orientation(context: Context, weight: Weight) -> tuple[bool, tuple[str, ...]]:
    """Say whether a convolution is transposed, with what had to be guessed for it."""
    module = weight.module
    known = context.attribute(module, "transposed")
    if isinstance(known, bool):
        return known, ()
    if "Conv" in context.type_of(module):
        return "Transpose" in context.type_of(module), ()
    first, second = weight.shape[:2]
    named = is_transposed(module)
    length = bias_length(context, weight)
    if length is not None and first != second:
        if length == first and not (named and length % second == 0):
            return False, ()
        if length != first and length % second == 0:
            return True, (f"taken as transposed: the bias has {length} entries",)
    # Kernels that upsample are even, so that every pixel gets the same number of taps.
    even = all(k % 2 == 0 for k in weight.shape[2:])
    after = _next_norm(context, module)
    if even and length is None and after == second != first:
        return True, (f"taken as transposed: the normalisation after it has {after} channels",)
    if named or (even and is_upsampling(module)):
        return True, ("taken as transposed by its name",)
    return False, ()


def _next_norm(context: Context, module: str) -> int | None:
    """Return the length of the batch norm that comes next in the same list of modules."""
    parent, last = split_name(module)
    step = numbered(last)
    if step is None:
        return None
    info = context.sibling(join(parent, f"{step[0]}{step[1] + 1}"), "running_mean")
    return info.shape[0] if info is not None and len(info.shape) == 1 else None


def _sizes(context: Context, module: str, name: str, kernel: tuple[int, ...]) -> Fact[tuple[int, ...]]:
    value = _per_axis(context.attribute(module, name), len(kernel), 1)
    return Fact((1,) * len(kernel), "assumed") if value is None else Fact(value, "model")


def _padding(
    context: Context, module: str, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Fact[tuple[int, ...]] | None, str]:
    """Return the zeros on the low side of each axis, None where not known, and the padding mode."""
    value, mode = context.attribute(module, "padding"), context.attribute(module, "padding_mode")
    mode = mode if isinstance(mode, str) else "zeros"
    sides = padding_sides(value, kernel, dilation)
    return (Fact(sides, "model") if sides is not None else None), mode


def padding_sides(
    value: object, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Turn a module's or a user's padding ('same', 'valid', a number, one per axis) into one per axis."""
    if value == "valid":
        return (0,) * len(kernel)
    if value == "same":
        # torch puts the odd one on the high side.
        return tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    return _per_axis(value, len(kernel), 0)


def _per_axis(value: object, axes: int, least: int) -> tuple[int, ...] | None:
    """Return one whole number per axis, None where the value is no such thing."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value,) * axes
    if (
        isinstance(value, tuple | list)
        and len(value) == axes
        and all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in value)
    ):
        return tuple(value)
    return None


def _divides(groups: object, channels: int) -> bool:
    return isinstance(groups, int) and not isinstance(groups, bool) and groups > 0 and channels % groups == 0


def _groups(context: Context, weight: Weight, transposed: bool) -> tuple[Fact[int], str]:
    """Return the number of groups and a sentence where it was inferred to be more than one."""
    known = context.attribute(weight.module, "groups")
    first, second = weight.shape[:2]
    if _divides(known, first):
        return Fact(known, "model"), ""
    if transposed:
        length = bias_length(context, weight)
        if length is None or length % second:
            return Fact(1, "assumed"), ""
        groups = length // second
        if groups == 1 or first % groups:
            return Fact(1, "shape"), ""
        return Fact(groups, "assumed"), f"groups {groups} inferred from the {length} entries of the bias"
    before = context.channels.before(weight.module)
    if before is not None and before.outputs == second:
        return Fact(1, "shape"), ""
    if second == 1 and first > 1 and is_depthwise(weight.module):
        return Fact(first, "assumed"), f"groups {first} inferred from the name"
    if second == 1 and first > 1 and _is_state_space(context, weight):
        return Fact(first, "assumed"), f"groups {first} inferred from the state-space block around it"
    if "pos_conv" in weight.module and second < first and first % second == 0:
        return Fact(first // second, "assumed"), f"groups {first // second} inferred from the name"
    if before is not None and _grouped(context, weight, before):
        groups = before.outputs // second
        note = f"groups {groups} inferred from the {before.outputs} channels of {before.path}"
        return Fact(groups, "assumed"), note
    return Fact(1, "assumed"), ""


def _is_state_space(context: Context, weight: Weight) -> bool:
    """Say whether a kernel stands in a Mamba-like mixer, whose short convolution is depthwise."""
    parent = split_name(weight.module)[0]
    return join(parent, "A_log") in context.tensors or join(parent, "dt_bias") in context.tensors


def _grouped(context: Context, weight: Weight, before: Predecessor) -> bool:
    """Say whether the layer before has several times the channels of this kernel, and can be its input."""
    outputs, per_group, *kernel = weight.shape
    if max(kernel) == 1 or before.outputs % per_group or outputs % (before.outputs // per_group):
        return False
    if before.columns == per_group:
        # Alike in inputs: parallel branches, unless a pointwise convolution follows, as it does on a
        # depthwise one.
        return per_group == 1 and context.channels.pointwise_after(weight.module, outputs)
    if per_group == 1:
        return True
    # Elsewhere the layer before may belong to another branch: only two patterns are believed, members of
    # one list, and the 1×1 convolution or linear layer of a bottleneck in front of its grouped kernel.
    return before.direct or (before.pointwise and before.outputs == outputs)
