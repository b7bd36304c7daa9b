"""`specinspect report`: one pass over all layers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from specinspect.cli.parameters import (
    Activation,
    Beta,
    Blocks,
    Bounds,
    Checkpoint,
    Compose,
    ConfigFile,
    ConvOperator,
    ConvPattern,
    Curve,
    Delta,
    Device,
    Exclude,
    Grid,
    Init,
    Inputs,
    Jobs,
    Key,
    Layers,
    Maps,
    Model,
    ModelArgs,
    NoCache,
    Output,
    Patterns,
    Rho,
    Seed,
    Spectra,
    TargetKappa,
)
from specinspect.cli.speech import say
from specinspect.errors import SettingsError


class Format(StrEnum):
    """Output formats of `report`."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    HTML = "html"


def report(
    context: typer.Context,
    checkpoint: Checkpoint,
    json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    format_: Annotated[
        Format | None, typer.Option("--format", help="[default: table]", show_default=False)
    ] = None,
    output: Output = None,
    layers: Layers = None,
    exclude: Exclude = None,
    key: Key = None,
    maps: Maps = "weight,chain,skip,skip_chain",
    beta: Beta = 1.0,
    rho: Rho = 1.0,
    activation: Activation = "auto",
    patterns: Patterns = 8,
    seed: Seed = 0,
    blocks: Blocks = True,
    compose: Compose = None,
    curve: Curve = False,
    show_bounds: Bounds = False,
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
    target_kappa: TargetKappa = 10.0,
    delta: Delta = 0.01,
    init: Init = None,
) -> None:
    """Compute every layer once and report singular values, condition numbers and ranks.

    Options on the command line win over those of the nearest specinspect.toml or [tool.specinspect] in
    pyproject.toml, looked for from the working directory upward.
    """
    from specinspect.cli.options import settings_of
    from specinspect.cli.output import check_not_input, check_writable, files_read, write_report

    if json and format_ not in {None, Format.JSON}:
        raise SettingsError(f"--json and --format {format_} contradict each other", "give one of them")
    chosen = Format.JSON if json else format_ or Format.TABLE
    settings, notice = settings_of(context)
    output = check_writable(output)

    from specinspect import engine
    from specinspect.cli.progress import progress
    from specinspect.engine.effort import quicker

    inspection = engine.open_source(checkpoint, settings)
    check_not_input(output, files_read(checkpoint, inspection.checkpoint.files, settings.inputs, config))
    for sentence in (*notice, *inspection.notices):
        say(sentence)
    measured = inspection.discovery.layers
    with progress(len(measured), lambda: quicker(measured, settings)) as advance:
        result = engine.report(inspection, progress=advance)
    write_report(result, chosen.value, output, bounds=show_bounds)
