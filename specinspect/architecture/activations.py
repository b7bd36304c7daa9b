"""Which activation a module, a function call or a small formula is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from specinspect.architecture.model import Activation

IDENTITY = Activation("identity")

_PLAIN = frozenset({
    "relu", "abs", "selu", "silu", "mish", "tanh", "sigmoid", "hardswish", "hardsigmoid", "relu6",
    "softsign", "tanhshrink", "logsigmoid", "softmax", "log_softmax", "softmin", "sin", "cos", "exp", "erf",
    "square",
})  # fmt: skip
"""Activations without parameters that matter here (softmax's axis does not)."""

_OTHER_NAMES = {
    "absolute": "abs",
    "swish": "silu",
    "special_expit": "sigmoid",
    "expit": "sigmoid",
    "softmax2d": "softmax",
    "log_sigmoid": "logsigmoid",
}

_PARAMETERS: Mapping[str, Sequence[tuple[str, float]]] = {
    "leaky_relu": (("negative_slope", 0.01),),
    "elu": (("alpha", 1.0),),
    "celu": (("alpha", 1.0),),
    "hardtanh": (("min_val", -1.0), ("max_val", 1.0)),
    "softplus": (("beta", 1.0), ("threshold", 20.0)),
    "threshold": (("threshold", 0.0), ("value", 0.0)),
    "hardshrink": (("lambd", 0.5),),
    "softshrink": (("lambd", 0.5),),
    "rrelu": (("lower", 1 / 8), ("upper", 1 / 3)),
}
"""Parameters of the others, in the order of torch.nn.functional, with their defaults."""

_SLOPED = frozenset({"leaky_relu", "elu", "celu"})
HOMOGENEOUS = frozenset({"identity", "relu", "leaky_relu", "abs", "prelu"})
"""φ(c·z) = c·φ(z) for c > 0: a scale before them can be read as one after them."""


def of_module(module: nn.Module, path: str) -> Activation | None:
    """Return what a torch.nn activation module applies, or None if it is none."""
    if not type(module).__module__.startswith("torch.nn.modules.activation"):
        return None
    if isinstance(module, nn.PReLU):
        return Activation("prelu", parameter=f"{path}.weight" if path else "weight")
    if isinstance(module, nn.GELU):
        return Activation("gelu_tanh" if module.approximate == "tanh" else "gelu")
    name = _module_names().get(type(module))
    return None if name is None else _named(name, [], vars(module))


def of_call(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Activation | None:
    """Return what a call of torch, torch.nn.functional or a tensor method applies, or None.

    Args:
        name: of the function, without the underscore of in-place ones.
        arguments: positional ones after the tensor.
        keywords: keyword arguments.
    """
    name = _OTHER_NAMES.get(name, name)
    if name == "gelu":
        approximate = keywords.get("approximate", arguments[0] if arguments else "none")
        return Activation("gelu_tanh" if approximate == "tanh" else "gelu")
    if name in _PLAIN or name in _PARAMETERS:
        return _named(name, arguments, keywords)
    return None


def _named(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Activation | None:
    if name in _PLAIN:
        return Activation(name)
    values: list[float] = []
    for place, (key, default) in enumerate(_PARAMETERS[name]):
        value = arguments[place] if place < len(arguments) else keywords.get(key, default)
        if not isinstance(value, (int, float)):
            return None
        values.append(float(value))
    defaults = [default for _, default in _PARAMETERS[name]]
    return _with_values(name, values, defaults)


def _with_values(name: str, values: list[float], defaults: list[float]) -> Activation:
    if name in _SLOPED:
        return Activation(name, values[0])
    if name == "hardtanh" and values == [0.0, 6.0]:
        return Activation("relu6")
    if name == "threshold" and values == [0.0, 0.0]:
        return Activation("relu")
    if name == "rrelu":  # its slope is random in training, and the mean in use
        return Activation("leaky_relu", sum(values) / 2)
    return Activation(name if values == defaults else f"{name}({', '.join(map(str, values))})")


@cache
def _module_names() -> Mapping[type[nn.Module], str]:
    names = {
        "ReLU": "relu", "ReLU6": "relu6", "LeakyReLU": "leaky_relu", "ELU": "elu", "SELU": "selu",
        "CELU": "celu", "SiLU": "silu", "Mish": "mish", "Tanh": "tanh", "Sigmoid": "sigmoid",
        "Softplus": "softplus",
        "Hardtanh": "hardtanh", "Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid", "Softmax": "softmax",
        "Softmax2d": "softmax", "LogSoftmax": "log_softmax", "Softmin": "softmin", "Softsign": "softsign",
        "Tanhshrink": "tanhshrink", "LogSigmoid": "logsigmoid", "Threshold": "threshold", "RReLU": "rrelu",
        "Hardshrink": "hardshrink", "Softshrink": "softshrink",
    }  # fmt: skip
    return {getattr(nn, kind): name for kind, name in names.items()}


def probe() -> torch.Tensor:
    """Return the points at which an unknown elementwise function is compared with the known ones.

    4 rows of 8: most activations do not mind the shape, and softmax must differ from every elementwise one.
    Far enough out to tell what is cut off at 6, as in ReLU6, and at 20 from ReLU.
    """
    inner = torch.linspace(-7.3, 6.9, 30, dtype=torch.float64, device="cpu")
    return torch.cat([inner.new_tensor([-30.0]), inner, inner.new_tensor([30.0])]).reshape(4, 8)


def identify(function: Callable[[torch.Tensor], Any]) -> Activation | None:
    """Evaluate an unknown function of one tensor and return the activation that has the same values.

    Formulas written out by hand (x·sigmoid(x), the tanh form of GELU, a custom autograd function) are
    recognised by what they do rather than by their names.
    """
    point = probe()
    try:
        with torch.no_grad(), torch.device("cpu"):
            value = function(point.clone())
    except (Exception, SystemExit):  # foreign code
        return None
    if not isinstance(value, torch.Tensor) or value.shape != point.shape or value.is_meta:
        return None
    value = value.to(torch.float64)
    for candidate, known in _candidates().items():
        if torch.allclose(value, known, rtol=1e-6, atol=1e-6):
            return candidate
    positive = point > 0
    slope = value[~positive] / point[~positive]
    if torch.allclose(value[positive], point[positive]) and torch.allclose(slope, slope[0]):
        return Activation("leaky_relu", round(float(slope[0]), 9))
    return None


@cache
def _candidates() -> Mapping[Activation, torch.Tensor]:
    x = probe()
    return {
        IDENTITY: x,
        Activation("relu"): F.relu(x),
        Activation("relu_squared"): F.relu(x) ** 2,
        Activation("abs"): x.abs(),
        Activation("relu6"): F.relu6(x),
        Activation("hardtanh"): F.hardtanh(x),
        Activation("elu", 1.0): F.elu(x),
        Activation("selu"): F.selu(x),
        Activation("gelu"): F.gelu(x),
        Activation("gelu_tanh"): F.gelu(x, approximate="tanh"),
        Activation("quick_gelu"): x * torch.sigmoid(1.702 * x),
        Activation("silu"): F.silu(x),
        Activation("mish"): F.mish(x),
        Activation("tanh"): torch.tanh(x),
        Activation("sigmoid"): torch.sigmoid(x),
        Activation("softplus"): F.softplus(x),
        Activation("softsign"): F.softsign(x),
        Activation("hardswish"): F.hardswish(x),
        Activation("hardsigmoid"): F.hardsigmoid(x),
        Activation("square"): x**2,
    }
