"""A weight, stored or recomposed, and which kind of layer it makes."""

from __future__ import annotations

from dataclasses import dataclass

from specinspect.checkpoint.tensors import TensorInfo
from specinspect.layers.model import Recipe, Stored
from specinspect.layers.names import join, layer_name, split_name


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight before it is known what kind of layer it belongs to."""

    module: str
    """Path of the module that owns it."""
    leaf: str
    """Its name in the module; 'weight' for what was recomposed into one."""
    shape: tuple[int, ...]
    dtype: str
    recipe: Recipe
    parameters: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def layer(self) -> str:
        """Name of the layer it makes."""
        return layer_name(join(self.module, self.leaf))


def stored(info: TensorInfo) -> Weight:
    """Take one tensor as a weight."""
    module, leaf = split_name(info.name)
    return Weight(module, leaf, info.shape, info.dtype, Stored(info.name), (info.name,))
