"""How tight are the bounds on κ(I + W) of random layers? Riedi and others, Figures 6 and 7, in the terminal.

    python samples/riedi_bounds.py

W is n×n with independent entries of standard deviation c/√n, Gaussian or uniform. Beside the condition
numbers of such layers stand what is guaranteed at this n with probability 0.99 (MATH R21: rigorous for
Gaussian entries, and its Tracy-Widom form) and the limits for wide layers (MATH R22, R23). Riedi,
Balestriero, Baraniuk: Singular Value Perturbation and Deep Network Optimization.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specinspect.bounds import random_matrix as rm
from specinspect.bounds.random_skip import expected, guaranteed

Array = NDArray[np.float64]
DELTA = 0.01
SCALE = 0.25
"""c of the first picture."""
WIDTHS = (8, 16, 32, 64, 128, 256)
WIDTH = 64
"""n of the second picture."""
SCALES = tuple(float(c) for c in np.linspace(0.05, 0.65, 9))
REALISATIONS = 40
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Condition numbers along one axis; infinite where a bound says nothing."""

    title: str
    axis: str
    at: Array
    """(points,): n or c."""
    simulated: Array
    """(families, points, realisations): Gaussian and uniform entries."""
    bounds: Mapping[str, Array]
    """Name → (points,)."""


def kappas(n: int, c: float, count: int, rng: np.random.Generator, *, uniform: bool) -> Array:
    """Return κ(I + W) of `count` fresh layers."""
    shape = (count, n, n)
    w = rng.uniform(-np.sqrt(3), np.sqrt(3), shape) if uniform else rng.standard_normal(shape)
    values = np.linalg.svd(np.eye(n) + c / np.sqrt(n) * w, compute_uv=False)
    return np.asarray(values[:, 0] / values[:, -1])


def study(axis: str, points: Sequence[tuple[int, float]], count: int, seed: int = SEED) -> Study:
    """Simulate and bound layers of the given widths and scales.

    Args:
        axis: 'n' or 'c': what varies.
        points: (n, c).
        count: simulated layers per point and family.
        seed: of the layers.
    """
    rng = np.random.default_rng(seed)
    simulated = [[kappas(n, c, count, rng, uniform=uniform) for n, c in points] for uniform in (False, True)]
    c = np.array([c for _, c in points])
    bounds = {
        f"rigorous, probability {1 - DELTA:g} (r21.gauss)": np.array(
            [guaranteed((n, n), c, DELTA, 1.0, 1.0).kappa for n, c in points]
        ),
        "the same for every ReLU pattern (r21.alld)": np.array(
            [guaranteed((n, n), c, DELTA, 0.0, 1.0).kappa for n, c in points]
        ),
        "Tracy-Widom (r21.tw)": np.array([expected((n, n), c, DELTA).kappa for n, c in points]),
        "n → ∞, paper's (121) (r22.121)": rm.limit_121(c),
        "n → ∞, numerical range (r22.nr)": rm.limit_nr(c),
        "n → ∞, exact (r23)": rm.limit_kappa(c),
    }
    held = f"c = {points[0][1]:g}, n = {points[0][0]} to {points[-1][0]}"
    if axis == "c":
        held = f"n = {points[0][0]}, c = {points[0][1]:g} to {points[-1][1]:g}"
    at = np.array([p[0] if axis == "n" else p[1] for p in points], dtype=np.float64)
    return Study(f"κ(I + W), {held}", axis, at, np.array(simulated), bounds)


def compute(
    widths: Sequence[int] = WIDTHS,
    scales: Sequence[float] = SCALES,
    width: int = WIDTH,
    count: int = REALISATIONS,
) -> tuple[Study, Study]:
    """Return both pictures' data: over n at one c, and over c at one n."""
    return (
        study("n", [(n, SCALE) for n in widths], count),
        study("c", [(width, c) for c in scales], count),
    )


def plot(found: Study, width: int, rows: int) -> str:
    """Draw κ on a logarithmic axis: at each place # from the least to the largest simulated, then the bounds.

    Args:
        found: what to draw.
        width: columns of the whole picture, labels included.
        rows: lines of the plot itself.
    """
    low, high = found.simulated.min((0, 2)), found.simulated.max((0, 2))
    bounds = list(found.bounds.values())
    top = min(max(b[np.isfinite(b)].max() for b in bounds), 10 * high.max())
    scale = (rows - 1) / np.log(top)
    step = (width - 10) // len(found.at)
    cells = np.full((rows, step * len(found.at)), " ")

    def row(kappa: float) -> int:
        return rows - 1 - round(np.log(kappa) * scale)

    for place in range(len(found.at)):
        x = place * step
        cells[row(high[place]) : row(low[place]) + 1, x] = "#"
        for letter, (offset, bound) in zip("abcdef", enumerate(bounds, 1), strict=True):
            if bound[place] <= top:
                cells[row(bound[place]), x + offset] = letter
    lines = [found.title]
    for y in range(rows):
        label = f"{np.exp((rows - 1 - y) / scale):8.3g}" if y in {0, rows // 2, rows - 1} else " " * 8
        lines.append(f"{label} |{''.join(cells[y])}".rstrip())
    below = "".join(f"{value:<{step}.3g}" for value in found.at)
    lines.append(f"{found.axis:>8}  {below}".rstrip())
    return "\n".join(lines)


def table(found: Study) -> str:
    """Return the numbers behind the picture: medians and maxima of the simulation, and the bounds."""
    names = "".join(f"{letter:>9}" for letter in "abcdef")
    lines = [f"{found.axis:>6}  {'median':>8}{'largest':>9}{names}"]
    for i in range(len(found.at)):
        values = found.simulated[:, i].ravel()
        bounds = "".join(f"{b[i]:9.3f}" if np.isfinite(b[i]) else f"{'-':>9}" for b in found.bounds.values())
        lines.append(f"{found.at[i]:6.3g}  {np.median(values):8.3f}{values.max():9.3f}{bounds}")
    return "\n".join(lines)


def render(studies: Sequence[Study], width: int = 80, *, ascii_only: bool = False) -> str:
    """Return both pictures, what the letters mean, and the numbers."""
    parts = []
    for found in studies:
        parts += [plot(found, width, 18), "", table(found), ""]
    legend = [f"  {letter}  {name}" for letter, name in zip("abcdef", studies[0].bounds, strict=True)]
    count = studies[0].simulated.shape[2]
    parts += [f"  #  simulated: {count} Gaussian and {count} uniform layers, least to largest κ", *legend]
    text = "\n".join(parts)
    for symbol, plain in (("κ", "kappa"), ("→", "->"), ("∞", "oo")):
        text = text.replace(symbol, plain) if ascii_only else text
    return text


def main() -> None:
    """Compute and print, in ASCII where the terminal has nothing else."""
    encoding = (sys.stdout.encoding or "ascii").lower()
    ascii_only = not encoding.startswith("utf") or os.environ.get("TERM") == "dumb"
    print(render(compute(), ascii_only=ascii_only))


if __name__ == "__main__":
    main()
