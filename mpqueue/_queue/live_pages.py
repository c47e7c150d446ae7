"""What a live page shows and acts on: the jobs of a queue, or those of journals.

A journal may be written by another process meanwhile. Each look uses its own read-only connection, and holds no lock
that a writer would wait for; a file is read only if it has changed. Nothing runs, and nothing is written.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mpqueue._core.state.job_book import JobBook
from mpqueue._live_page.served import Served, ShownJob
from mpqueue._parent.inbox import SystemClock
from mpqueue._parent.journal.checks import own_path
from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
from mpqueue._parent.queue_runtime import QueueRuntime
from mpqueue._parent.running import LaneNow, LaneStack
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem
from mpqueue._queue.recorded.past_job import PastJob, recorded_timings
from mpqueue.errors import JobNotFoundError, JournalError, MPQueueError, QueueClosedError
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.registry import Registry


#: Seconds after which a worker that does not answer counts as one that can't be asked.
STACKS_WAIT_S = 2.0
#: Seconds between two looks at the list of a journal's jobs.
PAST_EVERY = 5.0

log = logging.getLogger("mpqueue")


class QueueView(Served):
    """The jobs of a queue, for a page. Holds the queue weakly: a page keeps no queue alive."""

    can_act = True

    def __init__(self, queue: JobQueue, engine: QueueRuntime, jobs: Registry) -> None:
        super().__init__(engine.clock)
        self._queue = weakref.ref(queue)
        self._jobs = weakref.ref(jobs)
        self._engine = engine
        self._size = queue.concurrency
        self._past: list[Job] = []
        self._past_due = 0.0
        able = queue._backend.capabilities
        self.can_resize = able.own_processes and able.is_here
        self.can_look = able.own_processes

    @property
    def concurrency(self) -> int:
        queue = self._queue()
        if queue is not None:
            self._size = queue.concurrency
        return self._size

    def books(self) -> Sequence[ShownJob] | None:
        jobs = self._jobs()
        if jobs is None:
            return None
        if self._engine.journal_outlet is None:
            return jobs.books()
        own = jobs.books()
        ids = {book.id for book in own}
        return [*(book for book in self._recorded(jobs) if book.id not in ids), *own]

    def _recorded(self, jobs: Registry) -> Iterator[PastJob]:
        """Return the jobs that only the journal has: the same objects as long as their records have not changed."""
        if self.now() >= self._past_due:
            self._past_due = self.now() + PAST_EVERY
            try:
                self._past = [job for job in jobs.all() if isinstance(job._book, PastJob)]
            except MPQueueError as error:
                log.warning("the live page can't show past jobs: %s", error)
        return (job._book for job in self._past if isinstance(job._book, PastJob))

    def lanes(self) -> Sequence[LaneNow]:
        return self._engine.lanes_now()

    def standing(self) -> Mapping[int, int]:
        """Return the places of waiting jobs in the scheduler's order.

        The order is by priority, then by how many lanes a job has, then by the time it has used.
        """
        jobs = self._jobs()
        books = () if jobs is None else jobs.books()
        active = [book for book in books if book.status is JobStatus.RUNNING and len(book.pending)]
        waiting = [book for book in active if not book.lanes_held and book.stage is None]
        if not waiting or len(active) == 1:
            return {}
        # The stages of a job are not jobs by themselves.
        line = dict.fromkeys(_job_of(book) for book in sorted(active, key=_place_in_line))
        places = {number: at for at, number in enumerate(line)}
        return {book.number: places[book.number] for book in waiting if places[book.number]}

    def stacks(self) -> Sequence[LaneStack]:
        return self._engine.stacks_now(STACKS_WAIT_S) if self.can_look else super().stacks()

    def resize(self, concurrency: int) -> None:
        self._open_queue().resize(concurrency)

    def act(self, number: int, action: str, *, kill: bool = False, items: Sequence[int] | None = None) -> None:
        queue = self._open_queue()
        book = next((book for book in self.books() or () if book.number == number), None)
        if book is None:
            raise JobNotFoundError(
                f"expected a job of this queue, got number {number}, which it does not have (any more)"
            )
        chosen = None if items is None else [_item_at(book, index) for index in items]
        self._past_due = 0.0  # a job of the journal may become one of the queue's
        match action:
            case "pause":
                queue.pause(book.id)
            case "resume":
                queue.resume(book.id)
            case "cancel" if chosen is not None:
                queue.cancel_items(book.id, chosen, kill=kill)
            case "cancel":
                queue.cancel(book.id, kill=kill)
            case "retry-failed":
                queue.retry_failed(book.id, items=chosen)

    def _open_queue(self) -> JobQueue:
        queue = self._queue()
        if queue is None:
            raise QueueClosedError("the queue is closed")
        return queue


def _item_at(book: ShownJob, index: int) -> JobItem:
    if not 0 <= index < len(book.table):
        raise IndexError(f"items: expected indices from 0 to {len(book.table) - 1}, got {index}")
    return JobItem(book.table, index)


def _job_of(book: JobBook) -> int:
    return book.number if book.stage is None else book.stage.pipeline.head.number


def _place_in_line(book: JobBook) -> tuple[int, int, float, int]:
    # Jobs that have lanes are served, so they come before all that have none.
    return (-book.options.priority, not book.lanes_held, book.seconds_used + book.seconds_expected, book.number)


#: Seconds between two looks at a file.
LOOK_SECONDS = 1.0


#: The least difference between the numbers of the jobs of two journals, as a power of 2: browsers have exact numbers up
#: to 2**53.
NUMBERS = 32


class ShownRecord(PastJob):
    """A job as its journal had it at a look. Satisfies `_live_page.served.ShownJob`."""

    def __init__(self, reader: Reader, recorded: RecordedJob, first: int, suffix: str, now: float) -> None:
        """Take the record. ``now``: seconds since the epoch if a process runs the job, else 0.

        The numbers of the journal's jobs begin behind ``first``; their ids get the ``suffix``.
        """
        self.line, self.is_live = recorded, bool(now)
        self._shown_as = first, suffix, now
        super().__init__(reader, recorded)

    def _say(self, recorded: RecordedJob) -> None:
        super()._say(recorded)
        first, suffix, now = self._shown_as
        self.number, self.id = first + recorded.number, recorded.id + suffix
        if now:
            self.status = recorded.status
        if now and self.duration is None and self.started_at is not None:
            self.duration = max(0.0, now - self.started_at)
        self.timings = recorded_timings(self.duration, recorded)


class JournalView(Served):
    """The jobs of some journals, in the order of the files.

    Raises `JournalError` if one can't be read at first. Later it shows its last data, and warns once.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        readers = [Reader(path) for path in dict.fromkeys(map(own_path, paths))]
        super().__init__(SystemClock())
        self._lock = threading.Lock()
        self._records: dict[Reader, dict[int, ShownRecord]] = {reader: {} for reader in readers}
        self._states: dict[Reader, object] = {}  #: of the files, and whether a process writes them
        self._complaint = ""
        self._looked_at = self.now()
        self._books: list[ShownJob] = []
        self._look()

    def books(self) -> Sequence[ShownJob]:
        """Return the jobs, after a look at the files if the last was `LOOK_SECONDS` ago."""
        with self._lock:
            if self.now() >= self._looked_at + LOOK_SECONDS:
                self._looked_at = self.now()
                try:
                    self._look()
                except JournalError as error:
                    if str(error) != self._complaint:
                        self._complaint = str(error)
                        log.warning("%s; the page shows what was there before", error)
            return self._books

    def _look(self) -> None:
        """Look at the files that have changed."""
        for at, reader in enumerate(self._records):
            in_use = reader.in_use
            state = (*reader.state(), in_use)
            if state == self._states.get(reader):
                continue
            jobs = reader.jobs()
            self._states[reader] = state
            self._records[reader] = {
                line.number: self._record(reader, line, at << NUMBERS, is_live=in_use and not line.status.final)
                for line in jobs
            }
            self._books = [record for records in self._records.values() for record in records.values()]

    def _record(self, reader: Reader, line: RecordedJob, first: int, *, is_live: bool) -> ShownRecord:
        """Return what is shown of a job: the same object until its record has changed."""
        known = self._records[reader].get(line.number)
        if known is not None and known.line == line and known.is_live == is_live:
            return known
        suffix = f" ({os.path.basename(reader.path)})" if len(self._records) > 1 else ""
        return ShownRecord(reader, line, first, suffix, self.wall() if is_live else 0.0)
