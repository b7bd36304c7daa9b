"""Singular values grow and eccentricity falls as a skip is added: the toy network of Riedi and others, §6.3.

    python samples/riedi_toy.py

Four layers 2 → 6 → 6 → 6 → 6, leaky ReLU of slope 0.1, Gaussian weights, eight realisations. Each layer's
map is D·W + ρA with A the identity (rectangular in the first layer) and D the activation's pattern at a
random point; the product of the four is an input-output map of the network. Riedi, Balestriero, Baraniuk:
Singular Value Perturbation and Deep Network Optimization; growth of a layer's singular values: MATH R1.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from specinspect.maps import DenseMap
from specinspect.spectra.compute import measure
from specinspect.spectra.family import Family, RectangularIdentity
from specinspect.spectra.plan import Plan

WIDTHS = (2, 6, 6, 6, 6)
SLOPE = 0.1
REALISATIONS = 8
RHOS = tuple(i / 20 for i in range(21))
SEED = 0
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Toy:
    """Over all realisations, for each ρ; eccentricity is σ_max/σ_min."""

    rho: tuple[float, ...]
    layers: Array
    """(realisations, layers, ρ): eccentricity of each layer's map."""
    values: Array
    """(realisations, ρ, 2): singular values of the input-output map, descending."""

    @property
    def eccentricity(self) -> Array:
        """(realisations, ρ): of the input-output map."""
        return np.asarray(self.values[..., 0] / self.values[..., 1])


def compute(seed: int = SEED, rhos: Sequence[float] = RHOS) -> Toy:
    """Draw the networks and follow them from the plain chain (ρ = 0) to the residual network (ρ = 1)."""
    generator = torch.Generator().manual_seed(seed)
    layers = np.zeros((REALISATIONS, len(WIDTHS) - 1, len(rhos)))
    values = np.zeros((REALISATIONS, len(rhos), WIDTHS[0]))
    for r in range(REALISATIONS):
        products = [torch.eye(WIDTHS[0], dtype=torch.float64) for _ in rhos]
        for index, (inn, out) in enumerate(itertools.pairwise(WIDTHS)):
            w = torch.randn(out, inn, generator=generator, dtype=torch.float64) / out**0.5
            bias = torch.randn(out, generator=generator, dtype=torch.float64)
            point = torch.randn(inn, generator=generator, dtype=torch.float64)
            d = torch.where(w @ point + bias > 0, 1.0, SLOPE)
            family = Family.of((d[:, None] * w)[None], RectangularIdentity())
            for k, rho in enumerate(rhos):
                solution = family.skip(rho, 1.0).values[0]
                layers[r, index, k] = float(solution[0] / solution[-1])
                products[k] = (d[:, None] * w + rho * torch.eye(out, inn, dtype=torch.float64)) @ products[k]
        found = measure([DenseMap(p, "f64") for p in products], Plan("cpu"), keep_values=True)
        for k, measured in enumerate(found):
            values[r, k] = measured.spectrum.singular_values
    return Toy(tuple(rhos), layers, values)


def mean(values: Array) -> Array:
    """Return the geometric mean over the first axis."""
    return np.asarray(np.exp(np.log(values).mean(0)))


def plot(
    title: str, curves: Sequence[Array], rhos: Sequence[float], width: int, rows: int, *, ascii_only: bool
) -> str:
    """Draw curves over ρ on a logarithmic axis, in braille dots or in ASCII.

    Args:
        title: above the picture.
        curves: each of len(rhos) positive values.
        rhos: ascending.
        width: columns of the whole picture, labels included.
        rows: lines of the plot itself.
        ascii_only: one asterisk per cell instead of 2 × 4 dots.
    """
    columns = width - 10
    across, down = (columns, rows) if ascii_only else (2 * columns, 4 * rows)
    logs = [np.log10(curve) for curve in curves]
    low, high = min(c.min() for c in logs), max(c.max() for c in logs)
    at = np.linspace(rhos[0], rhos[-1], across)
    dots = np.zeros((down, across), dtype=bool)
    for curve in logs:
        heights = (np.interp(at, rhos, curve) - low) / max(high - low, 1e-12)
        dots[np.rint((1 - heights) * (down - 1)).astype(int), np.arange(across)] = True
    lines = [title]
    for row in range(rows):
        if ascii_only:
            cells = "".join("*" if dot else " " for dot in dots[row])
        else:
            cells = "".join(braille(dots[4 * row : 4 * row + 4, 2 * c : 2 * c + 2]) for c in range(columns))
        value = 10 ** (high - (high - low) * row / max(rows - 1, 1))
        label = f"{value:8.3g}" if row in {0, rows // 2, rows - 1} else ""
        lines.append(f"{label:>8} {'|' if ascii_only else '│'}{cells}".rstrip())
    left, right = f"{rhos[0]:g}", f"{rhos[-1]:g}"
    middle = "rho" if ascii_only else "ρ"
    lines.append(" " * 10 + left + middle.center(columns - len(left) - len(right)) + right)
    return "\n".join(lines)


def braille(dots: NDArray[np.bool_]) -> str:
    """Return the character of 4 × 2 dots."""
    bits = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
    return chr(0x2800 + sum(bits[y][x] for y in range(4) for x in range(2) if dots[y, x]))


def render(toy: Toy, width: int = 80, *, ascii_only: bool = False) -> str:
    """Return the two pictures and what they say."""
    kappas, singular = mean(toy.eccentricity), mean(toy.values)
    per_layer = mean(toy.layers.reshape(-1, len(toy.rho)))
    last = f"{'rho' if ascii_only else 'ρ'} = {toy.rho[0]:g} and {toy.rho[-1]:g}"
    return "\n".join(
        [
            plot(
                "singular values of the input-output map, mean of 8 networks",
                [singular[:, 0], singular[:, 1]],
                toy.rho, width, 9, ascii_only=ascii_only,
            ),
            "",
            plot(
                "its eccentricity, and that of a layer's own map (upper)",
                [kappas, per_layer],
                toy.rho, width, 9, ascii_only=ascii_only,
            ),
            "",
            f"at {last}:",
            f"  smallest singular value  {singular[0, 1]:.3g}  {singular[-1, 1]:.3g}",
            f"  largest singular value   {singular[0, 0]:.3g}  {singular[-1, 0]:.3g}",
            f"  eccentricity             {kappas[0]:.3g}  {kappas[-1]:.3g}",
            f"  of a layer               {per_layer[0]:.3g}  {per_layer[-1]:.3g}",
        ]
    )  # fmt: skip


def main() -> None:
    """Compute and print, in ASCII where the terminal has nothing else."""
    encoding = (sys.stdout.encoding or "ascii").lower()
    ascii_only = not encoding.startswith("utf") or os.environ.get("TERM") == "dumb"
    print(render(compute(), ascii_only=ascii_only))


if __name__ == "__main__":
    main()
