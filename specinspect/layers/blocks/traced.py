"""Blocks of a traced model, whose every step must be understood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from specinspect.architecture.model import Activation as Applied
from specinspect.architecture.model import ResidualBlock, Step
from specinspect.checkpoint.tensors import FLOAT_DTYPES
from specinspect.layers.blocks.known import Known
from specinspect.layers.blocks.model import (
    Apply,
    Block,
    BlockKind,
    Gate,
    Heads,
    Normalize,
    Pool,
    Scale,
    Shortcut,
    layer_names,
)
from specinspect.layers.blocks.walk import (
    ATTENTION,
    NotUnderstoodError,
    Walk,
    check_spatial,
    gated_factor,
    spread_heads,
)
from specinspect.layers.model import Activation, Layer, Stored
from specinspect.layers.names import split_name
from specinspect.layers.vocabulary import usable


def _canonical(applied: Applied) -> Activation:
    found, sentence = usable(applied.name, "model", applied.slope, applied.parameter)
    if sentence:
        raise NotUnderstoodError(f"the derivative of {applied.name} is not known here")
    return found


@dataclass
class Traced:
    """One residual block of a model, step by step."""

    known: Known
    traced: ResidualBlock

    def block(self) -> Block | str:
        """Return the block, or why it is not understood."""
        try:
            return self._block()
        except NotUnderstoodError as error:
            return f"block not measured: {error}"

    def _block(self) -> Block:
        traced = self.traced
        walk = Walk(self.known, [], [])
        heads = self._steps(walk, traced.branch)
        if traced.scale != 1.0:
            walk.factors.append(Scale(traced.scale))
        if walk.inputs is None or not layer_names(walk.factors):
            raise NotUnderstoodError("no layer on its branch is in the checkpoint")
        after = None
        if traced.after is not None:
            after, _ = usable(traced.after.name, "model", traced.after.slope, traced.after.parameter)
        if traced.norm is not None:
            walk.assumptions.append(f"{traced.norm} follows the sum and is in neither map")
        architecture = self.known.architecture
        if architecture is not None and architecture.assumption:
            walk.assumptions.append(architecture.assumption)
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
        check_spatial(self.known, block)
        return block

    def _kind(self, walk: Walk) -> BlockKind:
        if walk.kind:
            return walk.kind
        layers = [self.known.by_name[name] for name in layer_names(walk.factors)]
        first = walk.factors[0]
        transformer = isinstance(first, Normalize) and first.gain_only
        transformer |= self.traced.norm is not None and not walk.axes
        named = split_name(self.traced.name)[1].lower() in _MLP_WORDS
        plain = len(layers) == 2 and all(layer.conv is None for layer in layers)
        return "mlp" if plain and (transformer or named) else "residual"

    def _steps(self, walk: Walk, steps: Sequence[Step]) -> Heads | None:
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
                raise NotUnderstoodError(f"{step.detail or step.kind} {step.path}".rstrip())
        return heads

    def _one(self, path: str) -> Layer:
        found = self.known.at(path)
        if len(found) != 1:
            raise NotUnderstoodError(f"{path} is {'no layer' if not found else 'several layers'} here")
        return found[0]

    def _value(self, step: Step) -> Layer:
        """Return the layer that makes the values: its own, or part of one for queries, keys and values."""
        path = step.inside[0] if step.detail == "MultiheadAttention" else step.inside[2]
        found = self.known.at(path)
        if len(found) > 1:
            found = tuple(layer for layer in found if split_name(layer.name)[1] == "v")
        packed = step.detail == "MultiheadAttention" or len(set(step.inside)) < 3
        if len(found) != 1 or (packed and split_name(found[0].name)[1] != "v"):
            raise NotUnderstoodError(f"the rows of {path} that make the values are not known")
        return found[0]

    def _spread(self, walk: Walk, value: Layer, output: Layer) -> Heads | None:
        heads = self.known.heads(value, output, split_name(output.name)[0])
        spread_heads(walk, heads)
        return heads

    def _gate(self, walk: Walk, step: Step) -> Gate:
        gated = step.gated
        if gated is None:
            raise AssertionError("only called with a gate")
        activation = _canonical(gated.activation)
        walk.kind = walk.kind or "gated-mlp"
        layers = self.known.at(gated.gate)
        if gated.half is not None and len(layers) == 1:
            outputs = layers[0].matrix_shape[0]
            if outputs % 2:
                raise NotUnderstoodError(f"{gated.gate} has no halves")
            halves = ((0, outputs // 2), (outputs // 2, outputs))
            gate, up = halves[gated.half], halves[1 - gated.half]
            applied = walk.layer(layers[0], gate)
            return Gate(applied, Apply(layers[0].name, up), activation)
        if gated.half is not None and len(layers) == 2:
            in_order = sorted(layers, key=_first_row)
            return gated_factor(walk, in_order[gated.half], in_order[1 - gated.half], activation)
        return gated_factor(walk, self._one(gated.gate), self._one(gated.up), activation)

    def _scale(self, step: Step) -> Scale:
        if not step.path:
            try:
                return Scale(float(step.detail))
            except ValueError:
                raise NotUnderstoodError(f"a scale of {step.detail!r}") from None
        info = self.known.tensors.get(step.path)
        if info is None or max((1, *info.shape)) != info.size or info.dtype not in FLOAT_DTYPES:
            raise NotUnderstoodError(f"scale {step.path} is no number per channel")
        return Scale(tensor=step.path)

    def _shortcut(self, branch: Walk) -> Shortcut:
        if not self.traced.shortcut:
            if branch.inputs == branch.width:
                return Shortcut("identity", "model")
            raise NotUnderstoodError(
                f"{branch.inputs} channels come in, {branch.width} go out beside an identity"
            )
        walk = Walk(self.known, [], [], inputs=branch.inputs, width=branch.inputs, axes=branch.axes)
        self._steps(walk, self.traced.shortcut)
        if walk.width != branch.width:
            raise NotUnderstoodError(f"shortcut of {walk.width} channels beside {branch.width}")
        pools = all(isinstance(factor, Pool) for factor in walk.factors)
        return Shortcut("average-pool" if pools else "layers", "model", tuple(walk.factors))


def _first_row(layer: Layer) -> int:
    recipe = layer.weight
    return recipe.rows[0][0] if isinstance(recipe, Stored) and recipe.rows else 0


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
        raise NotUnderstoodError(f"{detail} is no average over windows that do not overlap")
    return Pool(kernel if len(kernel) > 1 else kernel * int(axes[1]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", text))


_MLP_WORDS = frozenset({"mlp", "ffn", "feed_forward", "feedforward", "ff"})
