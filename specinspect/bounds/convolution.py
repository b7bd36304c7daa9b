"""Results on zero-padded convolutions, from periodic ones (MATH R64, R65); R63 is in `skip`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import TOLERANCE, identity, judged, kappa_check, silent, worst
from specinspect.spectra.model import PaddingBounds, Spectrum


def checks(padding: PaddingBounds, maps: Mapping[str, Spectrum], boundary: str) -> tuple[BoundCheck, ...]:
    """Return the verdicts of R64 and R65.

    Args:
        padding: what the periodic grids say of the layer with its zeros.
        maps: the spectra at hand.
        boundary: whose they are: 'circular', of the periodic grid, or 'zeros', of the layer itself.
    """
    weight = maps["weight"]
    found = [_same_grid(padding, weight, boundary), _enlarged(padding, weight, boundary)]
    if padding.skip_sigma_max_upper is not None or padding.square_reason or padding.enlarged_reason:
        found.append(_beside_skip(padding, maps.get("skip"), boundary))
    return tuple(found)


def _same_grid(padding: PaddingBounds, weight: Spectrum, boundary: str) -> BoundCheck:
    """R64: exact norms, then the bracket of σ_max."""
    distance, norm = padding.frobenius_distance, padding.frobenius_norm
    if padding.same_grid_reason or distance is None or norm is None:
        return silent("r64", "weight", "not_applicable", padding.same_grid_reason)
    found = weight.frobenius_norm
    if found is None:
        return silent("r64", "weight", "not_applicable", "NaN or infinite weights")
    # ‖C‖_F² = ‖T‖_F² + E; what is at hand is one of the two.
    unit = max(found, norm, distance) or 1.0
    padded = boundary == "zeros"
    whole = norm / unit if padded else float((norm / unit) ** 2 + (distance / unit) ** 2) ** 0.5
    equality = identity(
        "r64",
        "weight",
        found / unit,
        whole,
        tolerance=TOLERANCE,
        what="‖T‖_F" if padded else "‖C‖_F",
        unit=unit,
    )
    bracket = list(_bracket(padding, weight, norm, padded=padded))
    if equality.verdict == "violated" or not bracket:
        return equality
    return worst(bracket, "sides")


def _bracket(padding: PaddingBounds, weight: Spectrum, norm: float, *, padded: bool) -> Iterator[BoundCheck]:
    """Compare σ_max(T), or what it is at least, with σ_max(C) + √E and with interlacing."""
    upper = padding.sigma_max_upper_same_grid
    known = weight.sigma_max if padded else norm / weight.count**0.5
    what = "σmax(T)" if padded else "‖T‖_F/√k, a lower bound of σmax(T),"
    if upper is None or known is None:
        return
    unit = max(upper, known) or 1.0
    yield judged(
        "r64", "weight", known / unit, upper / unit, upper=True, tolerance=TOLERANCE, what=what, unit=unit
    )
    if not padded:
        return
    if padding.sigma_max_lower:
        yield judged(
            "r64",
            "weight",
            known / unit,
            padding.sigma_max_lower / unit,
            upper=False,
            tolerance=TOLERANCE,
            what=what,
            unit=unit,
        )
    if padding.sigma_min_upper is not None and weight.sigma_min is not None:
        yield judged(
            "r64",
            "weight",
            weight.sigma_min / unit,
            padding.sigma_min_upper / unit,
            upper=True,
            tolerance=TOLERANCE,
            what="σmin(T)",
            unit=unit,
        )


def _enlarged(padding: PaddingBounds, weight: Spectrum, boundary: str) -> BoundCheck:
    """R65 on W."""
    bound = padding.sigma_max_upper
    if padding.enlarged_reason or bound is None:
        return silent("r65", "weight", "not_applicable", padding.enlarged_reason)
    if boundary == "zeros":
        value, what = weight.sigma_max, "σmax(T)"
    else:
        value, what = _at_least(padding, weight), "the known lower bound of σmax(T)"
    if value is None:
        return _guarantee("weight", bound, f"the layer with its zeros has σmax at most {bound:.4g}")
    unit = max(bound, value) or 1.0
    return judged(
        "r65", "weight", value / unit, bound / unit, upper=True, tolerance=TOLERANCE, what=what, unit=unit
    )


def _at_least(padding: PaddingBounds, weight: Spectrum) -> float | None:
    """Return the largest lower bound of σ_max(T) that MATH R64 gives."""
    if padding.frobenius_norm is None:
        return None
    return max(padding.frobenius_norm / weight.count**0.5, padding.sigma_max_lower or 0.0)


def _beside_skip(padding: PaddingBounds, skip: Spectrum | None, boundary: str) -> BoundCheck:
    """R65 beside a skip."""
    reason = padding.square_reason or padding.enlarged_reason
    lower, upper = padding.skip_sigma_min_lower, padding.skip_sigma_max_upper
    if reason or upper is None:
        return silent("r65", "skip", "not_applicable", reason)
    if lower is None:
        return silent("r65", "skip", "not_applicable", "needs ρ ≠ 0")
    why = f"|ρ| + min(ρβτ)/(2|ρ|) is {lower:.4g} on the larger grid: not above 0"
    if boundary == "zeros":
        if skip is None or skip.sigma_max is None:
            return silent("r65", "skip", "not_applicable", "there is no skip map")
        if skip.sigma_min is None:
            return silent("r65", "skip", "not_applicable", "σmin of the skip map is out of reach")
        unit = max(upper, skip.sigma_max) or 1.0
        found = skip.sigma_max / unit, skip.sigma_min / unit
        return kappa_check("r65", "skip", found, (upper / unit, lower / unit), TOLERANCE, why)
    if lower <= 0:
        return silent("r65", "skip", "vacuous", why)
    return _guarantee(
        "skip", upper / lower, f"the layer with its zeros has κ(skip) at most {upper / lower:.4g}"
    )


def _guarantee(of: str, bound: float, text: str) -> BoundCheck:
    """Return a bound on the padded layer, which has not been computed: nothing to compare."""
    why = f"{text}; its own spectrum was not computed (--conv-operator padded does)"
    return BoundCheck("r65", of, "holds", None, bound, None, None, why)
