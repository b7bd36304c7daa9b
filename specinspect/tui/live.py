"""One layer at whatever ρ, β and pattern are set: interpolated at once, exact a moment later.

ρI + βW = ρ(I + tW) with t = β/ρ, so singular values at one t serve every (ρ, β) on its ray, and between two
known t they are interpolated one by one: each is a Lipschitz function of t with constant ‖W‖ (MATH R2).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from specinspect.tui.view import Live
from specinspect.tui.work import Studied, StudiedBlock, Work, reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from specinspect.engine import Inspection
    from specinspect.layers.blocks import Block
    from specinspect.layers.model import Layer
    from specinspect.spectra.model import SkipCurve, Spectrum

RAYS = (1.0, 0.5, 0.25, 0.75, 1.5, 2.0, 1.25, 1.75, 0.125, 0.375, 0.625, 0.875, 1.125, 1.375, 1.625, 1.875)
"""β/ρ at which whole spectra are computed once there is nothing else to do, the most useful first."""
CURVE = tuple(2.0 * i / 32 for i in range(33))
"""β/ρ of the curve of κ."""
QUICK_BLOCK = 2.0
"""Seconds of one measurement up to which a block is also measured where nobody has been yet."""
CURVE_STEP, CURVE_MOST = 8, 97
"""Points that are added to the curve at once where a peak may be hidden, and points in all."""
CURVE_GAP = 2.0 / 1024
"""Shortest distance of its points: less than a dot of the widest picture."""
QUICK_COLUMNS = 1024
"""Beyond this the curve is made of the spectra at RAYS: more points would take too long."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is set for the selected layer."""

    index: int
    layer: Layer
    rho: float
    beta: float
    pattern: int | None = None
    epoch: int = 0
    """Grows with every selection: what was learned before has been forgotten by the app."""
    block: Block | None = None
    """That is shown rather than the layer."""


@dataclass(slots=True)
class Rays:
    """Spectra of one map along t = β/ρ."""

    exact: dict[float, Spectrum] = field(default_factory=dict)
    """t → the spectrum at ρ = 1."""
    order: list[float] = field(default_factory=list)

    def add(self, t: float, spectrum: Spectrum) -> None:
        """Take in a spectrum."""
        if t not in self.exact:
            insort(self.order, t)
        self.exact[t] = spectrum

    def at(self, rho: float, beta: float) -> Live | None:
        """Return the map at ρ and β as far as it is known: exact, interpolated, or None."""
        if rho == 0:
            return None
        t = beta / rho
        if t in self.exact:
            return live(scaled(self.exact[t], abs(rho)), exact=True)
        right = bisect_left(self.order, t)
        if right in {0, len(self.order)}:
            return None
        low, high = self.order[right - 1], self.order[right]
        mixed = between(self.exact[low], self.exact[high], (t - low) / (high - low))
        return None if mixed is None else live(scaled(mixed, abs(rho)), exact=False)

    def curve(self) -> SkipCurve | None:
        """Return the extremes at every known t ≥ 0, for ρ = 1."""
        from specinspect.spectra.model import SkipCurve

        known = [(t, self.exact[t]) for t in self.order if t >= 0]
        rows = [(t, s.sigma_max, s.sigma_min, s.condition_number) for t, s in known]
        whole = [(t, top, low, k) for t, top, low, k in rows if top is not None and low is not None]
        if len(whole) < 2:
            return None
        return SkipCurve(
            tuple(row[0] for row in whole),
            tuple(row[1] for row in whole),
            tuple(row[2] for row in whole),
            tuple(row[3] for row in whole),
        )


def live(spectrum: Spectrum, *, exact: bool) -> Live:
    """Return what a pane shows of a spectrum."""
    return Live(spectrum.sigma_max, spectrum.sigma_min, spectrum.condition_number, exact, spectrum)


def scaled(spectrum: Spectrum, factor: float) -> Spectrum:
    """Return the spectrum of a map times a positive factor: ratios stay."""
    if factor == 1:
        return spectrum

    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    histogram = spectrum.histogram
    return replace(
        spectrum,
        sigma_max=times(spectrum.sigma_max),
        sigma_min=times(spectrum.sigma_min),
        frobenius_norm=times(spectrum.frobenius_norm),
        storage_floor=times(spectrum.storage_floor),
        computation_floor=times(spectrum.computation_floor),
        histogram=histogram and replace(histogram, edges=tuple(edge * factor for edge in histogram.edges)),
        singular_values=None if spectrum.singular_values is None else spectrum.singular_values * factor,
        patterns=None if factor != 1 else spectrum.patterns,
    )


