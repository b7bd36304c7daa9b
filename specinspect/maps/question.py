"""From a layer's facts and tensors to D: which diagonals its activation puts on W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specinspect.checkpoint.tensors import TensorInfo
from specinspect.errors import SettingsError
from specinspect.layers.model import Layer
from specinspect.layers.names import join
from specinspect.layers.norms import WORDS
from specinspect.layers.vocabulary import SLOPES
from specinspect.maps.activations import DERIVATIVES
from specinspect.maps.build import Read, build_weight_map, high_padding, low_padding
from specinspect.maps.model import ConvolutionMap, DenseMap, LinearMap
from specinspect.maps.normalise import PARTS, Normaliser, normaliser
from specinspect.maps.patterns import Affine, Diagonals, diagonals_at, outputs_at, probe_outputs, probe_seed

if TYPE_CHECKING:
    import torch

    from specinspect.architecture.listen import Observed
    from specinspect.maps.operator import ConvolutionOperator

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True, eq=False)
class Activated:
    """D as far as it can be told, and what had to be assumed."""

    diagonals: Diagonals | None
    """None where D is the identity."""
    assumptions: tuple[str, ...] = ()
    bad: str = ""
    """Why D cannot be told (NaN in a bias); the maps with D are then left out."""


def side_tensors(layer: Layer, tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """Return the tensors beside the weight that D depends on, as far as the checkpoint has them."""
    names = [layer.bias, layer.activation.parameter]
    norm = layer.normalization
    if norm is not None:
        names += [join(norm.name, part) for part in (_NORM_PARTS if norm.kind == "batch_norm" else PARTS)]
    if layer.skip.shortcut is not None:
        names += [*layer.skip.shortcut.parameters, *side_tensors(layer.skip.shortcut, tensors)]
    return tuple(name for name in names if name is not None and name in tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """At which inputs D is taken."""

    patterns: int
    seed: int
    """The user's; each layer draws from its own stream."""
    inputs: torch.Tensor | None = None
    """(n, in), or (n, channels, *sides) for a convolution: the user's own, for this layer."""
    observed: Observed | None = None
    """What the layer put out when the whole network was run."""
    pixels: ConvolutionOperator | None = None
    """The layer on its grid, where D is wanted for every pixel."""
    notice: str = ""
    """Why what the layer put out is not used."""


_OF_TRANSPOSED = (
    "behind a transposed convolution it is only computed for every pixel "
    "(conv_operator padded, conv_pattern pixel)"
)


def activated(
    layer: Layer, kernel: torch.Tensor, read: Read, available: frozenset[str], probes: Probes
) -> Activated:
    """Sample D for a layer.

    Args:
        layer: its activation, normalisation and bias.
        kernel: (out, in·taps), as `patterns.probe_outputs` takes it.
        read: name → tensor.
        available: names that can be read.
        probes: how many samples, and where from.

    Raises:
        SettingsError: inputs of the wrong shape, or with NaN.
    """
    import torch

    # A transposed convolution is kept as the one that it is the adjoint of: the kernel's rows are its inputs.
    transposed = layer.conv is not None and layer.conv.transposed
    out = layer.matrix_shape[0] if transposed else kernel.shape[0]
    assumptions = []
    affine, sentence = _folded(layer, out, read, available)
    assumptions += [sentence] if sentence else []
    name = layer.activation.name
    if name == "identity" and affine is None:
        return Activated(None, (*assumptions, *_left_out(layer)))
    if name not in DERIVATIVES:
        return Activated(
            None, (*assumptions, *_left_out(layer)), f"the derivative of {name} is not known here"
        )
    if transposed and probes.pixels is None:
        return Activated(None, (*assumptions, *_left_out(layer)), _OF_TRANSPOSED)
    slope = layer.activation.slope if layer.activation.slope is not None else SLOPES.get(name, 0.0)
    slopes = torch.tensor(slope, dtype=torch.float64)
    if layer.activation.parameter in available and layer.activation.parameter is not None:
        stored = read(layer.activation.parameter).to(torch.float64).flatten()
        if len(stored) in {1, out}:
            slopes = stored
    if name == "identity":  # the folded normalisation alone: D is S
        outputs = torch.zeros(1, out, dtype=torch.float64)
        return _checked(diagonals_at(outputs, affine, (name, slopes)), tuple(assumptions))
    bias = _bias(layer, out, read, available)
    # Outputs of convolutions at all places, or at some of them alone.
    whole = probes.pixels is not None or (probes.inputs is not None and layer.conv is not None)
    places = layer.conv is not None
    normalise = normaliser(layer.normalization, out, read, available, places=places, whole=whole)
    behind = normalise is not None
    if probes.observed is not None:
        behind = behind or probes.observed.normalized
        normalise = None if probes.observed.normalized else normalise
    assumptions += _region(layer, behind=behind, run=normalise is not None)
    if probes.pixels is not None:
        diagonals, how = _per_pixel(layer, probes, probes.pixels, bias, affine, (name, slopes), normalise)
        return _checked(diagonals, (*assumptions, *how))
    if probes.observed is not None:
        outputs = probes.observed.values
        outputs = outputs if normalise is None else normalise(outputs)
    else:
        outputs = _own_outputs(layer, kernel, probes, bias, normalise)
        if probes.inputs is None:
            assumptions.append("D sampled at standard normal inputs")
    return _checked(diagonals_at(outputs, affine, (name, slopes)), tuple(assumptions))


