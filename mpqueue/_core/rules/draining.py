"""Draining: nothing new starts, running items have a limited time, and are then taken back without losing a try.

All jobs are cancelled first, so that whatever is left of them ends as pending. A worker that is killed when the time is
up hands in what it had finished before its death is settled. One that can't be killed, or does not die, is not waited
for: the jobs end without it, and its items count as not run.
"""

from __future__ import annotations

from mpqueue._core.rules import fleet, overdue
from mpqueue._core.rules.outcomes import finish_if_over
from mpqueue._core.state.books import Books
from mpqueue._core.state.timers import TimerKind

#: Seconds in which a worker that is killed should be dead.
DEATH_SECONDS = 5.0


def begin(books: Books, within: float) -> None:
    """Give what runs so many seconds: all jobs are about to be cancelled. Begun again, it is over sooner, not later."""
    books.draining = True
    books.timers.add(books.now + within, TimerKind.DRAINED)


def time_is_up(books: Books, *, killed: bool) -> None:
    """End what still runs, as its time is over; ``killed``: so is that of the workers that were to die."""
    if not books.jobs:
        return
    if killed or not books.engine.can_kill:
        fleet.forget_lanes(books)
        for job in list(books.jobs.values()):
            finish_if_over(books, job)
        return
    for job in list(books.jobs.values()):
        overdue.end_running(books, job)
    books.timers.add(books.now + DEATH_SECONDS, TimerKind.DRAINED, detail=True)