def between(first: Spectrum, second: Spectrum, share: float) -> Spectrum | None:
    """Interpolate two spectra of one layer, singular value by singular value."""
    from specinspect.spectra.summary import summarise

    a, b = first.singular_values, second.singular_values
    if a is None or b is None or len(a) != len(b) or not len(a):
        return None
    values: NDArray[np.float64] = a * (1 - share) + b * share
    floors = [
        max(getattr(first, name) or 0.0, getattr(second, name) or 0.0)
        for name in ("storage_floor", "computation_floor")
    ]
    return summarise(
        values,
        structural_zeros=int((values == 0).sum()),
        storage_floor=floors[0],
        computation_floor=floors[1],
        method="interpolated along β/ρ",
        device=first.device,
        keep_values=True,
    )


def at_rho(curve: SkipCurve | None, rho: float) -> SkipCurve | None:
    """Return the curve of ρI + βW from that of I + tW."""
    if curve is None or rho == 0:
        return None
    if rho == 1:
        return curve
    from specinspect.spectra.model import SkipCurve

    size = abs(rho)
    rows = sorted(
        zip(curve.beta, curve.sigma_max, curve.sigma_min, curve.condition_number, strict=True),
        key=lambda row: row[0] * rho,
    )
    return SkipCurve(
        tuple(t * rho for t, *_ in rows),
        tuple(size * top for _, top, _, _ in rows),
        tuple(size * low for _, _, low, _ in rows),
        tuple(kappa for *_, kappa in rows),
    )


@dataclass(frozen=True, slots=True)
class Learned:
    """Something new about the selected layer: to be merged on the app's thread."""

    setting: Setting
    patterns: int = 0
    skip: tuple[float, Spectrum] | None = None
    """t, and the spectrum of I + tW."""
    skip_chain: tuple[float, Spectrum] | None = None
    at_zero: Mapping[str, Spectrum] = field(default_factory=dict)
    """Maps at ρ = 0, for today's β."""
    chain: Spectrum | None = None
    """Of today's pattern."""
    curve: SkipCurve | None = None
    block: tuple[float, Spectrum] | None = None
    """t, and the spectrum of A + tJ of `setting.block`."""
    block_at_zero: Spectrum | None = None
    """Of βJ, at ρ = 0, for today's β."""
    block_stays: str = ""
    """Why the block is not measured at other ρ and β."""
    problem: str = ""


