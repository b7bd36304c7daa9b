"""Results on random weights (MATH E)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

_P0 = "Riedi, Balestriero, Baraniuk, Singular Value Perturbation and Deep Network Optimization"
_IID = (
    "entries independent and centred, of one variance: tested (mean, skewness, kurtosis, spread of row and "
    "column norms, sphericity) at a false-alarm level of 0.1 %; trained weights rarely pass, and the bound "
    "is then what a fresh layer would have"
)
_GAUSSIAN = "Gaussian entries (for uniform ones not proven)"
_SYMMETRIC = "Gaussian or uniform entries (symmetric, finite moments)"
_SCALE = "c = s·√n, with s from the entries or from --init; beside ρI + βW, c stands for |β/ρ|·c"
_LIMIT = "the limit n → ∞: no guarantee at finite size, so what exceeds it is never 'violated'"

RESULTS: tuple[Result, ...] = (
    Result(
        id="r16",
        title="τ of random weights, Tracy-Widom",
        statement=(
            "τmax(W)/(2√2·c) → 1, and (τmax-2√2c)·n^(2/3)/(√2c) → TW1; -τmin is equal in law. With q the "
            "upper quantile of TW1 at δ/2 for each side: max(τmax, -τmin) <= 2√2·c·(1 + q·n^(-2/3)/2)."
        ),
        assumptions=(_IID, _SYMMETRIC, _SCALE, _LIMIT),
        vacuous="",
        strength="asymptotic",
        source=f"{_P0}: Theorem 33, (107), (108); Tracy and Widom 1996",
    ),
    Result(
        id="r17",
        title="τ of random weights, at every size",
        statement=(
            "P(τmax(DW) > 2√2·c·(1+√(ln(1/δ)/n))) <= δ for every n and any fixed diagonal |D| <= 1; the "
            "same for -τmin. The check takes D = I and δ/2 on each side. By Sudakov-Fernique and Gaussian "
            "concentration; 10 to 25 % above what is seen for n <= 128."
        ),
        assumptions=(_IID, _GAUSSIAN, _SCALE, "D does not depend on W: real patterns do (r18)"),
        vacuous="",
        strength="probabilistic",
        source="ours",
        corrected="The paper has the asymptotic form alone (r16).",
    ),
    Result(
        id="r18",
        title="τ for all activation patterns at once",
        statement=(
            "P(sup over all D of τmax(DW) > 2c(a + d·√(2ln(1/δ)/n))) <= δ, D with entries in [d1, d2] and "
            "d = max|d_i| <= 1. a = 1.51136 for ReLU, 1.80921 for [-1, 1], √2 for D = I. The same for "
            "-τmin. Where φ' exceeds 1 (GELU), both sides are scaled by its maximum."
        ),
        assumptions=(_IID, _GAUSSIAN, _SCALE, "φ' of the activation lies in [d1, d2]; no normalisation in D"),
        vacuous="",
        strength="probabilistic",
        source="ours; replaces Riedi and others, Corollary 40 (151)",
        corrected=(
            "A pattern depends on W and on the input, so statements for a fixed D do not cover a real "
            "network; this one covers every D."
        ),
    ),
    Result(
        id="r19.max",
        title="largest singular value of random weights",
        statement="P(σ_1 > s(√m + √n + √(2ln(1/δ)))) <= δ for an m×n matrix of standard deviation s.",
        assumptions=(_IID, _GAUSSIAN),
        vacuous="",
        strength="probabilistic",
        source="Davidson and Szarek 2001",
    ),
    Result(
        id="r19.min",
        title="smallest singular value of random weights",
        statement="P(σ_min < s(√max(m,n) - √min(m,n) - √(2ln(1/δ)))) <= δ.",
        assumptions=(_IID, _GAUSSIAN),
        vacuous="For square matrices, and wherever the difference of the roots is below √(2ln(1/δ)).",
        strength="probabilistic",
        source="Davidson and Szarek 2001",
    ),
    Result(
        id="r20",
        title="largest singular value, Tracy-Widom",
        statement=(
            "σ_1² ≈ s²(μ + σq) with μ = (√(m-1)+√n)², σ = (√(m-1)+√n)(1/√(m-1)+1/√n)^(1/3) and q the upper "
            "quantile of TW1 at δ. For square W σ_1 → 2c and σ_n → 0."
        ),
        assumptions=(_IID, _SYMMETRIC, _LIMIT),
        vacuous="",
        strength="asymptotic",
        source=f"Johnstone 2001; {_P0}: Theorem 35 (109), (110)",
    ),
    Result(
        id="r21.gauss",
        title="κ of a skip beside random weights",
        statement=(
            "With |τ| <= T (r17, both sides) and σ_1 <= S (r19), each at δ/3: σ_1(I+W) <= √(1+S²+T), "
            "σ_n(I+W) >= 1-T/2 and κ(I+W) <= √(1+S²+T)/(1-T/2), with probability 1-δ. Beside a rectangular "
            "identity T is that of the square part."
        ),
        assumptions=(_IID, _GAUSSIAN, _SCALE, "D = I, or fixed without a look at W"),
        vacuous="From T = 2 on: c = 0.71 in wide layers, less in narrow ones.",
        strength="probabilistic",
        source=f"{_P0}: Lemma 36 (111) to (116), Corollary 37; with r17 and r19 in place of the limits",
        corrected="Needs τmin > -2 where the paper needs -1. Its definition (111) is not reconstructed.",
    ),
    Result(
        id="r21.alld",
        title="κ of a skip beside random weights, all patterns at once",
        statement=(
            "κ(I+DW) <= √(1+S²+T)/(1-T/2) for every D with entries in the range of φ' together, with "
            "probability 1-δ: T from r18, S from r19 (times max|φ'|), each at δ/3. By r9 also κ((I+DW)·D0) "
            "for every ReLU D0."
        ),
        assumptions=(_IID, _GAUSSIAN, _SCALE, "φ' of the activation lies in [d1, d2]; no normalisation in D"),
        vacuous="From T = 2 on: c = 0.66 in wide ReLU layers, less in narrow ones.",
        strength="probabilistic",
        source="ours; replaces Riedi and others, Corollary 40 (151)",
        corrected="The paper's statements hold for a D that does not depend on W; this one for all of them.",
    ),
    Result(
        id="r21.tw",
        title="κ of a skip beside random weights, Tracy-Widom",
        statement=(
            "κ(I+W) <= √(1+S²+T)/(1-T/2) with T from r16 and S from r20, each at δ/3: sharper, asymptotic."
        ),
        assumptions=(_IID, _SYMMETRIC, _SCALE, _LIMIT),
        vacuous="From T = 2 on: c = 0.71 in wide layers, less in narrow ones.",
        strength="asymptotic",
        source=f"{_P0}: Lemma 36 (111) to (116), Corollary 37",
    ),
    Result(
        id="r22.121",
        title="wide layers: first form",
        statement="κ(I+W) <= √((1+4c²+2√2c)/(1-2√2c)) as n → ∞, for c < 1/(2√2) = 0.354. At c = 1/4: 2.585.",
        assumptions=(_IID, _SYMMETRIC, _SCALE, _LIMIT),
        vacuous="From c = 1/(2√2) on.",
        strength="asymptotic",
        source=f"{_P0}: Theorem 38 (121)",
        corrected="Not tight: r22.nr and the exact limit r23 are smaller.",
    ),
    Result(
        id="r22.122",
        title="wide layers: second form",
        statement="κ(I+W) <= (1+2c)/√(1-2√2c) as n → ∞, for c < 1/(2√2) = 0.354. At c = 1/4: 2.772.",
        assumptions=(_IID, _SYMMETRIC, _SCALE, _LIMIT),
        vacuous="From c = 1/(2√2) on.",
        strength="asymptotic",
        source=f"{_P0}: Theorem 38 (122)",
    ),
    Result(
        id="r22.nr",
        title="wide layers, by the numerical range",
        statement="κ(I+W) <= √(1+4c²+2√2c)/(1-√2c) as n → ∞, for c < 1/√2 = 0.707. At c = 1/4: 2.164.",
        assumptions=(_IID, _SYMMETRIC, _SCALE, _LIMIT),
        vacuous="From c = 1/√2 on.",
        strength="asymptotic",
        source="ours",
        corrected="Reaches twice as far as (121) and (122).",
    ),
    Result(
        id="r23",
        title="wide layers: the exact limit",
        statement=(
            "With v = c², R = √(v²+8v), b± = (4-v±R)/(4(1-v)), z(b) = 1/b² - v/(b(b-1)): σ_n(I+W) → √z(b+) "
            "and σ_1(I+W) → √z(b-) for c < 1; σ_n → 0 from c = 1 on. κ → 2.061 at c = 1/4, 2.404 at 0.3, "
            "6.532 at 1/√3. The value to expect: a finite spectrum lies inside, up to O(n^(-2/3))."
        ),
        assumptions=(_IID, _SYMMETRIC, _SCALE, _LIMIT),
        vacuous="From c = 1 on.",
        strength="asymptotic",
        source="ours, from Dozier and Silverstein 2007 (information plus noise)",
    ),
    Result(
        id="r24",
        title="a skip beats the plain layer, in probability",
        statement=(
            "P(κ(W) <= K) → exp(-2n/K - 2n²/K²) for Gaussian square W. With K the bound of r21.gauss: "
            "P(κ(I+W) < κ(W)) is at least about 1 - δ - P(κ(W) <= K). The check compares the two κ."
        ),
        assumptions=(_IID, _GAUSSIAN, _SCALE, "n of 32 and more: Edelman's law is a limit"),
        vacuous="",
        strength="asymptotic",
        source=f"{_P0}: Lemma 41, Theorem 42; Edelman 1988 (154)",
        corrected=(
            "No deterministic fact: where ‖W‖ is not small a skip often makes κ worse (W = -I/2 + noise; 4×4 "
            "Gaussian matrices in a third of cases)."
        ),
    ),
    Result(
        id="r25",
        title="what a pattern can take from a skip",
        statement=(
            "σ_i(ρA+βDW) >= σ_n(ρA+βW) - |β|·√(Σ_j (1-d_j)²‖w_j‖²), for every D: the singular values move "
            "by at most the norm of what D takes away (rows w_j). For N = (D1W+I)D0 with r0, r1 zeros: "
            "‖I+W-N‖_F² = r0+Y+Z, and for Gaussian W, with probability 1-2δ, Y+Z <= 2c√(2r0·ln(1/δ)/n) + "
            "(c²/n)(K+2√(K·ln(1/δ))+2ln(1/δ)), K = n(r0+r1)-r0r1."
        ),
        assumptions=("a dense layer; nothing about its weights",),
        vacuous="Where the rows that D takes away weigh more than σ_n(ρA+βW).",
        strength="deterministic",
        source=f"{_P0}: Theorem 39 (128), (129): its sure step",
        corrected=(
            "The final constants of (128), (129), (151) are not reconstructed; r9 with r21 supersedes them "
            "and needs no condition on r0 and r1."
        ),
    ),
    Result(
        id="r26",
        title="a stack of residual layers",
        statement=(
            "M = Π(I+D_lW_l): κ(M) <= Πκ(I+D_lW_l), σ_n(M) >= Πσ_n(I+D_lW_l), and κ(M·D0) <= κ(M) for a "
            "ReLU D0. The same for any square factors ρA_l+βM_l, of layers or of blocks, whatever their "
            "shortcuts A_l are: r3 and r4 say what each contributes, beside a projection from norms alone."
        ),
        assumptions=(
            "the layers follow each other, each with a skip of its own, as a model or a configuration says",
            "no factor is singular",
        ),
        vacuous="Where the product overflows.",
        strength="deterministic",
        source=f"{_P0}; submultiplicativity",
    ),
    Result(
        id="r26.branch",
        title="κ of a branch from κ of its layers",
        statement=(
            "J = D_L·W_L···D_1·W_1·D_0: κ(J) <= Πκ(W_l)·Π(max|d|/min|d|) over the singular values and the "
            "entries of D that are not zero. Full-rank layers that narrow down to one place have full row "
            "rank together, those that widen from there full column rank, also where D zeroes rows at that "
            "place: σ_r(J) >= Πσ_min(W_l)·Πmin|d|."
        ),
        assumptions=(
            "every W_l has full rank",
            "sizes fall to one place and rise from there (square layers do): elsewhere a layer can lose just "
            "what the one before it adds",
            "D has zeros at that place alone: between two ReLUs the rule fails (r9)",
            "no gate, no pool and no normalisation with a Jacobian of its own in between",
        ),
        vacuous="Where the product overflows.",
        strength="deterministic",
        source="ours, from r9 and r26: submultiplicativity for any shapes",
    ),
)
