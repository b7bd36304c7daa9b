"""Requests that were answered before: the cache as the engine sees it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from specinspect.cache.codec import Codec, codec
from specinspect.cache.keys import Digests, digest, program
from specinspect.cache.place import directory, limit
from specinspect.cache.store import Name, Store
from specinspect.checkpoint.tensors import TensorInfo
from specinspect.checkpoint.text import quote
from specinspect.errors import SpecinspectError

T = TypeVar("T")
_log = logging.getLogger("specinspect")


@dataclass(frozen=True)
class Request(Generic[T]):
    """What a result is a function of."""

    kind: type[T]
    """Dataclass of the result."""
    given: Mapping[str, Any]
    """Fields of the result that are part of the request: they are not stored, but put back."""
    context: tuple[object, ...]
    """Everything else that decides it, as plain data."""
    tensors: Mapping[str, TensorInfo]
    """What is read, under the names of their parts in it."""

    @cached_property
    def head(self) -> str | None:
        """A digest of the request without the tensors' bytes; None where it cannot be a key."""
        try:
            headers = [(role, info.dtype, info.shape) for role, info in self.tensors.items()]
            return digest((program(), self.codec.shape, self.given, self.context, headers))
        except TypeError as error:
            _say_once(f"results are not kept in the cache: {error}")
            return None

    @property
    def codec(self) -> Codec:
        """How the result is written and read.

        Raises:
            TypeError: it has a field that cannot be kept.
        """
        kind: Any = self.kind  # mypy takes no class for hashable
        return codec(kind, tuple(sorted(self.given)))


@dataclass(frozen=True, slots=True)
class ResultCache:
    """Results on disk. Nothing that goes wrong with it stops a run: it is said once, and computed."""

    store: Store
    digests: Digests = field(default_factory=Digests)

    def knows(self, request: Request[Any]) -> bool:
        """Say whether the same was asked before of tensors of these names and shapes, of any bytes."""
        return request.head is not None and self.store.asked_before(request.head)

    def recall(self, request: Request[T]) -> T | None:
        """Return what was computed before for exactly this request.

        The tensors' bytes are only read where the same was asked before of tensors of these names and shapes.
        """
        if not self.knows(request):
            return None
        name = self.name(request)
        body = None if name is None else self.store.load(name)
        if body is None:
            return None
        try:
            return request.codec.decode(json.loads(body), **request.given)
        except Exception:  # forged, or a mistake of ours: computed anew either way
            return None

    def name(self, request: Request[Any]) -> Name | None:
        """Return the name of the entry for this request; None if its bytes cannot be read."""
        if request.head is None:
            return None
        try:
            content = [(role, self.digests.of(info)) for role, info in request.tensors.items()]
        except (SpecinspectError, OSError):  # whoever computes it meets the same and says it better
            return None
        return Name(request.head, digest(content))

    def keep(self, request: Request[T], name: Name | None, result: T) -> None:
        """Store a result, unless the tensors changed while it was computed; see `keep_all`."""
        self.keep_all([(request, name, result)])

    def keep_all(self, answers: Iterable[tuple[Request[T], Name | None, T]]) -> None:
        """Store results that were computed together, unless their tensors changed meanwhile.

        Args:
            answers: what was asked, what `name(request)` said before the computation, and the answer.
        """
        entries = []
        for request, name, result in answers:
            if name is None or name != self.name(request):
                continue
            try:
                if any(getattr(result, key) != value for key, value in request.given.items()):
                    raise TypeError("it says something else of its subject than was asked")
                body = json.dumps(request.codec.encode(result), separators=(",", ":")).encode("ascii")
            except TypeError as error:
                _say_once(f"a result is not kept in the cache: {error}")
                continue
            entries.append((name, body))
        try:
            self.store.save_all(entries)
        except OSError as error:
            _say_once(f"{quote(self.store.root)}: results are not kept: {error.strerror or error}")


def open_cache() -> ResultCache | None:
    """Return the user's cache; None, said once on stderr, where it cannot be used.

    Raises:
        SettingsError: SPECINSPECT_CACHE_LIMIT is not a size.
    """
    most, place = limit(), directory()
    if not most:
        return None
    if place is None:
        _say_once("no home directory: results are not kept")
        return None
    store = Store(str(place), most)
    try:
        store.check()
        program()
    except (OSError, ImportError) as error:
        _say_once(f"{quote(store.root)}: the cache is not used: {getattr(error, 'strerror', None) or error}")
        return None
    return ResultCache(store)


_said: set[str] = set()
_saying = threading.Lock()


def _say_once(message: str) -> None:
    """Warn, on stderr unless the program around us logs elsewhere."""
    with _saying:
        if message in _said:
            return
        _said.add(message)
    _log.warning("specinspect: %s", message)
