"""What follows for layers, and for blocks, one after the other (MATH R26)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, inf, isfinite, log
from typing import TYPE_CHECKING, Literal

from specinspect.bounds.model import BoundCheck
from specinspect.bounds.verdict import KAPPA_TOLERANCE, SMALLEST_RATIO, slack

if TYPE_CHECKING:
    from specinspect.spectra.model import ProductExtremes

Products = Mapping[tuple[str, tuple[str, ...]], "ProductExtremes"]
"""Of a row, by 'skip_chain' or 'block' and the names in it."""


@dataclass(frozen=True, slots=True)
class Extremes:
    """Of one factor of a product, over all of its patterns."""

    high: float
    """The largest σ_1."""
    low: float
    """The smallest σ_n."""
    kappa: float
    """The largest κ; infinite where one is not resolved."""


UNRESOLVED = Extremes(inf, 0.0, inf)


@dataclass(frozen=True, slots=True)
class Factor:
    """One layer's own residual map I + D·W, as far as it is one."""

    name: str
    width: int | None
    """n of a square map, None for any other."""
    real: bool
    """Whether a model or a configuration says that the network has this skip."""
    extremes: Extremes
    """Of ρI + β·D·W."""


@dataclass(frozen=True, slots=True)
class BlockFactor:
    """One residual block's map ρI + βJ, J through all of its layers."""

    name: str
    why_not: str
    """Why it is no factor of a product, '' where it is one."""
    places: tuple[int, int]
    """Where its first and its last layer stand in the order of the checkpoint."""
    size: tuple[int, ...]
    """(channels, *grid): of what it maps to itself."""
    ends: str
    """The activation that follows the sum, after which another product begins; '' for none."""
    extremes: Extremes
    """Of ρI + βJ."""
    assumed: bool
    """Whether only the names of its layers tell that it is one."""


def product_bound(kappas: Sequence[float]) -> float:
    """Return Πκ_l, which bounds κ(Π(I + D_l·W_l)), also behind a ReLU D0 (MATH R26); inf where one is."""
    if not all(isfinite(k) for k in kappas):
        return inf
    total = sum(log(k) for k in kappas)
    return exp(total) if total < 700 else inf


def checks(factors: Sequence[Factor], products: Products | None = None) -> tuple[BoundCheck, ...]:
    """Return R26 for every run of at least two consecutive square residual layers of one width.

    Args:
        factors: all layers, in checkpoint order.
        products: what was measured of each run; None where nothing was.
    """
    found = runs(factors)
    if not found:
        real = [f for f in factors if f.real]
        why = "no model or configuration says which layers have a skip of their own"
        if real:
            why = "no two consecutive square layers of one width have a skip of their own"
        return (_absent(why),)
    known = (
        "they follow each other in the order of the checkpoint",
        "in every layer the worst of its sampled patterns",
        "each map is ρI + β·D·W: a scale on the network's own branch is left out",
    )
    return tuple(_check(run, "skip_chain", "maps", known, products) for run in found)


def runs(factors: Sequence[Factor]) -> list[list[Factor]]:
    """Return at least two consecutive square residual layers of one width each."""
    found: list[list[Factor]] = [[]]
    for factor in factors:
        last = found[-1]
        if not factor.real or factor.width is None or (last and last[-1].width != factor.width):
            found.append([])
            last = found[-1]
        if factor.real and factor.width is not None:
            last.append(factor)
    return [run for run in found if len(run) > 1]


def _check(
    run: Sequence[Factor] | Sequence[BlockFactor],
    of: Literal["skip_chain", "block"],
    what: str,
    known: tuple[str, ...],
    products: Products | None,
) -> BoundCheck:
    """Return the verdict on one row."""
    names = f"{run[0].name} … {run[-1].name}"
    singular = [f.name for f in run if not isfinite(f.extremes.kappa)]
    if singular:
        return _absent(f"{names}: {singular[0]} is singular, or its κ is not resolved", of)
    bound = product_bound([f.extremes.kappa for f in run])
    if bound == inf:
        return BoundCheck("r26", of, "vacuous", None, None, None, None, f"{names}: Πκ overflows")
    text = f"{names}: κ of the product of these {len(run)} {what}"
    at_most = f"{text} is at most Πκ = {bound:.4g}"
    given = BoundCheck("r26", of, "holds", None, bound, None, None, f"{at_most} (not computed)", known)
    product = None if products is None else products.get((of, tuple(f.name for f in run)))
    if product is None:
        return given
    if not product.logs:
        why = f"{at_most}, but was not computed: {product.why_not}"
        return replace(given, verdict="not_applicable", bound=None, why=why)
    return _compared(given, [f.extremes for f in run], product, text)


