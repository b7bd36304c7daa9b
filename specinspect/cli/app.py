"""The command line: options in, data on stdout, everything else on stderr, exit codes as documented."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import typer

from specinspect._version import __version__
from specinspect.cli.cache import cache
from specinspect.cli.check import check
from specinspect.cli.compare import compare
from specinspect.cli.explain import explain
from specinspect.cli.open import open_
from specinspect.cli.report import report
from specinspect.cli.schema import schema
from specinspect.cli.speech import say
from specinspect.errors import SpecinspectError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


app.command("open")(open_)
app.command()(report)
app.command()(check)
app.command()(compare)
app.command()(explain)
app.command()(schema)
app.add_typer(cache, name="cache")


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code.

    0 done, 1 `check` found something, 2 anything wrong, 130 interrupted.

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
    except SystemExit:
        # So rich takes a reader that went away, with exit code 1.
        return 2
    except OSError as error:  # readers turn theirs into SpecinspectError: this one is about writing
        return _fail(f"cannot write the output: {error.strerror or error}")
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:
            return _fail(f"{_usage(error, usage(), arguments)} (see specinspect --help)")
        if os.environ.get("SPECINSPECT_DEBUG"):
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error} "
            "(please report it; SPECINSPECT_DEBUG=1 shows where)"
        )
    return 0


def _usage(error: Exception, message: str, arguments: Sequence[str]) -> str:
    """Return what is wrong with the command line, in the words of all other messages."""
    found = re.search(r"Input should be a valid (number|integer)", message)
    names = [name for name in getattr(getattr(error, "param", None), "opts", ()) if name.startswith("-")]
    if found is None or not names:
        return message.rstrip(".").replace("Value error, ", "")  # pydantic's, of choices
    expected = {"number": "a number", "integer": "a whole number"}[found[1]]
    split = [
        part for argument in arguments for part in (argument.split("=", 1) if "=" in argument else [argument])
    ]
    after = [value for name, value in pairwise(split) if name in names]
    return f"{names[0]}: expected {expected}" + (f", got {after[-1]!r}" if after else "")


def _fail(message: str) -> int:
    say(message)
    return 2


def _leave(code: int, message: str) -> int:
    """Exit at once: a worker may be inside a decomposition that takes seconds and cannot be stopped."""
    say(message)
    os._exit(code)
