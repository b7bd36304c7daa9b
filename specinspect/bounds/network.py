"""What follows for layers one after the other (MATH R26)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def _absent(why: str) -> BoundCheck:
    return BoundCheck("r26", "skip_chain", "not_applicable", None, None, None, None, why)
