"""`specinspect check`: the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from specinspect.cli.parameters import (
    Activation,
    Beta,
    ConfigFile,
    ConvOperator,
    ConvPattern,
    Device,
    Exclude,
    Grid,
    Inputs,
    Jobs,
    Key,
    Layers,
    Model,
    ModelArgs,
    NoCache,
    Patterns,
    Rho,
    Seed,
    Spectra,
)

Limit = float | None


def _limit(name: str, text: str, metavar: str = "X") -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(name, metavar=metavar, help=text, show_default=False)
    return info


def check(
    context: typer.Context,
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT...",
            help="Checkpoint files, *.index.json, directories that hold shards, or globs of them.",
            show_default=False,
        ),
    ],
    max_kappa: Annotated[Limit, _limit("--max-kappa", "Largest condition number of W.")] = None,
    max_chain_kappa: Annotated[Limit, _limit("--max-chain-kappa", "Largest condition number of D W.")] = None,
    max_skip_kappa: Annotated[
        Limit, _limit("--max-skip-kappa", "Largest condition number of rho I + beta W.")
    ] = None,
    max_guaranteed_kappa: Annotated[
        Limit, _limit("--max-guaranteed-kappa", "Largest bound on that of rho I + beta W.")
    ] = None,
    max_sigma: Annotated[Limit, _limit("--max-sigma", "Largest spectral norm of W.")] = None,
    min_stable_rank: Annotated[Limit, _limit("--min-stable-rank", "Smallest stable rank of W.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="REPORT", help="A report --json to compare with, layer by layer."),
    ] = None,
    max_kappa_growth: Annotated[
        Limit,
        _limit(
            "--max-kappa-growth", "Largest growth of that of W over the baseline's  [default: 2]", "RATIO"
        ),
    ] = None,
    max_sigma_growth: Annotated[
        Limit,
        _limit("--max-sigma-growth", "Largest growth of the norm over the baseline's  [default: 2]", "RATIO"),
    ] = None,
    max_rank_loss: Annotated[
        Limit,
        _limit("--max-rank-loss", "Largest lost share of the baseline's rank  [default: 0.02]", "SHARE"),
    ] = None,
    write_baseline: Annotated[
        str | None,
        typer.Option("--write-baseline", metavar="FILE", help="Write the report there, if nothing failed."),
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select",
            metavar="RULES",
            help="Codes, their beginnings (SI3) or names, by commas: instead of the default rules.",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="RULES", help="The same: do not check these.")
    ] = None,
    allow_nonfinite: Annotated[
        bool,
        typer.Option("--allow-nonfinite", help="Accept NaN and infinite entries; leave such layers out."),
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first layer that fails.")
    ] = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with 0 whatever was found (errors stay 2).")
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME[:FILE]",
            help="text, json, github, junit, sarif or markdown; repeatable  [default: text]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where the format without a file goes."),
    ] = None,
    layers: Layers = None,
    exclude: Exclude = None,
    key: Key = None,
    beta: Beta = 1.0,
    rho: Rho = 1.0,
    activation: Activation = "auto",
    patterns: Patterns = 8,
    seed: Seed = 0,
    grid: Grid = 16,
    conv_operator: ConvOperator = "circular",
    conv_pattern: ConvPattern = "channel",
    model: Model = None,
    model_args: ModelArgs = None,
    inputs: Inputs = None,
    config: ConfigFile = None,
    device: Device = "auto",
    jobs: Jobs = None,
    spectra: Spectra = False,
    no_cache: NoCache = False,
) -> None:
    """Hold checkpoints against limits: exit code 0 passed, 1 something exceeded, 2 could not be checked.

    Without limits: NaN and infinite weights and all-zero matrices fail; dead rows and columns and lost rank
    are warnings. Limits and rules may also stand in [check] and [rules."GLOB"] of specinspect.toml.
    """
    from specinspect.cli.gating import run_check

    code = run_check(context)
    if code:
        raise typer.Exit(code)