class Lens:
    """The thread that looks at the selected layer. Only the latest setting counts.

    Args:
        work: the engine.
        hand_over: called on the thread with everything that is learned; must not block.
    """

    def __init__(self, work: Work, hand_over: Callable[[Learned], None]) -> None:
        self._work, self._hand_over = work, hand_over
        self._lock = threading.Condition()
        self._asked: tuple[Inspection, Setting, Spectrum] | None = None
        self._stopped = self._busy = False
        self._study: tuple[Layer, Studied | None] | None = None
        self._block: tuple[Block, StudiedBlock | None] | None = None
        self._block_seconds = 0.0
        """That the block took the last time."""
        self._curve: SkipCurve | None = None
        """κ of I + tW, as far as the app has been told."""
        self._epoch = -1
        self._told: set[tuple[str, float, int | None]] = set()
        """What the app has been told in this epoch."""

    def look(self, inspection: Inspection, setting: Setting, weight: Spectrum) -> None:
        """Ask for a layer at a setting; what was asked before and is not begun is forgotten."""
        with self._lock:
            if self._asked is None:
                threading.Thread(target=self._loop, name="specinspect-lens", daemon=True).start()
            self._asked = (inspection, setting, weight)
            self._busy = True
            self._lock.notify_all()

    @property
    def busy(self) -> bool:
        """Whether something is still being looked at."""
        return self._busy

    def stop(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()

    def _loop(self) -> None:
        done: tuple[Inspection, Setting, Spectrum] | None = None
        while True:
            with self._lock:
                while not self._stopped and self._asked is done:
                    self._busy = False
                    self._lock.wait()
                if self._stopped or self._asked is None:
                    return
                done = self._asked
            try:
                self._answer(*done)
            except Exception as error:  # whatever it is, it belongs on the screen
                self._hand_over(Learned(done[1], problem=reason(error)))

    def _answer(self, inspection: Inspection, setting: Setting, weight: Spectrum) -> None:
        import torch

        with torch.inference_mode():
            if self._epoch != setting.epoch:
                self._epoch = setting.epoch
                self._told.clear()
                self._block = self._curve = None
            try:
                block = self._block_of(inspection, setting)
                if block is not None:
                    self._block_now(block, setting)
            except Exception as error:  # the layer is still to be had
                block = None
                self._hand_over(Learned(setting, block_stays=reason(error)))
            if self._study is None or self._study[0] is not setting.layer:
                self._study = None  # or two layers would be held
                self._study = (setting.layer, self._work.study(inspection, setting.layer, weight))
            study = self._study[1]
            if study is not None:
                self._now(study, setting)
            if block is not None:
                self._block_rest(block, setting)
            if study is not None:
                self._rest(study, setting, weight.sigma_max or 0.0)

    def _block_of(self, inspection: Inspection, setting: Setting) -> StudiedBlock | None:
        """Return the block that is shown, ready to be measured; the app is told where it cannot be."""
        if setting.block is None:
            return None
        if self._block is None or self._block[0] != setting.block:
            self._block = (setting.block, self._work.block(inspection, setting.block))
        study = self._block[1]
        if study is None and self._new(setting, f"block {setting.block.name} stays", 0.0, None):
            self._hand_over(Learned(setting, block_stays="too large to follow"))
        return study

    def _block_now(self, block: StudiedBlock, setting: Setting) -> None:
        """Measure the block at today's ρ and β."""
        if setting.rho == 0:
            found = block.skip(0.0, setting.beta)
            if found is not None:
                self._hand_over(Learned(setting, block_at_zero=found))
        else:
            self._block_at(block, setting, setting.beta / setting.rho)

    def _block_rest(self, block: StudiedBlock, setting: Setting) -> None:
        """Measure it where the next change may lead, if that is quick and nothing else is asked for."""
        for t in RAYS:
            if self._block_seconds < QUICK_BLOCK:
                self._block_at(block, setting, t)

    def _block_at(self, block: StudiedBlock, setting: Setting, t: float) -> None:
        if setting.block is None or not self._new(setting, f"block {setting.block.name}", t, None):
            return
        start = time.perf_counter()
        found = block.skip(1.0, t)
        self._block_seconds = time.perf_counter() - start
        if found is not None:
            self._hand_over(Learned(setting, block=(t, found)))
        else:
            self._hand_over(Learned(setting, block_stays="could not be measured anew"))

    def _now(self, study: Studied, setting: Setting) -> None:
        """Compute what is on the screen."""
        rho, beta, pattern = setting.rho, setting.beta, setting.pattern
        if rho == 0:
            maps = {"skip": study.skip(0.0, beta), "skip_chain": study.skip_chain(0.0, beta, pattern)}
            self._hand_over(Learned(setting, study.patterns, at_zero=maps))
        else:
            self._skip(study, setting, beta / rho)
            self._skip_chain(study, setting, beta / rho)
        if study.patterns and pattern is not None and self._new(setting, "chain", 0.0, pattern):
            self._hand_over(Learned(setting, study.patterns, chain=study.chain(pattern)))

    def _rest(self, study: Studied, setting: Setting, norm: float) -> None:
        """Compute what makes the next change quick, as long as nothing else is asked for."""
        quick = study.columns <= QUICK_COLUMNS
        if quick and self._new(setting, "curve", 0.0, None):
            self._curve = study.curve(CURVE)
            self._hand_over(Learned(setting, study.patterns, curve=self._curve))
        for t in RAYS:
            self._skip(study, setting, t)
        if quick:
            self._sharpen(study, setting, norm)
        for t in RAYS:
            self._skip_chain(study, setting, t)

    def _sharpen(self, study: Studied, setting: Setting, norm: float) -> None:
        """Put more points on the curve where a peak of κ may be hidden between two."""
        from specinspect.spectra.curve import doubtful_places, joined

        while self._curve is not None and len(self._curve.beta) < CURVE_MOST:
            places = doubtful_places(self._curve, norm, CURVE_STEP, CURVE_GAP)
            if not places or not self._new(setting, "curve", float(len(self._curve.beta)), None):
                return
            more = study.curve(places)
            if more is None:
                return
            self._curve = joined(self._curve, more)
            self._hand_over(Learned(setting, study.patterns, curve=self._curve))

    def _skip(self, study: Studied, setting: Setting, t: float) -> None:
        if self._new(setting, "skip", t, None):
            self._hand_over(Learned(setting, study.patterns, skip=(t, study.skip(1.0, t))))

    def _skip_chain(self, study: Studied, setting: Setting, t: float) -> None:
        if study.patterns and self._new(setting, "skip_chain", t, setting.pattern):
            found = (t, study.skip_chain(1.0, t, setting.pattern))
            self._hand_over(Learned(setting, study.patterns, skip_chain=found))

    def _new(self, setting: Setting, what: str, t: float, pattern: int | None) -> bool:
        """Say whether something is still wanted and not yet told; it then counts as told."""
        with self._lock:
            if self._stopped or self._asked is None or self._asked[1] is not setting:
                return False
        key = (what, t, pattern)
        if key in self._told:
            return False
        self._told.add(key)
        return True
