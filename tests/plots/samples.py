"""Constructed spectra: their values are known, so pictures can be checked against them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from specinspect.plots.series import Series
from specinspect.spectra.summary import histogram


def chain_values(count: int = 256) -> NDArray[np.float64]:
    """Return a quarter circle's tail with four tiny singular values, descending."""
    bulk = 2.5 * np.cos(np.linspace(0.05, math.pi / 2 - 0.02, count - 4))
    return np.concatenate([bulk, [4e-3, 5e-4, 4e-4, 8.4e-7]])


def skip_values(count: int = 256) -> NDArray[np.float64]:
    return np.linspace(1.5, 0.54, count)


def chain() -> Series:
    return Series("chain", "chain", chain_values(), legend="σmax 2.50  σmin 8.40e-7  κ 2.97e6")


def skip() -> Series:
    return Series("skip", "skip", skip_values(), legend="σmax 1.50  σmin 0.540  κ 2.78")


def binned(series: Series) -> Series:
    """Return the same spectrum when only its histogram was kept."""
    assert series.values is not None
    return Series(series.name, series.style, None, histogram(series.values), series.legend)


def number(label: str) -> float:
    """Return what a tick label says: 0.5, 1e-3 or 10⁻³."""
    powers = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    raised = label[2:].translate(powers) if label[2:] != label[2:].translate(powers) else None
    return float(f"1e{raised}") if raised is not None else float(label)
