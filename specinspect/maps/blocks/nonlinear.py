"""Stages whose derivative depends on the input: activations, gates, normalisations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from specinspect.maps.activations import DERIVATIVES
from specinspect.maps.blocks.functions import FUNCTIONS
from specinspect.maps.blocks.linear import Dense
from specinspect.maps.blocks.stage import Diagonal, Matrix, Piece, Stored, along

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """An activation."""

    name: str
    slope: Tensor
    """(), or (channels,)."""
    stored: tuple[Stored, ...] = ()
    varies: bool = True

    def run(self, x: Tensor) -> Tensor:
        """Return φ(x)."""
        return FUNCTIONS[self.name](x, along(self.slope, x))

    def derivative(self, x: Tensor) -> Tensor:
        """Return φ′(x); x is (batch, channels, *grid)."""
        return DERIVATIVES[self.name](x, along(self.slope, x))  # type: ignore[arg-type]

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return φ′(x)·v."""
        return self.derivative(x) * v

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return φ′(x)·w."""
        return self.tangent(x, w)

    def piece(self, x: Tensor) -> Piece:
        """Return D."""
        return Diagonal(self.derivative(x[None])[0])


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """φ(gate(x)) ∘ up(x); its Jacobian is diag(φ(g))·W_u + diag(φ′(g)∘u)·W_g."""

    gate: Dense
    up: Dense
    activation: Elementwise
    stored: tuple[Stored, ...] = ()
    varies: bool = True

    def run(self, x: Tensor) -> Tensor:
        """Return φ(gate(x)) ∘ up(x)."""
        return self.activation.run(self.gate.run(x)) * self.up.run(x)

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return φ(g) and φ′(g)∘u."""
        g = self.gate.run(x)
        return self.activation.run(g), self.activation.derivative(g) * self.up.run(x)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the Jacobian times v."""
        on_up, on_gate = self.factors(x)
        return on_up * self.up.tangent(x, v) + on_gate * self.gate.tangent(x, v)

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the adjoint Jacobian times w."""
        on_up, on_gate = self.factors(x)
        return self.up.cotangent(x, on_up * w) + self.gate.cotangent(x, on_gate * w)

    def piece(self, x: Tensor) -> Piece:
        """Return the Jacobian."""
        on_up, on_gate = self.factors(x[None])
        return Matrix(on_up[0][:, None] * self.up.matrix + on_gate[0][:, None] * self.gate.matrix)


@dataclass(frozen=True, slots=True, eq=False)
class Normalizer:
    """Layer or RMS normalisation over the channels, with its own derivative."""

    centred: bool
    gain: Tensor | None
    shift: Tensor | None
    eps: float
    stored: tuple[Stored, ...] = ()
    varies: bool = True

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x̂ and 1/σ."""
        if self.centred:
            x = x - x.mean(1, keepdim=True)
        inverse = (x.square().mean(1, keepdim=True) + self.eps).rsqrt()
        return x * inverse, inverse

    def run(self, x: Tensor) -> Tensor:
        """Return gain·x̂ + shift."""
        y, _ = self._normalised(x)
        y = y if self.gain is None else along(self.gain, y) * y
        return y if self.shift is None else y + along(self.shift, y)

    def _project(self, x: Tensor, v: Tensor) -> Tensor:
        """Return (I - 11ᵀ/n - x̂x̂ᵀ/n)v/σ, without the middle term where x is not centred."""
        unit, inverse = self._normalised(x)
        if self.centred:
            v = v - v.mean(1, keepdim=True)
        return inverse * (v - unit * (unit * v).mean(1, keepdim=True))

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the Jacobian times v."""
        v = self._project(x, v)
        return v if self.gain is None else along(self.gain, v) * v

    def cotangent(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the adjoint Jacobian times w."""
        return self._project(x, w if self.gain is None else along(self.gain, w) * w)

    def piece(self, x: Tensor) -> Piece:
        """Return the Jacobian."""
        identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
        return Matrix(self.tangent(x[None], identity).T)
