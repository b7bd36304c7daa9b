"""From a layer's recipe and its tensors to the linear map W."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from specinspect.errors import LayerError, ResourceError
from specinspect.layers.model import ConvGeometry, Layer, Product, Recipe, SpectralNorm, Stored, WeightNorm
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap, LowRankMap

if TYPE_CHECKING:
    import torch

MOST_POINTS = 1 << 20
"""Of a periodic grid."""

Read = Callable[[str], "torch.Tensor"]


def grid_sides(layer: Layer, side: int) -> tuple[int, ...] | None:
    """Return the periodic grid for a convolution, None for any other layer.

    The sides of the user's images count first, then the side that a rule sets for this layer, then `side`,
    that of the run. They are widened where the kernel would wrap onto itself and rounded up to a multiple of
    the stride, without which the operator has no Fourier blocks (MATH R61).
    """
    if layer.conv is None:
        return None
    geometry = layer.conv
    asked = layer.sides or (asked_side(layer, side),) * len(geometry.kernel)
    sides = []
    axes = zip(asked, geometry.kernel, geometry.stride.value, geometry.dilation.value, strict=True)
    for n, k, s, d in axes:
        needed = max(n, d * (k - 1) + 1)
        sides.append(-(-needed // s) * s)
    if prod(sides) > MOST_POINTS:
        raise ResourceError(
            f"layer {layer.name!r}: a periodic grid of {'×'.join(map(str, sides))} points is too fine",
            f"at most {MOST_POINTS:,} points are computed: choose a smaller grid, or leave the layer out",
        )
    return tuple(sides)


def asked_side(layer: Layer, side: int) -> int:
    """Return the side of the grid that is asked for: a rule's for this layer, else that of the run."""
    return side if layer.grid is None else layer.grid


def low_padding(geometry: ConvGeometry) -> tuple[int, ...]:
    """Return the zeros on the low side of each axis: half the kernel's reach where it is not known."""
    if geometry.padding is not None:
        return geometry.padding.value
    reach = zip(geometry.dilation.value, geometry.kernel, strict=True)
    return tuple(d * (k - 1) // 2 for d, k in reach)


def high_padding(geometry: ConvGeometry) -> tuple[int, ...]:
    """Return the zeros on the high side of each axis."""
    low = low_padding(geometry)
    reach = [d * (k - 1) for d, k in zip(geometry.dilation.value, geometry.kernel, strict=True)]
    return tuple(p + (geometry.uneven and 2 * p + 1 == r) for p, r in zip(low, reach, strict=True))


def build_weight_map(layer: Layer, read: Read, grid: int) -> LinearMap:
    """Build W for one layer.

    Args:
        layer: what to build, and from which tensors.
        read: name → tensor in its stored dtype, on the CPU; called once per tensor.
        grid: side of the periodic grid for convolutions that no rule gives another one.

    Raises:
        LayerError: the tensors do not fit together.
    """
    if isinstance(layer.weight, Product) and layer.conv is None:
        return _low_rank(layer, layer.weight, read)
    weight = _compose(layer.weight, read)
    expected = layer.shape
    if isinstance(layer.weight, Stored) and layer.conv is None:
        weight = _pick(weight, layer.weight)
        expected = layer.matrix_shape
    if tuple(weight.shape) != expected:
        raise LayerError(
            f"layer {layer.name!r}: expected a weight of shape {expected}, got {tuple(weight.shape)}"
        )
    if layer.conv is None:
        return DenseMap(weight, layer.dtype)
    return _convolution(layer, weight, grid)


def _pick(weight: torch.Tensor, recipe: Stored) -> torch.Tensor:
    import torch

    if recipe.transpose:
        weight = weight.transpose(0, 1)
    if recipe.rows is None:
        return weight
    parts = [weight[start:stop] for start, stop in recipe.rows]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _compose(recipe: Recipe, read: Read) -> torch.Tensor:
    """Return the weight as the module would use it; float64 where anything had to be computed."""
    match recipe:
        case Stored(tensor=name):
            return read(name)
        case WeightNorm(g=g, v=v, dim=dim):
            return _weight_norm(read(g).double(), read(v).double(), dim)
        case SpectralNorm(original=original, u=u, v=v, dim=dim):
            weight = read(original).double()
            flat = weight.transpose(0, dim).flatten(1)
            return weight / (read(u).double() @ (flat @ read(v).double()))
        case Product():
            left, right = read(recipe.left).double(), read(recipe.right).double()
            scale = _scale(recipe, right.shape[0], read)
            if left[0, 0].numel() != 1:
                raise LayerError(
                    f"expected a 1×1 kernel in {recipe.left!r}, got {tuple(left.shape)}",
                    "the product of two spatial kernels is not one kernel of the recorded shape",
                )
            product = left.flatten(1) @ right.flatten(1)
            return (product * scale).reshape(left.shape[0], *right.shape[1:])


def _weight_norm(g: torch.Tensor, v: torch.Tensor, dim: int | None) -> torch.Tensor:
    if dim is None:
        return g * v / v.norm()
    others = [axis for axis in range(v.ndim) if axis != dim]
    shape = [-1 if axis == dim else 1 for axis in range(v.ndim)]
    return g.reshape(shape) * v / v.norm(dim=others, keepdim=True)


def _scale(recipe: Product, rank: int, read: Read) -> float:
    return recipe.scale if recipe.alpha is None else float(read(recipe.alpha)) / rank


def _low_rank(layer: Layer, recipe: Product, read: Read) -> LowRankMap:
    left, right = read(recipe.left), read(recipe.right)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise LayerError(
            f"layer {layer.name!r}: expected factors that multiply, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    return LowRankMap(left, right, _scale(recipe, right.shape[0], read), layer.dtype)


def _convolution(layer: Layer, weight: torch.Tensor, side: int) -> ConvolutionMap:
    geometry, grid = layer.conv, grid_sides(layer, side)
    if geometry is None or grid is None:
        raise AssertionError("only called for convolutions")
    groups = geometry.groups.value
    if weight.shape[0] % groups:
        raise LayerError(
            f"layer {layer.name!r}: {groups} groups do not divide {weight.shape[0]} channels",
            "correct the number of groups",
        )
    kernel = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    low, high = low_padding(geometry), high_padding(geometry)
    return ConvolutionMap(
        kernel, geometry.stride.value, geometry.dilation.value, grid, layer.dtype, low, high
    )
