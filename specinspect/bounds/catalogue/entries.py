"""Results on bounded entries (MATH C)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

_P0 = "Riedi, Balestriero, Baraniuk, Singular Value Perturbation and Deep Network Optimization"
_SMALL = "From nc = 1 on: c is then 1/n, far below what initialisations draw (about 1/√n)."
_FORMS = (
    "square dense W",
    "|entries| of W at most c, its largest entry; beside ρI + βW, c stands for |β/ρ|·c",
)

RESULTS: tuple[Result, ...] = (
    Result(
        id="r10",
        title="norm from the largest entry",
        statement=(
            "σ_1(W) <= c·√(mn) for an m×n matrix with |w_ij| <= c; equal where all entries are equal. For a "
            "product of p such n×n matrices, with any diagonals |D| <= 1 between them, σ_1 <= (nc)^p. For a "
            "convolution c·taps·√(out·in), by its row and column sums."
        ),
        assumptions=("c is the largest |entry|",),
        vacuous="",
        strength="deterministic",
        source=f"{_P0}: Lemmas 27, 28, (85); the rectangular and the convolutional form are ours",
    ),
    Result(
        id="r11",
        title="κ beside a skip, from the largest entry",
        statement=(
            "With a the norm bound of r10 for (β/ρ)W: 1-a <= σ_i(I+M) <= 1+a and κ(I+M) <= (1+a)/(1-a), "
            "for every singular value. The same holds for D·W with any |D| <= 1 (a times the largest |d| "
            "otherwise), and for (I+M)·D with D of absolute value 1 or of ReLU, whatever the number of its "
            "zeros (r9)."
        ),
        assumptions=("nc < 1", "the shortcut is an isometry: all its singular values are 1"),
        vacuous=_SMALL,
        strength="deterministic",
        source=f"{_P0}: Lemma 29 (86), (87), Theorem 30 (88)",
        corrected="Sharper for products (a instead of nc); any number of ReLU's zeros, by r9.",
    ),
    Result(
        id="r12.89",
        title="a ReLU before a skip: first form",
        statement=(
            "κ((I+W)·D) <= (1+nc)/(1-nc-√(2rc(n+1))), D of ReLU with r zeros. Rests on "
            "Σ(s_i-σ_i)² <= r(1+2c+nc²)."
        ),
        assumptions=(*_FORMS, "D has entries 0 and 1 alone", "the denominator is positive"),
        vacuous="Where the denominator is not positive: r zeros need nc well below 1.",
        strength="deterministic",
        source=f"{_P0}: Theorem 31 (89), reconstructed from the steps of its proof",
        corrected="The printed constants may differ. Superseded: r9 with r11 is never larger, for any r.",
    ),
    Result(
        id="r12.90",
        title="a ReLU before a skip: second form",
        statement="κ((I+W)·D) <= (1+nc)/√((1-nc)²-2rc(n+1)), D of ReLU with r zeros; never above r12.89.",
        assumptions=(*_FORMS, "D has entries 0 and 1 alone", "the denominator is positive"),
        vacuous="Where the denominator is not positive: r zeros need nc well below 1.",
        strength="deterministic",
        source=f"{_P0}: Theorem 31 (90), reconstructed from its proof; (91) is not reconstructed",
        corrected="The printed constants may differ. Superseded: r9 with r11 is never larger, for any r.",
    ),
    Result(
        id="r13",
        title="a leaky ReLU before a skip",
        statement=(
            "κ((I+W)·D) <= (1+nc)/√((1-nc)²-E), with r entries η in D and "
            "E² = (1-η²)²(r(1+3c)² + 9c²r(r-1)) + 18c²(1-η)²r(n-r)."
        ),
        assumptions=(*_FORMS, "D has entries 1 and one η from 0 to 1", "the denominator is positive"),
        vacuous="Where E reaches (1-nc)²: for one η well below 1 it nearly always does.",
        strength="deterministic",
        source=f"{_P0}: Theorem 32, reconstructed",
        corrected="Superseded: (1+nc)/(1-nc)/η, from r9 and r11, is never larger.",
    ),
)
