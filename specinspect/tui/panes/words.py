"""What panes say in words about spectra, facts and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from specinspect.report.text import integer, kappa, number, rank, visible
from specinspect.spectra.model import FAILED

if TYPE_CHECKING:
    from specinspect.spectra.model import Range, Spectrum
    from specinspect.tui.view import Live, PaneView

MAPS: Mapping[str, str] = {"weight": "W", "chain": "D·W", "skip": "ρI+βW", "skip_chain": "ρI+β·D·W"}
"""Map → how it is written."""

SOURCES: Mapping[str, str] = {
    "model": "seen in the model",
    "config": "rule, option or config.json",
    "shape": "follows from its shape",
    "assumed": "assumed",
}

_STATUS: Mapping[str, str] = {
    "resolved": "resolved",
    "below_storage_precision": "not resolved: σmin is less than the rounding error of the stored numbers",
    "below_computation_precision": "not resolved: σmin is less than the method is accurate to",
    "infinite": "infinite: σmin is exactly zero",
    "nonfinite_weights": "none: the weight has NaN or infinite entries",
    "beyond_float64": "none: singular values beyond 1.8e308, the largest that float64 holds",
    "not_converged": "none: the eigenvalue solver did not converge",
}


def status(spectrum: Spectrum) -> str:
    """Return the status of κ in words."""
    return _STATUS[spectrum.condition_number_status]


def spectrum_of(view: PaneView, name: str) -> tuple[Spectrum | None, Live | None]:
    """Return the spectrum of a map that a picture is drawn of, and what is known at today's ρ and β."""
    live = view.live.get(name)
    kept = view.result.maps.get(name) if view.result is not None else None
    return (live.spectrum if live is not None and live.spectrum is not None else kept), live


def mark(view: PaneView, name: str) -> str:
    """Return how a number at today's ρ and β was come by."""
    live = view.live.get(name)
    if live is not None:
        return "exact" if live.exact else "≈ interpolated"
    spectrum, _ = spectrum_of(view, name)
    if spectrum is not None and spectrum.condition_number_status == "nonfinite_weights":
        return "exact"  # at any scale
    if name in {"skip", "skip_chain"} and not at_run(view):
        return f"still at {run(view)}"
    return "exact"


def block_mark(view: PaneView) -> str:
    """Return how the numbers of a block beside its shortcut were come by."""
    if view.block_live is not None:
        return "exact" if view.block_live.exact else "≈ interpolated"
    if at_run(view):
        return "exact"
    return f"{f'{visible(view.block_stays)}: ' if view.block_stays else 'still '}at {run(view)}"


def at_run(view: PaneView) -> bool:
    """Say whether today's ρ and β are those of the run."""
    return (view.rho, view.beta) == (view.run_rho, view.run_beta)


def run(view: PaneView) -> str:
    """Return ρ and β of the run."""
    return f"ρ {view.run_rho:.4g}, β {view.run_beta:.4g}"


def live_kappa(spectrum: Spectrum | None, live: Live | None) -> str:
    """Return κ as shown: of today if it is known, else of the spectrum."""
    if live is not None:
        if live.spectrum is not None and live.exact:
            return kappa(live.spectrum)
        if live.condition_number is not None:
            return f"{'' if live.exact else '≈ '}{number(live.condition_number)}"
        return kappa(live.spectrum) if live.spectrum is not None else "not resolved"
    return "–" if spectrum is None else kappa(spectrum)


def facts_of(spectrum: Spectrum) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of every number that belongs beside a spectrum."""
    yield "κ", kappa(spectrum)
    yield "", status(spectrum)
    if spectrum.nonfinite:
        yield "", f"NaN or infinite entries: {integer(spectrum.nonfinite)}"
    if spectrum.condition_number_status in {"nonfinite_weights", *FAILED}:
        return
    yield "σmax", number(spectrum.sigma_max)
    yield "σmin", number(spectrum.sigma_min) if spectrum.sigma_min is not None else "not resolved"
    yield "pseudo κ", number(spectrum.pseudo_condition_number)
    full = rank(spectrum)
    yield "rank", f"full, {integer(spectrum.count)}" if full == "full" else full
    yield "stable rank", number(spectrum.stable_rank)
    yield "effective rank", number(spectrum.effective_rank)
    yield "Frobenius", number(spectrum.frobenius_norm)
    yield "storage floor", number(spectrum.storage_floor)
    yield "comput. floor", number(spectrum.computation_floor)
    if spectrum.patterns is not None:
        yield from _patterns(spectrum)
    yield "method", spectrum.method
    yield "device", spectrum.device


def _patterns(spectrum: Spectrum) -> Iterator[tuple[str, str]]:
    found = spectrum.patterns
    assert found is not None
    yield "patterns", "1" if found.n == 1 else f"{found.n}, medians above"
    yield "active", _share(found.active_fraction)
    for name, label in (("sigma_max", "σmax"), ("sigma_min", "σmin"), ("condition_number", "κ")):
        if name in found.scalars:
            values = found.scalars[name]
            texts = [number(v) if v is not None else "∞ or not resolved" for v in (values.min, values.max)]
            if texts[0] != texts[1]:
                yield f"{label} range", f"{texts[0]} to {texts[1]}"


def _share(values: Range) -> str:
    shares = [f"{100 * v:.0f}" if v is not None else "?" for v in (values.min, values.max)]
    return f"{shares[0]} %" if shares[0] == shares[1] else f"{shares[0]} to {shares[1]} %"
