"""What a page sees of its jobs, and may do to them: the one interface between a page and where the jobs are.

A live queue serves it (`_queue.live_pages.QueueView`), with the jobs that only its journal has. So can anything that
only reads jobs, such as a journal: it says so by ``can_act``, ``can_resize`` and ``can_look``, gives its jobs as
`ShownJob` from `Served.books` (`RecordedBook` is one), has no lanes (``()``) and a ``concurrency`` of 0. Then the page
shows no workers and no buttons, and everything else as usual: lists, items with their errors, results and pictures,
groups of failures, comparisons, and reports where `Served.report` has one.

`Served.books` is called ten times a second, so it has to cost little: return the same list until something has changed.
Of a job that is not ``active``, only ``total``, ``completed`` and ``failed`` are asked until a viewer opens it; only
then its ``table`` is read, on a thread that may take its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mpqueue._core.state.job_view import JobView
from mpqueue._parent.running import LaneNow, LaneStack


class ShownJob(JobView, Protocol):
    """A job, as a page reads it: the same object as long as it is the same job."""

    @property
    def number(self) -> int:
        """By which requests name it: at least 1, and of no other job as long as the page is open."""
        ...

    @property
    def active(self) -> bool:
        """True while it runs or is paused, here."""
        ...


class Served(Protocol):
    """Jobs, from a page's side. Every method may be called on the page's threads."""

    can_resize: bool  #: its workers are processes on this machine: there may be more or fewer, and they are measured
    can_look: bool  #: `stacks` says where its workers are
    can_act: bool  #: its jobs can be paused, cancelled, ...: False where they are only read

    @property
    def concurrency(self) -> int:
        """How many workers it is to have."""
        ...

    def books(self) -> Sequence[ShownJob] | None:
        """The jobs, in the order they were created; None if the queue is no longer referenced."""
        ...

    def lanes(self) -> Sequence[LaneNow]:
        """What each worker is at."""
        ...

    def standing(self) -> Mapping[int, int]:
        """Of each job that runs, whose items wait and which has no worker: how many jobs go before it."""
        ...

    def stacks(self) -> Sequence[LaneStack]:
        """Where each worker is. Takes milliseconds, two seconds at most. Raises `MPQueueError` if none can be asked."""
        ...

    def has_report(self, job: ShownJob) -> bool:
        """True where `report` has one. Costs little: it is asked at each look."""
        ...

    def report(self, job: ShownJob) -> str:
        """Why the job took as long as it did, as a page. May take a second. Raises ValueError where there is none."""
        ...

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def resize(self, concurrency: int) -> None:
        """Have so many workers. Raises ValueError for what is no such number, `MPQueueError`."""
        ...

    def act(self, number: int, action: str, *, kill: bool = False, items: Sequence[int] | None = None) -> None:
        """Do one of `WISHES` to the job of that number; ``cancel`` and ``retry-failed`` to these ``items`` alone.

        Raises `MPQueueError`: no such job, not in this state; IndexError for an item that it does not have.
        """
        ...


#: What a page may do to a job, and what a request for it may have.
WISHES: Mapping[str, Sequence[str]] = {
    "pause": (),
    "resume": (),
    "cancel": ("kill", "items"),
    "retry-failed": ("items", "group"),
}
