"""From a layer's tensors to linear maps: dense, low-rank, convolution on a periodic grid."""

from specinspect.maps.build import asked_side, build_weight_map, grid_sides
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap, LowRankMap

__all__ = [
    "ConvolutionMap",
    "DenseMap",
    "LinearMap",
    "LowRankMap",
    "asked_side",
    "build_weight_map",
    "grid_sides",
]
