"""Edits of facts on their way: one after the other, and of several values for one fact the last."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from specinspect.errors import SpecinspectError
from specinspect.tui.work import Work, reason

if TYPE_CHECKING:
    from specinspect.engine import Inspection
    from specinspect.settings import Settings
    from specinspect.tui.session import Session

Then = Callable[[], None]


class Editing:
    """Takes edits as quickly as keys come, and applies them in their order.

    Args:
        session: what is edited; its `pending` is what waits here.
        work: the engine, which says what an edit makes of the layers.
        errand: does something slow elsewhere, then calls on the app's thread what it has returned.
        accepted: called with the new inspection and the layers that have changed.
        complain: called with one line where an edit does not fit.
    """

    def __init__(
        self,
        session: Session,
        work: Work,
        errand: Callable[[Callable[[], Then]], None],
        accepted: Callable[[Inspection, list[int]], None],
        complain: Callable[[str], None],
    ) -> None:
        self._session, self._work = session, work
        self._errand, self._accepted, self._complain = errand, accepted, complain
        self._busy = False

    def edit(self, name: str, field: str, value: str) -> None:
        """Let a fact of a layer have another value, 'auto' for the one that it had without edits."""
        self._session.pending[name, field] = value
        self._next()

    def _next(self) -> None:
        session = self._session
        while session.pending and not self._busy:
            (name, field), value = next(iter(session.pending.items()))
            try:
                settings = session.edited(name, field, value)
            except SpecinspectError as error:
                self._drop(name, field, value)
                self._complain(str(error))
                continue
            self._busy = True
            self._errand(partial(self._ask, session.inspection, settings, name, field, value))

    def _ask(self, inspection: Inspection, settings: Settings, name: str, field: str, value: str) -> Then:
        """Ask the engine, away from the app's thread."""
        try:
            told = self._work.told(inspection, settings)
        except Exception as error:  # whatever it is, it belongs on the screen
            return partial(self._refused, name, field, value, reason(error))
        return partial(self._take, name, field, value, told)

    def _take(self, name: str, field: str, value: str, told: Inspection) -> None:
        self._busy = False
        if self._drop(name, field, value):  # else another value has been chosen meanwhile
            self._accepted(told, self._session.accept(told, name, field, value))
        self._next()

    def _refused(self, name: str, field: str, value: str, text: str) -> None:
        self._busy = False
        if self._drop(name, field, value):
            self._complain(text)
        self._next()

    def _drop(self, name: str, field: str, value: str) -> bool:
        """Say whether an edit is still wanted; it waits no longer."""
        if self._session.pending.get((name, field)) != value:
            return False
        del self._session.pending[name, field]
        return True