def _compared(
    given: BoundCheck, factors: Sequence[Extremes], product: ProductExtremes, text: str
) -> BoundCheck:
    """Compare the κ of a product with Πκ, and where it is not resolved σ_1 with Πσ_1 and σ_n with Πσ_n.

    Of every factor six digits are known, fewer where its κ is beyond 1e8; forming the product costs rounding
    errors in proportion to Πσ_1.
    """
    bound = given.bound or 0.0
    digits = KAPPA_TOLERANCE / 2 * (len(factors) + 1) + 1e-14 * sum(f.kappa for f in factors)
    noise = 1e-12 * len(factors)
    top, low = sum(log(f.high) for f in factors), sum(log(f.low) for f in factors)
    patterns = f" at {len(product.logs)} sampled patterns" if len(product.logs) > 1 else ""
    value, wrong = 0.0, False
    for high, small in product.logs:
        wrong |= not high - top <= digits  # NaN is wrong
        wrong |= not exp(small - top) + noise >= exp(low - top) * (1 - digits)
        kappa = exp(min(high - small, 700.0))
        value = max(value, kappa)
        if kappa * SMALLEST_RATIO <= 1:
            wrong |= not kappa <= bound * (1 + digits + noise * bound)
    resolved = value * SMALLEST_RATIO <= 1
    known = (*given.assumptions, f"the largest κ of the product{patterns}, the p-th of all factors together")
    if not resolved:
        why = f"{text} is not resolved{patterns}; its σmax and σmin are within Πσmax and Πσmin"
    elif wrong:
        why = f"{text} is {value:.6g}, above Πκ = {bound:.6g}: precision was lost, or this program errs"
    else:
        why = f"{text} is {value:.4g}, at most Πκ = {bound:.4g}"
    if wrong and (not resolved or value <= bound):
        why = f"{text}: its σmax or σmin is beyond Πσmax or Πσmin: precision was lost, or this program errs"
    return replace(
        given,
        verdict="violated" if wrong else "holds",
        value=value if resolved else None,
        slack=slack(value, bound, upper=True, holds=not wrong) if resolved else None,
        why=why,
        assumptions=known,
    )


def _absent(why: str, of: str = "skip_chain") -> BoundCheck:
    return BoundCheck("r26", of, "not_applicable", None, None, None, None, why)


# Blocks


def block_checks(factors: Sequence[BlockFactor], products: Products | None = None) -> tuple[BoundCheck, ...]:
    """Return R26 for every run of at least two residual blocks in a row; why there is none, otherwise.

    Args:
        factors: all blocks of the checkpoint, none for a network without any.
        products: what was measured of each run; None where nothing was.
    """
    if not factors:
        return ()
    found = block_runs(factors)
    if not found:
        return (_absent(_why_no_run(factors), "block"),)
    return tuple(_check(run, "block", "blocks", _known(run), products) for run in found)


def block_runs(factors: Sequence[BlockFactor]) -> list[list[BlockFactor]]:
    """Return at least two residual blocks in a row each."""
    found: list[list[BlockFactor]] = [[]]
    for factor in sorted(factors, key=lambda factor: factor.places):
        if factor.why_not or (found[-1] and _breaks(found[-1][-1], factor)):
            found.append([])
        if not factor.why_not:
            found[-1].append(factor)
    return [run for run in found if len(run) > 1]


def _known(run: Sequence[BlockFactor]) -> tuple[str, ...]:
    known = [
        "they follow each other in the order of the checkpoint",
        "in every block the worst of its patterns",
    ]
    if len(run[0].size) > 1:
        known.append("all on one grid, as each block says of itself")
    if any(factor.assumed for factor in run):
        known.append("that these are residual blocks is assumed from the names of their layers")
    return tuple(known)


def _breaks(first: BlockFactor, second: BlockFactor) -> str:
    """Return why the map of two blocks in a row is not the product of theirs, '' where it is."""
    if first.ends:
        return f"{first.ends} follows the sum of {first.name}"
    if second.places[0] != first.places[1] + 1:
        return f"other layers stand between {first.name} and {second.name}"
    if first.size != second.size:
        return f"{first.name} and {second.name} are not of one size"
    return ""


def _why_no_run(factors: Sequence[BlockFactor]) -> str:
    """Say what keeps the first two blocks that could follow each other apart."""
    ordered = sorted(factors, key=lambda factor: factor.places)
    usable = [factor for factor in ordered if not factor.why_not]
    if len(usable) > 1:
        apart = (_breaks(a, b) for a, b in pairwise(usable))
        return f"no two residual blocks in a row: {next(filter(None, apart), 'they are apart')}"
    named = next((factor for factor in ordered if factor.why_not), ordered[0])
    return f"no two residual blocks in a row: {named.name}: {named.why_not or 'it is the only one'}"
