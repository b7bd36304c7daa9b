"""Results on a block, N = ρA + βJ: those of a layer beside a skip, with J for W (MATH A, R63).

J is the Jacobian at sampled inputs: every result is tested at each, and the one with the least room is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from specinspect.bounds import skip
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.projection import beside_any, weakest
from specinspect.bounds.verdict import silent
from specinspect.spectra.model import BlockSpectra
from specinspect.spectra.quantities import BlockPattern, BlockQuantities, LayerQuantities

GUARANTEES = ("r4.best", "r63", "r4.simple")
"""Ids of the bounds on κ(ρA + βJ)."""


def check_block(spectra: BlockSpectra, quantities: BlockQuantities | None) -> tuple[BoundCheck, ...]:
    """Return the verdict of every result that says something of a block beside its shortcut.

    Args:
        spectra: what is shown of it.
        quantities: what the results rest on; None where not all singular values were computed.
    """
    if spectra.skip is None or spectra.skip.nonfinite:
        return ()
    if quantities is None:
        why = "only the extreme singular values of so large a block are computed"
        return (silent("r4.best", "skip", "not_applicable", why),)
    with np.errstate(over="ignore", invalid="ignore"):  # a bound beyond float64 says nothing
        return checks(quantities)


def checks(q: BlockQuantities) -> tuple[BoundCheck, ...]:
    """Return the verdicts of R1 to R5b and R63 on ρA + βJ, each of the pattern with the least room.

    Beside a shortcut A that is no multiple of an isometry only norms are left, see `projection`.
    """
    groups: dict[str, list[BoundCheck]] = {}
    for pattern in q.patterns:
        found = (
            beside_any("skip", q, pattern.skip, pattern.chain, q.shortcut, name="J")
            if pattern.tau is None
            else _beside_isometry(q, pattern)
        )
        for check in found:
            groups.setdefault(check.id, []).append(check)
    return tuple(weakest(group, len(q.patterns)) for group in groups.values())


def _beside_isometry(q: BlockQuantities, pattern: BlockPattern) -> Iterator[BoundCheck]:
    """Yield what holds for a layer: ρA is ρc times the isometry A/c."""
    c = q.shortcut[1]
    layer = LayerQuantities(
        kind="conv" if q.periodic else "linear",
        shape=q.shape,
        rho=q.rho * c,
        beta=q.beta,
        shortcut="identity" if q.identity else "average-pool",
        weight=pattern.chain,
        multiplicity=q.multiplicity,
        skip=pattern.skip,
        tau=pattern.tau,
        floor=0.0,
        entries=None,
        patterns=(),
        activation="",
    )
    known = () if abs(c - 1) <= 1e-9 else (f"A is {c:.6g} times an isometry: ρ·{c:.6g} stands for ρ",)
    for check in skip.checks(layer):
        if not q.identity and check.id == "r5b":
            continue
        id_ = "r1pp" if check.id == "r1" and not q.identity else check.id
        yield replace(check, id=id_, assumptions=(*check.assumptions, *known))
