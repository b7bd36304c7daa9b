"""The configuration file: where it is found, and what it may say.

    beta = 0.5                        # the names of the options, with dashes or underscores

    [rules."encoder.*.fc1"]           # facts about the layers that a glob matches; the last match counts
    activation = "gelu"
    max-kappa = 1e6                   # a threshold for these layers only

    [check]                           # thresholds for all layers
    max-kappa = 1e4

In a pyproject.toml the same stands under [tool.specinspect].
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

from specinspect.errors import SettingsError
from specinspect.layers.rules import Rule

FILE = "specinspect.toml"
PROJECT = "pyproject.toml"

THRESHOLDS: Mapping[str, type] = {
    "max_kappa": float,
    "max_chain_kappa": float,
    "max_skip_kappa": float,
    "max_guaranteed_kappa": float,
    "max_sigma": float,
    "min_stable_rank": float,
    "max_kappa_growth": float,
    "max_sigma_growth": float,
    "max_rank_loss": float,
}
"""Limits, for all layers or for those of one rule."""
CHECKS: Mapping[str, type] = {
    **THRESHOLDS,
    "baseline": str,
    "select": list,
    "ignore": list,
    "allow_nonfinite": bool,
    "exit_zero": bool,
}
"""What [check] may hold."""

_RULE_KEYS: Mapping[str, type] = {item.name: object for item in fields(Rule) if item.name != "glob"} | {
    "activation": str,
    "slope": float,
    "skip": str,
    "shortcut": str,
}
_EXPECTED: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    list: "a list of strings",
}
_FOUND: Mapping[type, str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration file says; empty where there is none."""

    path: str | None = None
    """The file it was read from."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Option → value, under the names that were given as known; lists as tuples."""
    rules: tuple[Rule, ...] = ()
    """In the order of the file."""
    check: Mapping[str, Any] = field(default_factory=dict)
    """A key of CHECKS → value."""
    limits: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """(glob, a key of THRESHOLDS → value) for every rule with thresholds, in the order of the file."""


def load_config(
    known: Mapping[str, type], file: str | Path | None = None, start: Path | None = None
) -> Config:
    """Read the configuration file that was asked for, else the nearest one.

    The nearest is the first specinspect.toml, or pyproject.toml with a [tool.specinspect], in the working
    directory or above it; in one directory specinspect.toml wins.

    Args:
        known: option → bool, int, float, str, or list for a list of strings.
        file: the file asked for.
        start: where the search begins; the working directory by default.

    Raises:
        SettingsError: no such file, no TOML, an unknown key, or a value of the wrong type.
    """
    if file is not None:
        path = Path(file)
        return _parse(path, _asked(path), known)
    directory = (start or Path.cwd()).absolute()
    for place in (directory, *directory.parents):
        path = place / FILE
        if path.is_file():
            return _parse(path, _document(path), known)
        path = place / PROJECT
        # Another tool's file is not ours to complain about.
        if path.is_file() and b"specinspect" in _bytes(path):
            table = _tool_table(path, _document(path))
            if table is not None:
                return _parse(path, table, known)
    return Config()


def _asked(path: Path) -> Mapping[str, Any]:
    document = _document(path)
    if path.name != PROJECT:
        return document
    table = _tool_table(path, document)
    if table is None:
        raise SettingsError(f"{path}: expected a table [tool.specinspect], found none", "add one")
    return table


def _tool_table(path: Path, document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    tools = document.get("tool")
    table = tools.get("specinspect") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise _wrong(path, "tool.specinspect", "a table", table)
    return table


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise SettingsError(f"cannot read configuration {path}: {why}", "expected a TOML file") from error


def _document(path: Path) -> Mapping[str, Any]:
    data = _bytes(path)
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}: not UTF-8 (at line {line})", "save it as UTF-8") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: not readable as TOML: nested too deep") from error
    except ValueError as error:
        # tomllib's own message ends with the line and the column.
        raise SettingsError(f"{path}: not readable as TOML: {' '.join(str(error).split())}") from error


