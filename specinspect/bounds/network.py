"""What follows for layers, and for blocks, one after the other (MATH R26)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, isfinite, log

from specinspect.bounds.model import BoundCheck


@dataclass(frozen=True, slots=True)
class Factor:
    """One layer's own residual map I + D·W, as far as it is one."""

    name: str
    width: int | None
    """n of a square map, None for any other."""
    real: bool
    """Whether a model or a configuration says that the network has this skip."""
    kappa: float
    """κ(ρI + β·D·W), the largest over the patterns; infinite where unresolved."""


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
    kappa: float
    """κ(ρI + βJ), the largest over the patterns; infinite where unresolved."""
    assumed: bool
    """Whether only the names of its layers tell that it is one."""


def product_bound(kappas: Sequence[float]) -> float:
    """Return Πκ_l, which bounds κ(Π(I + D_l·W_l)), also behind a ReLU D0 (MATH R26); inf where one is."""
    if not all(isfinite(k) for k in kappas):
        return inf
    total = sum(log(k) for k in kappas)
    return exp(total) if total < 700 else inf


def checks(factors: Sequence[Factor]) -> tuple[BoundCheck, ...]:
    """Return R26 for every run of at least two consecutive square residual layers of one width.

    Args:
        factors: all layers, in checkpoint order.
    """
    runs = _runs(factors)
    if not runs:
        real = [f for f in factors if f.real]
        why = "no model or configuration says which layers have a skip of their own"
        if real:
            why = "no two consecutive square layers of one width have a skip of their own"
        return (_absent(why),)
    return tuple(_check(run) for run in runs)


def _runs(factors: Sequence[Factor]) -> list[list[Factor]]:
    runs: list[list[Factor]] = [[]]
    for factor in factors:
        last = runs[-1]
        if not factor.real or factor.width is None or (last and last[-1].width != factor.width):
            runs.append([])
            last = runs[-1]
        if factor.real and factor.width is not None:
            last.append(factor)
    return [run for run in runs if len(run) > 1]


def _check(run: Sequence[Factor]) -> BoundCheck:
    names = f"{run[0].name} … {run[-1].name}"
    singular = [f.name for f in run if not isfinite(f.kappa)]
    if singular:
        return _absent(f"{names}: {singular[0]} is singular, or its κ is not resolved")
    bound = product_bound([f.kappa for f in run])
    if bound == inf:
        return BoundCheck("r26", "skip_chain", "vacuous", None, None, None, None, f"{names}: Πκ overflows")
    return BoundCheck(
        "r26",
        "skip_chain",
        "holds",
        None,
        bound,
        None,
        None,
        f"{names}: κ of the product of these {len(run)} maps is at most Πκ = {bound:.4g} (not computed)",
        (
            "they follow each other in the order of the checkpoint",
            "in every layer the worst of its sampled patterns",
        ),
    )


def _absent(why: str, of: str = "skip_chain") -> BoundCheck:
    return BoundCheck("r26", of, "not_applicable", None, None, None, None, why)


# Blocks


def block_checks(factors: Sequence[BlockFactor]) -> tuple[BoundCheck, ...]:
    """Return R26 for every run of at least two residual blocks in a row; why there is none, otherwise.

    Args:
        factors: all blocks of the checkpoint, none for a network without any.
    """
    if not factors:
        return ()
    ordered = sorted(factors, key=lambda factor: factor.places)
    runs: list[list[BlockFactor]] = [[]]
    for factor in ordered:
        if factor.why_not or (runs[-1] and _breaks(runs[-1][-1], factor)):
            runs.append([])
        if not factor.why_not:
            runs[-1].append(factor)
    found = tuple(_block_check(run) for run in runs if len(run) > 1)
    return found or (_absent(_why_no_run(ordered), "block"),)


def _breaks(first: BlockFactor, second: BlockFactor) -> str:
    """Return why the map of two blocks in a row is not the product of theirs, '' where it is."""
    if first.ends:
        return f"{first.ends} follows the sum of {first.name}"
    if second.places[0] != first.places[1] + 1:
        return f"other layers stand between {first.name} and {second.name}"
    if first.size != second.size:
        return f"{first.name} and {second.name} are not of one size"
    return ""


def _why_no_run(ordered: Sequence[BlockFactor]) -> str:
    """Say what keeps the first two blocks that could follow each other apart."""
    usable = [factor for factor in ordered if not factor.why_not]
    if len(usable) > 1:
        apart = (_breaks(a, b) for a, b in pairwise(usable))
        return f"no two residual blocks in a row: {next(filter(None, apart), 'they are apart')}"
    named = next((factor for factor in ordered if factor.why_not), ordered[0])
    return f"no two residual blocks in a row: {named.name}: {named.why_not or 'it is the only one'}"


def _block_check(run: Sequence[BlockFactor]) -> BoundCheck:
    names = f"{run[0].name} … {run[-1].name}"
    singular = [factor.name for factor in run if not isfinite(factor.kappa)]
    if singular:
        return _absent(f"{names}: {singular[0]} is singular, or its κ is not resolved", "block")
    bound = product_bound([factor.kappa for factor in run])
    if bound == inf:
        return BoundCheck("r26", "block", "vacuous", None, None, None, None, f"{names}: Πκ overflows")
    known = [
        "they follow each other in the order of the checkpoint",
        "in every block the worst of its patterns",
    ]
    if len(run[0].size) > 1:
        known.append("all on one periodic grid, with the diagonals of one pixel each")
    if any(factor.assumed for factor in run):
        known.append("that these are residual blocks is assumed from the names of their layers")
    why = f"{names}: κ of the product of these {len(run)} blocks is at most Πκ = {bound:.4g} (not computed)"
    return BoundCheck("r26", "block", "holds", None, bound, None, None, why, tuple(known))
