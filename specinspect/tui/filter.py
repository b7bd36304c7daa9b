"""The live filter: `attention kappa>1e4 kind:linear *.weight`, every word of which must match."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import inf, prod
from typing import TYPE_CHECKING

from specinspect.errors import SettingsError
from specinspect.report.text import visible
from specinspect.tui.rows import Row, kappa_key, moved_key

if TYPE_CHECKING:
    from specinspect.spectra.model import Spectrum

Predicate = Callable[[Row], bool]

_COMPARISON = re.compile(r"([^\W\d][\w]*)(<=|>=|<|>|=)(.*)")
_FIELD = re.compile(r"([a-z]+):(.*)")
_GLOB = re.compile(r"[*?\[]")


def _number_of(name: str) -> Callable[[Row], float | None]:
    def read(row: Row) -> float | None:
        spectrum: Spectrum | None = row.result.maps.get("weight") if row.result is not None else None
        found: float | None = getattr(spectrum, name) if spectrum is not None else None
        return found

    return read


def _kappa_of(name: str) -> Callable[[Row], float | None]:
    def read(row: Row) -> float | None:
        key = kappa_key(row, name)
        if key is None:
            return None
        return key.value if key.level < 2 else inf

    return read


def _moved(row: Row) -> float | None:
    key = moved_key(row)
    return None if key is None else key.value


QUANTITIES: dict[str, Callable[[Row], float | None]] = {
    "kappa": _kappa_of("weight"),
    "chain": _kappa_of("chain"),
    "skip": _kappa_of("skip"),
    "sigma": _number_of("sigma_max"),
    "sigma_min": _number_of("sigma_min"),
    "rank": _number_of("numerical_rank"),
    "stable_rank": _number_of("stable_rank"),
    "parameters": lambda row: float(prod(row.layer.shape)),
    "moved": _moved,
}
"""What may be compared with a number: an unresolved κ counts as its bound, a singular one as infinite."""
_ALIASES = {
    "κ": "kappa",
    "σ": "sigma",
    "sigma_max": "sigma",
    "σmax": "sigma",
    "σmin": "sigma_min",
    "k": "kappa",
}

FIELDS: dict[str, Callable[[Row], str]] = {
    "kind": lambda row: row.layer.kind,
    "dtype": lambda row: row.layer.dtype,
    "act": lambda row: row.layer.activation.name,
    "state": lambda row: row.state,
    "finding": lambda row: " ".join(finding.rule for finding in row.findings),
}
"""What may be asked for by its beginning: `kind:conv`, `finding:rank`, or by being there: `finding:`."""


def parse(text: str) -> Predicate:
    """Return the predicate that a line of words stands for; an empty one matches everything.

    Raises:
        SettingsError: a comparison without a number, or an unknown quantity.
    """
    terms = [_term(word) for word in text.split()]
    return lambda row: all(term(row) for term in terms)


def _term(word: str) -> Predicate:
    comparison = _COMPARISON.fullmatch(word)
    if comparison is not None:
        return _compare(*comparison.groups())
    found = _FIELD.fullmatch(word)
    if found is not None and found[1] in FIELDS:
        field, wanted = FIELDS[found[1]], found[2].lower()
        return lambda row: bool(field(row)) and any(part.startswith(wanted) for part in field(row).split())
    lower = word.lower()

    def named(row: Row) -> bool:
        return lower in visible(row.layer.name).lower()

    if not _GLOB.search(word):
        return named
    # Names may hold brackets themselves: what stands there literally matches too.
    return lambda row: fnmatchcase(row.layer.name, word) or named(row)


def _compare(name: str, operator: str, text: str) -> Predicate:
    key = _ALIASES.get(name, name)
    quantity = QUANTITIES.get(key)
    if quantity is None:
        close = get_close_matches(name, QUANTITIES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(QUANTITIES)}"
        raise SettingsError(f"unknown quantity {visible(name)!r}", hint)
    try:
        limit = float(text)
    except ValueError:
        raise SettingsError(f"{name}{operator} expects a number, such as {name}{operator}1e4") from None

    def holds(row: Row) -> bool:
        value = quantity(row)
        if value is None:
            return False
        match operator:
            case ">":
                return value > limit
            case ">=":
                return value >= limit
            case "<":
                return value < limit
            case "<=":
                return value <= limit
        return value == limit

    return holds