def _parse(path: Path, table: Mapping[str, Any], known: Mapping[str, type]) -> Config:
    if path.name != PROJECT and "tool" in table:
        raise SettingsError(
            f"{path}: unknown key 'tool'", f"only in {PROJECT} the settings stand under [tool.specinspect]"
        )
    rest = {key: value for key, value in table.items() if key not in {"rules", "check"}}
    tables = {}
    for name in ("rules", "check"):
        value = table.get(name, {})
        if not isinstance(value, dict):
            raise _wrong(path, name, "a table", value)
        tables[name] = value
    rules, limits = [], []
    for glob, entries in tables["rules"].items():
        where = f"rules.{glob!r}"
        if not isinstance(entries, dict):
            raise _wrong(path, where, 'a table such as [rules."encoder.*"]', entries)
        if any(isinstance(value, dict) for value in entries.values()):
            raise SettingsError(f"{path}: {where} holds tables", 'put the glob in quotes: [rules."a.b"]')
        found = _values(path, where, entries, {**_RULE_KEYS, **THRESHOLDS}, ())
        own = {key: value for key, value in found.items() if key in THRESHOLDS}
        facts = {key: value for key, value in found.items() if key in _RULE_KEYS}
        if facts:
            rules.append(_rule(path, glob, facts))
        if own:
            limits.append((glob, own))
    settings = _values(path, "", rest, known, ("rules", "check"))
    check = _values(path, "check", tables["check"], CHECKS, ())
    return Config(str(path), settings, tuple(rules), check, tuple(limits))


def _rule(path: Path, glob: str, facts: Mapping[str, Any]) -> Rule:
    try:
        return Rule(glob, **facts)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}", error.hint) from error


def _values(
    path: Path, where: str, table: Mapping[str, Any], known: Mapping[str, type], others: tuple[str, ...]
) -> dict[str, Any]:
    """Return the values of one table under their known names."""
    names = {name.replace("-", "_"): name for name in known}
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = names.get(key.replace("-", "_"))
        full = f"{where}.{key}" if where else key
        if name is None:
            raise _unknown(path, key, where, (*known, *others))
        if name in found:
            raise SettingsError(f"{path}: {full} is given twice, with a dash and with an underscore")
        found[name] = _typed(path, full, value, known[name])
    return found


def _unknown(path: Path, key: str, where: str, known: tuple[str, ...]) -> SettingsError:
    options = [name.replace("_", "-") for name in known]
    close = get_close_matches(key.replace("_", "-"), options, n=1)
    place = f" in [{where}]" if where else ""
    listed = f"known are {', '.join(sorted(options))}"
    return SettingsError(
        f"{path}: unknown key {key!r}{place}", f"did you mean {close[0]!r}?" if close else listed
    )


def _typed(path: Path, key: str, value: Any, kind: type) -> Any:
    """Return a value as an option takes it."""
    if kind is object:
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int | str) and _printable(item) for item in items):
            raise _wrong(path, key, "a number, a list of numbers or a string", value)
        return tuple(value) if isinstance(value, list) else value
    if kind is list:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return tuple(items)
    elif kind is float:
        # A whole number too large for a float is as little of a number as inf.
        if type(value) in {int, float} and abs(value) < 1e300 and isfinite(value):
            return float(value)
    elif type(value) is kind:
        return value
    raise _wrong(path, key, _EXPECTED.get(kind, kind.__name__), value)


def _wrong(path: Path, key: str, expected: str, value: Any) -> SettingsError:
    found = _FOUND.get(type(value), "a date or time")
    shown = "" if isinstance(value, dict | list) else f" ({_shown(value)})"
    return SettingsError(f"{path}: {key}: expected {expected}, found {found}{shown}")


def _printable(value: object) -> bool:
    # Python refuses to print whole numbers of more than a few thousand digits, which TOML may hold.
    return not isinstance(value, int) or abs(value) < 1 << 63


def _shown(value: Any) -> str:
    if not _printable(value):
        return "of more than 63 bits"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
