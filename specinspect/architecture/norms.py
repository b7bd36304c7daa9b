"""Which handwritten modules are layer or RMS normalisations, by what they compute instead of their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

_GAINS = ("weight", "gamma", "scale")
_SHIFTS = ("bias", "beta")
_ROWS = 5


@dataclass(frozen=True, slots=True)
class NormFacts:
    """(offset + gain)·x̂ + shift, with x̂ = x/√(mean(x²) + ε), and x centred before where it is layer norm."""

    kind: Literal["layer_norm", "rms_norm"]
    eps: float
    offset: float = 0.0
    """1 where the gain is stored less 1 (Gemma)."""


_FOUND: WeakKeyDictionary[nn.Module, NormFacts] = WeakKeyDictionary()


def learn_norms(network: nn.Module) -> Mapping[str, NormFacts]:
    """Return path → what is known of every handwritten normalisation, and remember it for `norm_facts`.

    Modules are called, so this must not happen while their calls are being recorded.
    """
    found = {}
    for path, module in network.named_modules(remove_duplicate=False):
        _FOUND.pop(module, None)
        facts = identify_norm(module)
        if facts is not None:
            _FOUND[module] = found[path] = facts
    return found


def norm_facts(module: nn.Module) -> NormFacts | None:
    """Return what `learn_norms` found out about a module."""
    return _FOUND.get(module)


def identify_norm(module: nn.Module) -> NormFacts | None:
    """Compare a module's values, with random gains in place of its own, with those of normalisations.

    Only modules without parts whose tensors are one vector of gains, and perhaps one of shifts, over the last
    axis. torch's own are known by their class.
    """
    names = _vectors(module)
    if names is None:
        return None
    gain_name, shift_name, width = names
    generator = torch.Generator().manual_seed(0)
    gain, shift = torch.rand(2, width, generator=generator, dtype=torch.float64) + 0.5
    tensors = {gain_name: gain, **({shift_name: shift} if shift_name else {})}
    x = torch.randn(_ROWS, width, generator=generator, dtype=torch.float64)

    def call(value: Tensor) -> Tensor | None:
        try:
            with torch.no_grad(), torch.device("cpu"):
                result = functional_call(module, tensors, (value,))
        except (Exception, SystemExit):  # foreign code
            return None
        same = isinstance(result, Tensor) and result.shape == value.shape and not result.is_meta
        return result.double() - (shift if shift_name else 0.0) if same else None

    # ε is told by inputs so small that it weighs as much as they do.
    small = x * torch.logspace(-3, -2, _ROWS, dtype=torch.float64)[:, None]
    at_small, at_large = call(small), call(x)
    if at_small is None or at_large is None:
        return None
    for offset in (0.0, 1.0):
        for centred in (False, True):
            eps = _eps(small, at_small / (offset + gain), centred=centred)
            if eps is None:
                continue
            expected = (offset + gain) * _normalised(x, eps, centred=centred)
            if torch.allclose(at_large, expected, rtol=1e-4, atol=1e-5):
                return NormFacts("layer_norm" if centred else "rms_norm", eps, offset)
    return None


def _vectors(module: nn.Module) -> tuple[str, str, int] | None:
    """Return the names of gain and shift ('' for none) and their length, None if it is no candidate."""
    if next(module.children(), None) is not None or type(module).__module__.startswith("torch."):
        return None
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    gain = next((name for name in _GAINS if name in own), "")
    shift = next((name for name in _SHIFTS if name in own), "")
    if not gain or set(own) != {name for name in (gain, shift) if name}:
        return None
    shapes = {tuple(tensor.shape) for tensor in own.values() if not nn.parameter.is_lazy(tensor)}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or shape[0] < 2:
        return None
    return gain, shift, shape[0]


def _normalised(x: Tensor, eps: float, *, centred: bool) -> Tensor:
    x = x - x.mean(-1, keepdim=True) if centred else x
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def _eps(x: Tensor, unit: Tensor, *, centred: bool) -> float | None:
    """Return the ε for which x normalised is `unit`, None if there is no single one."""
    x = x - x.mean(-1, keepdim=True) if centred else x
    square = x.square().mean(-1)
    shrunk = unit.square().mean(-1)
    if not bool(((shrunk > 0) & (shrunk < 1 + 1e-4)).all()):
        return None
    eps = square / shrunk - square
    middle = float(eps.median())
    if float((eps - middle).abs().max()) > 1e-2 * abs(middle) + 1e-4 * float(square.min()):
        return None
    rounded = float(f"{max(middle, 0.0):.2g}")
    return rounded if rounded > 1e-13 else 0.0
