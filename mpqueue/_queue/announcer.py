"""Turns the scheduler's announcements into the events that listeners get, into runs that resolve, and into log records.

`announce` runs on the coordinator's thread and only posts; everything else runs on the listener thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mpqueue._core.commands import (
    AnnounceFinished,
    AnnounceItems,
    AnnounceRecords,
    AnnounceStarted,
    AnnounceState,
)
from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._output.progress import aside
from mpqueue._parent.listeners import SafeEmitter, has_listeners
from mpqueue._parent.queue_runtime import QueueRuntime
from mpqueue._plain import plain
from mpqueue._queue.job_items import Items, JobItem
from mpqueue._queue.run import JobRun
from mpqueue._wire.frames import RecordFrame, Speech
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue.errors import InternalError, JournalError, type_name_of
from mpqueue.events import (
    ITEM_RETRY,
    JOB_FINISHED,
    JOB_PROGRESS,
    JOB_STARTED,
    ItemRetry,
    JobFinished,
    JobProgress,
    JobStarted,
    item_progress,
)
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.listeners import Notice

Announcement = AnnounceStarted | AnnounceItems | AnnounceRecords | AnnounceState | AnnounceFinished


class Announcer:
    """Notifies a queue's listeners. Holds queue and runs weakly: a queue without references has no listeners."""

    def __init__(self, emitter: SafeEmitter, engine: QueueRuntime, runs: OpenRuns, interval: float) -> None:
        self._emitter = weakref.ref(emitter)
        self._runs = weakref.ref(runs)
        self._thread = engine.listeners
        self._interval = interval
        self._now = engine.clock.now
        self._told_at: dict[int, float] = {}

    def announce(self, announcement: Announcement) -> None:
        """Post an announcement. Facts that may still change are copied here, so that events show them as of now."""
        if not announcement.job.listed:
            if isinstance(announcement, AnnounceFinished):
                self._resolve(announcement.job)
                return
            if not isinstance(announcement, AnnounceRecords):
                return
        emitter = self._emitter()
        if emitter is None:
            return
        if isinstance(announcement, AnnounceFinished):
            if self._thread.idle and not has_listeners(emitter, JOB_FINISHED):
                self._told_at.pop(announcement.job.number, None)
                self._resolve(announcement.job)  # no listener, so no reason to wait
            else:
                self._thread.post(partial(self._tell_finished, announcement))
        elif (notice := self._notice(announcement, emitter)) is not None:  # otherwise the thread need not even wake up
            self._thread.post(partial(self._tell, announcement.job, notice))

    def _notice(
        self, announcement: AnnounceStarted | AnnounceItems | AnnounceRecords | AnnounceState, emitter: SafeEmitter
    ) -> Notice | None:
        """Return the listener thread's next task; None if nothing listens."""
        heard = partial(has_listeners, emitter)
        match announcement:
            case AnnounceStarted(job) if heard(JOB_STARTED):
                return partial(self._emit, JOB_STARTED, JobStarted(job.id))
            case AnnounceItems(job) if heard(JOB_PROGRESS) or (announcement.retrying and heard(ITEM_RETRY)):
                rows = announcement.rows
                if rows is None:
                    rows = {index: job.table.row(index) for index in (*announcement.failed, *announcement.retrying)}
                job.table.announced += len(announcement.indices)
                return partial(self._tell_items, announcement, rows, job.total)
            case AnnounceRecords(job, lane, records):
                return partial(hand_on, job, lane, records)
            case AnnounceState(job, event, status, completed, failed) if heard(event) or heard(JOB_PROGRESS):
                return partial(self._tell_state, job, event, _progress(job, status, job.total, completed, failed))
        return None

    def _tell(self, job: JobBook, notice: Notice) -> None:
        began = self._now()
        try:
            notice()
        finally:
            job.timings.heard.seconds += self._now() - began

    def _emit(self, event: str, payload: object) -> None:
        emitter = self._emitter()
        if emitter is not None:
            emitter.emit(event, payload)

    def _tell_state(self, job: JobBook, event: str, progress: JobProgress) -> None:
        """Report a job's new state, after any progress that waits, which belongs to the state before."""
        self._thread.tell_now(job.number)
        self._emit(event, progress)

    def _tell_items(self, told: AnnounceItems, rows: dict[int, ItemTable], total: int) -> None:
        emitter = self._emitter()
        try:
            if emitter is not None and told.retrying and has_listeners(emitter, ITEM_RETRY):
                self._tell_retries(told, rows)
            if emitter is None or not has_listeners(emitter, JOB_PROGRESS):
                return
            if self._interval > 0:
                self._tell_merged(told, total)
            else:
                self._tell_each(emitter, told, rows, total)
        finally:
            told.job.table.told += len(told.indices)

    def _tell_each(self, emitter: SafeEmitter, told: AnnounceItems, rows: dict[int, ItemTable], total: int) -> None:
        table, items = told.job.table, Items(told.job.table)
        job_id, status = told.job.id, told.status
        completed, failed = told.completed_before, told.failed_before
        for index in told.indices:
            if index in rows:
                if index in told.retrying:
                    continue
                failed += 1
                item = JobItem(rows[index], 0)
            else:
                completed += 1
                item = JobItem(table, index)
            emitter._tell(JOB_PROGRESS, item_progress(job_id, status, total, completed, failed, items, item))

    def _tell_retries(self, told: AnnounceItems, rows: dict[int, ItemTable]) -> None:
        for index, retrying in told.retrying.items():
            item, failure = JobItem(rows[index], 0), retrying.failure
            name = type_name_of(failure.error)
            event = ItemRetry(told.job.id, item, retrying.attempt, retrying.delay, failure.message, name)
            self._emit(ITEM_RETRY, event)

    def _tell_merged(self, told: AnnounceItems, total: int) -> None:
        """Report the progress by at most one event per interval.

        The last state is sent when the interval is over, or before the job is paused or resumed, or ends.
        """
        job, ended = told.job, len(told.indices) - len(told.retrying)
        if not ended:
            return
        failed = told.failed_before + len(told.failed)
        completed = told.completed_before + ended - len(told.failed)
        progress = _progress(job, told.status, total, completed, failed)

        def tell() -> None:
            self._told_at[job.number] = self._now()
            self._emit(JOB_PROGRESS, progress)

        due = self._told_at.get(job.number, float("-inf")) + self._interval
        if due <= self._now():
            self._thread.forget(job.number)
            tell()
        else:
            self._thread.call_at(job.number, due, tell)

    def _tell_finished(self, told: AnnounceFinished) -> None:
        self._thread.tell_now(told.job.number)
        self._told_at.pop(told.job.number, None)
        event = JobFinished(told.job.id, told.status, told.completed, told.failed, told.duration)
        self._tell(told.job, partial(self._emit, JOB_FINISHED, event))
        told.job.timings.heard.end_told_at = self._now()
        self._resolve(told.job)

    def _resolve(self, job: JobBook) -> None:
        runs = self._runs()
        if runs is not None:
            runs.resolve(job)


