"""Facts that were edited: as a rule, and into a configuration file without losing anything in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specinspect.config import FILE, PROJECT
from specinspect.errors import SettingsError
from specinspect.layers.rules import Rule

_HEADER = re.compile(r"^\s*\[")


def rule_of(layer: str, facts: Mapping[str, str]) -> Rule:
    """Return the rule for one layer, by its own name.

    Raises:
        SettingsError: a value that makes no sense.
    """
    return Rule(layer, **{name: _value(name, text) for name, text in facts.items()})  # type: ignore[arg-type]


def _value(name: str, text: str) -> object:
    """Return a value as the configuration file has it: numbers, lists of numbers, or words."""
    text = text.strip()
    if name in {"activation", "skip"}:
        return text
    parts = [part.strip() for part in text.replace("×", ",").split(",")]
    if not all(part.isdecimal() for part in parts):
        raise SettingsError(f"{name}: expected whole numbers, got {text!r}")
    sizes = tuple(int(part) for part in parts)
    return sizes[0] if len(sizes) == 1 else sizes


def save(edits: Mapping[str, Mapping[str, str]], config: str | None) -> Path:
    """Write edited facts into the configuration file, and return which one.

    Everything else in the file stays as it is, comments included. The new text is read back and compared
    before it replaces the old in one step; where that fails, nothing is written.

    Args:
        edits: layer → field → value.
        config: the file that was read; None: specinspect.toml in the working directory, made where it is not.

    Raises:
        SettingsError: nothing to save, the file cannot be written, or its layout is not understood.
    """
    facts = {layer: dict(fields) for layer, fields in edits.items() if fields}
    if not facts:
        raise SettingsError("nothing was edited", "edit a fact on the Layer pane first")
    path = Path(config) if config is not None else Path(FILE)
    old = _read(path)
    prefix = ("tool", "specinspect") if path.name == PROJECT else ()
    new = old
    wanted = _parsed(path, old)
    for layer, fields in facts.items():
        keys = (*prefix, "rules", layer)
        values = {name: _value(name, text) for name, text in fields.items()}
        new = _with_table(new, keys, values)
        table = wanted
        for key in keys:
            table = table.setdefault(key, {})
        for name in list(table):
            if name.replace("-", "_") in values:
                del table[name]
        table |= {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    try:
        understood = tomllib.loads(new) == wanted
    except ValueError:
        understood = False
    if not understood:
        lines = "; ".join(f"[rules.{json.dumps(layer)}] {dict(fields)}" for layer, fields in facts.items())
        raise SettingsError(f"{path}: its layout is not understood, so nothing was written", f"add {lines}")
    _check_effective(path, wanted, prefix, facts)
    _write(path, new)
    return path


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # line ends stay as they are
            return file.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise SettingsError(f"cannot read {str(path)!r}: {why}") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise SettingsError(f"{path}: not readable as TOML: {' '.join(str(error).split())}") from error


def _check_effective(
    path: Path, document: Mapping[str, Any], prefix: tuple[str, ...], facts: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse where a later rule of the file would win over an edit."""
    from specinspect.layers.names import matches

    table: Any = document
    for key in prefix:
        table = table[key]
    globs = list(table["rules"].items())
    for layer, fields in facts.items():
        place = [glob for glob, _ in globs].index(layer)
        for glob, values in globs[place + 1 :]:
            names = {name.replace("-", "_") for name in values}
            if glob not in facts and matches(layer, (glob,)) and names & set(fields):
                raise SettingsError(
                    f"{path}: not written: the later rule {glob!r} would win over the edit of {layer!r}",
                    "move that rule up in the file",
                )


def _with_table(text: str, keys: tuple[str, ...], values: Mapping[str, object]) -> str:
    """Return the text with values in a table: in place if it stands there, else at the end."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if _is_header(line, keys)), None)
    if start is None:
        body = [f"{name} = {_literal(value)}{newline}" for name, value in values.items()]
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += newline
        gap = [newline] if lines and lines[-1].strip() else []
        return "".join([*lines, *gap, f"[{_dotted(keys)}]{newline}", *body])
    stop = next((i for i in range(start + 1, len(lines)) if _HEADER.match(lines[i])), len(lines))
    said = {_key_of(line): _comment(line) for line in lines[start + 1 : stop]}
    body = [f"{name} = {_literal(value)}{said.get(name, '')}{newline}" for name, value in values.items()]
    kept = [line for line in lines[start + 1 : stop] if _key_of(line) not in values]
    if not lines[start].endswith("\n"):
        lines[start] += newline
    return "".join([*lines[: start + 1], *body, *kept, *lines[stop:]])


def _is_header(line: str, keys: tuple[str, ...]) -> bool:
    """Say whether a line opens exactly this table, however it is quoted."""
    if not _HEADER.match(line) or line.lstrip().startswith("[["):
        return False
    try:
        table: Any = tomllib.loads(line)
    except ValueError:
        return False
    for key in keys:
        if not isinstance(table, dict) or list(table) != [key]:
            return False
        table = table[key]
    return table == {}


def _key_of(line: str) -> str:
    return line.partition("=")[0].strip().strip("\"'").replace("-", "_") if "=" in line else ""


def _comment(line: str) -> str:
    """Return the comment behind a value, with the gap before it."""
    for place, letter in enumerate(line):
        if letter == "#":
            with contextlib.suppress(ValueError):  # or it is inside of a string
                tomllib.loads(line[:place])
                return line[len(line[:place].rstrip()) :].rstrip()
    return ""


def _dotted(keys: tuple[str, ...]) -> str:
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _literal(key) for key in keys)


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL and for surrogates, which no TOML can hold.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, keeping its permissions; a link's target is replaced."""
    target = Path(os.path.realpath(path))
    name = ""
    try:
        data = text.encode("utf-8")
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mode = target.stat().st_mode & 0o7777 if target.exists() else 0o644
        Path(name).chmod(mode)
        Path(name).replace(target)
    except (OSError, UnicodeEncodeError) as error:
        if name:
            with contextlib.suppress(OSError):
                Path(name).unlink()
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"cannot write {str(path)!r}: {why}") from error