def _per_pixel(
    layer: Layer,
    probes: Probes,
    operator: ConvolutionOperator,
    bias: torch.Tensor | None,
    affine: Affine | None,
    activation: tuple[str, torch.Tensor],
    normalise: Normaliser | None,
) -> tuple[Diagonals, tuple[str, ...]]:
    """Return D for every pixel of whole images: the network's, the user's, or random ones."""
    from specinspect.maps.operator import normal_probes, pixel_diagonals_at, sample_pixel_diagonals

    if probes.observed is not None:
        z = probes.observed.values.to(operator.device).double()
        z = z if normalise is None else normalise(z)
        return pixel_diagonals_at(z.flatten(1), operator.outputs, affine, activation), ()
    how = (probes.notice,) if probes.notice else ()
    if probes.inputs is not None:
        images = _some(checked_inputs(layer, probes.inputs), layer, probes).flatten(1)
    else:
        images = normal_probes(operator, probes.patterns, probe_seed(probes.seed, layer.name))
        how = (
            *how,
            "D sampled at standard normal images, pixel by pixel",
        )
    return sample_pixel_diagonals(operator, bias, affine, activation, images, normalise), how


def _some(rows: torch.Tensor, layer: Layer, probes: Probes) -> torch.Tensor:
    """Return at most as many rows as there are to be patterns, drawn at random."""
    import torch

    if len(rows) <= probes.patterns:
        return rows
    generator = torch.Generator().manual_seed(probe_seed(probes.seed, layer.name))
    return rows[torch.randperm(len(rows), generator=generator)[: probes.patterns]]


def _folded(layer: Layer, out: int, read: Read, available: frozenset[str]) -> tuple[Affine | None, str]:
    """Return the batch normalisation that is folded into D, and what was assumed of it."""
    norm = layer.normalization
    if norm is None or norm.kind != "batch_norm":
        return None, ""
    affine = _batch_norm(norm.name, norm.eps, out, read, available)
    if affine is None or norm.source != "assumed":
        return affine, ""
    return affine, "batch normalisation taken to follow it, by its name or place, and folded in"


def _left_out(layer: Layer) -> tuple[str, ...]:
    """Say that a normalisation is in no map, where it decides no region either."""
    if layer.normalization is None or layer.normalization.kind == "batch_norm":
        return ()
    return ("the normalisation after it depends on the input and is left out of D·W",)


def _region(layer: Layer, *, behind: bool, run: bool) -> tuple[str, ...]:
    """Say on which side of a normalisation that is not folded the region is taken."""
    norm = layer.normalization
    if norm is None or norm.kind == "batch_norm":
        return ()
    what = f"{WORDS[norm.kind]} {norm.name}"
    if not behind:
        return (f"D is taken in front of {what}, which needs more than is at hand, and is left out of D·W",)
    guesses = []
    if norm.source == "assumed":
        guesses.append("taken to follow it by its name or place")
    if run and norm.eps_source == "assumed":
        guesses.append(f"ε = {norm.eps:g} assumed")
    told = f" ({', '.join(guesses)})" if guesses else ""
    return (f"D is taken behind {what}{told}, whose own Jacobian is left out of D·W",)


def _checked(diagonals: Diagonals, assumptions: tuple[str, ...]) -> Activated:
    if not bool(diagonals.values.isfinite().all()):
        return Activated(None, assumptions, "NaN or infinite values in its bias or normalisation")
    return Activated(diagonals, assumptions)


def _bias(layer: Layer, out: int, read: Read, available: frozenset[str]) -> torch.Tensor | None:
    import torch

    if layer.bias is None or layer.bias not in available:
        return None
    stored = read(layer.bias).flatten()
    if layer.bias_rows is not None:
        stored = torch.cat([stored[start:stop] for start, stop in layer.bias_rows])
    return stored.to(torch.float64) if len(stored) == out else None


