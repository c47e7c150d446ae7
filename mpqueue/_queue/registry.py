"""The jobs of a queue, by their ids: its own, and those that only its journal has."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakMethod, WeakValueDictionary

from mpqueue._call_checks import nearest
from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import GivenOptions, JobOptions, QueueOptions
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.queue_runtime import QueueRuntime
from mpqueue._queue.arguments import choose_needs
from mpqueue._queue.job import Job
from mpqueue.errors import JobExistsError, JobNotFoundError, JobStateError, JournalError, shown
from mpqueue.status import JobKind, JobStatus, Pruned

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import RecordedJob
    from mpqueue._parent.journal.journal_writer import Journal
    from mpqueue._queue.recorded.job_record import JobRecord

log = logging.getLogger("mpqueue")

#: The most jobs that are named if the program ends before them.
SOME = 5
#: The most job ids among which the likely one is looked for.
LOOKED_THROUGH = 1000


class Held(NamedTuple):
    """A job that the queue can run: its books, and the users' `Job`."""

    book: JobBook
    job: Job[Any, Any]


def _say_unfinished(jobs: Callable[[], Callable[[], list[JobBook]] | None]) -> None:
    """Log at the program's end the jobs that were not waited for, and those that were never started."""
    books_of = jobs()
    if books_of is None or hasattr(sys, "last_value"):
        return  # the queue is no longer referenced; or it ends by an exception, which is shown
    books = books_of()
    unfinished = [
        f"{book.id!r} ({book.completed} of {book.total} items completed, {book.failed} failed)"
        for book in books
        if book.active and book.stage is None
    ]
    if unfinished:
        log.warning(
            "mpqueue: the program ends before %s: %s; run.result() waits for the end, and so does the end of "
            "`with JobQueue() as queue:`",
            "this job" if len(unfinished) == 1 else f"{len(unfinished)} jobs",
            _some(unfinished),
        )
    else:
        say_never_started(books, "the program ends")


def say_never_started(books: list[JobBook], what: str) -> None:
    """Log which of these jobs were never started, if any; ``what`` is why they never will be."""
    never_started = [
        repr(book.id)
        for book in books
        if book.status is JobStatus.PENDING and book.completed + book.failed < book.total
    ]
    if never_started:
        log.warning(
            "mpqueue: %s, and %s started: %s; queue.start() starts a job, and queue.run() makes and starts one",
            what,
            "this job was never" if len(never_started) == 1 else f"{len(never_started)} jobs were never",
            _some(never_started),
        )


def _check_whole(held: Held, what: str) -> None:
    """Raise `JobStateError` for a stage of another job."""
    if held.book.stage is not None:
        head = held.book.stage.pipeline.head.id
        raise JobStateError(f"job {held.book.id!r}: expected a job by itself to {what}, got a stage of job {head!r}")


def _ended_before(moment: float, line: RecordedJob, held: Held | None) -> bool:
    """True if the job was over at that time; it may have run again since, and not be in the journal yet."""
    if held is None:
        return line.status.final and line.finished_at is not None and line.finished_at < moment
    book = held.book
    return line.status.final and book.status.final and book.finished_at is not None and book.finished_at < moment


def _activity_of(held: Held | None) -> str | None:
    """The status of a job that runs or is paused, so that it can't leave the queue; None for any other."""
    return str(held.book.status) if held is not None and held.book.active else None


def _not_found(job_id: object, where: str, ids: Iterable[str]) -> JobNotFoundError:
    """The error for an id that no job has, with the likely one."""
    meant = nearest(job_id, islice(ids, LOOKED_THROUGH)) if isinstance(job_id, str) else None
    hint = "" if meant is None else f"; did you mean {shown(meant)}?"
    return JobNotFoundError(f"job {shown(job_id)}: expected the id of a job in {where}, got none{hint}")


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:SOME]) + (f" and {len(texts) - SOME} more" if len(texts) > SOME else "")


