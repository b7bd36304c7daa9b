"""Results on an activation pattern (MATH B)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

_P0 = "Riedi, Balestriero, Baraniuk, Singular Value Perturbation and Deep Network Optimization"
_D = "D = diag(d): one entry per row of M"

RESULTS: tuple[Result, ...] = (
    Result(
        "r6",
        "Hoffman-Wielandt: near matrices have near spectra",
        "Σ(σ_i(A) - σ_i(B))² <= ‖A-B‖_F². Applied to W and D·W (of chain), to βW and ρA+βW (of skip), to "
        "ρA+βW and ρA+β·D·W (of skip_chain).",
        ("A and B have the same shape",),
        "",
        "deterministic",
        f"{_P0}: Proposition 1, Corollary 2",
    ),
    Result(
        "r7",
        "interlacing under an activation",
        f"max over t of t·s_(i+r(t)) <= σ_i(DM) <= max|d|·s_i for every i, where r(t) entries of D are "
        f"below t in size and s_j = 0 beyond the last; {_D}. For entries 1 and η, |η| <= 1: "
        "max(|η|s_i, s_(i+r)) <= σ_i <= s_i.",
        (),
        "the lower side where it is zero",
        "deterministic",
        f"{_P0}: Proposition 23, Lemma 24, Proposition 26",
        "The paper has the leaky case for i = 1 only; it holds for every i, and for any diagonal.",
    ),
    Result(
        "r8",
        "energy that an activation takes",
        f"Σ(s_i² - σ_i(DM)²) = Σ(1-d_j²)‖row j‖² exactly, and Σ(s_i - σ_i)² <= Σ(1-d_j)²‖row j‖²; for "
        f"|d| <= 1 also <= Σ(1-d_j²)‖row j‖². {_D}. With 1 and η: (1-η²)E and min(1-η², (1-η)²)·E, with "
        "E the energy of those rows. The second is what is compared; the first is tested too.",
        (),
        "",
        "deterministic",
        f"{_P0}: Proposition 25 (81), (82)",
        "The paper has entries 0 and 1; any diagonal will do.",
    ),
    Result(
        "r9",
        "an activation on one side hardly worsens κ",
        "κ(DM) <= κ(M)·max|d|/min|d|, extremes over the non-zero entries of D, and exactly as many singular "
        "values are zero as D has zeros. For a ReLU: κ(DM) <= κ(M) over the others.",
        (
            "M has full row rank (at most as many rows as columns, s_n above its accuracy)",
            "D acts on one side of M only: between two ReLUs a permutation already gives a zero map",
        ),
        "",
        "deterministic",
        f"ours; supersedes {_P0}: Theorems 31 and 32",
    ),
)
