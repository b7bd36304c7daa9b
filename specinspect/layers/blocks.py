"""Blocks: layers that act together, in a residual branch, an MLP, an attention, or as a user chains them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from math import prod
from typing import Any, Literal

from specinspect.architecture.model import Activation as Applied
from specinspect.architecture.model import Architecture, ResidualBlock, Step
from specinspect.checkpoint.model import FLOAT_DTYPES, Skipped, TensorInfo
from specinspect.errors import LayerError
from specinspect.layers.model import Activation, Layer, Normalization, Source, Stored
from specinspect.layers.names import join, listed, split_name
from specinspect.layers.vocabulary import usable

BlockKind = Literal["residual", "mlp", "gated-mlp", "attention-vo", "composed"]
ShortcutKind = Literal["identity", "rectangular-identity", "average-pool", "layers", "none"]


@dataclass(frozen=True, slots=True)
class Apply:
    """A layer: z = Wx + b."""

    layer: str
    rows: tuple[int, int] | None = None
    """Half-open range of its outputs, where one layer makes both halves of a gated MLP."""
    stride: int | None = None
    """Where the block's name says more about a convolution's stride than the checkpoint does."""


@dataclass(frozen=True, slots=True)
class Gate:
    """activation(gate(x)) ∘ up(x)."""

    gate: Apply
    up: Apply
    activation: Activation


@dataclass(frozen=True, slots=True)
class Normalize:
    """A normalisation: batch norm in eval mode is a diagonal; the others depend on the input."""

    norm: Normalization
    gain_only: bool = False
    """Only its gain and shift: what comes in is taken as normalised already."""
    offset: float = 0.0
    """Added to the stored gain (Gemma stores the gain less 1)."""


@dataclass(frozen=True, slots=True)
class Activate:
    """An elementwise activation."""

    activation: Activation


@dataclass(frozen=True, slots=True)
class Scale:
    """Times a number, or a stored number per channel."""

    value: float = 1.0
    tensor: str | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Grouped-query attention: every key-value head serves `times` query heads."""

    times: int
    size: int
    """Width of a head."""


@dataclass(frozen=True, slots=True)
class Pool:
    """An average over windows that do not overlap."""

    sides: tuple[int, ...]


Factor = Apply | Gate | Normalize | Activate | Scale | Repeat | Pool


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A in A + J. `factors` says what it is made of, unless it is an identity."""

    kind: ShortcutKind
    source: Source
    factors: tuple[Factor, ...] = ()


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention."""

    count: int
    key_values: int
    size: int
    source: Source


