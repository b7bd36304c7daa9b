"""What bounds are computed from: all singular values of a layer's maps, and a few numbers of its entries.

Arrays, kept only until the layer's bounds are known. A convolution has one row per Fourier block (MATH R63),
a dense layer one row in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PatternQuantities:
    """The maps of one sampled activation pattern."""

    diagonal: NDArray[np.float64]
    """(out,): D."""
    chain: NDArray[np.float64]
    """(blocks, k) singular values of D·W, descending; rows that D zeroes count as zeros."""
    skip_chain: NDArray[np.float64] | None
    """(blocks, k) of ρA + β·D·W; None where there is no skip map."""
    tau: NDArray[np.float64] | None
    """(blocks, 2): smallest and largest eigenvalue of AᴴDM + (DM)ᴴA; None where it was not computed."""


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Moments of the stored entries of a weight, finite ones only."""

    shape: tuple[int, int]
    """(rows, columns) of the matrix of entries: of a convolution (out, in·taps)."""
    largest: float
    """max |w|."""
    mean: float
    standard_deviation: float
    """Around zero: the root of the mean square."""
    skewness: float
    excess_kurtosis: float
    row_norms: NDArray[np.float64]
    """(rows,) Euclidean."""
    column_norms: NDArray[np.float64]
    """(columns,) Euclidean."""
    taps: int | None = None
    """Of a convolution: points of its kernel, so that columns = in·taps; None for a dense layer."""


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionQuantities:
    """The skip maps of a layer beside a shortcut A that is a layer of the checkpoint."""

    extremes: tuple[float, float]
    """Smallest and largest of the min(m, n) singular values of A, over all blocks."""
    skip: NDArray[np.float64]
    """(blocks, k) of ρA + βM."""
    skip_chain: tuple[NDArray[np.float64], ...]
    """(blocks, k) of ρA + β·D·W, one per pattern."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerQuantities:
    """Everything that the bounds of one layer rest on. M stands for W."""

    kind: str
    """The layer's: linear, conv2d, …"""
    shape: tuple[int, int]
    """(m, n) of the map, for a convolution of one Fourier block."""
    rho: float
    beta: float
    shortcut: str
    """'identity', 'rectangular-identity', 'average-pool' or 'none'."""
    weight: NDArray[np.float64]
    """(blocks, k) singular values of M, descending, k = min(m, n)."""
    multiplicity: NDArray[np.int64]
    """(blocks,): how often each block counts."""
    skip: NDArray[np.float64] | None
    """(blocks, k) of ρA + βM; None where there is no skip map, and beside a projection."""
    tau: NDArray[np.float64] | None
    """(blocks, k) eigenvalues, descending, of AᴴM + MᴴA (m >= n) or AMᴴ + MAᴴ (m < n); for A = I those of
    M + Mᴴ (MATH §0, R1''). None where A is no isometry."""
    floor: float
    """Absolute accuracy of the smallest singular values (the computation floor of the weight)."""
    entries: Entries | None
    patterns: tuple[PatternQuantities, ...]
    """Empty where D is the identity."""
    activation: str
    """Canonical name of the activation that D is of."""
    projection: ProjectionQuantities | None = None
    """What the results on any shortcut rest on; those on isometries see no skip map beside it."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockPattern:
    """The maps of a block at one sampled input."""

    chain: NDArray[np.float64]
    """(frequencies, k) singular values of J, descending, structural zeros among them."""
    skip: NDArray[np.float64]
    """(frequencies, k) of ρA + βJ."""
    tau: NDArray[np.float64] | None
    """Eigenvalues, descending, of AᴴJ + JᴴA (m >= n) or AJᴴ + JAᴴ (m < n) over c, where all singular values
    of A are c (MATH R1''). (frequencies, k); for k > 2 also (frequencies, 2), what all of them lie between.
    None where A is no such multiple of an isometry."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockQuantities:
    """Everything that the bounds of one block beside its shortcut A rest on. M stands for J."""

    shape: tuple[int, int]
    """(m, n) of the map, for convolutions of one output frequency."""
    identity: bool
    """Whether A is the identity."""
    periodic: bool
    """Whether there is one matrix per frequency of a periodic grid."""
    rho: float
    beta: float
    shortcut: tuple[float, float]
    """Smallest and largest of the min(m, n) singular values of A, over all frequencies."""
    multiplicity: NDArray[np.int64]
    """(frequencies,): how often each counts."""
    patterns: tuple[BlockPattern, ...]
