"""Everything a user can set, in one plain object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from specinspect.errors import SettingsError
from specinspect.layers.rules import Rule

MAPS = ("weight", "chain", "skip", "skip_chain")
"""W, D·W, ρI + βW and ρI + β·D·W."""


LARGEST_GRID = 4096
MOST_PATTERNS = 1_000_000
LARGEST_WEIGHT = 1e100
"""Of ρ and β: sums with larger ones leave float64."""
_KINDS: Mapping[str, tuple[type, ...]] = {
    "layers": (list, tuple),
    "exclude": (list, tuple),
    "key": (str, type(None)),
    "maps": (list, tuple),
    "beta": (float, int),
    "rho": (float, int),
    "activation": (str,),
    "model": (str, type(None)),
    "model_args": (str, type(None)),
    "inputs": (str, type(None)),
    "patterns": (int,),
    "seed": (int,),
    "grid": (int,),
    "conv_operator": (str,),
    "conv_pattern": (str,),
    "device": (str,),
    "jobs": (int, type(None)),
    "spectra": (bool,),
    "curve": (bool,),
    "blocks": (bool,),
    "compose": (list, tuple),
    "bounds": (bool,),
    "target_kappa": (float, int),
    "delta": (float, int),
    "init": (str, type(None)),
    "quantities": (str,),
    "cache": (bool,),
}
INITS = ("kaiming", "xavier", "pytorch-default")
"""Initialisations that set the scale of fresh weights; beside them std:X."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options shared by every way in; the defaults are the contract's."""

    layers: Sequence[str] = ()
    """Globs: only layers whose name matches one (all, if empty)."""
    exclude: Sequence[str] = ()
    """Globs: layers left out."""
    key: str | None = None
    """Dotted path of the state dict inside a file that nests several."""
    maps: Sequence[str] = MAPS
    """Which maps to report; the weight's is always among them."""
    beta: float = 1.0
    """Weight of the branch in the skip map ρI + βW."""
    rho: float = 1.0
    """Weight of the skip."""
    activation: str = "auto"
    """What D is made of, for every layer; auto takes it from the facts."""
    model: str | None = None
    """MODULE:FACTORY: code to run that builds the network, to read activations, strides and skips from."""
    model_args: str | None = None
    """JSON arguments of the factory."""
    inputs: str | None = None
    """File of the user's own inputs: arrays named after layers, or with `model` one batch."""
    rules: Sequence[Rule] = ()
    """What the user says about layers; the last rule that matches counts."""
    patterns: int = 8
    """Sampled activation regions per layer."""
    seed: int = 0
    blocks: bool = True
    """Also measure residual blocks, MLPs and attention products as a whole."""
    compose: Sequence[str] = ()
    """Chains to measure as blocks, named by hand: layer names joined by ':', applied from left to right."""
    curve: bool = False
    """Also compute the extremes of ρI + βW for β from 0 to 2."""
    grid: int = 16
    """Side of the periodic grid for convolutions."""
    conv_operator: str = "circular"
    """'circular': on a periodic grid, by Fourier blocks; 'padded': with the layer's own zeros around it."""
    conv_pattern: str = "channel"
    """Whether D has one entry per 'channel' or per 'pixel' of a convolution's output."""
    device: str = "auto"
    jobs: int | None = None
    """Layers in flight at once; None takes it from the cores."""
    spectra: bool = False
    """Keep all singular values."""
    bounds: bool = True
    """Also judge what theory guarantees of the maps."""
    target_kappa: float = 10.0
    """The κ(ρI + βW) that the advice aims at."""
    delta: float = 0.01
    """A probabilistic bound may fail with this probability, over all layers together."""
    init: str | None = None
    """How the weights were drawn: 'kaiming', 'xavier', 'pytorch-default' or 'std:X'; None estimates their
    scale from the entries."""
    quantities: str = "spectrum"
    """How much of each W: the whole 'spectrum', 'sigma_max' alone, or what the 'entries' tell (NaN, zeros);
    less than the spectrum only for weights by themselves."""
    cache: bool = False
    """Read and write the result cache. On for the command line; off from Python, where nothing is written to
    disk unasked, and where weights are often new every time (a training loop)."""

    @property
    def wants_bounds(self) -> bool:
        """Whether bounds are computed: never for weights alone, which they would slow down."""
        return self.bounds and set(self.maps) != {"weight"} and self.quantities == "spectrum"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            SettingsError: a number out of range.
        """
        self._check_types()
        self._check_numbers()
        self._check_choices()

    def _check_types(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise SettingsError(f"{name}: expected {kinds[0].__name__}, got {value!r}")

    def _check_numbers(self) -> None:
        if not 1 <= self.grid <= LARGEST_GRID:
            raise SettingsError(f"--grid: expected a whole number from 1 to {LARGEST_GRID}, got {self.grid}")
        if not 1 <= self.patterns <= MOST_PATTERNS:
            raise SettingsError(
                f"--patterns: expected a whole number from 1 to {MOST_PATTERNS}, got {self.patterns}"
            )
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"--seed: expected a whole number from 0 to 2^63 - 1, got {self.seed}")
        for name, value in (("--beta", self.beta), ("--rho", self.rho)):
            if not isfinite(value) or abs(value) > LARGEST_WEIGHT:
                raise SettingsError(f"{name}: expected a number within ±{LARGEST_WEIGHT:g}, got {value}")
        if self.beta == self.rho == 0:
            raise SettingsError("--rho and --beta are both 0: the skip map would be zero", "set one of them")
        if not (isfinite(self.target_kappa) and self.target_kappa > 1):
            raise SettingsError(f"--target-kappa: expected a number above 1, got {self.target_kappa}")
        if not 0 < self.delta < 1:
            raise SettingsError(f"--delta: expected a probability between 0 and 1, got {self.delta}")
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"--jobs: expected a whole number of at least 1, got {self.jobs}")

    def _check_choices(self) -> None:
        unknown = [name for name in self.maps if name not in MAPS]
        if unknown or not self.maps:
            raise SettingsError(
                f"--maps: expected some of {', '.join(MAPS)}, got {', '.join(unknown) or 'none'}"
            )
        for name, known in (
            ("conv_operator", ("circular", "padded")),
            ("conv_pattern", ("channel", "pixel")),
            ("quantities", ("spectrum", "sigma_max", "entries")),
        ):
            if getattr(self, name) not in known:
                option = "--" + name.replace("_", "-")
                raise SettingsError(f"{option}: expected {' or '.join(known)}, got {getattr(self, name)!r}")
        if self.quantities != "spectrum" and set(self.maps) != {"weight"}:
            raise SettingsError(f"quantities {self.quantities}: expected maps weight alone")
        if self.conv_pattern == "pixel" and self.conv_operator == "circular":
            raise SettingsError(
                "--conv-pattern pixel: a D that differs from pixel to pixel has no Fourier blocks",
                "add --conv-operator padded",
            )
        if self.init is not None and self.init not in INITS and _init_std(self.init) is None:
            raise SettingsError(
                f"--init: expected {', '.join(INITS)} or std:X with X above 0, got {self.init!r}"
            )

    def deciding(self, device: str) -> dict[str, Any]:
        """Return all that decides a number, for the report."""
        return {
            "layers": list(self.layers),
            "exclude": list(self.exclude),
            "key": self.key,
            "maps": list(self.maps),
            "beta": self.beta,
            "rho": self.rho,
            "activation": self.activation,
            "model": self.model,
            "model_args": self.model_args,
            "inputs": self.inputs,
            "rules": [
                {key: value for key, value in asdict(rule).items() if value is not None}
                for rule in self.rules
            ],
            "patterns": self.patterns,
            "seed": self.seed,
            "blocks": self.blocks,
            "compose": list(self.compose),
            "curve": self.curve,
            "grid": self.grid,
            "conv_operator": self.conv_operator,
            "conv_pattern": self.conv_pattern,
            "device": device,
            "spectra": self.spectra,
            "bounds": self.bounds,
            "target_kappa": self.target_kappa,
            "delta": self.delta,
            "init": self.init,
            "quantities": self.quantities,
        }


def _init_std(text: str) -> float | None:
    """Return X of 'std:X', None where it is no positive number."""
    kind, _, number = text.partition(":")
    try:
        std = float(number)
    except ValueError:
        return None
    return std if kind == "std" and isfinite(std) and std > 0 else None
