"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CKPT",
        help="A checkpoint file, a *.index.json, or a directory that holds shards.",
        show_default=False,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option("--layers", metavar="GLOB", help="Only layers whose name matches (repeatable)."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Leave these layers out (repeatable)."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="NAME", help="Which state dict, in a file that nests several; . takes all as one."
    ),
]
Maps = Annotated[
    str,
    typer.Option(
        "--maps",
        metavar="NAMES",
        help="Which maps, by commas: weight, chain (DW), skip (rho I + beta W), skip_chain.",
    ),
]
Beta = Annotated[float, typer.Option("--beta", metavar="FLOAT", help="Weight of the branch in the skip map.")]
Rho = Annotated[float, typer.Option("--rho", metavar="FLOAT", help="Weight of the skip in the skip map.")]
Activation = Annotated[
    str,
    typer.Option(
        "--activation",
        metavar="NAME",
        help="What D is made of: auto, identity, relu, leaky_relu:SLOPE, gelu, ...",
    ),
]
Patterns = Annotated[
    int, typer.Option("--patterns", metavar="N", help="Sampled activation regions per layer.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the sampled inputs.")]
Blocks = Annotated[
    bool,
    typer.Option(
        "--blocks/--no-blocks", help="Also residual blocks, MLPs and attention products as a whole."
    ),
]
Compose = Annotated[
    list[str] | None,
    typer.Option(
        "--compose", metavar="A:B:...", help="A chain of layers to measure as a block (repeatable)."
    ),
]
Curve = Annotated[
    bool,
    typer.Option("--curve", help="Also the extremes of rho I + beta W for beta from 0 to 2 (in the JSON)."),
]
Bounds = Annotated[
    bool, typer.Option("--bounds", help="Show every bound with its verdicts and the advice (in the table).")
]
Grid = Annotated[int, typer.Option("--grid", metavar="N", help="Convolutions: side of the periodic grid.")]
ConvOperator = Annotated[
    str,
    typer.Option(
        "--conv-operator",
        metavar="NAME",
        help="Convolutions: circular (periodic grid), or padded (with their zeros; exact but slow).",
    ),
]
ConvPattern = Annotated[
    str,
    typer.Option(
        "--conv-pattern", metavar="NAME", help="D per channel, or per pixel (needs --conv-operator padded)."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FACTORY",
        help="Build the network (RUNS THAT CODE) and read activations, strides and skips from it.",
    ),
]
ModelArgs = Annotated[
    str | None, typer.Option("--model-args", metavar="JSON", help="Arguments of the factory.")
]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--inputs",
        metavar="FILE",
        help="Your own inputs: safetensors with an array per layer, or with --model one batch (.npy too).",
    ),
]
ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="TOML with settings and per-layer rules.")
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps: where to compute."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", help="Layers in flight at once  [default: the cores]", show_default=False
    ),
]
Spectra = Annotated[bool, typer.Option("--spectra", help="Put all singular values into the JSON.")]
TargetKappa = Annotated[
    float,
    typer.Option("--target-kappa", metavar="FLOAT", help="The kappa of the skip map that advice aims at."),
]
Delta = Annotated[
    float,
    typer.Option(
        "--delta",
        metavar="FLOAT",
        help="Probabilistic bounds may fail with this probability, over all layers together.",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="NAME",
        help="How fresh weights were drawn: kaiming, xavier, pytorch-default or std:X "
        " [default: from the entries]",
        show_default=False,
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the result cache.")]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write there instead of to stdout."),
]
