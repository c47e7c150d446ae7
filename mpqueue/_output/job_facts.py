"""The facts of a job: its counts, what had ended before this run, the time taken, the rate, the time left.

Bars, logs, the live page, reports, metrics and the command line render them, and count nothing themselves. What a
worker is at is `LaneNow.doing`, failures that are alike are `mpqueue._output.failure_groups`, where the time of a run
went is `mpqueue._report.figures`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._call_checks import no_such_attribute
from mpqueue._core.state.job_book import JobBook, JobView
from mpqueue._text import counted
from mpqueue.status import COMPLETED, FAILED, PENDING, PROCESSING, RETRY, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.running import LaneNow

#: Seconds over which the rate is taken, at least; and longer until so many items were done.
WINDOW, LEAST = 20.0, 5
#: The least time between two samples, in seconds.
EVERY = 0.5
#: Names of 1.0.0rc1.
_ELSEWHERE = {"running": "progress.partly_done"}


@dataclass(frozen=True, slots=True)
class Progress:
    """A job's progress. ``total`` is None while the end of the input is not known; times are in seconds."""

    job_id: str
    status: JobStatus
    total: int | None
    completed: int
    failed: int
    retries: int  #: failed tries that were followed by another, so far
    partly_done: float  #: the work done by running items, by their handlers' `report`: 0.5 for half an item
    elapsed: float  #: seconds since the start
    already: int = 0  #: how many items had ended before, if the job's failed items run again
    grows: bool = False  #: items may still be added: ``total`` is their number so far
    starting: int = 0  #: workers that are starting, if there is none yet
    pace: float | None = None  #: items per second over the last 20 s

    @property
    def ended(self) -> int:
        """The number of items that have completed or failed."""
        return self.completed + self.failed

    @property
    def done(self) -> float:
        """The number of items done; running items count by the fraction that their handlers reported."""
        return self.ended + self.partly_done

    @property
    def fraction(self) -> float | None:
        """The part that is done, from 0 to 1; None if the total is not known."""
        if self.total is None:
            return None
        return min(self.done / self.total, 1.0) if self.total else 1.0

    @property
    def rate(self) -> float | None:
        """Items per second over the last 20 s, or since the start until that is known; None before the first."""
        if self.pace is not None:
            return self.pace
        done = self.done - self.already
        return done / self.elapsed if done > 0 and self.elapsed > 0 else None

    @property
    def eta(self) -> float | None:
        """Seconds to the end at this rate, 0 after it; None if unknown, while it is paused, or items may be added."""
        if self.status.final:  # also of a job that has stopped before its last item
            return 0.0
        if self.total is None or self.grows or self.rate is None or self.status is JobStatus.PAUSED:
            return None
        return max(self.total - self.done, 0.0) / self.rate

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> Any:
            raise no_such_attribute("Progress", name, _ELSEWHERE, self)

    @property
    def troubles(self) -> str:
        """The failures and retries as text, ``"1 failed, 2 retries"``; empty if there were none."""
        retries = counted(self.retries, "retry")
        return ", ".join([f"{self.failed} failed"] * bool(self.failed) + [retries] * bool(self.retries))


class Counts(NamedTuple):
    """The items' numbers by status; their sum is the number of all items."""

    completed: int
    failed: int
    retry: int
    processing: int
    pending: int

    @property
    def total(self) -> int:
        """The number of all items."""
        return sum(self)


def count_statuses(column: bytes) -> Counts:
    """Count the items by status, in a column with a byte for each."""
    return Counts(*map(column.count, (COMPLETED, FAILED, RETRY, PROCESSING, PENDING)))


def unfinished(books: Iterable[JobBook], lanes: Iterable[LaneNow]) -> Counts:
    """Count the items of these jobs that have not ended. Of a pipeline, its inputs are counted, and are its head's."""
    books = list(books)
    # Of a pipeline, its stages know what runs and what waits for its next try.
    parts = [part for book in books for part in (book.family if book.pipeline is None else book.family[1:])]
    numbers = {part.number for part in parts}
    running = sum(len(lane.items) for lane in lanes if lane.job in numbers)
    retrying = sum(bytes(part.table.status).count(RETRY) for part in parts)
    return Counts(0, 0, retrying, running, max(0, sum(map(left_of, books)) - running - retrying))


class Total(NamedTuple):
    """The total of a job's items. ``known`` is None while it is not known."""

    known: int | None
    grows: bool = False  #: it is their number so far


def total_of(book: JobView) -> Total:
    """The total of a job; a stage gets as many items as there are inputs, unless an earlier stage has yielded some."""
    if book.sealed:
        return Total(book.total)
    if isinstance(book, JobBook) and book.stage is not None:
        pipeline = book.stage.pipeline
        return Total(None if pipeline.has_spread else pipeline.total)
    return Total(book.total, grows=True)


def left_of(book: JobView) -> int:
    """The number of items of a job that have not ended, of those that there are so far."""
    return max(0, book.total - book.completed - book.failed)


def ended_before(book: JobView) -> int:
    """The number of items that had ended before the job's last run."""
    return book.completed_before + book.failed_before


def facts_of(
    book: JobView,
    now: float,
    partly_done: float = 0.0,
    pace: float | None = None,
    total_of: Callable[[JobView], Total] = total_of,
) -> Progress:
    """Return the job's progress. ``partly_done`` is what its running items have done, together."""
    status, total = book.status, total_of(book)
    if book.here and book.epoch:
        elapsed = max(0.0, (book.timings.finished or now) - book.timings.started)
    else:  # it has not run here
        elapsed = book.duration or 0.0
    return Progress(
        job_id=book.id,
        status=status,
        total=total.known,
        completed=book.completed,
        failed=book.failed,
        retries=book.retries - book.retries_before,
        partly_done=partly_done,
        elapsed=elapsed,
        already=ended_before(book),
        grows=total.grows,
        starting=book.timings.starting if status is JobStatus.RUNNING else 0,
        pace=pace,
    )


class Watch:
    """One job's progress, with its rate, as it is looked at now and then, on one thread."""

    def __init__(self, book: JobView, total: Callable[[JobView], Total] = total_of) -> None:
        self._book = book
        self._total = total
        self._epoch, self._ended = book.epoch, 0
        self._samples: deque[tuple[float, float]] = deque()

    def look(self, now: float, partly_done: float) -> Progress:
        """Return the job's progress. ``partly_done`` is the sum of its running items' fractions."""
        book = self._book
        runs, ended = book.status is JobStatus.RUNNING, book.completed + book.failed
        # A pause is left out, and so is an earlier run.
        if not runs or book.epoch != self._epoch or ended < self._ended:
            self._samples.clear()
        self._epoch, self._ended = book.epoch, ended
        if runs:
            samples, done = self._samples, ended + partly_done
            # The last sample moves along where it is close to the one before it, or nothing was done since.
            if len(samples) > 1 and (now - samples[-2][0] < EVERY or samples[-2][1] == samples[-1][1]):
                samples.pop()
            samples.append((now, done))
            while len(samples) > 2 and samples[1][0] < now - WINDOW and done - samples[1][1] >= LEAST:
                samples.popleft()
        return facts_of(book, now, partly_done, self._pace(), self._total)

    def _pace(self) -> float | None:
        if len(self._samples) < 2:
            return None
        (start, before), (end, done) = self._samples[0], self._samples[-1]
        return (done - before) / (end - start) if end > start and done > before else None
