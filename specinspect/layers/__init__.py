"""What is a layer: from names, shapes and known facts to `Layer`s, each with where its facts come from."""

from specinspect.layers.discover import Discovery, discover, select
from specinspect.layers.model import Layer

__all__ = ["Discovery", "Layer", "discover", "select"]
