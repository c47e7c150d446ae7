"""Draining: no new items start, running ones have a limited time, and are then taken back without losing a try.

All jobs are cancelled first, so that their remaining items end as pending. The finished results of a worker that is
killed when the time is up are taken in before its death is settled. A worker that can't be killed, or does not die, is
not waited for: the jobs end without it, and its items count as not run.
"""

from __future__ import annotations

from mpqueue._core.rules import fleet, overdue
from mpqueue._core.rules.outcomes import finish_if_over
from mpqueue._core.state.books import Books
from mpqueue._core.state.timers import TimerKind

#: Seconds in which a killed worker should be dead.
DEATH_SECONDS = 5.0


def begin(books: Books, within: float) -> None:
    """Give running items that many seconds: all jobs are about to be cancelled. A second call can only shorten it."""
    books.draining = True
    books.timers.add(books.now + within, TimerKind.DRAINED)


def time_is_up(books: Books, *, killed: bool) -> None:
    """End running items, as their time is over; ``killed``: the time of the killed workers is over too."""
    if not books.jobs:
        return
    if killed or not books.engine.own_processes:
        fleet.forget_lanes(books)
        for job in list(books.jobs.values()):
            finish_if_over(books, job)
        return
    for job in list(books.jobs.values()):
        overdue.end_running(books, job)
    books.timers.add(books.now + DEATH_SECONDS, TimerKind.DRAINED, detail=True)
