"""A second checkpoint: opened once, its weights compared in turn, more of a layer when that is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from specinspect.tui.work import Second, Work

if TYPE_CHECKING:
    from specinspect.tui.runner import Runner
    from specinspect.tui.session import Session

Then = Callable[[], None]


class Comparing:
    """Keeps the second checkpoint, and asks for what is to be seen of it.

    Args:
        session: what is shown.
        work: the engine.
        errand: does something slow elsewhere, then calls on the app's thread what it has returned.
        runner: the pass, which the tasks are added to.
        opened: called with what is to be said once the second checkpoint is open.
    """

    def __init__(
        self,
        session: Session,
        work: Work,
        errand: Callable[[Callable[[], Then]], None],
        runner: Runner,
        opened: Callable[[Sequence[str]], None],
    ) -> None:
        self._session, self._work = session, work
        self._errand, self._runner, self._opened = errand, runner, opened
        self._second: Second | None = None
        self._busy = False

    def open(self, path: str) -> None:
        """Open a second checkpoint and have all weights compared."""
        inspection = self._session.inspection

        def work() -> Then:
            second = self._work.second(inspection, path)
            return lambda: self._begin(second)

        self._errand(work)

    def _begin(self, second: Second) -> None:
        self._second = second
        self._session.compare_with(second.path, (second.only_here, second.only_there))
        self._runner.add(second.tasks, first=False)
        self._opened(second.notices)

    def look(self) -> None:
        """Have all maps of the selected layer compared at today's ρ and β, unless they are.

        One layer at a time: `done` makes way for the next.
        """
        session, second = self._session, self._second
        wanted = session.beside_wanted()
        if second is None or wanted is None or self._busy:
            return
        self._busy = True
        row = session.rows[wanted]
        facts = dict(session.edits.get(row.layer.name, {}))
        scale = (session.rho, session.beta)
        self._runner.add([self._work.beside(session.inspection, second, wanted, scale, facts)])

    def done(self) -> None:
        """Take note that what was asked for has come."""
        self._busy = False
