"""What the detail panes show: plain data that the app hands them, so that no pane computes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from specinspect.comparison.model import LayerComparison
    from specinspect.layers.model import Layer
    from specinspect.report.model import BlockResult, Finding, LayerResult
    from specinspect.spectra.model import SkipCurve, Spectrum

State = Literal["pending", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Live:
    """One map at the ρ, β, activation and pattern that are set now."""

    sigma_max: float | None
    sigma_min: float | None
    condition_number: float | None
    """None where it is infinite or not resolved."""
    exact: bool
    """False: interpolated along a curve; shown with '≈' and the word."""
    spectrum: Spectrum | None = None
    """Of which the picture is drawn. None: the picture stays that of the last exact one, and says so; the
    extremes above are drawn into it as lines."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What theory guarantees along β; lists of equal length, β ascending."""

    beta: tuple[float, ...]
    kappa: tuple[float | None, ...]
    """Largest κ that is possible; None where the bound is vacuous."""
    label: str
    """Id in the catalogue of bounds, such as 'r4.sharp'."""


@dataclass(frozen=True, slots=True)
class PaneView:
    """Everything a pane may show. Every field has a default: panes show what there is.

    The app makes a new one on every change (`dataclasses.replace`) and calls `show` of the pane in sight.
    """

    layer: Layer | None = None
    """The selected one; None where none is (an empty filter)."""
    state: State = "pending"
    """Of the selected layer."""
    result: LayerResult | None = None
    """Of the selected layer. An old one may stay while the state is 'running' again after an edit."""
    partial: bool = False
    """Whether `result` has the weight alone so far."""
    reason: str = ""
    """Why the selected layer failed, or waits: one line."""

    rho: float = 1.0
    beta: float = 1.0
    live: Mapping[str, Live] = field(default_factory=dict)
    """Map → what it is at ρ and β ('skip', 'skip_chain') or at a chosen activation or pattern ('chain'). One
    that is absent is taken from `result`, which is then at the settings of the run."""
    run_rho: float = 1.0
    """At which `result` was computed."""
    run_beta: float = 1.0
    skip_curve: SkipCurve | None = None
    """Extremes of ρI + βW along β, at today's ρ; None until it is computed."""
    chain_curve: SkipCurve | None = None
    """The same of ρI + β·D·W, where there is one."""
    guarantees: tuple[Guarantee, ...] = ()
    """Guaranteed bounds along β, at today's ρ, on κ of ρI + βW."""

    block: BlockResult | None = None
    """Of the residual block, MLP or attention that the selected layer is part of."""
    on_block: bool = False
    """Whether the block is shown rather than the layer, in the panes that can."""
    block_live: Live | None = None
    """ρA + βJ at today's ρ and β; None where they are the run's, and until it is known."""
    block_curve: SkipCurve | None = None
    """Extremes of ρA + βJ at the β that were measured so far, at today's ρ."""
    block_stays: str = ""
    """Why the block is not measured at other ρ and β than the run's."""

    comparison: LayerComparison | None = None
    """The weight of the selected layer in this checkpoint and in a second one."""
    all_maps: bool = False
    """Whether all its maps are wanted."""
    compared_maps: LayerComparison | None = None
    """All its maps in both; None until they are computed."""
    compared_at: tuple[float, float] | None = None
    """ρ and β of `compared_maps`."""
    compared_not: str = ""
    """Why they could not be computed."""

    activation: str = "auto"
    """What is chosen for D of the selected layer."""
    activations: tuple[str, ...] = ()
    """What may be chosen, in the order of the switch."""
    pattern: int | None = None
    """Which sampled pattern is shown, from 0; None: the median over all."""
    patterns: int = 0
    """How many there are."""

    layers: tuple[Layer, ...] = ()
    """All of the run, in checkpoint order."""
    results: tuple[LayerResult, ...] = ()
    """Those that are done, in checkpoint order."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Layer → why it failed."""
    findings: tuple[Finding, ...] = ()

    plain: bool = False
    """ASCII only: for a locale without Unicode."""
    dark: bool = True
    """Which theme the pictures' colours suit. NO_COLOR needs no field: Textual drops colours, and no
    picture needs them."""
