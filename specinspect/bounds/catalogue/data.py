"""Results on the data factor (MATH D)."""

from __future__ import annotations

from specinspect.bounds.catalogue.model import Result

_P0 = "Riedi, Balestriero, Baraniuk, Singular Value Perturbation and Deep Network Optimization"

RESULTS: tuple[Result, ...] = (
    Result(
        id="r14",
        title="what a batch adds to the conditioning of learning",
        statement=(
            "For an output M·W·z and the parameters vec(W) the Jacobian is M⊗zᵀ: singular values "
            "s_i(M)·‖z‖. One input thus adds no factor to κ. A batch Z (N inputs, one per row) in one "
            "linear region gives κ = κ(M)·√κ(ZᵀZ/N), pseudo condition numbers. With a map M of its own for "
            "each input, each of full column rank, κ <= (max σ_1(M)/min σ_min(M))·√κ(ZᵀZ/N). The check "
            "gives the factor √κ(ZᵀZ/N)."
        ),
        assumptions=(
            "inputs of the layer are known: --inputs gives them, or a batch that flows through --model does",
            "all of them in one linear region of the layers after, which keep the rows apart (no attention)",
            "a dense layer that the network uses once",
        ),
        vacuous="",
        strength="exact",
        source="ours; replaces Riedi and others, Lemma 8 to Corollary 11",
        corrected=(
            "The paper's (8), (54) multiply by max|z_j|/min|z_j| instead, which drops the products z_j·z_k: "
            "against the exact Jacobian it is wrong for generic inputs (see r14.proxy)."
        ),
    ),
    Result(
        id="r14.proxy",
        title="P0 diagonal-feature proxy",
        statement=(
            "max over min of the features' root mean squares over the batch (for one input, of |z_j|, "
            "zeros left out). Equals the factor of r14 only where ZᵀZ is diagonal."
        ),
        assumptions=("features without cross terms: not so in general",),
        vacuous="",
        strength="proxy",
        source=f"P0 is {_P0}: (8), (54), (57) to (63)",
        corrected=(
            "No bound, neither from above nor from below: it is shown beside r14 under this label only."
        ),
    ),
)
