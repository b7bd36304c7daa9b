"""`specinspect compare`: the same layers of two checkpoints side by side."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from specinspect.cli.parameters import (
    Activation,
    Beta,
    ConfigFile,
    Device,
    Exclude,
    Grid,
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
)
from specinspect.cli.speech import say
from specinspect.errors import SettingsError

if TYPE_CHECKING:
    from specinspect.comparison.model import Comparison


class Format(StrEnum):
    """Output formats of `compare`."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


def compare(
    context: typer.Context,
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="The checkpoint that changes are measured from.", show_default=False
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    format_: Annotated[
        Format | None, typer.Option("--format", help="[default: table]", show_default=False)
    ] = None,
    output: Output = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            metavar="N",
            help="Only the N layers that moved most (in Markdown: unfolded); the JSON has all.",
            show_default=False,
        ),
    ] = None,
    layers: Layers = None,
    exclude: Exclude = None,
    key: Key = None,
    key_a: Annotated[
        str | None, typer.Option("--key-a", metavar="NAME", help="Which state dict in A, if not --key.")
    ] = None,
    key_b: Annotated[
        str | None, typer.Option("--key-b", metavar="NAME", help="Which state dict in B, if not --key.")
    ] = None,
    maps: Maps = "weight",
    beta: Beta = 1.0,
    rho: Rho = 1.0,
    activation: Activation = "auto",
    patterns: Patterns = 8,
    seed: Seed = 0,
    grid: Grid = 16,
    model: Model = None,
    model_args: ModelArgs = None,
    config: ConfigFile = None,
    device: Device = "auto",
    jobs: Jobs = None,
    spectra: Spectra = False,
    no_cache: NoCache = False,
) -> None:
    """Compare the layers of two checkpoints: base and fine-tuned, before and after quantisation or pruning.

    Layers are matched by name. Those that moved most come first.
    """
    from specinspect.cli.options import settings_of
    from specinspect.cli.output import check_not_input, check_writable, files_read

    if json and format_ not in {None, Format.JSON}:
        raise SettingsError(f"--json and --format {format_} contradict each other", "give one of them")
    if top is not None and top < 1:
        raise SettingsError(f"--top: expected a whole number of at least 1, got {top}")
    chosen = Format.JSON if json else format_ or Format.TABLE
    settings, notices = settings_of(context)
    output = check_writable(output)

    from specinspect.cli.progress import progress
    from specinspect.comparison.run import measure, open_pair

    pairing = open_pair(a, b, settings, key_a=key_a, key_b=key_b)
    for path, side in ((a, pairing.a), (b, pairing.b)):
        check_not_input(output, files_read(path, side.checkpoint.files, config))
    for sentence in (*notices, *pairing.notices):
        say(sentence)
    with progress(len(pairing.match.pairs)) as advance:
        comparison = measure(pairing, progress=advance)
    _write(comparison, chosen, output, top)


def _write(comparison: Comparison, form: Format, output: str | None, top: int | None) -> None:
    from specinspect.cli.output import write_table, write_text

    if form is Format.TABLE:
        from specinspect.comparison.table import print_table

        write_table(lambda file: print_table(comparison, file, top=top), output)
    elif form is Format.MARKDOWN:
        from specinspect.comparison.markdown import to_markdown

        write_text(to_markdown(comparison, top=top), output)
    else:
        write_text(comparison.to_json(), output)
