"""Results on convolutions (MATH I)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

_SAME = "stride 1, padding that keeps the grid's size, kernel within the grid"

RESULTS: tuple[Result, ...] = (
    Result(
        "r63",
        "a skip around a convolution, frequency by frequency",
        "σ(ρA+βC) is the union over frequencies ω of σ(ρÂ(ω)+βK̂(ω)), so that r1 to r4 hold for every Fourier "
        "block with its own s and τ(ω) = eig(K̂+K̂ᴴ): κ <= max over ω of r3.upper.sharp / min over ω of "
        "r3.lower.best.",
        ("the grid is periodic", "the shortcut is an isometry"),
        "where at one frequency no lower bound is positive",
        "deterministic",
        "ours; blocks after Sedghi, Gupta and Long 2019",
    ),
    Result(
        "r64",
        "zero padding against the periodic grid",
        "T zero-padded, C periodic on the same grid: ‖C-T‖_F² = E, known from the taps, so that "
        "Σ(σ_i(T)-σ_i(C))² <= E and ‖C‖_F² - ‖T‖_F² = E; rank(C-T) <= r gives σ_(i+r)(C) <= σ_i(T) and "
        "σ_(i+r)(T) <= σ_i(C). The equality is tested; compared is σ_1(T), or ‖T‖_F/√k where "
        "T is not computed.",
        (_SAME,),
        "",
        "deterministic",
        "ours",
        "σ_n(T) can be smaller than σ_n(C) by any factor: a periodic κ is never one of the padded layer.",
    ),
    Result(
        "r65",
        "zero padding inside of a larger periodic grid",
        "T is a part of C' on a grid of side n' >= n + dil(k-1): σ_1(T) <= σ_1(C') and "
        "τmin(C') <= τ(T) <= τmax(C'), so that σ_n(ρI+βT) >= |ρ| + min(ρβτmin, ρβτmax)/(2|ρ|), and "
        "r3.upper.sharp with σ_1(C') bounds σ_1(ρI+βT).",
        ("beside a skip: stride 1, as many outputs as inputs, padding that keeps the grid's size",),
        "beside a skip: where min(ρβτmin, ρβτmax) <= -2ρ²",
        "deterministic",
        "ours",
    ),
)
