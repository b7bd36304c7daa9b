"""What the stored dtype does to a spectrum: the rounding floor.

Each entry is taken to carry an independent error, uniform in ± half a unit in the last place: variance
ulp²/12. A random m × n matrix with entries of standard deviation s has spectral norm s(√m + √n) (MATH R19).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import hypot, isfinite, sqrt

import torch

MANTISSA_BITS: Mapping[str, int] = {"f64": 52, "f32": 23, "f16": 10, "bf16": 7, "f8_e4m3": 3, "f8_e5m2": 2}
SMALLEST_EXPONENT: Mapping[str, int] = {
    "f64": -1022, "f32": -126, "f16": -14, "bf16": -126, "f8_e4m3": -6, "f8_e5m2": -14,
}  # fmt: skip
_EXPONENT_BITS = {
    torch.float64: (torch.int64, 0x7FF0_0000_0000_0000),
    torch.float32: (torch.int32, 0x7F80_0000),
}


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
    rms_ulp: float
    """Root mean square of the units in the last place of all entries, exact zeros counted as exact."""
    live_rows: torch.Tensor
    """(m,) bool: rows with a non-zero entry."""
    live_columns: torch.Tensor
    """(n,) bool."""

    @property
    def nonfinite(self) -> int:
        """NaN and infinite entries."""
        return self.nan + self.infinite

    def turned(self) -> Scan:
        """Return the scan of the transposed matrix."""
        return replace(self, live_rows=self.live_columns, live_columns=self.live_rows)

    def describe_nonfinite(self) -> str:
        """Say how many NaN and infinite entries there are."""
        return f"{self.nan:,} NaN and {self.infinite:,} infinite of {self.entries:,} entries"


def scan(blocks: Iterator[torch.Tensor], columns: int, dtype: str) -> Scan:
    """Read row blocks (rows, columns) in float32 or float64 once; `dtype` is the one that was stored."""
    nan = infinite = entries = 0
    largest, ulp_norm = 0.0, 0.0
    rows: list[torch.Tensor] = []
    live_columns = torch.zeros(columns, dtype=torch.bool)
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
        # Clearing the mantissa leaves 2^e, the unit in the last place up to a constant.
        integers, exponent = _EXPONENT_BITS[magnitude.dtype]
        zero = magnitude == 0
        power = magnitude.view(integers).bitwise_and_(exponent).view(magnitude.dtype)
        power.clamp_min_(tiny).masked_fill_(zero, 0.0)
        # In units of the largest, so that squares stay within float64 whatever the scale.
        unit = max(float(power.amax()), tiny)
        ulp_norm = hypot(
            ulp_norm, unit * float(torch.linalg.vector_norm(power.div_(unit), dtype=torch.float64))
        )
    rms = ulp_norm / sqrt(entries) * 2.0 ** -MANTISSA_BITS[dtype] if entries else 0.0
    live_rows = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.bool)
    return Scan(entries, nan, infinite, largest, rms, live_rows, live_columns)


def storage_floor(rms_ulp: float, rows: int, columns: int) -> float:
    """Return the spectral norm to expect of the rounding error of a (rows, columns) matrix."""
    return rms_ulp / sqrt(12.0) * (sqrt(rows) + sqrt(columns))