class Registry:
    """The jobs of a queue. Any thread may call any method. A lock orders changes; reading one entry needs none."""

    def __init__(self, engine: QueueRuntime, options: QueueOptions, backend: Backend) -> None:
        self._engine = engine
        self._options = options
        self._backend = backend
        self._held: dict[str, Held] = {}
        #: Ids of jobs that are being added, and how: no other thread creates, takes up or removes them.
        self._coming: dict[object, tuple[list[str], str]] = {}
        self._has_compacted = False  #: jobs of the journal, or was to
        self._past: WeakValueDictionary[RecordedJob, Job] = WeakValueDictionary()
        self._lock = threading.RLock()
        #: Numbers of jobs that are just being removed or replaced; changed on the coordinator's thread, like starts.
        self._leaving: set[int] = set()
        engine.say_unfinished = partial(_say_unfinished, WeakMethod(self.books))  # it outlives the registry
        self._numbers = itertools.count(1)
        self._free_ids = itertools.count(1)

    # -- looked up -------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job | None:
        """The job of that id, also one that only the journal has; None if there is none."""
        held = self._get_held(job_id)
        if held is not None:
            return held.job
        line = self._line(job_id)
        return None if line is None else self._past_job(line)

    def id_of(self, job: str | Job) -> str:
        """The id of a job of this queue or its journal; an id is returned as it is. Raises `JobNotFoundError`."""
        if not isinstance(job, Job):
            return job
        held = self._held.get(job.id)
        if job is (self.get(job.id) if held is None else held.job):
            return job.id
        raise JobNotFoundError(f"expected a job of this queue, got {job!r}, which it does not hold")

    def find(self, job_id: str) -> Held:
        """The queue's own job of that id. Raises `JobNotFoundError`."""
        held = self._get_held(job_id)
        if held is None:
            raise _not_found(job_id, "this queue", self._held)
        return held

    def load(self, job_id: str) -> Job:
        """`get` that raises `JobNotFoundError` if there is no such job."""
        job = self.get(job_id)
        if job is None:
            raise _not_found(job_id, "this queue or its journal", [*self._held, *self._recorded_ids()])
        return job

    def _recorded_ids(self) -> list[str]:
        outlet = self._engine.journal_outlet
        return [] if outlet is None else [line.id for line in outlet.journal.reader.jobs()]

    def all(self) -> list[Job]:
        """All jobs, in the order they were created, after those that only the journal has."""
        outlet = self._engine.journal_outlet
        only_recorded = [] if outlet is None else outlet.journal.reader.jobs()
        with self._lock:
            here = dict(self._held)
        past = [self._past_job(each) for each in only_recorded if each.id not in here]
        return past + [held.job for held in here.values()]

    def books(self) -> list[JobBook]:
        """The books of the queue's own jobs, in the order they were created."""
        with self._lock:
            return [held.book for held in self._held.values()]

    def _get_held(self, job_id: str) -> Held | None:
        """Return the queue's own job of that id; None if there is none, or if it can't be an id."""
        try:
            return self._held.get(job_id)
        except TypeError:
            return None

    # -- added -----------------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """A number that no job of the queue has had, by which workers know the next job."""
        return next(self._numbers)

    def free_id(self) -> str:
        """An id for a job without one."""
        while (job_id := f"job-{next(self._free_ids)}") in self._held:
            pass
        return job_id

    def check_free(self, job_id: str) -> None:
        """Raise `JobExistsError` if a job has that id."""
        if job_id in self._held or self._coming_as(job_id) is not None:
            raise JobExistsError(
                f"job {job_id!r}: expected a new id, got one that is taken; once that job has ended, replace=True puts "
                "the new one in its place, and clear_job() frees the id"
            )

    def check_replaceable(self, job_id: str) -> None:
        """Raise `JobStateError` unless the job of that id has ended or was never started."""
        held = self._get_held(job_id)
        status = self._coming_as(job_id) or _activity_of(held)
        if status is not None:
            raise JobStateError(
                f"job {job_id!r}: expected a pending or finished job to replace, got one that is {status}; cancel() it "
                "first, and wait for its end"
            )
        if held is not None:
            _check_whole(held, "replace")

    def forget_replaced(self, job_id: str) -> None:
        """Forget the queue's job of that id, if it has one; its record in a journal stays.

        Raises `JobStateError` if it runs; `JournalError` if its end can't be written.
        """
        outlet = self._engine.journal_outlet
        if outlet is not None and job_id in self._held:
            outlet.journal.flush()
        with self._lock:
            self.check_replaceable(job_id)
            held = self._held.get(job_id)
            if held is None:
                return
            line = self._line(job_id)
            with self._leaves(held, "replace"):
                if outlet is not None and line is not None:
                    outlet.recall(held.book.table, line.number)
                self.forget(held.book)

    def add(self, book: JobBook, record: JobRecord | None) -> Held:
        """Add the job, and its stages if it has any, to the queue's; return the job.

        With a journal, ``record`` is begun or continued. Raises `JobExistsError`, and the errors of
        `JobRecord.record_or_go_on`; then none of them is added.
        """
        outlet, family = self._engine.journal_outlet, book.family
        for each in family:
            each.number = self.next_number()
        ids, mark = [each.id for each in family], object()
        try:
            with self._lock:
                for job_id in ids:
                    self.check_free(job_id)
                if outlet is None or record is None:
                    return self._hold(book)
                self._coming[mark] = (ids, "being created")
            self._await_compaction(outlet.journal)
            record.record_or_go_on(outlet, self._engine.clock.wall())
            return self._hold(book)
        finally:
            self._coming.pop(mark, None)  # one call, so that a Ctrl-C never leaves the ids taken

    def reopen(self, job_id: str, what: str, *, unfinished: bool = False) -> Held:
        """Return the job, ready to run again; one that only the journal has, with the recorded handler.

        Raises `JobNotFoundError`; `JobStateError` for a job that was not over, unless ``unfinished`` allows that, and
        for one that another thread is just creating or taking up; `JournalError` if items that have to run are not in
        the journal; ValueError if the queue has less than its items need.
        """
        mark = object()
        try:
            with self._lock:
                line = None if self._get_held(job_id) is not None else self._line(job_id)
                if line is None:
                    return self.find(job_id)
                status = self._coming_as(job_id)
                if status is not None:
                    raise JobStateError(
                        f"job {job_id!r}: expected a job that has ended to {what}, got one that is {status}"
                    )
                self._coming[mark] = ([job_id], "being read from the journal")
            return self._hold(self._record_again(line, what, unfinished=unfinished))
        finally:
            self._coming.pop(mark, None)

    def _record_again(self, line: RecordedJob, what: str, *, unfinished: bool) -> JobBook:
        """Record from now on a job that only the journal has.

        Outside of locks: users' code is loaded.
        """
        from mpqueue._queue.recorded.past_job import PastJob, check_kept  # only journals need it

        outlet = self._engine.journal_outlet
        assert outlet is not None
        self._await_compaction(outlet.journal)
        if line.kind is JobKind.STREAM:
            raise JobStateError(
                f"job {line.id!r}: expected a job with a list of items to {what}, got a stream; to resume it and "
                "run failed items again, call imap() with its input"
            )
        recorded = PastJob(outlet.journal.reader, line)
        if not (recorded.over or unfinished):
            raise JobStateError(
                f"job {line.id!r}: expected a job that has ended to {what}, got one that was not over; "
                "call create_job() with its items and its handler, and start it"
            )
        check_kept(recorded)
        options, transport = self._options, self._backend.capabilities.handler_transport
        asked = GivenOptions(uses=recorded.uses())
        needs = choose_needs(asked, None, options, self._backend, self._engine.count_lanes() or options.concurrency)
        mine = JobOptions(options.retry, options.timeout, options.per_worker.setup_timeout)
        record = recorded.to_record(mine, needs, transport=transport)
        record.book.number = self.next_number()
        record.record_as_it_is(outlet, line.number)
        return record.book

    def _hold(self, book: JobBook) -> Held:
        """Hold the job, and its stages if it has any; return the job."""
        self._engine.end_at_exit()
        family = [Held(each, Job(each)) for each in book.family]
        with self._lock:
            self._held.update((each.book.id, each) for each in family)
        return family[0]

    # -- removed ---------------------------------------------------------------------------------------------

    def remove(self, job_id: str) -> None:
        """Forget a pending or finished job, also in the journal.

        Raises `JobNotFoundError`; `JobStateError` for a running or paused job, and for one that another thread is just
        writing into the journal, or reading from it; `JournalError`, which leaves the job in place.
        """
        outlet = self._engine.journal_outlet
        with self._lock:
            held = self._get_held(job_id)
            if held is not None and not held.book.active:
                _check_whole(held, "clear")
            line = self._line(job_id)
            if held is None and line is None:
                self.find(job_id)
            status = self._coming_as(job_id)
            if held is None and status is not None:
                raise JobStateError(f"job {job_id!r}: expected a job to clear, got one that is {status}")
            with contextlib.nullcontext() if held is None else self._leaves(held, "clear"):
                if outlet is not None and line is not None:
                    number = line.number
                    table = held.book.table if held is not None else self._past_table(line)
                    if table is not None:
                        outlet.recall(table, number)
                    outlet.journal.ask(lambda store: store.remove_job(number))
                if held is not None:
                    self.forget(held.book)

    @contextlib.contextmanager
    def _leaves(self, held: Held, what: str) -> Iterator[None]:
        """Keep the job from being started inside the block. Raises `JobStateError` if it runs."""
        coordinator, number = self._engine.coordinator(), held.book.number

        def leave() -> None:
            if held.book.active:
                raise JobStateError(
                    f"job {held.book.id!r}: expected a pending or finished job to {what}, got one that is "
                    f"{held.book.status}"
                )
            self._leaving.add(number)

        try:
            coordinator.ask(leave)
            yield
        finally:
            coordinator.ask_later(partial(self._leaving.discard, number))

    def check_startable(self, book: JobBook) -> None:
        """Raise an error if the job can't start: on the coordinator's thread, where it then becomes active.

        Raises `JobNotFoundError` if the queue does not hold it any more, `JobStateError` if it is just being removed. A
        job that is not among the queue's `jobs` always starts.
        """
        if not book.listed:
            return
        if not self._holds(book):
            raise JobNotFoundError(f"job {book.id!r}: expected a job of this queue to start, got one that was removed")
        if book.number in self._leaving:
            raise JobStateError(f"job {book.id!r}: expected a job to start, got one that is being removed")

    def _holds(self, book: JobBook) -> bool:
        held = self._held.get(book.id)
        return held is not None and held.book is book

    def _coming_as(self, job_id: str) -> str | None:
        """Return how a job of that id is just coming into the queue, in a few words; None if none is."""
        # A copy, since other threads may change it meanwhile.
        return next((how for ids, how in list(self._coming.values()) if job_id in ids), None)

    def forget(self, book: JobBook) -> None:
        """Forget the job, and its stages if it has any. Its record in a journal stays."""
        with self._lock:
            for each in book.family:
                if self._holds(each):
                    del self._held[each.id]
        if self._engine.journal_outlet is not None:
            self._engine.journal_outlet.remove(book)

    def prune(self, job_id: str | None, *, gone: bool, older_than: float | None) -> Pruned:
        """Prune the journal, as `JobQueue.prune` describes: job by job, so that others can be created meanwhile."""
        outlet = self._engine.journal_outlet
        if outlet is None:
            raise JournalError("expected a queue with a journal to prune it, got one without")
        if job_id is not None and self._line(job_id) is None:
            raise _not_found(job_id, "the journal", self._recorded_ids())
        journal = outlet.journal
        journal.ask(lambda store: store.make_shrinkable())
        before = journal.ask(lambda store: store.size)
        ended_by = None if older_than is None else self._engine.clock.wall() - older_than
        jobs = items = 0
        for line in journal.reader.jobs():
            if job_id not in (None, line.id):
                continue
            try:
                removed, dropped = self._prune_job(journal, line.id, gone=gone, ended_by=ended_by)
            except (JobStateError, JournalError) as error:
                if job_id is not None:
                    raise
                if isinstance(error, JournalError):
                    log.warning("job %r is left as it is, and the others are pruned: %s", line.id, error)
                continue
            jobs, items = jobs + removed, items + dropped
        left = None
        while (free := journal.ask(lambda store: store.shrink())) not in (0, left):
            left = free
        return Pruned(jobs, items, max(0, before - journal.ask(lambda store: store.size)))

    def _prune_job(self, journal: Journal, job_id: str, *, gone: bool, ended_by: float | None) -> tuple[int, int]:
        """Prune one job; return how many jobs were removed, and items dropped.

        Raises `JobStateError`, `JournalError`.

        It refuses a job that is just coming into the queue. A job that begins to come during its compaction waits for
        that, which drops outcomes of items that may come back with the job.
        """
        with self._lock:
            line, held = self._line(job_id), self._get_held(job_id)
            if line is None:  # removed since the jobs were listed
                return 0, 0
            status = self._coming_as(job_id) or _activity_of(held)
            if status is not None:
                raise JobStateError(
                    f"job {job_id!r}: expected a pending or finished job to prune, got one that is {status}"
                )
            if ended_by is not None and _ended_before(ended_by, line, held):
                self.remove(job_id)
                return 1, 0
            number, self._has_compacted = line.number, True  # noted first: a Ctrl-C may come after any call
            compacted = journal.ask_later(lambda store: store.compact_job(number, gone=gone))
        return 0, compacted.result().items

    def _await_compaction(self, journal: Journal) -> None:
        """Wait until no job that comes into the queue is being compacted."""
        if self._has_compacted:
            journal.await_asked()

    # -- the journal -----------------------------------------------------------------------------------------

    def check_journal(self) -> None:
        """Raise `JournalError` if the journal can't be written; it tries to write now."""
        outlet = self._engine.journal_outlet
        if outlet is not None and outlet.journal.fails:
            outlet.journal.flush()

    def _line(self, job_id: object) -> RecordedJob | None:
        outlet = self._engine.journal_outlet
        if outlet is None or not isinstance(job_id, str):
            return None
        return outlet.journal.find(job_id)

    def _past_table(self, line: RecordedJob) -> ItemTable | None:
        """The items of a job that only the journal has, if it is still referenced and they have been read."""
        job = self._past.get(line)
        return None if job is None else vars(job._book).get("table")

    def _past_job(self, line: RecordedJob) -> Job:
        """Return the job that only the journal has: the same object while it is referenced and its record unchanged."""
        from mpqueue._queue.recorded.past_job import PastJob  # only journals need it

        outlet = self._engine.journal_outlet
        assert outlet is not None
        with self._lock:
            job = self._past.get(line)
            if job is None:
                job = self._past[line] = Job(PastJob(outlet.journal.reader, line))
            return job
