"""What every rule may look at, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from specinspect.checkpoint.model import Checkpoint, ModuleFacts, Skipped
from specinspect.checkpoint.tensors import FLOAT_DTYPES, TensorInfo
from specinspect.layers.channels import Channels
from specinspect.layers.model import Layer
from specinspect.layers.names import join, sort_key

Remaining = Mapping[str, TensorInfo]
"""The tensors that no earlier rule has claimed, in checkpoint order."""


def is_alphabetical(tensors: Mapping[str, TensorInfo]) -> bool:
    """Say whether names are merely sorted, so that their order says nothing about the network.

    safetensors sorts by dtype first, hence only neighbours of one dtype count.
    """
    keys = [(info.dtype, sort_key(name)) for name, info in tensors.items()]
    return all(a[1] <= b[1] for a, b in pairwise(keys) if a[0] == b[0])


@dataclass(frozen=True)
class Context:
    """The whole checkpoint's headers, and orders derived from them."""

    tensors: Mapping[str, TensorInfo]
    modules: Mapping[str, ModuleFacts]
    config: Mapping[str, Any]
    channels: Channels = field(default_factory=lambda: Channels({}))
    """How channels flow; filled in once the headers have been looked through."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Context:
        """Take what discovery may know from a checkpoint."""
        return cls(checkpoint.tensors, checkpoint.modules, checkpoint.config)

    def with_channels(self, channels: Channels) -> Context:
        """Return a copy that knows how channels flow."""
        return replace(self, channels=channels)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Tensor name → its place in the checkpoint."""
        return {name: i for i, name in enumerate(self.tensors)}

    @cached_property
    def module_paths(self) -> tuple[str, ...]:
        """Paths of the modules that hold tensors, in checkpoint order."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.tensors))

    @cached_property
    def next_module(self) -> Mapping[str, str]:
        """Module path → the module that comes after it in the checkpoint (integers aside)."""
        paths = (name.rpartition(".")[0] for name, info in self.tensors.items() if info.dtype in FLOAT_DTYPES)
        return dict(pairwise(dict.fromkeys(paths)))

    @cached_property
    def alphabetical(self) -> bool:
        """Whether the names are merely sorted, so that their order says nothing about the network."""
        return is_alphabetical(self.tensors)

    def type_of(self, module: str) -> str:
        """Return the class name of a module, '' where it is not known."""
        facts = self.modules.get(module)
        return facts.type if facts else ""

    def attribute(self, module: str, name: str) -> Any:
        """Return a plain attribute of a module, None where it is not known."""
        facts = self.modules.get(module)
        return facts.attributes.get(name) if facts else None

    def sibling(self, module: str, leaf: str) -> TensorInfo | None:
        """Return another tensor of the same module."""
        return self.tensors.get(join(module, leaf))

    def setting(self, *names: str) -> int | None:
        """Return the first positive integer that config.json has under one of these names."""
        text = self.config.get("text_config")
        for config in (self.config, text if isinstance(text, Mapping) else {}):
            for name in names:
                value = config.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return None

    @property
    def model_type(self) -> str:
        """What config.json calls the architecture, in lower case."""
        value = self.config.get("model_type")
        return value.lower() if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What one rule understands: layers, and tensors that are no layer, with the reason."""

    layers: tuple[Layer, ...] = ()
    skipped: tuple[Skipped, ...] = ()


Claimer = Callable[[Context, Remaining], Claims]
