"""The rules themselves.

SI1: condition numbers, SI2: norms and ranks, SI3: stored numbers, SI4: baseline, SI5: bounds.
"""

from __future__ import annotations

from specinspect.gate.rules import Catalogue, Need, Rule

_KAPPA_OUTCOMES = (
    "A value within one part in a million of the limit passes, as κ is known to six digits. An infinite "
    "κ fails. A κ that is not resolved (σmin lies below the rounding error of the stored dtype, or "
    "below the accuracy of the computation) fails too, whatever the limit: what is known is only a "
    "lower bound, (σmax - f)/(σmin + f) with f the floor, which the message gives. NaN or infinite "
    "weights are reported once, by SI301; where that rule is ignored they fail this one; with "
    "--allow-nonfinite the layer is not checked."
)
_BASELINE_KAPPA = (
    "A κ that was resolved in the baseline and is infinite or unresolved now fails. Unresolved before "
    "and now is a warning: whether it grew cannot be said. What was infinite may stay so; what was "
    "infinite or unresolved and is resolved now has improved. NaN or infinite weights are SI301's."
)

RULES = Catalogue(
    (
        Rule(
            "SI101",
            "max-kappa",
            "the condition number of W is above the limit",
            "κ(W) = σmax/σmin over all min(m, n) singular values: how unevenly the layer stretches its "
            f"inputs, and how much it amplifies relative errors. {_KAPPA_OUTCOMES} The product of a "
            "low-rank adapter has zero singular values by construction: there κ is that of the rest.",
            "Look at the layer's spectrum (specinspect report): a lone small σ is a lost direction, a "
            "lone large one an outlier. Lower the learning rate, add weight decay or a spectral "
            "penalty, put a skip connection around it, or raise the limit for this layer: "
            '[rules."GLOB"] max-kappa.',
            Need.SPECTRUM,
            threshold="max_kappa",
        ),
        Rule(
            "SI102",
            "max-chain-kappa",
            "the condition number of D·W is above the limit at some sampled pattern",
            "κ(D·W) at the worst of the sampled activation patterns: that of what the layer does to a "
            "small change of its input. Rows that D zeroes are structural zeros and left out (the "
            f"pseudo condition number, as in the report). {_KAPPA_OUTCOMES} Where no activation follows, "
            "D·W is W.",
            "As for SI101; or a smoother activation, or a normalisation that keeps pre-activations apart.",
            Need.CHAIN,
            threshold="max_chain_kappa",
        ),
        Rule(
            "SI103",
            "max-skip-kappa",
            "the condition number of ρI + βW is above the limit",
            "κ(ρI + βW): that of the layer beside a skip connection, with the identity that fits its "
            f"shape. {_KAPPA_OUTCOMES} Layers for which no skip makes sense (embeddings, adapters) are "
            "not checked.",
            "Make the branch smaller (--beta shows from where on κ is bounded, MATH R4), or look for "
            "eigenvalues of W near -ρ/β, which the skip cancels.",
            Need.SKIP,
            threshold="max_skip_kappa",
        ),
        Rule(
            "SI104",
            "unresolved-kappa",
            "κ(W) is not resolved at the stored precision",
            "σmin lies below the spectral norm of the rounding error that the stored dtype implies, or "
            "below the accuracy of the computation, so that κ is not a number that can be given. Common "
            "and harmless for large matrices in 16-bit formats: off unless selected.",
            "Check the checkpoint before it is rounded, or store the layer in a wider dtype.",
            Need.SPECTRUM,
        ),
        Rule(
            "SI105",
            "max-guaranteed-kappa",
            "no bound guarantees that κ(ρI + βW) stays below the limit",
            "The best deterministic bound of MATH R4 on κ(ρI + βW) must apply, hold, and be at most the "
            "limit. Vacuous and not applicable both fail: nothing is guaranteed then. Layers without a "
            "skip map are not checked.",
            "Scale the branch down: |β|·σmax(W) < |ρ| always suffices (MATH R4).",
            Need.BOUNDS,
            threshold="max_guaranteed_kappa",
        ),
        Rule(
            "SI201",
            "max-sigma",
            "the spectral norm of W is above the limit",
            "σmax(W): the largest factor by which the layer stretches an input, its Lipschitz constant. "
            "Alone it is computed by iteration, without the rest of the spectrum. A value within one "
            "part in a million of the limit passes.",
            "Spectral normalisation, weight decay, or gradient clipping; outlier features show as one σ "
            "far above the rest.",
            Need.SIGMA_MAX,
            threshold="max_sigma",
        ),
        Rule(
            "SI202",
            "min-stable-rank",
            "the stable rank of W is below the limit",
            "‖W‖_F²/σmax², between 1 and min(m, n): over how many directions the layer's energy is "
            "spread. A zero matrix has none and fails. A value within one part in a million of the "
            "limit passes.",
            "A stable rank near 1 means one direction has taken over: look for a diverged run or a "
            "collapsed layer.",
            Need.SIGMA_MAX,
            threshold="min_stable_rank",
        ),
        Rule(
            "SI203",
            "rank-deficient",
            "W has lost more of its rank than rounding explains",
            "Singular values below the rounding error of the stored dtype, more of them than a healthy "
            "matrix has (above 2, and above 2% of all), those left out that zero rows and columns "
            "explain (SI303, SI304). Low-rank adapters are not checked.",
            "Intended after low-rank compression: ignore it there. Otherwise the layer has collapsed: "
            "look at earlier checkpoints.",
            Need.SPECTRUM,
            "warning",
            default=True,
        ),
        Rule(
            "SI301",
            "nonfinite-weights",
            "a weight has NaN or infinite entries",
            "Any NaN or infinite entry of a layer's weight, or of a floating-point tensor beside the layers: "
            "biases, gains and running statistics of normalisations, tables. Infinite entries of masks are "
            "what they are for. With --layers and --exclude, what belongs to a layer goes with it, and the "
            "rest by its own name. --allow-nonfinite accepts them all, and leaves layers with such weights "
            "out of the other rules.",
            "The run has diverged: go back to the last checkpoint without them; look at the loss scale, "
            "the learning rate and divisions by zero.",
            Need.ENTRIES,
            default=True,
        ),
        Rule(
            "SI302",
            "zero-matrix",
            "every entry of a weight is zero",
            "A layer that maps everything to zero (or to its bias).",
            "Intended for the last layer of a zero-initialised branch (an untrained adapter, a zero "
            "convolution): ignore it there. Otherwise the tensor was never loaded, or pruned away.",
            Need.ENTRIES,
            default=True,
        ),
        Rule(
            "SI303",
            "dead-rows",
            "rows (of a convolution: output channels) are zero",
            "Outputs that no input reaches: κ(W) is infinite where they cost rank. All-zero weights are "
            "SI302's.",
            "Intended after structured pruning: remove the rows, or ignore the rule. Otherwise dead "
            "units: look at the learning rate and at the initialisation.",
            Need.ENTRIES,
            "warning",
            default=True,
        ),
        Rule(
            "SI304",
            "dead-columns",
            "columns (of a convolution: input channels) are zero",
            "Inputs that the layer does not read. Of an embedding, whose columns are the tokens' "
            "vectors, a single zero one is not reported: the padding token has it. All-zero weights are "
            "SI302's.",
            "Intended after pruning: remove them, or ignore the rule. Otherwise inputs that were "
            "constantly zero in training.",
            Need.ENTRIES,
            "warning",
            default=True,
        ),
        Rule(
            "SI305",
            "negative-variance",
            "a running variance of batch normalisation is negative",
            "The root of variance + ε is then NaN, or of the wrong size: no training computes one. Other "
            "tensors are not looked at.",
            "A damaged file, or checkpoints that were subtracted from each other: compute the statistics "
            "anew.",
            Need.ENTRIES,
            "warning",
            default=True,
        ),
        Rule(
            "SI401",
            "max-kappa-growth",
            "κ(W) has grown by more than the ratio over the baseline",
            f"κ(W) divided by that of the same layer in the baseline. {_BASELINE_KAPPA}",
            "Compare the two checkpoints (specinspect compare); accept the new state with --write-baseline.",
            Need.SPECTRUM,
            threshold="max_kappa_growth",
            limit=2.0,
            baseline=True,
        ),
        Rule(
            "SI402",
            "max-sigma-growth",
            "σmax(W) has grown by more than the ratio over the baseline",
            "σmax(W) divided by that of the same layer in the baseline.",
            "As for SI401: a norm that doubles between checkpoints is often the beginning of a divergence.",
            Need.SIGMA_MAX,
            threshold="max_sigma_growth",
            limit=2.0,
            baseline=True,
        ),
        Rule(
            "SI403",
            "max-rank-loss",
            "W has lost more than the share of the baseline's rank",
            "1 - rank/rank of the baseline, of numerical ranks: singular values above the rounding "
            "error of the stored dtype. Storing in fewer bits lowers it.",
            "As for SI401.",
            Need.SPECTRUM,
            threshold="max_rank_loss",
            limit=0.02,
            baseline=True,
        ),
        Rule(
            "SI404",
            "layer-appeared",
            "a layer is not in the baseline",
            "Nothing to compare it with.",
            "Accept it with --write-baseline.",
            Need.HEADERS,
            "warning",
            baseline=True,
        ),
        Rule(
            "SI405",
            "layer-vanished",
            "a layer of the baseline is not in the checkpoint",
            "Layers that --layers or --exclude leave out are not missed.",
            "A renamed or dropped module: accept the new state with --write-baseline.",
            Need.HEADERS,
            baseline=True,
        ),
        Rule(
            "SI406",
            "shape-changed",
            "a layer has another shape, kind or geometry than in the baseline",
            "Of convolutions also stride, dilation, groups, the grid and the boundary that were "
            "computed with. Its other numbers are not compared: they belong to another operator.",
            "As for SI405.",
            Need.HEADERS,
            baseline=True,
        ),
        Rule(
            "SI501",
            "bound-violated",
            "a deterministic bound is violated",
            "A theorem without probability fails on the computed numbers: a bug of specinspect or a "
            "loss of precision, never surprising data. The layer's numbers are not to be trusted. Runs "
            "where bounds were computed; selected, it has them computed.",
            "Please report it, with the layer's weight if you can share it.",
            Need.BOUNDS,
            default=True,
        ),
    )
)
"""Every rule, by code; found by name too."""
