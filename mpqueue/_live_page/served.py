"""The jobs that a page sees, and what it may do to them: the one interface between a page and the jobs' place.

A live queue serves it (`_queue.live_pages.QueueView`), with the jobs that only its journal has; and journals serve it
(`_queue.recorded.journal_view.JournalView`), which have no lanes. Of these the page shows no workers and no buttons,
and everything else as usual.

`Served.books` is called ten times a second, so it has to cost little: return the same list until something has changed.
Of a job that is not ``active``, only ``total``, ``completed`` and ``failed`` are asked until a viewer opens it; only
then its ``table`` is read, on a thread that may take its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mpqueue._core.state.job_book import JobView
from mpqueue._parent.running import LaneNow, LaneStack
from mpqueue._parent.surroundings.clock import Clock
from mpqueue.errors import MPQueueError


class ShownJob(JobView, Protocol):
    """A job, as a page reads it: the same object as long as it is the same job."""

    @property
    def number(self) -> int:
        """The number by which requests name the job: at least 1, and of no other job as long as the page is open."""

    @property
    def active(self) -> bool:
        """True while the job runs or is paused, here."""


class Served:
    """Jobs, from a page's side: by itself those that can only be looked at. Its methods are called on any thread."""

    can_resize = False  #: its workers are processes on this machine: there may be more or fewer, and they are measured
    can_look = False  #: `stacks` says where its workers are
    can_act = False  #: its jobs can be paused, cancelled, ...

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now  #: seconds of the monotonic clock
        self.wall = clock.wall  #: seconds since the epoch

    @property
    def concurrency(self) -> int:
        """The number of workers that there are to be."""
        return 0

    def books(self) -> Sequence[ShownJob] | None:
        """The jobs, in the order they were created; None if the queue is no longer referenced."""
        raise NotImplementedError

    def lanes(self) -> Sequence[LaneNow]:
        """Return what each worker is at."""
        return ()

    def standing(self) -> Mapping[int, int]:
        """Return, for each running job whose items wait and which has no worker, how many jobs go before it."""
        return {}

    def stacks(self) -> Sequence[LaneStack]:
        """Return each worker's stack. Takes milliseconds, at most 2 s. Raises `MPQueueError` if none can be asked."""
        raise MPQueueError("expected an engine with workers of the queue's own, which can be asked where they are")

    def has_report(self, job: ShownJob) -> bool:
        """True where `report` has a report of the job. Costs little: it is asked at each look."""
        return job.timings.lanes > 0 if job.here else job.started_at is not None and job.duration is not None

    def report(self, job: ShownJob) -> str:
        """A page on why the job took as long as it did. May take a second. Raises ValueError where there is none."""
        from mpqueue._report.job_report import page_of  # which few programs need

        return page_of(job)

    def resize(self, concurrency: int) -> None:  # noqa: ARG002 - not here
        """Have so many workers. Raises ValueError for what is no such number, `MPQueueError`."""
        raise MPQueueError("expected a queue, which has workers, got a journal")

    def act(self, number: int, action: str, *, kill: bool = False, items: Sequence[int] | None = None) -> None:  # noqa: ARG002
        """Do one of `WISHES` to the job of that number; ``cancel`` and ``retry-failed`` to these ``items`` alone.

        Raises `MPQueueError`: no such job, not in this state; IndexError for an item that it does not have.
        """
        raise MPQueueError(f"{action}: expected a job of a queue, got one of a journal, which is only shown; "
                           "`mpqueue retry` runs its failed items again")  # fmt: skip


#: What a page may do to a job, and what a request for it may have.
WISHES: Mapping[str, Sequence[str]] = {
    "pause": (),
    "resume": (),
    "cancel": ("kill", "items"),
    "retry-failed": ("items", "group"),
}