@dataclass(frozen=True, slots=True)
class Block:
    """A branch J of layers and a shortcut A beside it. Plain data: it can be pickled and sent to a worker."""

    name: str
    kind: BlockKind
    factors: tuple[Factor, ...]
    """In the order in which data meets them."""
    shortcut: Shortcut
    source: Source
    assumptions: tuple[str, ...] = ()
    after: Activation | None = None
    """What follows the sum; in neither map."""
    heads: Heads | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers on the branch, in order."""
        return _layer_names(self.factors)

    @property
    def shortcut_layers(self) -> tuple[str, ...]:
        """Names of the layers on the shortcut, in order."""
        return _layer_names(self.shortcut.factors)


@dataclass(frozen=True, slots=True)
class BlockDiscovery:
    """The blocks of a checkpoint, and those of its model that could not be followed, with the reason."""

    blocks: tuple[Block, ...]
    skipped: tuple[Skipped, ...] = ()


def find_blocks(
    layers: tuple[Layer, ...],
    *,
    architecture: Architecture | None = None,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, TensorInfo] | None = None,
) -> tuple[Block, ...]:
    """Return `discover_blocks(…).blocks`."""
    return discover_blocks(layers, architecture=architecture, config=config, tensors=tensors).blocks


def discover_blocks(
    layers: tuple[Layer, ...],
    *,
    architecture: Architecture | None = None,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, TensorInfo] | None = None,
) -> BlockDiscovery:
    """Find the blocks: those of the traced model whose every step is understood, else those that names tell.

    Where a model was followed as a whole, names count only inside its residual blocks.

    Args:
        layers: all layers of the checkpoint, with their facts.
        architecture: of a model that matches the checkpoint.
        config: config.json, for the number of attention heads.
        tensors: headers of the checkpoint, for normalisations and scales that are in no layer.
    """
    known = _Known(layers, architecture, config or {}, tensors or {})
    blocks: list[Block] = []
    skipped: list[Skipped] = []
    for traced in architecture.blocks if architecture else ():
        found = _Traced(known, traced).block()
        if isinstance(found, Block):
            blocks.append(found)
        else:
            skipped.append(Skipped(traced.name, found))
    used = {name for block in blocks for name in block.layers}
    inside = known.residual_layers if architecture is not None and architecture.traced else None
    for block in _named(known):
        names = block.layers
        if used.isdisjoint(names) and (inside is None or inside.issuperset(names)):
            blocks.append(block)
            used.update(names)
    by_name: dict[str, Block] = {}
    for block in blocks:
        name, count = block.name, 2
        while name in by_name:
            name, count = f"{block.name}#{count}", count + 1
        by_name[name] = replace(block, name=name)
    order = {layer.name: i for i, layer in enumerate(layers)}
    in_order = sorted(by_name.values(), key=lambda b: min(order[name] for name in b.layers))
    named = {name for block in in_order for name in (*block.layers, *block.shortcut_layers)}
    return BlockDiscovery(
        tuple(in_order),
        tuple(s for s in skipped if not _covered(known, s.name, architecture, named)),
    )


def block_tensors(
    block: Block, layers: Mapping[str, Layer], tensors: Mapping[str, TensorInfo]
) -> tuple[str, ...]:
    """Return the names of all tensors that `maps.blocks` reads for a block."""
    names: list[str | None] = []
    for factor in (*block.factors, *block.shortcut.factors):
        for apply in _applied(factor):
            layer = layers[apply.layer]
            names += [*layer.parameters, layer.bias]
        if isinstance(factor, Activate | Gate):
            names.append(factor.activation.parameter)
        if isinstance(factor, Scale):
            names.append(factor.tensor)
        if isinstance(factor, Normalize):
            names += [join(factor.norm.name, leaf) for leaf in NORM_LEAVES]
    return tuple(dict.fromkeys(name for name in names if name is not None and name in tensors))


GAINS = ("weight", "gamma", "scale")
SHIFTS = ("bias", "beta")
NORM_LEAVES = (*GAINS, *SHIFTS, "running_mean", "running_var")


def _applied(factor: Factor) -> tuple[Apply, ...]:
    if isinstance(factor, Apply):
        return (factor,)
    return (factor.gate, factor.up) if isinstance(factor, Gate) else ()


def _layer_names(factors: Sequence[Factor]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(apply.layer for factor in factors for apply in _applied(factor)))


def _covered(known: _Known, name: str, architecture: Architecture | None, named: set[str]) -> bool:
    """Say whether names told everything about a traced block that could not be followed."""
    for block in architecture.blocks if architecture else ():
        if block.name == name:
            inside = [layer.name for path in _paths(block) for layer in known.at(path)]
            attention = ("q", "k", "query", "key", "q_proj", "k_proj", "q_lin", "k_lin", "wq", "wk")
            return bool(inside) and all(item in named or split_name(item)[1] in attention for item in inside)
    return False


# What a block may know


@dataclass(frozen=True)
class _Known:
    layers: tuple[Layer, ...]
    architecture: Architecture | None
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def by_path(self) -> Mapping[str, tuple[Layer, ...]]:
        """Module path → its layers, several where it is a packed one."""
        found: dict[str, tuple[Layer, ...]] = {}
        for layer in self.layers:
            if layer.kind == "lora":
                continue
            module, leaf = split_name(layer.parameters[0])
            owner = join(module, "in_proj") if leaf == "in_proj_weight" else module
            owner = owner.partition(".parametrizations.")[0]
            found[owner] = (*found.get(owner, ()), layer)
        return found

    def at(self, path: str) -> tuple[Layer, ...]:
        """Return the layers of a module path, none if it holds none."""
        own = self.by_name.get(path)
        return (own,) if own is not None else self.by_path.get(path, ())

    @cached_property
    def residual_layers(self) -> frozenset[str]:
        """Names of all layers on the branch of some residual block of the model."""
        blocks = self.architecture.blocks if self.architecture else ()
        return frozenset(layer.name for b in blocks for path in _paths(b) for layer in self.at(path))

    def setting(self, *names: str) -> int | None:
        """Return the first positive integer that config.json has under one of these names."""
        inner = self.config.get("text_config")
        for config in (self.config, inner if isinstance(inner, Mapping) else {}):
            value = _count(config, names)
            if value is not None:
                return value
        return None

    @cached_property
    def gain_offset(self) -> float:
        """1 for models that store the gain of their RMS normalisation less 1."""
        inner = self.config.get("text_config")
        kinds = [c.get("model_type") for c in (self.config, inner) if isinstance(c, Mapping)]
        return 1.0 if any(isinstance(kind, str) and kind.startswith("gemma") for kind in kinds) else 0.0

    def gain(self, path: str) -> TensorInfo | None:
        """Return the gain of a normalisation."""
        return next((t for leaf in GAINS if (t := self.tensors.get(join(path, leaf)))), None)

    def norm(self, path: str, source: Source) -> Normalization | None:
        """Return what kind of normalisation a module is, None if it is none that is understood."""
        facts = self.architecture.modules.get(path) if self.architecture else None
        eps = 1e-5
        if facts is not None:
            for name in ("eps", "variance_epsilon"):
                value = facts.attributes.get(name)
                if isinstance(value, float) and 0 < value < 1:
                    eps = value
                    break
            if "BatchNorm" in facts.type:
                if join(path, "running_mean") not in self.tensors:
                    return None
                return Normalization("batch_norm", path, source, eps)
            if facts.type.endswith("LayerNorm"):
                return Normalization("layer_norm", path, source, eps)
            if facts.type.endswith("RMSNorm"):
                return Normalization("rms_norm", path, source, eps)
            return None
        if join(path, "running_mean") in self.tensors:
            return Normalization("batch_norm", path, source, eps)
        if self.gain(path) is None:
            return None
        shifted = any(join(path, leaf) in self.tensors for leaf in SHIFTS)
        return Normalization("layer_norm" if shifted else "rms_norm", path, source, eps)

    def heads(self, value: Layer, output: Layer, module: str) -> Heads | None:
        """Return the heads that fit both layers, from the model's attributes or config.json."""
        found: tuple[int | None, int | None, Source] = (
            self.setting("num_attention_heads", "n_head", "num_heads", "n_heads"),
            self.setting("num_key_value_heads", "num_kv_heads", "n_head_kv"),
            "config",
        )
        for path in (module, split_name(module)[0]):
            facts = self.architecture.modules.get(path) if self.architecture and path else None
            if facts is None:
                continue
            count = _count(
                facts.attributes, ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
            )
            if count is not None:
                groups = _count(facts.attributes, ("num_key_value_heads", "num_kv_heads", "n_kv_heads"))
                found = count, groups, "model"
                break
        count, groups, source = found
        outputs, inputs = value.matrix_shape[0], output.matrix_shape[1]
        if count is None or inputs % count:
            return None
        size = inputs // count
        if (
            outputs % size
            or count % (outputs // size)
            or (groups and source == "model" and groups * size != outputs)
        ):
            return None
        return Heads(count, outputs // size, size, source)


def _count(values: Mapping[str, Any], names: Sequence[str]) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _paths(block: ResidualBlock) -> tuple[str, ...]:
    """Return the layer paths on a traced branch."""
    found = [
        path for step in block.branch for path in ((step.path,) if step.kind == "layer" else step.inside)
    ]
    return tuple(dict.fromkeys(found))


# Walking along a branch


class _NotUnderstoodError(Exception):
    """A step that has no place in a block; says why."""


@dataclass
class _Walk:
    """Factors as they are collected, and how wide the data is between them."""

    known: _Known
    factors: list[Factor]
    assumptions: list[str]
    inputs: int | None = None
    width: int | None = None
    axes: int = 0
    """Spatial axes of the convolutions so far."""
    kind: Literal["", "attention-vo", "gated-mlp"] = ""

    def reach(self, width: int, what: str) -> None:
        """Take in something that reads `width` channels."""
        if self.width is not None and self.width != width:
            raise _NotUnderstoodError(f"{what} reads {width} channels, {self.width} come in")
        if self.inputs is None:
            self.inputs = width
        self.width = width

    def layer(self, layer: Layer, rows: tuple[int, int] | None = None, stride: int | None = None) -> Apply:
        """Take in a layer."""
        self.check(layer)
        outputs, inputs = layer.matrix_shape
        self.reach(inputs, layer.name)
        if layer.conv is not None:
            self.axes = len(layer.conv.kernel)
        self.width = outputs if rows is None else rows[1] - rows[0]
        return Apply(layer.name, rows, stride)

    def check(self, layer: Layer) -> None:
        """Refuse what has no map here."""
        if layer.kind in {"lora", "embedding"}:
            raise _NotUnderstoodError(f"{layer.name} is a layer of kind {layer.kind}")
        if layer.conv is None:
            return
        if layer.conv.transposed:
            raise _NotUnderstoodError(f"{layer.name} is a transposed convolution")
        if self.axes and len(layer.conv.kernel) != self.axes:
            raise _NotUnderstoodError(
                f"{layer.name} has {len(layer.conv.kernel)} spatial axes, not {self.axes}"
            )

    def norm(self, norm: Normalization | None, path: str, *, first: bool) -> None:
        """Take in a normalisation, its gain alone where nothing came before it."""
        if norm is None:
            raise _NotUnderstoodError(f"{path} is no batch, layer or RMS normalisation")
        gain = self.known.gain(path)
        if gain is not None:
            if len(gain.shape) != 1:
                raise _NotUnderstoodError(f"{path} normalises over several axes")
            self.reach(gain.shape[0], path)
        batch = norm.kind == "batch_norm"
        offset = self.known.gain_offset if norm.kind == "rms_norm" else 0.0
        self.factors.append(Normalize(norm, first and not batch, offset))
        if first and not batch:
            self.assumptions.append(
                f"gain of {path} folded into the input: the Jacobian of the normalisation itself is left out"
            )

    def activate(self, applied: Activation) -> None:
        """Take in an activation."""
        if applied.name != "identity":
            self.factors.append(Activate(applied))


def _canonical(applied: Applied) -> Activation:
    found, sentence = usable(applied.name, "model", applied.slope, applied.parameter)
    if sentence:
        raise _NotUnderstoodError(f"the derivative of {applied.name} is not known here")
    return found


@dataclass
class _Traced:
    """One residual block of a model, step by step."""

    known: _Known
    traced: ResidualBlock

    def block(self) -> Block | str:
        """Return the block, or why it is not understood."""
        try:
            return self._block()
        except _NotUnderstoodError as error:
            return f"block not measured: {error}"

    def _block(self) -> Block:
        traced = self.traced
        walk = _Walk(self.known, [], [])
        heads = self._steps(walk, traced.branch)
        if traced.scale != 1.0:
            walk.factors.append(Scale(traced.scale))
        if walk.inputs is None or not _layer_names(walk.factors):
            raise _NotUnderstoodError("no layer on its branch is in the checkpoint")
        after = None
        if traced.after is not None:
            after, _ = usable(traced.after.name, "model", traced.after.slope, traced.after.parameter)
        if traced.norm is not None:
            walk.assumptions.append(f"{traced.norm} follows the sum and is in neither map")
        block = Block(
            traced.name,
            self._kind(walk),
            tuple(walk.factors),
            self._shortcut(walk),
            "model",
            tuple(walk.assumptions),
            after,
            heads,
        )
        _check_spatial(self.known, block)
        return block

    def _kind(self, walk: _Walk) -> BlockKind:
        if walk.kind:
            return walk.kind
        layers = [self.known.by_name[name] for name in _layer_names(walk.factors)]
        first = walk.factors[0]
        transformer = isinstance(first, Normalize) and first.gain_only
        transformer |= self.traced.norm is not None and not walk.axes
        named = split_name(self.traced.name)[1].lower() in _MLP_WORDS
        plain = len(layers) == 2 and all(layer.conv is None for layer in layers)
        return "mlp" if plain and (transformer or named) else "residual"

    def _steps(self, walk: _Walk, steps: Sequence[Step]) -> Heads | None:
        heads: Heads | None = None
        value: Layer | None = None
        for step in steps:
            first = not any(isinstance(f, Apply | Gate) for f in walk.factors)
            if step.kind == "layer":
                layer = self._one(step.path)
                if value is not None:
                    heads = self._spread(walk, value, layer)
                    value = None
                walk.factors.append(walk.layer(layer))
            elif step.kind == "norm":
                walk.norm(self.known.norm(step.path, "model"), step.path, first=first and not walk.factors)
            elif step.kind == "activation" and step.activation is not None:
                walk.activate(_canonical(step.activation))
            elif step.kind == "scale":
                walk.factors.append(self._scale(step))
            elif step.kind == "gate" and step.gated is not None:
                walk.factors.append(self._gate(walk, step))
            elif step.kind == "pool":
                walk.factors.append(_pool(step.detail))
            elif step.kind == "reshape" and (
                value is not None or step.detail.startswith(("permute", "transpose", "movedim", "contiguous"))
            ):
                pass
            elif step.kind == "other" and step.detail in {"attention", "MultiheadAttention"}:
                value = self._value(step)
                walk.factors.append(walk.layer(value))
                walk.kind = "attention-vo"
                walk.assumptions.append(ATTENTION)
                if step.detail == "MultiheadAttention":
                    output = self._one(step.inside[-1])
                    heads = self._spread(walk, value, output)
                    value = None
                    walk.factors.append(walk.layer(output))
            else:
                raise _NotUnderstoodError(f"{step.detail or step.kind} {step.path}".rstrip())
        return heads

    def _one(self, path: str) -> Layer:
        found = self.known.at(path)
        if len(found) != 1:
            raise _NotUnderstoodError(f"{path} is {'no layer' if not found else 'several layers'} here")
        return found[0]

    def _value(self, step: Step) -> Layer:
        """Return the layer that makes the values: its own, or part of one for queries, keys and values."""
        path = step.inside[0] if step.detail == "MultiheadAttention" else step.inside[2]
        found = self.known.at(path)
        if len(found) > 1:
            found = tuple(layer for layer in found if split_name(layer.name)[1] == "v")
        packed = step.detail == "MultiheadAttention" or len(set(step.inside)) < 3
        if len(found) != 1 or (packed and split_name(found[0].name)[1] != "v"):
            raise _NotUnderstoodError(f"the rows of {path} that make the values are not known")
        return found[0]

    def _spread(self, walk: _Walk, value: Layer, output: Layer) -> Heads | None:
        heads = self.known.heads(value, output, split_name(output.name)[0])
        _spread(walk, heads)
        return heads

    def _gate(self, walk: _Walk, step: Step) -> Gate:
        gated = step.gated
        if gated is None:
            raise AssertionError("only called with a gate")
        activation = _canonical(gated.activation)
        walk.kind = walk.kind or "gated-mlp"
        layers = self.known.at(gated.gate)
        if gated.half is not None and len(layers) == 1:
            outputs = layers[0].matrix_shape[0]
            if outputs % 2:
                raise _NotUnderstoodError(f"{gated.gate} has no halves")
            halves = ((0, outputs // 2), (outputs // 2, outputs))
            gate, up = halves[gated.half], halves[1 - gated.half]
            applied = walk.layer(layers[0], gate)
            return Gate(applied, Apply(layers[0].name, up), activation)
        if gated.half is not None and len(layers) == 2:
            in_order = sorted(layers, key=_first_row)
            return _gated(walk, in_order[gated.half], in_order[1 - gated.half], activation)
        return _gated(walk, self._one(gated.gate), self._one(gated.up), activation)

    def _scale(self, step: Step) -> Scale:
        if not step.path:
            try:
                return Scale(float(step.detail))
            except ValueError:
                raise _NotUnderstoodError(f"a scale of {step.detail!r}") from None
        info = self.known.tensors.get(step.path)
        if info is None or max((1, *info.shape)) != info.size or info.dtype not in FLOAT_DTYPES:
            raise _NotUnderstoodError(f"scale {step.path} is no number per channel")
        return Scale(tensor=step.path)

    def _shortcut(self, branch: _Walk) -> Shortcut:
        if not self.traced.shortcut:
            if branch.inputs == branch.width:
                return Shortcut("identity", "model")
            raise _NotUnderstoodError(
                f"{branch.inputs} channels come in, {branch.width} go out beside an identity"
            )
        walk = _Walk(self.known, [], [], inputs=branch.inputs, width=branch.inputs, axes=branch.axes)
        self._steps(walk, self.traced.shortcut)
        if walk.width != branch.width:
            raise _NotUnderstoodError(f"shortcut of {walk.width} channels beside {branch.width}")
        pools = all(isinstance(factor, Pool) for factor in walk.factors)
        return Shortcut("average-pool" if pools else "layers", "model", tuple(walk.factors))


def _first_row(layer: Layer) -> int:
    recipe = layer.weight
    return recipe.rows[0][0] if isinstance(recipe, Stored) and recipe.rows else 0


ATTENTION = "attention weights left out: values to output at one token, as under uniform attention"


def _spread(walk: _Walk, heads: Heads | None) -> None:
    """Let every key-value head serve its queries."""
    if heads is not None and heads.key_values < heads.count:
        walk.factors.append(Repeat(heads.count // heads.key_values, heads.size))
        walk.width = heads.count * heads.size


def _gated(walk: _Walk, gate: Layer, up: Layer, activation: Activation) -> Gate:
    if gate.matrix_shape != up.matrix_shape or gate.conv is not None or up.conv is not None:
        raise _NotUnderstoodError(f"{gate.name} and {up.name} are no matrices of equal shape")
    applied = walk.layer(gate)
    return Gate(applied, Apply(up.name), activation)


_POOL = re.compile(
    r"(?:AvgPool[123]d|avg_pool[123]d)\(kernel_size=(\([0-9, ]+\)|[0-9]+), "
    r"stride=(\([0-9, ]+\)|[0-9]+|None), padding=(\([0, ]+\)|0), ceil_mode=False.*"
)


def _pool(detail: str) -> Pool:
    match = _POOL.fullmatch(detail)
    kernel = _numbers(match[1]) if match else ()
    stride = _numbers(match[2]) if match and match[2] != "None" else kernel
    axes = re.search(r"([123])d\(", detail)
    if match is None or kernel != stride or axes is None:
        raise _NotUnderstoodError(f"{detail} is no average over windows that do not overlap")
    return Pool(kernel if len(kernel) > 1 else kernel * int(axes[1]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", text))


def _check_spatial(known: _Known, block: Block) -> None:
    """Refuse branches that leave another grid than their shortcut."""
    strides = [total_stride(factors, known.by_name) for factors in (block.factors, block.shortcut.factors)]
    sides = {stride for stride in strides if stride} or {()}
    ones = all(set(stride) <= {1} for stride in sides)
    if len(sides) > 1 and not ones:
        raise _NotUnderstoodError("branch and shortcut have different strides")
    if not strides[1] and not ones:
        raise _NotUnderstoodError("a strided branch beside an identity")


def total_stride(factors: Sequence[Factor], layers: Mapping[str, Layer]) -> tuple[int, ...]:
    """Return the product of all strides per spatial axis, () where there is no convolution and no pool."""
    total: tuple[int, ...] = ()
    for factor in factors:
        sides: tuple[int, ...] = ()
        if isinstance(factor, Pool):
            sides = factor.sides
        elif isinstance(factor, Apply) and (conv := layers[factor.layer].conv) is not None:
            sides = conv.stride.value if factor.stride is None else (factor.stride,) * len(conv.kernel)
        if sides:
            total = tuple(a * b for a, b in zip(total or (1,) * len(sides), sides, strict=True))
    return total


# Names

_MLP_WORDS = frozenset({"mlp", "ffn", "feed_forward", "feedforward", "ff"})
_NOT_A_BLOCK = frozenset({"se", "squeeze", "squeeze_excite", "fc", "gate", "head", "classifier"})
_RESNET = re.compile(r"(.*\.[0-9]+|[a-z_]*[0-9]+)\.conv1", re.DOTALL)
_STAGE = re.compile(r"(?:.*\.)?(?:layer|stage)s?([0-9]+)\.0", re.DOTALL)
_CROSS = re.compile(r"cross|encoder_attn|EncDec|encdec|attn2")

_PAIRS = (
    ("intermediate.dense", "output.dense"), ("intermediate_dense", "output_dense"), ("c_fc", "c_proj"),
    ("fc1", "fc2"), ("lin1", "lin2"), ("linear1", "linear2"), ("dense_h_to_4h", "dense_4h_to_h"),
    ("fc_in", "fc_out"), ("wi", "wo"), ("up_proj", "down_proj"), ("mlp.0", "mlp.2"), ("mlp.0", "mlp.3"),
    ("linear_1", "linear_2"), ("ffn", "ffn_output"), ("w1", "w2"), ("pwconv1", "pwconv2"),
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
_MLP_NORMS = (
    "pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "ln2", "norm2", "layernorm_after",
    "layer_norm2", "ffn_norm", "norm_2",
)  # fmt: skip
_VALUE_NORMS = (
    "input_layernorm", "ln_1", "ln1", "norm1", "layernorm_before", "layer_norm1", "attention_norm", "norm_1",
)  # fmt: skip


def _named(known: _Known) -> Iterator[Block]:
    """Yield the blocks that names tell; ResNets first, then gated MLPs, whose layers plain ones share."""
    for layer in known.layers:
        match = _RESNET.fullmatch(layer.name) if layer.conv is not None else None
        if match:
            yield from _understood(_resnet, known, match[1])
    for table, make in ((_GATED, _named_gated), (_PAIRS, _named_pair), (_VALUES, _named_attention)):
        for layer in known.layers:
            for members in table:
                head, end = layer.name[: -len(members[0])], layer.name[-len(members[0]) :]
                # A whole component, in a module of its own.
                if end != members[0] or not head.endswith(".") or layer.conv is not None:
                    continue
                rest = [known.by_name.get(head + name) for name in members[1:]]
                if all(other is not None and other.conv is None for other in rest):
                    found = [layer, *(other for other in rest if other is not None)]
                    yield from _understood(make, known, head[:-1], found)


def _understood(make: Any, *arguments: Any) -> Iterator[Block]:
    try:
        yield make(*arguments)
    except _NotUnderstoodError:
        return


def _assumed(known: _Known, factors: Sequence[Factor], block: str, more: Sequence[str]) -> tuple[str, ...]:
    sentences = [f"{block} taken from the names of its layers"]
    names = [
        f.activation.name
        for f in factors
        if isinstance(f, Activate | Gate) and f.activation.source == "assumed"
    ]
    if names:
        sentences.append(
            f"{listed(list(dict.fromkeys(names)))} inside it assumed: activations are not stored"
        )
    return (*sentences, *more)


def _square(walk: _Walk) -> None:
    if walk.inputs != walk.width:
        raise _NotUnderstoodError(f"{walk.inputs} channels come in, {walk.width} go out")


def _pre_norm(known: _Known, walk: _Walk, parent: str, candidates: Sequence[str], width: int) -> None:
    """Fold in the gain of the normalisation that stands before a block, if there is one."""
    for container in dict.fromkeys((split_name(parent)[0], parent)):
        # torch's own encoder layers normalise after the sum unless told otherwise, OLMo 2 always.
        if join(container, "linear1") in known.by_name:
            return
        for name in candidates:
            path = join(container, name)
            gain = known.gain(path)
            after = name == "post_attention_layernorm" and known.gain(
                join(container, "post_feedforward_layernorm")
            )
            if gain is None or gain.shape != (width,) or after:
                continue
            walk.norm(known.norm(path, "assumed"), path, first=True)
            return


def _named_gated(known: _Known, parent: str, layers: Sequence[Layer]) -> Block:
    gate, up, down = layers
    walk = _Walk(known, [], [])
    _pre_norm(known, walk, parent, _MLP_NORMS, gate.matrix_shape[1])
    walk.factors.append(_gated(walk, gate, up, gate.activation))
    walk.factors.append(walk.layer(down))
    return _transformer(walk, parent, "gated-mlp", "gated MLP")


def _named_pair(known: _Known, parent: str, layers: Sequence[Layer]) -> Block:
    first, second = layers
    if split_name(parent)[1].lower() in _NOT_A_BLOCK or not any(c.isdigit() for c in parent):
        raise _NotUnderstoodError("no block's name")
    if first.activation.name == "identity":
        raise _NotUnderstoodError("no activation between them")
    walk = _Walk(known, [], [])
    _pre_norm(known, walk, parent, _MLP_NORMS, first.matrix_shape[1])
    walk.factors.append(walk.layer(first))
    walk.activate(first.activation)
    walk.factors.append(walk.layer(second))
    return _transformer(walk, parent, "mlp", "MLP")


def _named_attention(known: _Known, parent: str, layers: Sequence[Layer]) -> Block:
    value, output = layers
    if _CROSS.search(parent):
        raise _NotUnderstoodError("its values come from elsewhere")
    walk = _Walk(known, [], [ATTENTION])
    _pre_norm(known, walk, parent, _VALUE_NORMS, value.matrix_shape[1])
    walk.factors.append(walk.layer(value))
    heads = known.heads(value, output, parent)
    _spread(walk, heads)
    walk.factors.append(walk.layer(output))
    if heads is None:
        walk.assumptions.append("number of heads not known: the product of all of them")
    return replace(_transformer(walk, parent, "attention-vo", "attention"), heads=heads)


def _transformer(walk: _Walk, name: str, kind: BlockKind, word: str) -> Block:
    _square(walk)
    assumptions = _assumed(walk.known, walk.factors, f"{word} and the identity beside it", walk.assumptions)
    return Block(name, kind, tuple(walk.factors), Shortcut("identity", "assumed"), "assumed", assumptions)


def _resnet(known: _Known, parent: str) -> Block:
    """Make a basic or bottleneck block of torchvision or timm."""
    convs = [known.by_name.get(join(parent, f"conv{i}")) for i in (1, 2, 3)]
    branch = [conv for conv in convs if conv is not None and conv.conv is not None]
    if len(branch) < 2 or (convs[2] is not None and len(branch) < 3) or convs[1] is None:
        raise _NotUnderstoodError("not two or three convolutions")
    if any(conv.normalization is None or conv.normalization.kind != "batch_norm" for conv in branch):
        raise _NotUnderstoodError("not every convolution has a batch norm after it")
    side = [
        layer
        for layer in known.layers
        if layer.name.startswith(f"{parent}.") and layer not in branch and layer.kind != "lora"
    ]
    projection = side[0] if len(side) == 1 else None
    words = ("downsample.", "shortcut.", "downsample", "shortcut")
    if side and (projection is None or not projection.name.removeprefix(f"{parent}.").startswith(words)):
        raise _NotUnderstoodError("other layers beside its convolutions")
    walk, notes = _Walk(known, [], []), []
    stage = _STAGE.fullmatch(parent)
    strided = branch[0] if len(branch) == 2 else branch[1]
    stride = None
    if projection and stage and int(stage[1]) > 1 and _unknown_stride(strided):
        stride = 2
        notes.append(f"stride 2 of {strided.name} and of the shortcut assumed: not stored in the checkpoint")
    for conv in branch:
        walk.factors.append(walk.layer(conv, stride=stride if conv is strided else None))
        if conv.normalization is not None:
            walk.norm(conv.normalization, conv.normalization.name, first=False)
        if conv is not branch[-1]:
            walk.activate(conv.activation)
    shortcut = Shortcut("identity", "assumed")
    if projection is None:
        _square(walk)
    else:
        shortcut = _projection(known, walk, projection, stride)
    last = branch[-1].activation
    after = last if last.name != "identity" else replace(branch[0].activation, parameter=None)
    block = Block(
        parent,
        "residual",
        tuple(walk.factors),
        shortcut,
        "assumed",
        _assumed(known, walk.factors, "residual block", notes),
        None if after.name == "identity" else after,
    )
    _check_spatial(known, block)
    return block


def _unknown_stride(layer: Layer) -> bool:
    return layer.conv is not None and layer.conv.stride.source == "assumed"


def _projection(known: _Known, branch: _Walk, layer: Layer, stride: int | None) -> Shortcut:
    walk = _Walk(known, [], [], inputs=branch.inputs, width=branch.inputs, axes=branch.axes)
    if layer.conv is None:
        raise _NotUnderstoodError("a shortcut that is no convolution")
    own = stride if _unknown_stride(layer) else None
    if layer.name.endswith(".1") and own:  # ResNet-D: an average pool without tensors comes first
        walk.factors.append(Pool((own,) * len(layer.conv.kernel)))
        own = None
    walk.factors.append(walk.layer(layer, stride=own))
    if layer.normalization is not None:
        walk.norm(layer.normalization, layer.normalization.name, first=False)
    if walk.width != branch.width:
        raise _NotUnderstoodError(f"shortcut of {walk.width} channels beside {branch.width}")
    return Shortcut("layers", "assumed", tuple(walk.factors))


# Chains by hand


def compose(text: str, layers: Sequence[Layer]) -> Block:
    """Make a block of layers that a user names, joined by ':' and applied from left to right.

    Each layer brings the batch norm and the activation that follow it. The shortcut is the isometry that
    fits the shapes.

    Raises:
        LayerError: an unknown layer, or shapes that do not chain.
    """
    names = [name.strip() for name in text.split(":")]
    if len(names) < 2 or not all(names):
        raise LayerError(
            f"--compose: expected layer names joined by ':', got {text!r}", "for example fc1:fc2"
        )
    known = _Known(tuple(layers), None, {}, {})
    chain = [_layer_called(name, known) for name in names]
    walk = _Walk(known, [], [])
    left_out = []
    for before, layer in zip((None, *chain[:-1]), chain, strict=True):
        if before is not None and before.matrix_shape[0] != layer.matrix_shape[1]:
            raise LayerError(
                f"--compose {text!r}: expected a layer that reads the {before.matrix_shape[0]} outputs of "
                f"{before.name}, got {layer.name}, which reads {layer.matrix_shape[1]}",
                "name the layers in the order in which data meets them",
            )
        try:
            walk.factors.append(walk.layer(layer))
        except _NotUnderstoodError as error:
            raise LayerError(
                f"--compose {text!r}: expected linear layers and convolutions, but {error}"
            ) from None
        norm = layer.normalization
        if norm is not None and norm.kind == "batch_norm":
            walk.norm(norm, norm.name, first=False)
        elif norm is not None:
            left_out.append(norm.name)
        walk.activate(layer.activation)
    notes = []
    if left_out:
        notes.append(f"{listed(left_out)} left out: such a normalisation depends on the input")
    names_assumed = [layer.name for layer in chain if layer.activation.source == "assumed"]
    if names_assumed:
        notes.append(f"activation after {listed(names_assumed)} assumed")
    dense = [layer.name for layer in chain if layer.conv is None]
    if walk.axes and dense:
        notes.append(f"{listed(dense)} applied at each pixel")
    return Block(
        text, "composed", tuple(walk.factors), _isometry(walk, known.by_name), "config", tuple(notes)
    )


def _layer_called(name: str, known: _Known) -> Layer:
    layer = known.by_name.get(name)
    if layer is None:
        close = get_close_matches(name, known.by_name, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "names are those of `report`"
        raise LayerError(f"--compose: expected the name of a layer, got {name!r}", hint)
    return layer


def _isometry(walk: _Walk, layers: Mapping[str, Layer]) -> Shortcut:
    """Return the isometry that fits a branch (MATH R33); none where channels change beside a stride."""
    square = walk.inputs == walk.width
    stride = total_stride(walk.factors, layers)
    if prod(stride) > 1:
        if not square:
            return Shortcut("none", "assumed")
        return Shortcut("average-pool", "assumed", (Pool(stride), Scale(prod(stride) ** 0.5)))
    return Shortcut("identity" if square else "rectangular-identity", "assumed")
