"""`specinspect open`: the app."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from specinspect.cli.parameters import (
    Activation,
    Beta,
    Blocks,
    Checkpoint,
    Compose,
    ConfigFile,
    ConvOperator,
    ConvPattern,
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
    Patterns,
    Rho,
    Seed,
    Spectra,
    TargetKappa,
)
from specinspect.errors import SettingsError, SpecinspectError


def open_(
    context: typer.Context,
    checkpoint: Checkpoint,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="CKPT", help="A second checkpoint, to see what has moved."),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Serve the app to a browser on this machine (127.0.0.1).")
    ] = False,
    port: Annotated[int, typer.Option("--port", metavar="N", help="Of --web.")] = 8000,
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
    grid: Grid = 16,
    conv_operator: ConvOperator = "circular",
    conv_pattern: ConvPattern = "channel",
    model: Model = None,
    model_args: ModelArgs = None,
    inputs: Inputs = None,
    config: ConfigFile = None,
    device: Device = "auto",
    jobs: Jobs = None,
    target_kappa: TargetKappa = 10.0,
    delta: Delta = 0.01,
    init: Init = None,
    spectra: Spectra = False,
    no_cache: NoCache = False,
) -> None:
    """Look at a checkpoint in the terminal: results stream in while you read; q quits.

    Options mean what they mean for `report`.
    """
    from dataclasses import replace

    from specinspect.cli.options import KNOWN, settings_of
    from specinspect.config import load_config

    if not web:
        _check_terminal()
    settings, notices = settings_of(context)
    found = load_config(KNOWN, config).path

    from specinspect import engine

    inspection = engine.open_source(checkpoint, replace(settings, spectra=True))
    if web:
        _serve(port)
        return

    from specinspect.tui.app import INTERRUPTED, Inspector
    from specinspect.tui.pauses import short_collections

    app = Inspector(
        inspection,
        notices=notices,
        config=found,
        against=against,
        plain=_ascii_only(),
        spectra=settings.spectra,
    )
    with short_collections():
        app.run()
    if app.return_code == INTERRUPTED:
        raise KeyboardInterrupt
    if app.return_code:
        raise SpecinspectError("the app ended with an internal error", "please report it")


def _check_terminal() -> None:
    """Refuse where there is nobody to look.

    Raises:
        SettingsError: stdin, stdout or stderr is no terminal, or one that cannot move its cursor.
    """
    if "TEXTUAL_DRIVER" in os.environ:  # a browser is behind it
        return
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    closed = [name for name, stream in streams.items() if stream is None or not stream.isatty()]
    if closed:
        raise SettingsError(
            f"open needs a terminal, {' and '.join(closed)} {'is' if len(closed) == 1 else 'are'} none",
            "use `specinspect report` for output to a file or a pipe",
        )
    if os.environ.get("TERM") == "dumb":
        raise SettingsError(
            "open needs a terminal that can move its cursor, TERM says 'dumb'", "use `specinspect report`"
        )


def _ascii_only() -> bool:
    """Say whether the terminal takes nothing but ASCII, as far as the locale says."""
    encoding = (getattr(sys.stderr, "encoding", None) or "").lower().replace("-", "")
    chosen = next((os.environ[n] for n in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(n)), "")
    # Python itself takes the C locale for UTF-8.
    return not encoding.startswith("utf") or chosen in {"C", "POSIX"}


def _serve(port: int) -> None:
    """Serve this very command line to a browser, on the loopback address alone.

    Raises:
        SettingsError: the extra is not installed, or no such port.
    """
    import shlex
    from contextlib import redirect_stdout

    if not 1 <= port <= 65535:
        raise SettingsError(f"--port: expected a number from 1 to 65535, got {port}")
    try:
        from textual_serve.server import Server
    except ImportError:
        raise SettingsError(
            "--web needs the package textual-serve", "pip install 'specinspect[web]'"
        ) from None
    arguments = [argument for argument in sys.argv[1:] if argument != "--web"]
    command = shlex.join([sys.executable, "-m", "specinspect", *arguments])
    try:
        with redirect_stdout(sys.stderr):  # it greets, and logs every request
            Server(command, host="127.0.0.1", port=port, title="specinspect").serve()
    except OSError as error:
        raise SettingsError(
            f"--port: cannot serve on 127.0.0.1:{port}: {error.strerror or error}", "choose another --port"
        ) from error
