"""Everything a user can set, in one plain object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specinspect.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Settings:
    """Options shared by every way in; the defaults are the contract's."""

    layers: Sequence[str] = ()
    """Globs: only layers whose name matches one (all, if empty)."""
    exclude: Sequence[str] = ()
    """Globs: layers left out."""
    key: str | None = None
    """Dotted path of the state dict inside a file that nests several."""
    grid: int = 16
    """Side of the periodic grid for convolutions."""
    device: str = "auto"
    jobs: int | None = None
    """Layers in flight at once; None takes it from the cores."""
    spectra: bool = False
    """Keep all singular values."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            SettingsError: a number out of range.
        """
        if self.grid < 1:
            raise SettingsError(f"--grid: expected a whole number of at least 1, got {self.grid}")
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"--jobs: expected a whole number of at least 1, got {self.jobs}")

    def deciding(self, device: str) -> dict[str, Any]:
        """Return all that decides a number, for the report."""
        return {
            "layers": list(self.layers),
            "exclude": list(self.exclude),
            "key": self.key,
            "grid": self.grid,
            "device": device,
            "spectra": self.spectra,
        }
