"""The jobs that a page sees, and its actions on them: the only interface between a page and the place of its jobs.

A live queue serves it (`_queue.live_pages.QueueView`), with the jobs that only its journal has; and so do journals
(`_queue.live_pages.JournalView`), which have no lanes: for these the page shows no workers and no buttons,
and everything else as usual.

`Served.books` is called 10 times per second, so it has to be cheap: it returns the same list until something has
changed. If a job is not ``active``, only its ``total``, ``completed`` and ``failed`` are read until a viewer opens it;
only then its ``table`` is read, on a thread that may take its time.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Protocol

from mpqueue._core.state.job_book import JobView
from mpqueue._parent.inbox import Clock
from mpqueue._parent.running import LaneNow, LaneStack
from mpqueue.errors import MPQueueError


class ShownJob(JobView, Protocol):
    """A job for a page: the same object, with the same table, until a journal has another record of it."""

    @property
    def number(self) -> int:
        """The number by which requests name the job: at least 1, and unique as long as the page is open."""

    @property
    def active(self) -> bool:
        """True while this process has the job running or paused."""


class Served:
    """Jobs for a page, which by default can only be viewed. Its methods are called on any thread."""

    can_resize = False  #: its workers are processes on this machine: their number can be changed, and they are measured
    can_look = False  #: `stacks` can ask its workers
    can_act = False  #: its jobs can be paused, cancelled, ...

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now  #: seconds of the monotonic clock
        self.wall = clock.wall  #: seconds since the epoch

    @property
    def concurrency(self) -> int:
        """The wanted number of workers."""
        return 0

    def books(self) -> Sequence[ShownJob] | None:
        """The jobs, in the order they were created; None if the queue is no longer referenced."""
        raise NotImplementedError

    def lanes(self) -> Sequence[LaneNow]:
        """Return the work of each worker."""
        return ()

    def standing(self) -> Mapping[int, int]:
        """Return, for each running job that waits and has no worker, how many jobs go before it."""
        return {}

    def stacks(self) -> Sequence[LaneStack]:
        """Return each worker's stack. Takes milliseconds, at most 2 s. Raises `MPQueueError` if none can be asked."""
        raise MPQueueError("expected an engine with workers of the queue's own, which can be asked where they are")

    def resize(self, concurrency: int) -> None:  # noqa: ARG002 - not here
        """Change the number of workers. Raises ValueError for an invalid number, `MPQueueError`."""
        raise MPQueueError("expected a queue, which has workers, got a journal")

    def act(self, number: int, action: str, *, kill: bool = False, items: Sequence[int] | None = None) -> None:  # noqa: ARG002
        """Do one of `WISHES` to the job of that number; ``cancel`` and ``retry-failed`` to these ``items`` only.

        Raises `MPQueueError`: no such job, not in this state; IndexError for an item that it does not have.
        """
        raise MPQueueError(f"{action}: expected a job of a queue, got one of a journal, which is only shown; "
                           "`mpqueue retry` runs its failed items again")  # fmt: skip


#: The addresses, with their tokens, of the open pages of this process, by what they show.
addresses: weakref.WeakKeyDictionary[Served, str] = weakref.WeakKeyDictionary()


def address_for(book: JobView) -> str | None:
    """The address of an open page that shows this job; None if there is none."""
    pages = list(addresses.items())
    return next((url for served, url in pages if any(shown is book for shown in served.books() or ())), None)


#: The actions of a page on a job, each with the keys that its request may have.
WISHES: Mapping[str, Sequence[str]] = {
    "pause": (),
    "resume": (),
    "cancel": ("kill", "items"),
    "retry-failed": ("items", "group"),
}
