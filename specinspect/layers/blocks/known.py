"""Everything that a block may know of its surroundings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from specinspect.architecture.model import Architecture, ResidualBlock
from specinspect.checkpoint.tensors import FLOAT_DTYPES, TensorInfo
from specinspect.layers.blocks.model import GAINS, SHIFTS, Heads
from specinspect.layers.context import is_alphabetical
from specinspect.layers.model import Layer, Normalization, Source
from specinspect.layers.names import is_norm, join, split_name
from specinspect.layers.norms import EPSILONS

_COMPUTED: tuple[Literal["layer_norm", "rms_norm"], ...] = ("layer_norm", "rms_norm")
_EPS = ("layer_norm_eps", "rms_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps")


@dataclass(frozen=True)
class Known:
    """The layers, the traced model, config.json and the headers of a checkpoint, as far as there are any."""

    layers: tuple[Layer, ...]
    architecture: Architecture | None
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """Name → layer."""
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
        return frozenset(layer.name for b in blocks for path in branch_paths(b) for layer in self.at(path))

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

    def offset(self, norm: Normalization) -> float:
        """Return what is added to the stored gain of a normalisation: by what its module computes."""
        facts = self.architecture.modules.get(norm.name) if self.architecture else None
        computed = facts.attributes.get("norm_offset") if facts is not None else None
        if isinstance(computed, float):
            return computed
        return self.gain_offset if norm.kind == "rms_norm" else 0.0

    def gain(self, path: str) -> TensorInfo | None:
        """Return the gain of a normalisation."""
        return next((t for leaf in GAINS if (t := self.tensors.get(join(path, leaf)))), None)

    def norm(self, path: str, source: Source) -> Normalization | None:
        """Return what kind of normalisation a module is, None if it is none that is understood."""
        facts = self.architecture.modules.get(path) if self.architecture else None
        eps = self.told_eps or 1e-5
        if facts is not None:
            for name in ("eps", "variance_epsilon"):
                value = facts.attributes.get(name)
                if isinstance(value, float) and 0 <= value < 1:
                    eps = value
                    break
            computed = facts.attributes.get("norm_kind")
            for kind in _COMPUTED:
                if computed == kind:
                    return Normalization(kind, path, source, eps)
            if "BatchNorm" in facts.type:
                if join(path, "running_mean") not in self.tensors:
                    return None
                return Normalization("batch_norm", path, source, eps)
            if facts.type.endswith("LayerNorm"):
                return Normalization("layer_norm", path, source, eps)
            if facts.type.endswith("RMSNorm"):
                gain = self.gain(path)
                if "eps" in facts.attributes and facts.attributes["eps"] is None:
                    eps = EPSILONS.get(gain.dtype if gain else "", EPSILONS["f32"])
                return Normalization("rms_norm", path, source, eps)
            return None
        if join(path, "running_mean") in self.tensors:
            return Normalization("batch_norm", path, source, eps)
        if self.gain(path) is None:
            return None
        shifted = any(join(path, leaf) in self.tensors for leaf in SHIFTS)
        return Normalization("layer_norm" if shifted else "rms_norm", path, source, eps)

    @cached_property
    def told_eps(self) -> float | None:
        """The ε of its layer and RMS normalisations that config.json gives."""
        inner = self.config.get("text_config")
        for config in (self.config, inner if isinstance(inner, Mapping) else {}):
            for name in _EPS:
                value = config.get(name)
                if isinstance(value, float) and 0 < value < 1:
                    return value
        return None

    def norms_in(self, module: str, width: int) -> list[str]:
        """Return the normalisations that a module holds itself and that have as many gains."""
        paths = self._norms_of.get(module, ())
        return [path for path in paths if (gain := self.gain(path)) is not None and gain.shape == (width,)]

    @cached_property
    def _norms_of(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for path in dict.fromkeys(split_name(name)[0] for name in self.tensors):
            if path and is_norm(path) and path not in self.by_path:
                module = split_name(path)[0]
                found[module] = (*found.get(module, ()), path)
        return found

    def is_scale(self, name: str, width: int) -> bool:
        """Say whether a tensor may be a layer scale: one number, or one for each channel."""
        info = self.tensors.get(name)
        if info is None or info.dtype not in FLOAT_DTYPES:
            return False
        return max((1, *info.shape)) == info.size and info.size in {1, width}

    def place(self, path: str, layers: Sequence[Layer]) -> Literal["before", "after"] | None:
        """Say where the file lists a module: before or after some layers; None if nothing tells."""
        if is_alphabetical(self.tensors):
            return None
        order = {name: i for i, name in enumerate(self.tensors)}
        own = [i for name, i in order.items() if split_name(name)[0] == path]
        theirs = [order[name] for layer in layers for name in layer.parameters if name in order]
        if not own or not theirs:
            return None
        if max(own) < min(theirs):
            return "before"
        return "after" if min(own) > max(theirs) else None

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


def branch_paths(block: ResidualBlock) -> tuple[str, ...]:
    """Return the layer paths on a traced branch."""
    found = [
        path for step in block.branch for path in ((step.path,) if step.kind == "layer" else step.inside)
    ]
    return tuple(dict.fromkeys(found))
