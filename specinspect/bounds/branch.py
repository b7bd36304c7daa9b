"""κ of a branch against κ of its layers: J = D_L·W_L···D_1·W_1·D_0 (MATH R9 and R26, for any shapes).

κ(AB) <= κ(A)κ(B), over the singular values that are not zero, holds where A has full column rank or B full
row rank. A chain of full-rank layers that narrow down to one place and widen from there is such a product: up
to that place all maps have full row rank, after it full column rank, and so they stay where a diagonal
removes rows at that very place. Elsewhere it fails: a wide layer may lose just what the one before it adds,
and between two ReLUs a permutation can become zero (MATH R9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, inf, isfinite, log

from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import KAPPA_TOLERANCE, SMALLEST_RATIO, silent, slack
from specinspect.spectra.model import BranchLayers

ID, OF = "r26.branch", "chain"


@dataclass(frozen=True, slots=True)
class Whole:
    """What is known of a map: its largest singular value and its κ, over what is not zero by structure."""

    high: float | None
    kappa: float | None
    """None where it is not resolved."""
    why_not: str = ""
    """Why it is not the map that is meant."""


def check(branch: BranchLayers, j: Whole, layers: Mapping[str, Whole]) -> BoundCheck | None:
    """Return the verdict on one branch; None where it has a single layer, of which R9 speaks.

    Args:
        branch: what it is made of.
        j: of its Jacobian, the largest over the patterns; κ over the singular values that are not zero.
        layers: of every layer's W; κ over all of its singular values.
    """
    names = [layer.name for layer in branch.layers if layer.name]
    if not branch.why_not and len(names) < 2:
        return None
    known = [layers[name] for name in names]
    why_not = branch.why_not or _why_not(branch, dict(zip(names, known, strict=True)))
    if not why_not and (j.kappa is None or j.high is None):
        why_not = "κ of the branch itself is not resolved"
    if why_not or j.kappa is None or j.high is None:
        return silent(ID, OF, "not_applicable", why_not)
    kappas = [one.kappa or inf for one in known]
    logs = sum(log(kappa) for kappa in kappas) + log(branch.spread)
    if not logs < 700:
        return silent(ID, OF, "vacuous", "Πκ overflows", j.kappa)
    return _compared(branch, j, known, exp(logs))


def _compared(branch: BranchLayers, j: Whole, layers: Sequence[Whole], bound: float) -> BoundCheck:
    """Compare κ, or where that is above 1e6 the norm alone (MATH §0)."""
    kappa, high = j.kappa or inf, j.high or 0.0
    digits = KAPPA_TOLERANCE / 2 * (len(layers) + 1) + 1e-14 * sum(one.kappa or 0.0 for one in layers)
    between = f"times {branch.spread:.4g} for the diagonals" if branch.spread != 1 else "alone"
    if kappa * SMALLEST_RATIO <= 1:
        holds = kappa <= bound * (1 + digits)
        text = f"κ(J) is {kappa:.4g}, at most Πκ(W) of its {len(layers)} layers {between}: {bound:.4g}"
        if not holds:
            text = f"κ(J) is {kappa:.6g}, above Πκ(W) {between}, {bound:.6g}"
    else:
        top = exp(min(sum(log(one.high or inf) for one in layers) + log(branch.largest), 709.0))
        holds = high <= top * (1 + digits)
        text = "κ(J) is above 1e6: not it, but σmax was compared with Πσmax"
        if not holds:
            text = f"σmax(J) is {high:.6g}, above Πσmax = {top:.6g}"
    known = [
        "every layer of full rank",
        f"sizes {_sizes(branch)}: narrowing to one place, widening from there",
    ]
    if branch.zeros:
        known.append("diagonals have zeros at that place alone; κ(J) over the singular values that are left")
    found = BoundCheck(ID, OF, "holds", kappa, bound, None, None, text, tuple(known))
    if kappa * SMALLEST_RATIO > 1:
        found = replace(found, value=None)
    else:
        found = replace(found, slack=slack(kappa, bound, upper=True, holds=holds))
    if holds:
        return found
    return replace(found, verdict="violated", why=f"{text}: precision was lost, or this program errs")


def _why_not(branch: BranchLayers, layers: Mapping[str, Whole]) -> str:
    """Return why the product rule does not apply, '' where it does."""
    for name, one in layers.items():
        if one.why_not:
            return f"{name}: {one.why_not}"
        if one.kappa is None or not one.kappa < inf:
            return f"needs layers of full rank: κ of {name} is not resolved"
    if len(branch.zeros) > 1:
        return "its activations zero rows at two places: a layer between may lose what is left (r9)"
    if not isfinite(branch.spread) or branch.spread <= 0:
        return "at a sampled pattern the branch is zero"
    sizes = branch.sizes
    place = branch.zeros[0] if branch.zeros else min(range(len(sizes)), key=sizes.__getitem__)
    narrowing = all(a >= b for a, b in pairwise(sizes[: place + 1]))
    widening = all(a <= b for a, b in pairwise(sizes[place:]))
    if narrowing and widening:
        return ""
    zeroed = " where its activation zeroes rows" if branch.zeros else ""
    return (
        f"needs layers that narrow down to one place{zeroed} and widen from there: here {_sizes(branch)}, so "
        "that a layer can lose what the one before it adds"
    )


def _sizes(branch: BranchLayers) -> str:
    return " → ".join(f"{size:,}" for size in branch.sizes)
