"""`specinspect cache`: where results are kept, how many, and away with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from specinspect.errors import SettingsError

if TYPE_CHECKING:
    from specinspect.cache.store import Store

cache = typer.Typer(
    help="The result cache: an unchanged layer is not computed twice.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@cache.command()
def info(json_: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False) -> None:
    """Print where the cache is, and how much is in it."""
    from specinspect.cache.place import DIRECTORY, LIMIT
    from specinspect.report.text import visible

    store = _store()
    with _said(store):
        held = store.contents()
    if json_:
        fields = {
            "directory": store.root,
            "entries": held.entries,
            "bytes": held.bytes,
            "limit_bytes": store.limit,
        }
        sys.stdout.write(json.dumps(fields, indent=2) + "\n")
        return
    sys.stdout.write(
        f"directory  {visible(store.root)}  ({DIRECTORY} sets it)\n"
        f"entries    {held.entries:,}\n"
        f"size       {_size(held.bytes)} of at most {_size(store.limit)}  ({LIMIT} sets it)\n"
    )


@cache.command()
def clear() -> None:
    """Remove every result in the cache."""
    store = _store()
    with _said(store):
        removed = store.clear()
    entries = "entry" if removed.entries == 1 else "entries"
    sys.stdout.write(f"removed {removed.entries:,} {entries}, {_size(removed.bytes)}\n")


def _store() -> Store:
    from specinspect.cache.place import DIRECTORY, directory, limit
    from specinspect.cache.store import Store

    place = directory()
    if place is None:
        raise SettingsError("no home directory: there is no place for a cache", f"set {DIRECTORY}")
    return Store(str(place), limit())


@contextmanager
def _said(store: Store) -> Iterator[None]:
    """Say of a directory that cannot be used which one it is."""
    from specinspect.cache.place import DIRECTORY

    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise SettingsError(
            f"cannot use the cache in {store.root!r}: {why}", f"{DIRECTORY} sets it"
        ) from error


def _size(count: int) -> str:
    """Return bytes as '1.50 MiB'."""
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{value:.2f} {unit}"
