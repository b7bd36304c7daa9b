"""From MODULE:FACTORY to an nn.Module. This is the one place that runs code on a user's request."""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from specinspect.architecture.model import Built
from specinspect.architecture.text import describe
from specinspect.checkpoint.text import kind_of, quote
from specinspect.errors import SettingsError


def build_with_notes(spec: str, arguments: str | None = None, *, real: bool = False) -> Built:
    """Import MODULE:FACTORY and build the network, on the meta device where that works.

    A factory that needs real values is called again: with only its parameters on the meta device, then on
    the CPU. With `real` it is built on the CPU at once, to be run.

    Raises:
        SettingsError: nothing there, it raised, or it made no nn.Module.
    """
    module_name, factory_name = _split(spec)
    args, kwargs = _arguments(arguments)
    with _current_directory():
        factory = _attribute(_import(module_name), module_name, factory_name)
        if isinstance(factory, nn.Module):
            if args or kwargs:
                raise SettingsError(
                    f"expected a class or a function that takes arguments, found a module: {quote(spec)}",
                    "leave the arguments out",
                )
            return Built(factory)
        if not callable(factory):
            raise SettingsError(
                f"expected {quote(spec)} to be a class, a function or an nn.Module, found {kind_of(factory)}",
                _similar(factory_name, _callables(sys.modules[module_name])),
            )
        made, note = _call(spec, factory, args, kwargs, real=real)
    if not isinstance(made, nn.Module):
        raise SettingsError(
            f"expected {quote(spec)} to return an nn.Module, found {kind_of(made)}",
            "name a function that returns the module alone",
        )
    return Built(made, (note,) if note else ())


def _split(spec: str) -> tuple[str, str]:
    module, sign, factory = spec.partition(":")
    parts = (*module.split("."), *factory.split("."))
    if not sign or not all(part.isidentifier() for part in parts):
        hint = "for example mymodels.resnet:build"
        if "/" in spec or "\\" in spec or module.endswith(".py"):
            hint += "; the module is named as in an import, not as a file"
        raise SettingsError(f"expected MODULE:FACTORY, found {quote(spec)}", hint)
    return module, factory


def _arguments(text: str | None) -> tuple[list[Any], dict[str, Any]]:
    if text is None:
        return [], {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"expected the model's arguments as JSON, found {quote(text)}: {describe(error)}",
            'for example {"depth": 18} or [18]',
        ) from None
    if isinstance(value, dict):
        return [], value
    if isinstance(value, list):
        return value, {}
    raise SettingsError(
        f"expected the model's arguments as a JSON object or array, found {quote(text)}",
        'for example {"depth": 18} or [18]',
    )


@contextlib.contextmanager
def _current_directory() -> Iterator[None]:
    """Put the current directory first on the path, and send what the code prints to stderr."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        with quiet_stdout():
            yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send to stderr what foreign code writes to stdout, from Python or natively to file descriptor 1."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError):  # closed: nothing to keep clean
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(Exception):
            ctypes.CDLL(None).fflush(None)  # what C's stdio still holds back goes there too
        os.dup2(kept, 1)
        os.close(kept)


def _import(name: str) -> ModuleType:
    # On the CPU, not on meta: the constants of imported modules stay for the rest of the process.
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SettingsError(
                f"expected a module that can be imported, found none called {quote(error.name)}",
                _similar(error.name, _modules(error.name)) or "the current directory is searched first",
            ) from None
        raise _raised(f"importing {quote(name)}", error) from None
    except (Exception, SystemExit) as error:
        raise _raised(f"importing {quote(name)}", error) from None


def _modules(missing: str) -> list[str]:
    """Names of the modules that lie where the missing one was looked for."""
    parent = missing.rpartition(".")[0]
    where = getattr(sys.modules.get(parent), "__path__", []) if parent else None
    lead = f"{parent}." if parent else ""
    return [lead + found.name for found in pkgutil.iter_modules(where)]


def _attribute(module: ModuleType, module_name: str, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise SettingsError(
                f"expected {quote(path)} in the module {quote(module_name)}, found no {quote(name)}",
                _similar(name, _callables(value)),
            ) from None
        except (Exception, SystemExit) as error:
            raise _raised(f"looking up {quote(path)}", error) from None
    return value


def _callables(module: Any) -> list[str]:
    return [
        name for name in dir(module) if not name.startswith("_") and callable(getattr(module, name, None))
    ]


def _similar(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else ""


def _call(
    spec: str, factory: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], *, real: bool
) -> tuple[Any, str]:
    """Try the ways that take no memory first. Return what was made, and a sentence if it took another way."""
    reason = ""
    ways: tuple[tuple[Callable[[], contextlib.AbstractContextManager[None]], str], ...] = (
        (_on_meta, ""),
        (_parameters_on_meta, ""),
        (contextlib.nullcontext, "the factory does not work on the meta device and was run on the CPU: {}"),
    )
    for where, note in ways[2:] if real else ways:
        try:
            with where():
                return factory(*args, **kwargs), note.format(reason) if reason else ""
        except (Exception, SystemExit) as error:
            # Wrong arguments and the like fail in every way alike; the last, plainest one is reported.
            reason = reason or describe(error)
            failed = error
    raise _raised(f"calling {quote(spec)}", failed) from None


@contextlib.contextmanager
def _on_meta() -> Iterator[None]:
    with torch.device("meta"):
        yield


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Let all but parameters have values: factories read drop-path rates and the like from tensors."""

    def move(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or nn.parameter.is_lazy(parameter):
            return parameter
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    handle = nn.modules.module.register_module_parameter_registration_hook(move)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def _raised(what: str, error: BaseException) -> SettingsError:
    return SettingsError(f"{what} raised {describe(error)}", "run it in Python to see the traceback")