def _progress(job: JobBook, status: JobStatus, total: int, completed: int, failed: int) -> JobProgress:
    items = Items(job.table)
    return JobProgress(job.id, status, total, completed, failed, status is JobStatus.PAUSED, items)


# -- The runs of a queue that have not resolved yet: their beginning and their end. ------------------------------------


class OpenRuns:
    """The unresolved runs of each job, in the order they were started. Any thread may call it."""

    def __init__(self, engine: QueueRuntime) -> None:
        self._engine = engine
        self._runs: dict[int, list[JobRun]] = {}
        self._lock = threading.RLock()
        alive = weakref.ref(self)  # a run holds its queue, which the engine must not

        def give_up(error: InternalError) -> None:
            if (runs := alive()) is not None:
                runs.give_up(error)

        def disturb(trouble: JournalError | None) -> None:
            if (runs := alive()) is not None:
                runs.disturb(trouble)

        engine.give_up = give_up
        if engine.journal_outlet is not None:
            engine.journal_outlet.tell_trouble = disturb

    def __iter__(self) -> Iterator[JobRun]:
        with self._lock:
            return iter([run for runs in self._runs.values() for run in runs])

    def add(self, book: JobBook, run: JobRun) -> None:
        """Add a run that begins."""
        with self._lock:
            self._runs.setdefault(book.number, []).append(run)

    def take_back(self, book: JobBook) -> None:
        """Remove the job's last run, which could not begin."""
        self._take(book, -1)

    def resolve(self, book: JobBook) -> None:
        """Resolve a job's run when its last event was delivered: callbacks are called on the listener thread."""
        run, listeners = self._take(book, 0), self._engine.listeners
        if run is None:
            return
        if (book.spoke or run._displays) and not listeners.is_here:
            listeners.post(partial(self._resolve, run))  # after its logs, and after the bar's end
        else:
            self._resolve(run)

    def _resolve(self, run: JobRun) -> None:
        run._end_display()
        if callbacks := run._resolve():
            call = partial(run._run_callbacks, callbacks)
            listeners = self._engine.listeners
            call() if listeners.is_here else listeners.post(call)

    def _take(self, book: JobBook, at: int) -> JobRun | None:
        """The job's first or last unresolved run; it may have been started again before its end was announced."""
        with self._lock:
            runs = self._runs.get(book.number)
            if not runs:  # cancelled before it started
                return None
            run = runs.pop(at)
            if not runs:
                del self._runs[book.number]
            return run

    def give_up(self, error: InternalError) -> None:
        """Resolve all runs with the error, at once: the queue ends by it."""
        runs = [*self]
        with self._lock:
            self._runs.clear()
        for run in runs:
            callbacks = run._resolve(error)
            self._engine.listeners.post(run._end_display)
            self._engine.listeners.post(partial(run._run_callbacks, callbacks))

    def disturb(self, trouble: JournalError | None) -> None:
        """Pass the error that stops a recorded job to callers that wait for its run. On the coordinator's thread."""
        for run in self:
            run._disturb(trouble)