def _own_outputs(
    layer: Layer,
    kernel: torch.Tensor,
    probes: Probes,
    bias: torch.Tensor | None,
    normalise: Normaliser | None,
) -> torch.Tensor:
    """Return W x + b, normalised where something follows, (patterns, out), at random inputs or the user's."""

    def finished(z: torch.Tensor) -> torch.Tensor:
        z = z if bias is None else z + bias.reshape(-1, *(1,) * (z.ndim - 2))
        return z if normalise is None else normalise(z)

    if probes.inputs is None:
        return finished(probe_outputs(kernel, probes.patterns, probe_seed(probes.seed, layer.name)))
    inputs = checked_inputs(layer, probes.inputs)
    if layer.conv is None:
        return finished(outputs_at(kernel, _some(inputs, layer, probes)))
    images = finished(_convolve(layer, kernel, inputs)).movedim(1, -1).flatten(0, -2)
    return _some(images, layer, probes)


def checked_inputs(layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
    """Return the user's inputs of a layer in float64.

    Raises:
        SettingsError: they have the wrong shape, or NaN in them.
    """
    if inputs.is_complex():
        raise SettingsError(f"--inputs: layer {layer.name!r}: expected real numbers, found complex ones")
    inputs = inputs.double()
    expected = f"(n, {layer.matrix_shape[1]}{', *sides' if layer.conv is not None else ''})"
    axes = 2 if layer.conv is None else 2 + len(layer.conv.kernel)
    if inputs.ndim != axes or inputs.shape[1] != layer.matrix_shape[1] or not inputs.numel():
        raise SettingsError(
            f"--inputs: layer {layer.name!r}: expected an array of shape {expected} with at least one "
            f"example, got {tuple(inputs.shape)}"
            if not inputs.numel()
            else f"--inputs: layer {layer.name!r}: expected an array of shape {expected}, "
            f"got {tuple(inputs.shape)}"
        )
    if layer.conv is not None and layer.conv.transposed:
        raise SettingsError(f"--inputs: layer {layer.name!r}: not supported for a transposed convolution")
    if not bool(inputs.isfinite().all()):
        raise SettingsError(f"--inputs: layer {layer.name!r}: NaN or infinite values in the inputs")
    return inputs


def _convolve(layer: Layer, kernel: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return the layer's own convolution, without bias, of (n, channels, *sides)."""
    from torch.nn import functional

    geometry = layer.conv
    if geometry is None:
        raise AssertionError("only called for convolutions")
    weight = kernel.to(inputs.dtype).cpu().reshape(kernel.shape[0], -1, *geometry.kernel)
    try:
        convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(geometry.kernel)]
        ends = zip(low_padding(geometry), high_padding(geometry), strict=True)
        return convolve(
            functional.pad(inputs, [zeros for pair in ends for zeros in reversed(pair)][::-1]),
            weight,
            stride=geometry.stride.value,
            dilation=geometry.dilation.value,
            groups=geometry.groups.value,
        )
    except RuntimeError as error:
        raise SettingsError(
            f"--inputs: layer {layer.name!r}: inputs of {tuple(inputs.shape)} are too small for its kernel"
        ) from error


def _batch_norm(name: str, eps: float, out: int, read: Read, available: frozenset[str]) -> Affine | None:
    import torch

    parts = {
        part: read(f"{name}.{part}").to(torch.float64).flatten()
        for part in _NORM_PARTS
        if f"{name}.{part}" in available
    }
    if not {"running_mean", "running_var"} <= set(parts) or any(len(p) != out for p in parts.values()):
        return None
    one, zero = torch.ones(out, dtype=torch.float64), torch.zeros(out, dtype=torch.float64)
    scale = parts.get("weight", one) / (parts["running_var"] + eps).sqrt()
    return Affine(scale, parts.get("bias", zero) - scale * parts["running_mean"])


def projection_map(
    layer: Layer, linear: LinearMap, read: Read, available: frozenset[str]
) -> LinearMap | None:
    """Return A of a layer's skip in float64, its batch normalisation folded in; None where A is an isometry.

    Its dtype stays that of the stored weight, whose rounding it carries.

    Args:
        layer: whose `skip.shortcut` is meant.
        linear: W of that layer, whose periodic grid A shares.
        read: name → tensor.
        available: names that can be read.

    Raises:
        LayerError: A's tensors do not fit together.
    """
    import torch

    shortcut = layer.skip.shortcut
    if shortcut is None:
        return None
    side = max(linear.grid) if isinstance(linear, ConvolutionMap) else 1
    found = build_weight_map(shortcut, read, side)
    affine, _ = _folded(shortcut, shortcut.matrix_shape[0], read, available)
    scale = torch.ones(shortcut.matrix_shape[0], dtype=torch.float64) if affine is None else affine.scale
    if isinstance(found, DenseMap):
        return DenseMap(found.matrix.to(torch.float64) * scale[:, None], found.dtype)
    if isinstance(found, ConvolutionMap) and isinstance(linear, ConvolutionMap):
        kernel = found.kernel.to(torch.float64)
        kernel = kernel * scale.reshape(1, -1, *(1,) * (kernel.ndim - 2))
        return replace(found, kernel=kernel, grid=linear.grid)
    return None
