"""The command line: options in, data on stdout, everything else on stderr, exit codes as documented."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from specinspect._version import __version__
from specinspect.errors import SettingsError, SpecinspectError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """Output formats of `report`."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    HTML = "html"


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
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write there instead of to stdout."),
]


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"specinspect {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Inspect the singular spectra of a neural-network checkpoint, layer by layer.

    No code from a checkpoint is ever run.
    """


@app.command()
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

    inspection = engine.open_source(checkpoint, settings)
    check_not_input(output, files_read(checkpoint, inspection.checkpoint.files, settings.inputs, config))
    with progress(len(inspection.discovery.layers)) as advance:
        result = engine.report(inspection, progress=advance)
    for sentence in (*notice, *inspection.notices):
        _say(sentence)
    write_report(result, chosen.value, output)


@app.command()
def schema() -> None:
    """Print the JSON Schema of `report --json`."""
    from specinspect.report.schema import schema_text

    sys.stdout.write(schema_text())


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code: 0 done, 2 anything wrong, 130 interrupted.

    Every failure is one line on stderr; SPECINSPECT_DEBUG=1 adds the traceback of an internal error.
    """
    if sys.stderr is None:  # closed by the caller (2>&-): nobody to tell, but no reason to crash
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        return _fail("standard output is closed: nowhere to write to")
    command = typer.main.get_command(app)
    try:
        # Not command.main(): it turns a closed pipe into exit code 1 and swallows interrupts.
        with command.make_context("specinspect", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except SpecinspectError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return _leave(130, "interrupted")
    except BrokenPipeError:
        # The reader went away (`| head`). Nothing more can be written, the flush at exit included.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 2
    except OSError as error:  # readers turn theirs into SpecinspectError: this one is about writing
        return _fail(f"cannot write the output: {error.strerror or error}")
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:
            return _fail(f"{usage().rstrip('.')} (see specinspect --help)")
        if os.environ.get("SPECINSPECT_DEBUG"):
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error} "
            "(please report it; SPECINSPECT_DEBUG=1 shows where)"
        )
    return 0


def _fail(message: str) -> int:
    _say(message)
    return 2


def _say(message: str) -> None:
    from specinspect.report.text import visible

    sys.stderr.write(f"specinspect: {visible(message)}\n")


def _leave(code: int, message: str) -> int:
    """Exit at once: a worker may be inside a decomposition that takes seconds and cannot be stopped."""
    sys.stderr.write(f"specinspect: {message}\n")
    sys.stderr.flush()
    os._exit(code)
