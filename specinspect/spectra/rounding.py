"""What the stored dtype does to a spectrum: the rounding floor.

Each entry is taken to carry an independent error, uniform in ± half a unit in the last place: variance
ulp²/12. The spectral norm of a random matrix with independent entries is, up to fluctuations, the largest
root-mean-square norm of a row plus that of a column (Bandeira and van Handel 2016); with equal variances s²
that is s(√m + √n) (MATH R19).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

import torch

MANTISSA_BITS: Mapping[str, int] = {"f64": 52, "f32": 23, "f16": 10, "bf16": 7, "f8_e4m3": 3, "f8_e5m2": 2}
SMALLEST_EXPONENT: Mapping[str, int] = {
    "f64": -1022, "f32": -126, "f16": -14, "bf16": -126, "f8_e4m3": -6, "f8_e5m2": -14,
}  # fmt: skip
_EXPONENT_BITS = {
    torch.float64: (torch.int64, 0x7FF0_0000_0000_0000),
    torch.float32: (torch.int32, 0x7F80_0000),
}


SCANNED = 256
"""Rows per block of a scan: small enough that memory is used again rather than asked for anew every time."""


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the smaller of float32 and float64 that holds every value of a dtype: what `scan` reads."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What one pass over the stored entries tells."""

    entries: int
    nan: int
    infinite: int
    largest: float
    """Largest |entry|; 0 where there is none."""
    row_ulp: float
    """Largest Euclidean norm of a row of units in the last place; exact zeros have none."""
    column_ulps: torch.Tensor
    """(n,) float64: the same norm of every column."""
    live_rows: torch.Tensor
    """(m,) bool: rows with a non-zero entry."""
    live_columns: torch.Tensor
    """(n,) bool."""

    @property
    def nonfinite(self) -> int:
        """NaN and infinite entries."""
        return self.nan + self.infinite

    @property
    def floor(self) -> float:
        """Spectral norm to expect of the rounding error."""
        return storage_floor(self.row_ulp, float(self.column_ulps.amax()))

    def describe_nonfinite(self) -> str:
        """Say how many NaN and infinite entries there are."""
        return f"{self.nan:,} NaN and {self.infinite:,} infinite of {self.entries:,} entries"


def scan(blocks: Iterator[torch.Tensor], columns: int, dtype: str, *, floors: bool = True) -> Scan:
    """Read row blocks (rows, columns) in float32 or float64 once; `dtype` is the one that was stored.

    Without `floors` the units in the last place are left out (zero), which is most of the work.
    """
    nan = infinite = entries = 0
    largest = row_ulp = 0.0
    rows: list[torch.Tensor] = []
    live_columns = torch.zeros(columns, dtype=torch.bool)
    column_ulps = torch.zeros(columns, dtype=torch.float64)
    tiny = 2.0 ** SMALLEST_EXPONENT[dtype]
    for block in blocks:
        entries += block.numel()
        magnitude = block.abs()
        column_peaks, row_peaks = magnitude.amax(0), magnitude.amax(1)
        peak = float(column_peaks.amax())
        if not isfinite(peak):  # amax passes NaN on, so this sees every bad entry
            nan += int(block.isnan().sum())
            infinite += int(block.isinf().sum())
        largest = max(largest, peak)
        rows.append((row_peaks != 0).cpu())
        live_columns |= (column_peaks != 0).cpu()
        if not floors:
            continue
        power = powers_of_two(magnitude, tiny)
        # In units of the largest, so that squares stay within float64 whatever the scale.
        unit = max(float(power.amax()), tiny)
        power.div_(unit)
        row_ulp = max(row_ulp, unit * float(_norms(power, 1).amax()))
        column_ulps = torch.hypot(column_ulps, unit * _norms(power, 0).cpu())
    live_rows = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.bool)
    last = 2.0 ** -MANTISSA_BITS[dtype]
    return Scan(entries, nan, infinite, largest, row_ulp * last, column_ulps * last, live_rows, live_columns)


def powers_of_two(magnitude: torch.Tensor, tiny: float) -> torch.Tensor:
    """Turn finite |entries|, float32 or float64, in place into their 2^e, at least `tiny`; zeros stay zero.

    That is the unit in the last place, up to a constant.
    """
    integers, exponent = _EXPONENT_BITS[magnitude.dtype]  # clearing the mantissa leaves 2^e
    zero = magnitude == 0
    power = magnitude.view(integers).bitwise_and_(exponent).view(magnitude.dtype)
    return power.clamp_min_(tiny).masked_fill_(zero, 0.0)


def _norms(matrix: torch.Tensor, axis: int) -> torch.Tensor:
    # In the block's own precision: entries are at most 1, and a few digits are enough.
    return torch.linalg.vector_norm(matrix, dim=axis).to(torch.float64)


def storage_floor(row_ulp: float, column_ulp: float) -> float:
    """Return the spectral norm to expect of a rounding error, from its largest row and column of ulps."""
    return (row_ulp + column_ulp) / sqrt(12.0)
