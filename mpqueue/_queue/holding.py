"""The jobs of a queue: looked up, listed and cleared, also those that only its journal has."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions, QueueOptions
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.machinery import Engine
from mpqueue._queue.job import Job
from mpqueue._queue.past_jobs import RecordedBook, check_kept
from mpqueue._queue.run import JobRun
from mpqueue.errors import JobNotFoundError, JobStateError, JournalError, shown
from mpqueue.status import JobStatus, QueueStats

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import RecordedJob


class Holding:
    """A part of `JobQueue`, which sets these attributes."""

    _engine: Engine
    _options: QueueOptions
    _backend: Backend
    _jobs: dict[str, JobBook]
    _jobs_lock: threading.RLock
    _next_number: int
    _runs: dict[int, list[JobRun]]

    def _check_open(self, what: str) -> None:
        raise NotImplementedError

    def get_job(self, job_id: str) -> Job | None:
        """The job of that id, also one that only the journal has; None where there is none.

        Works on a closed queue too. Raises `JournalError` where the journal can't be read.
        """
        self._engine.check_process()
        book = self._held(job_id)
        if book is not None:
            return Job(book)
        recorded = self._recorded(job_id)
        return None if recorded is None else Job(recorded)

    def jobs(self) -> list[Job]:
        """All jobs of the queue, in the order they were created, after those that only its journal has.

        The items of the latter are read when they are asked for. Works on a closed queue too.
        """
        self._engine.check_process()
        recorder = self._engine.recorder
        only_recorded = [] if recorder is None else recorder.journal.reader.jobs()
        with self._jobs_lock:
            here = list(self._jobs.values())
            ids = set(self._jobs)
        return [Job(self._book_of(each)) for each in only_recorded if each.id not in ids] + [Job(book) for book in here]

    def load_job(self, job_id: str) -> Job:
        """A job that the journal holds, as it stood, without its handler: to look at its items, results and failures.

        Raises `JobNotFoundError`, `JournalError` where it can't be read.
        """
        job = self.get_job(job_id)
        if job is None:
            raise JobNotFoundError(
                f"job {shown(job_id)}: expected the id of a job in this queue or its journal, got none"
            )
        assert len(job.items) == job.total  # reads them, so that what can't be read is known now
        return job

    def clear_job(self, job_id: str) -> None:
        """Remove a pending or finished job, also from the journal; a `Job` that is still held stays readable.

        Raises `JobNotFoundError`; `JobStateError` for a running or paused job; `JournalError`, and then it stays.
        """
        self._check_open("clear a job")
        recorder = self._engine.recorder
        with self._jobs_lock:
            book = self._held(job_id)
            if book is not None and book.active:
                raise JobStateError(
                    f"job {job_id!r}: expected a pending or finished job to clear, got one that is {book.status}"
                )
            recorded = (
                None
                if recorder is None or (book is None and not isinstance(job_id, str))
                else (recorder.journal.reader.find(job_id))
            )
            if book is None and recorded is None:
                self._find(job_id)
            if recorder is not None and recorded is not None:
                number = recorded.number
                recorder.journal.ask(lambda store: store.remove_job(number))
            if book is not None:
                del self._jobs[job_id]
                if recorder is not None:
                    recorder.remove(book)

    def get_stats(self) -> QueueStats:
        """How many jobs are running (or paused), pending and completed (ended, however). Works on a closed queue.

        Those that only the journal has do not count.
        """
        self._engine.check_process()
        with self._jobs_lock:
            books = list(self._jobs.values())
        pending = sum(book.status is JobStatus.PENDING for book in books)
        ended = sum(book.status.final for book in books)
        return QueueStats(len(books) - pending - ended, pending, ended, len(books))

    def _held(self, job_id: str) -> JobBook | None:
        """The queue's own job of that id; None too for what could be no id."""
        try:
            return self._jobs.get(job_id)
        except TypeError:
            return None

    def _find(self, job_id: str) -> JobBook:
        book = self._held(job_id)
        if book is None:
            raise JobNotFoundError(f"job {shown(job_id)}: expected the id of a job in this queue, got none")
        return book

    def _find_open(self, job_id: str, what: str) -> JobBook:
        self._check_open(what)
        return self._find(job_id)

    # -- the journal -----------------------------------------------------------------------------------------

    def _recorded(self, job_id: str) -> JobBook | None:
        recorder = self._engine.recorder
        recorded = None if recorder is None or not isinstance(job_id, str) else recorder.journal.reader.find(job_id)
        return None if recorded is None else self._book_of(recorded)

    def _book_of(self, recorded: RecordedJob) -> JobBook:
        recorder = self._engine.recorder
        assert recorder is not None
        return cast("JobBook", RecordedBook(recorder.journal.reader, recorded))

    def take_up(self, job_id: str, what: str, *, unfinished: bool = False) -> JobBook:
        """The job, ready to be run again; one that only the journal has, with the handler that is in there.

        Raises `JobNotFoundError`; `JobStateError` for one that was not over, unless ``unfinished`` allows that too;
        `JournalError` where what is to run is not in the journal.
        """
        self._check_open(what)
        found = None if self._held(job_id) is not None else self._recorded(job_id)
        if found is None:
            return self._find(job_id)
        recorder = self._engine.recorder
        assert recorder is not None
        recorded = cast("RecordedBook", found)
        if not (recorded.over or unfinished):
            raise JobStateError(
                f"job {job_id!r}: expected a job that has ended to {what}, got one that was not over; "
                "create_job() it with its items and its handler, and start it"
            )
        check_kept(recorded)
        options, travels = self._options, self._backend.capabilities.handlers_travel
        new = recorded.to_new_job(JobOptions(options.retry, options.timeout, options.setup_timeout), travels=travels)
        with self._jobs_lock:
            if job_id in self._jobs:
                return self._jobs[job_id]
            new.book.number = self._next_number
            self._next_number += 1
            recorder.add(new.book, new.recording(recorded.recorded.number))
            self._jobs[job_id] = new.book
        return new.book

    def _check_journal(self) -> None:
        """Raise `JournalError` where the journal can't be written; it is tried now."""
        recorder = self._engine.recorder
        if recorder is not None and recorder.trouble is not None:
            recorder.journal.flush()

    def _disturb_runs(self, trouble: JournalError | None) -> None:
        """On the coordinator's thread: whoever waits for a run of a recorded job is told what stands in its way."""
        with self._jobs_lock:
            runs = [run for runs in self._runs.values() for run in runs]
        for run in runs:
            run.disturb(trouble)
