"""Results on independent random weights (MATH E) as checks of a layer.

They speak of fresh weights. Where a layer's entries could not be such (`fresh.freshness`) no guarantee
applies, and the bound that is given is the one that a fresh layer of this shape and scale would have.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specinspect.bounds import random_matrix as rm
from specinspect.bounds.judge import Claim, absent, judge
from specinspect.bounds.model import BoundCheck
from specinspect.bounds.random_layer import Fresh, fresh_layer, pattern_range
from specinspect.bounds.random_skip import skip_checks, two_pattern_checks
from specinspect.spectra.quantities import LayerQuantities


def checks(q: LayerQuantities, *, delta: float = 0.01, init: str | None = None) -> tuple[BoundCheck, ...]:
    """Return the verdicts of R16 to R25.

    Args:
        q: the layer.
        delta: each result may fail with this probability.
        init: 'kaiming', 'xavier', 'pytorch-default' or 'std:X'; None estimates the scale.
    """
    fresh = fresh_layer(q, delta, init)
    if fresh is None:
        return ()
    found = [*_tau(q, fresh), *_extremes(q, fresh)]
    if q.skip is not None:
        found += [*skip_checks(q, fresh), *two_pattern_checks(q)]
    return tuple(found)


def _tau(q: LayerQuantities, fresh: Fresh) -> Iterator[BoundCheck]:
    """R16, R17 on τ of W, R18 on that of D·W. τmax and -τmin each at half of δ."""
    names = {"r16": "weight", "r17": "weight", "r18": "chain"}
    if q.kind.startswith("conv") or q.tau is None:
        why = "proven for dense matrices, not for convolutions"
        if not q.kind.startswith("conv"):
            why = "τ needs a square W or an isometric shortcut"
        yield from (absent(name, of, why) for name, of in names.items())
        return
    half, sure = fresh.delta / 2, 1 - fresh.delta
    tau = float(max(q.tau.max(), -q.tau.min()))
    known = fresh.assumptions
    if q.shape[0] != q.shape[1]:
        known = (*known, "τ of AᵀW+WᵀA, A the rectangular identity: that of the square part of W")
    name = "max(τmax, -τmin) of W"
    yield judge(
        Claim(
            "r16", "weight", name, tau, float(rm.tau_tracy_widom(fresh.n, fresh.c, half)),
            probability=sure, asymptotic=True, doubt=fresh.doubt, assumptions=known,
        )
    )  # fmt: skip
    yield judge(
        Claim(
            "r17", "weight", name, tau, float(rm.tau_gaussian(fresh.n, fresh.c, half)),
            probability=sure, doubt=fresh.gaussian_doubt, assumptions=known,
        )
    )  # fmt: skip
    taus = [p.tau for p in q.patterns if p.tau is not None]
    if not taus:
        yield absent("r18", "chain", "τ of D·W: there is no D, or it was not computed")
        return
    low, high, doubt = pattern_range(q)
    yield judge(
        Claim(
            "r18", "chain", "max(τmax, -τmin) of D·W", float(max(np.abs(t).max() for t in taus)),
            float(rm.tau_all_patterns(fresh.n, fresh.c, half, low, high)),
            probability=sure, doubt=fresh.gaussian_doubt or doubt,
            assumptions=(*known, f"all D with entries in [{low:.4g}, {high:.4g}] at once: D depends on W"),
        )
    )  # fmt: skip


def _extremes(q: LayerQuantities, fresh: Fresh) -> Iterator[BoundCheck]:
    """R19 and R20 on the weight's own extreme singular values."""
    if q.kind.startswith("conv"):
        for name in ("r19.max", "r19.min", "r20"):
            yield absent(name, "weight", "proven for dense matrices, not for convolutions")
        return
    (m, n), delta, sure = q.shape, fresh.delta, 1 - fresh.delta
    top, bottom = float(q.weight.max()), float(q.weight.min())
    yield judge(
        Claim(
            "r19.max", "weight", "σmax", top, float(rm.largest(m, n, fresh.std, delta)),
            probability=sure, doubt=fresh.gaussian_doubt, assumptions=fresh.assumptions,
        )
    )  # fmt: skip
    yield judge(
        Claim(
            "r19.min", "weight", "σmin", bottom, float(rm.smallest(m, n, fresh.std, delta)),
            lower=True, tolerance=q.floor,
            probability=sure, doubt=fresh.gaussian_doubt, assumptions=fresh.assumptions,
        ),
        vacuous="a square matrix can be arbitrarily near to singular" if m == n else "",
    )  # fmt: skip
    yield judge(
        Claim(
            "r20", "weight", "σmax", top, float(rm.johnstone(m, n, fresh.std, delta)),
            probability=sure, asymptotic=True, doubt=fresh.doubt, assumptions=fresh.assumptions,
        )
    )  # fmt: skip
