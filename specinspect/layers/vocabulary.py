"""The names of activations: canonical ones, how libraries spell them, and the classes that apply them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite

from specinspect.checkpoint.model import ModuleFacts
from specinspect.errors import SettingsError
from specinspect.layers.model import Activation, Layer, Source

CANONICAL = frozenset({
    "identity", "relu", "leaky_relu", "prelu", "abs", "relu6", "hardtanh", "hardsigmoid", "hardswish", "elu",
    "celu", "selu", "gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "tanh", "sigmoid", "softplus",
})  # fmt: skip
"""The activations whose derivative is known."""

SLOPES: Mapping[str, float] = {"leaky_relu": 0.01, "prelu": 0.25, "elu": 1.0, "celu": 1.0}
"""Those that take a slope (elu and celu: α), with its default."""

_ALIASES: Mapping[str, str] = {
    "none": "identity", "linear": "identity", "swish": "silu", "absolute": "abs",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh", "gelu_python": "gelu",
    "quickgelu": "quick_gelu", "leakyrelu": "leaky_relu", "hard_swish": "hardswish",
    "hard_sigmoid": "hardsigmoid",
}  # fmt: skip

_CLASSES: Mapping[str, str] = {
    "Identity": "identity", "ReLU": "relu", "ReLU6": "relu6", "LeakyReLU": "leaky_relu", "PReLU": "prelu",
    "ELU": "elu", "CELU": "celu", "SELU": "selu", "GELU": "gelu", "SiLU": "silu", "Swish": "silu",
    "SwishMe": "silu", "Mish": "mish", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid", "Hardtanh": "hardtanh", "GELUTanh": "gelu_tanh",
    "GELUActivation": "gelu", "NewGELUActivation": "gelu_tanh", "PytorchGELUTanh": "gelu_tanh",
    "QuickGELUActivation": "quick_gelu", "QuickGELU": "quick_gelu", "SiLUActivation": "silu",
}  # fmt: skip
"""Classes of torch, timm and transformers."""

_OTHER_CLASSES = frozenset({
    "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "Softsign", "Tanhshrink", "LogSigmoid", "Threshold",
    "RReLU", "Hardshrink", "Softshrink", "GLU",
})  # fmt: skip
"""Activations that have no canonical name."""


def canonical(text: str) -> str | None:
    """Return the canonical name of a spelling, None where there is none."""
    name = text.strip().lower().replace("-", "_")
    name = _ALIASES.get(name, name)
    return name if name in CANONICAL else None


def parse_activation(text: str, where: str = "") -> tuple[str, float | None]:
    """Turn 'relu' or 'leaky_relu:0.2' into a canonical name and a slope.

    Raises:
        SettingsError: unknown, or a slope that makes no sense; `where` says who asked for it.
    """
    lead = f"{where}: " if where else ""
    spelling, colon, slope = text.partition(":")
    name = canonical(spelling)
    if name is None:
        close = get_close_matches(spelling.strip().lower(), CANONICAL, n=1)
        known = f"known are {', '.join(sorted(CANONICAL))}"
        hint = f"did you mean {close[0]}? {known}" if close else known
        raise SettingsError(f"{lead}unknown activation {text!r}", hint)
    if not colon:
        return name, SLOPES.get(name)
    if name not in SLOPES:
        raise SettingsError(f"{lead}activation {name!r} takes no slope, got {slope!r}", f"write {name}")
    try:
        value = float(slope)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise SettingsError(f"{lead}activation {name!r}: expected a number after the colon, got {slope!r}")
    return name, value


def usable(
    name: str, source: Source, slope: float | None = None, parameter: str | None = None
) -> tuple[Activation, str]:
    """Return an activation and a sentence, empty where its derivative is known.

    What has no known derivative (softmax, which mixes channels, among them) is left out of D and said so.
    """
    known = canonical(name)
    if known is None:
        sentence = f"activation {name}{_LEFT_OUT}"
        return Activation("identity", "assumed"), sentence
    if known in SLOPES and parameter is None and (slope is None or not isfinite(slope)):
        slope = SLOPES[known]
    return Activation(known, source, slope if known in SLOPES else None, parameter), ""


_LEFT_OUT = " after it left out: its derivative is not known here"


def left_out(layer: Layer) -> str:
    """Return the name of the activation after a layer whose derivative is not known, '' without one."""
    for sentence in layer.assumptions:
        name, found, _ = sentence.partition(_LEFT_OUT)
        if found:
            return name.removeprefix("activation ")
    return ""


def of_class(facts: ModuleFacts) -> tuple[str, float | None] | None:
    """Return name and slope of the activation that a module applies, None if it is none.

    A name that is not canonical is one without a known derivative.
    """
    name = _CLASSES.get(facts.type)
    if name is None:
        return (facts.type, None) if facts.type in _OTHER_CLASSES else None
    value = facts.attributes.get
    if name == "gelu" and value("approximate") == "tanh":
        return "gelu_tanh", None
    if name == "hardtanh":
        ends = value("min_val", -1.0), value("max_val", 1.0)
        if ends == (0.0, 6.0):
            return "relu6", None
        if ends != (-1.0, 1.0):
            return f"hardtanh({ends[0]}, {ends[1]})", None
    if name == "softplus" and (value("beta", 1), value("threshold", 20)) != (1, 20):
        return "softplus with its own β", None
    slope = value("negative_slope" if name == "leaky_relu" else "alpha") if name in SLOPES else None
    return name, float(slope) if isinstance(slope, int | float) else None
