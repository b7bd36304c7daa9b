"""From options and the configuration file to Settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from specinspect.config import THRESHOLDS, Config, load_config
from specinspect.errors import SettingsError
from specinspect.gate.catalogue import RULES
from specinspect.gate.policy import Thresholds
from specinspect.settings import Settings

KNOWN: Mapping[str, type] = {
    "layers": list,
    "exclude": list,
    "key": str,
    "maps": list,
    "beta": float,
    "rho": float,
    "activation": str,
    "patterns": int,
    "seed": int,
    "blocks": bool,
    "compose": list,
    "curve": bool,
    "grid": int,
    "model": str,
    "model_args": str,
    "inputs": str,
    "conv_operator": str,
    "conv_pattern": str,
    "device": str,
    "jobs": int,
    "spectra": bool,
    "cache": bool,
    "target_kappa": float,
    "delta": float,
    "init": str,
}
"""Settings that the configuration file may hold, under the names of the options."""


def settings_of(context: typer.Context) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings of a command, and what is to be said about where they come from.

    Raises:
        SettingsError: a value that makes no sense, or a damaged configuration file.
    """
    chosen, config, notices = options_of(context)
    return Settings(**chosen, rules=config.rules), notices


def options_of(context: typer.Context) -> tuple[dict[str, Any], Config, tuple[str, ...]]:
    """Return the values of Settings, the configuration file they partly come from, and what to say of it.

    What stands on the command line wins over the configuration file, which wins over the defaults. A model,
    whose code would be run, is only taken from a file that was named with --config. Options that the command
    does not have are taken from the file too.

    Raises:
        SettingsError: a damaged configuration file.
    """
    given = context.params
    config = load_config(KNOWN, given["config"])
    _check_values(config)
    chosen: dict[str, Any] = dict(config.settings)
    notices: tuple[str, ...] = ()
    if given["config"] is None and {"model", "model_args"} & chosen.keys():
        chosen.pop("model", None)
        chosen.pop("model_args", None)
        notices = (
            f"{config.path}: model is not used: code runs only on request (name the file with --config)",
        )
    for name in KNOWN.keys() - {"cache"}:
        source = context.get_parameter_source(name)
        if name in given and (name not in chosen or (source is not None and source.name == "COMMANDLINE")):
            chosen[name] = given[name]
    if isinstance(chosen.get("maps"), str):
        chosen["maps"] = comma_separated([chosen["maps"]])
    for name in ("layers", "exclude", "compose"):
        chosen[name] = tuple(chosen.get(name) or ())
    chosen["cache"] = chosen.get("cache", True) and not given.get("no_cache", False)
    return chosen, config, notices


def _check_values(config: Config) -> None:
    """Refuse values of the configuration file that make no sense, whether or not this command uses them.

    Raises:
        SettingsError: names the file and the key.
    """
    for name, value in config.settings.items():
        given: dict[str, Any] = {name: value}
        if name == "conv_pattern":  # which of the two is asked for may stand on the command line
            given["conv_operator"] = "padded"
        with _said_of(config, ""):
            Settings(**given)
    limits = {name: value for name, value in config.check.items() if name in THRESHOLDS}
    with _said_of(config, "check."):
        Thresholds(**limits)
    with _said_of(config, ""):
        Thresholds(per_layer=config.limits)
        for name in ("select", "ignore"):
            for key in comma_separated(config.check.get(name, ())):
                RULES.find(key)


@contextmanager
def _said_of(config: Config, table: str) -> Iterator[None]:
    """Say of an error about an option that it is the file's key."""
    try:
        yield
    except SettingsError as error:
        message = error.message
        if message.startswith("--"):
            message = f"{table}{message[2:]}"
        raise SettingsError(f"{config.path}: {message}", error.hint) from error


def comma_separated(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the texts of an option, such as --select or --maps; nothing for an empty one."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