# -- The handlers' log records from the workers, handed to this process's logging, on the listener thread. -------------
#
# The loggers' levels, filters and handlers of this process decide about a record as if it had been logged here. It has
# five more attributes: ``mpqueue_job``, ``mpqueue_item``, ``mpqueue_label``, ``mpqueue_attempt`` and
# ``mpqueue_worker``.

_log = logging.getLogger("mpqueue")


def hand_on(job: JobBook, lane: int, records: Sequence[RecordFrame]) -> None:
    """Log these records here. Bars on the terminal make room for the output."""
    with aside():
        for frame in records:
            logger = logging.getLogger(frame.fields["name"])
            fields = {
                "mpqueue_job": job.id if job.listed else None,
                "mpqueue_item": None if frame.place is None else job.table.id_of(frame.place),
                "mpqueue_label": None if frame.place is None else job.table.label_of(frame.place),
                "mpqueue_attempt": frame.attempt,
                "mpqueue_worker": lane,
                **frame.fields,  # a record of a job inside a job keeps the inner job's attributes
            }
            record = logging.makeLogRecord(fields)
            if logger.isEnabledFor(record.levelno):
                try:
                    logger.handle(record)
                except Exception:  # noqa: BLE001 - a filter or a handler of the user's, which may meet the next line too
                    with contextlib.suppress(Exception):
                        _log.exception("a logging filter or handler raised; the record is dropped, the job goes on")


def with_speech(job: JobBook, *, beside_bar: bool) -> PackedHandler:
    """Return the handler of a starting job: its workers' loggers get the levels of this process's loggers."""
    handler: PackedHandler = job.handler
    manager = logging.root.manager
    levels = {"": plain(logging.root.level)}
    for name, logger in list(manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[plain(name)] = plain(logger.level)
    speech = Speech(levels, plain(manager.disable), job.options.capture_output, beside_bar)
    return handler._replace(frame=handler.frame._replace(speech=speech))
