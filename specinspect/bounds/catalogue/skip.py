"""Results on a skip connection (MATH A)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

_SQUARE = "M is square, and the shortcut is the identity"
_ISOMETRY = "the shortcut A is the identity or another isometry (AᵀA = I or AAᵀ = I)"
_NAMES = (
    "N = ρI+βM; s_1 >= … >= s_n singular values of M; τ eigenvalues of M+Mᵀ, "
    "m = min(ρβτmin, ρβτmax), x = max(ρβτmin, ρβτmax)"
)
_P0 = "Riedi, Balestriero, Baraniuk, Singular Value Perturbation and Deep Network Optimization"
_P0_22 = f"{_P0}: Theorem 22"
_RECTANGULAR = (
    "Beside another isometry A, AᵀM+MᵀA (m >= n) or AMᵀ+MAᵀ stands for M+Mᵀ; the paper pads with zeros."
)
_ANY = "any shortcut A"
_UPPER = (
    "Beside a shortcut that is no isometry, a projection of the checkpoint's say (of a layer or a block), "
    "|ρ|‖A‖ stands for |ρ|."
)
_LOWER = (
    "Beside a shortcut that is no isometry, a projection of the checkpoint's say (of a layer or a block), "
    "|ρ|σmin(A) stands for |ρ|."
)
_BOTH = (
    "Beside a shortcut that is no isometry, a projection of the checkpoint's say (of a layer or a block), "
    "|ρ|‖A‖ stands for |ρ| above, |ρ|σmin(A) below."
)
_SIGNS = "The paper has β = 1 and 0 <= ρ <= 1; any signs will do."

RESULTS: tuple[Result, ...] = (
    Result(
        "r1",
        "growth of every singular value",
        f"β²s_i² + m + ρ² <= σ_i(N)² <= β²s_i² + x + ρ² for every i. {_NAMES}.",
        (_SQUARE,),
        "the lower side where it is zero or less",
        "deterministic",
        f"{_P0}: Theorem 16 (70), Lemmas 14 and 21 (74)",
        f"The paper assumes simple singular values, which is not needed. {_SIGNS}",
    ),
    Result(
        "r1p",
        "growth, by Weyl's inequalities for every pair",
        "max over i+j = k+n of (β²s_i² + b_j) + ρ² <= σ_k(N)² <= min over i+j = k+1 of (β²s_i² + b_j) + ρ², "
        "b_1 >= … >= b_n eigenvalues of ρβ(M+Mᵀ). For a convolution on every Fourier block.",
        (_ISOMETRY,),
        "the lower side where it is zero or less",
        "deterministic",
        "ours; sharper than the paper's Theorem 16 (see r1) inside the spectrum",
        _RECTANGULAR,
    ),
    Result(
        "r1pp",
        "growth beside a rectangular or pooled skip",
        "β²s_i² + ρ² + min ρβλ(H) <= σ_i(ρA+βM)² <= β²s_i² + ρ² + max ρβλ(H) for every i <= min(m, n), with "
        "H = AᵀM+MᵀA where AᵀA = I, H = AMᵀ+MAᵀ where AAᵀ = I.",
        ("the shortcut A is an isometry: a rectangular identity, or an average pool that adds no channels",),
        "the lower side where it is zero or less",
        "deterministic",
        "ours",
        "The paper pads M with zeros to a square, which is weaker and adds singular values 0 and ρ.",
    ),
    Result(
        "r2",
        "Weyl: a skip moves every singular value by at most ρ",
        f"max(0, |β|s_i - |ρ|) <= σ_i(N) <= |β|s_i + |ρ| for every i. {_UPPER}",
        (_ANY, "where it is not known, its norm is at most 1"),
        "",
        "deterministic",
        f"{_P0}: Lemma 17 (71)",
        "The paper has it for square maps beside the identity.",
    ),
    Result(
        "r3.upper.sharp",
        "largest singular value, with τ",
        f"σ_1(N) <= √(ρ² + β²s_1² + x). {_NAMES}.",
        (_ISOMETRY,),
        "",
        "deterministic",
        f"{_P0_22} (76)",
        f"{_SIGNS} {_RECTANGULAR}",
    ),
    Result(
        "r3.upper.simple",
        "largest singular value, from norms alone",
        f"σ_1(N) <= |ρ| + |β|s_1. {_UPPER}",
        (_ANY,),
        "",
        "deterministic",
        f"{_P0_22} (76)",
    ),
    Result(
        "r3.lower.sharp",
        "smallest singular value, with τ and s_n",
        f"σ_n(N) >= √(ρ² + β²s_n² + m). {_NAMES}.",
        (_ISOMETRY,),
        "where ρ² + β²s_n² + m <= 0: M+Mᵀ has too negative an eigenvalue",
        "deterministic",
        f"{_P0_22} (77)",
        f"{_SIGNS} {_RECTANGULAR}",
    ),
    Result(
        "r3.lower.drop",
        "smallest singular value, with τ alone",
        f"σ_n(N) >= √(ρ² + m). {_NAMES}.",
        (_ISOMETRY,),
        "where m <= -ρ²",
        "deterministic",
        f"{_P0_22}, as used in (116)",
        _RECTANGULAR,
    ),
    Result(
        "r3.lower.nr",
        "smallest singular value, by the numerical range",
        f"σ_n(N) >= |ρ| + m/(2|ρ|), since ‖Nx‖ >= xᵀNx. {_NAMES}.",
        (_ISOMETRY, "ρ ≠ 0"),
        "where m <= -2ρ²",
        "deterministic",
        "ours",
        "Reaches twice as far as the paper's condition m > -ρ², and is never below the form that drops s_n.",
    ),
    Result(
        "r3.lower.simple",
        "smallest singular value, a dominant skip",
        f"σ_n(N) >= |ρ| - |β|s_1. {_LOWER}",
        (_ANY,),
        "where |β|s_1 >= |ρ|",
        "deterministic",
        f"{_P0_22} (77)",
    ),
    Result(
        "r3.lower.weyl",
        "smallest singular value, a dominant branch",
        f"σ_n(N) >= |β|s_n - |ρ|. {_UPPER}",
        (_ANY,),
        "where |β|s_n <= |ρ|",
        "deterministic",
        f"{_P0}: Lemma 17 (71)",
    ),
    Result(
        "r3.lower.best",
        "smallest singular value, the best of all bounds",
        "σ_n(N) >= the largest of r3.lower.sharp, drop, nr, simple and weyl; beside a shortcut that is no "
        "isometry, of simple and weyl.",
        (_ANY,),
        "where all of them are",
        "deterministic",
        f"{_P0_22} (77), and r3.lower.nr, which is ours",
    ),
    Result(
        "r4.sharp",
        "κ beside a skip, sharp over sharp",
        f"κ(N) <= √(ρ² + β²s_1² + x) / √(ρ² + β²s_n² + m). {_NAMES}.",
        (_ISOMETRY,),
        "where ρ² + β²s_n² + m <= 0",
        "deterministic",
        _P0_22,
        "Which pairs (76), (77) print is not legible: all are offered.",
    ),
    Result(
        "r4.drop",
        "κ beside a skip, without s_n",
        f"κ(N) <= √(ρ² + β²s_1² + x) / √(ρ² + m). {_NAMES}.",
        (_ISOMETRY,),
        "where m <= -ρ²",
        "deterministic",
        f"{_P0_22}, (116) first form",
    ),
    Result(
        "r4.mixed",
        "κ beside a skip, norm over τ",
        f"κ(N) <= (|ρ| + |β|s_1) / √(ρ² + m). {_NAMES}.",
        (_ISOMETRY,),
        "where m <= -ρ²",
        "deterministic",
        f"{_P0_22}, (116) second form",
    ),
    Result(
        "r4.simple",
        "κ beside a skip, from the norm alone",
        f"κ(N) <= (|ρ| + |β|s_1) / (|ρ| - |β|s_1). {_BOTH}",
        (_ANY,),
        "where |β|s_1 >= |ρ|",
        "deterministic",
        _P0_22,
    ),
    Result(
        "r4.nr",
        "κ beside a skip, by the numerical range",
        f"κ(N) <= √(ρ² + β²s_1² + x) / (|ρ| + m/(2|ρ|)). {_NAMES}.",
        (_ISOMETRY, "ρ ≠ 0"),
        "where m <= -2ρ²",
        "deterministic",
        "ours",
    ),
    Result(
        "r4.best",
        "κ beside a skip, the best guarantee",
        "κ(N) <= r3.upper.sharp / r3.lower.best, for a convolution with the extremes over all frequencies; "
        "beside a shortcut that is no isometry, r3.upper.simple / r3.lower.best.",
        (_ANY,),
        "where no lower bound of σ_n is positive",
        "deterministic",
        f"{_P0_22}, with r3.lower.nr, which is ours",
    ),
    Result(
        "r5",
        "derivative along the skip, summed",
        "dσ_i²/dρ = 2ρ + v_iᵀ(M+Mᵀ)v_i for a simple σ_i (β = 1). Summed over i and integrated, whatever the "
        "multiplicities: Σσ_i(N)² = β²Σs_i² + ρβΣτ_i + nρ². The sum is what is compared.",
        (_ISOMETRY,),
        "",
        "exact",
        f"{_P0}: Lemma 14 (65), (66), summed over i",
        "A single derivative needs a simple, non-zero σ_i; the sum does not.",
    ),
    Result(
        "r5b",
        "where a skip can make a map singular",
        "σ_n(N) = 0 if and only if -ρ/β is a real eigenvalue of M. Real eigenvalues lie in [τmin/2, τmax/2]: "
        "with -ρ/β outside, σ_n(N) > 0.",
        (_SQUARE, "ρ ≠ 0 and β ≠ 0", "-ρ/β lies outside of [τmin/2, τmax/2]"),
        "",
        "deterministic",
        f"{_P0}: Lemmas 18 to 20",
        "The paper's statement that an eigenvector that is also a right singular vector stays both is false "
        "for the eigenvalue 0: M = [[0, 1], [0, 0]], v = e1.",
    ),
)
