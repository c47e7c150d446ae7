"""`JobQueue`: what users hold. Checks what it is given, asks the coordinator, and owns everything it starts."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

from mpqueue import _options as checks
from mpqueue._core.messages import (
    FailedItemsReset,
    JobCancelled,
    JobPaused,
    JobResumed,
    JobStartAsked,
    Message,
)
from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._output.bars import are_shown
from mpqueue._output.progress import Showing, ShowProgress, make_display
from mpqueue._parent.coordinator import Coordinator
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.listeners import SafeEmitter
from mpqueue._parent.machinery import Engine
from mpqueue._queue.announcer import Announcer
from mpqueue._queue.choosing import check_queue, choose_backend
from mpqueue._queue.closing import Closable
from mpqueue._queue.creating import Creating
from mpqueue._queue.holding import Holding
from mpqueue._queue.hosting import Hosting
from mpqueue._queue.page_serving import Serving
from mpqueue._queue.past_jobs import NewJob, journal_path
from mpqueue._queue.run import Ended, JobRun
from mpqueue._queue.worker_logs import with_speech
from mpqueue._wire.ids import IdRule
from mpqueue._wire.pickling.packed_handler import PackedHandler, pack_handler
from mpqueue.errors import InternalError, QueueClosedError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus

T = TypeVar("T")


class JobQueue(Creating, Serving, Holding, Closable, Hosting, SafeEmitter):
    """Runs a function over many items in worker processes, and brings every result and every error home.

    ``concurrency`` workers (None: one for each CPU that the process may use; one inside a worker) start with the first
    job. ``max_retries`` (3) or ``retry`` say how often a failed item is tried again, ``timeout`` how many seconds one
    try may take; both can be given nearer, for one job. ``progress_interval`` merges ``job:progress`` events to at
    most one in so many seconds. ``threads_per_worker`` limits the inner threads of BLAS, OpenMP and the like (None:
    CPUs / workers). A worker is replaced after ``max_items_per_worker`` items, where it has more private memory than
    ``max_memory_per_worker`` (bytes, or ``"2GB"``; an item that needs more fails with `MemoryLimitError`), and where a
    ``setup`` takes longer than ``setup_timeout`` seconds. ``initializer`` is called once in each new worker, before
    anything else, in its main thread; one that fails everywhere fails the jobs with `SetupError`. ``backend`` is the
    engine that the workers run on: loky, for processes on this machine, or one of `mpqueue.backends`, of which
    ``concurrency=None`` takes all workers, also those that come later.

    With ``journal``, the path of a file, all that becomes of the jobs is recorded there: the same program, run again
    after whatever ended it, runs only what is missing, see `create_job`. One queue at a time may have it open.

    A context manager, also an asynchronous one: leaving it ends every process and thread that it started. All methods
    may be called from any thread, from listeners and from done-callbacks; in a forked child they raise
    `QueueClosedError`.

    Raises TypeError or ValueError for options out of range or beyond the engine, `JournalError` for a journal that
    can't be used, NotImplementedError on Windows.
    """

    def __init__(
        self,
        concurrency: int | None = 3,
        max_retries: int | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        progress_interval: float = 0.0,
        threads_per_worker: int | None = None,
        max_items_per_worker: int | None = None,
        max_memory_per_worker: int | str | None = None,
        setup_timeout: float | None = None,
        journal: str | os.PathLike[str] | None = None,
        backend: str | Backend = "loky",
        initializer: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        checks.check_platform()
        self._backend = choose_backend(backend)
        self._options = checks.queue_options(
            concurrency,
            max_retries,
            retry=retry,
            timeout=timeout,
            progress_interval=progress_interval,
            threads_per_worker=threads_per_worker,
            max_items_per_worker=max_items_per_worker,
            max_memory_per_worker=max_memory_per_worker,
            setup_timeout=setup_timeout,
            count_cpus=self._backend.count_workers,
        )
        check_queue(self._backend, self._options, has_initializer=initializer is not None)
        packed = None if initializer is None else self._pack("initializer", initializer, IdRule.POSITION)
        self._engine = Engine(self._options, self._backend, packed, journal=journal_path(journal))
        announcer = Announcer(self, self._engine.listeners, self._options.progress_interval, self._engine.clock.now)
        self._announce = announcer.announce
        self._give_up_runs = _weakly(self._give_up)
        self._jobs: dict[str, JobBook] = {}
        self._runs: dict[int, list[JobRun]] = {}
        self._next_number = 1
        self._run_numbers = itertools.count(1)
        self._jobs_lock = threading.RLock()
        self._pages = []
        self._closed = False
        self._closer: threading.Thread | None = None
        if self._engine.recorder is not None:
            self._engine.recorder.tell_trouble = _weakly(self._disturb_runs)
        finalizer = weakref.finalize(self, self._engine.abandon)
        finalizer.atexit = False  # the engine has its own, earlier hook

    @property
    def concurrency(self) -> int:
        """The number of workers."""
        return self._options.concurrency

    @property
    def max_retries(self) -> int:
        """The tries after the first, where a job says nothing else."""
        return self._options.retry.max_retries

    # -- jobs ------------------------------------------------------------------------------------------------

    def start(
        self,
        job_id: str,
        *,
        progress: ShowProgress = False,
        cancel_with_awaiter: bool = False,
        kill_on_cancel: bool = False,
    ) -> JobRun:
        """Start a pending job; returns at once, with a run that resolves when the job has ended.

        With ``cancel_with_awaiter``, cancelling a task that awaits the run cancels the job, with ``kill_on_cancel``
        also the items that run then. The first start of a queue starts its workers.

        ``progress=True`` draws a bar on stderr, where that is a terminal or this is a notebook; a callable gets a
        `Progress` ten times a second and at the end, on the listener thread.

        Raises `JobNotFoundError`; `JobStateError` for a job that is not pending; `WorkerStartError` where there is no
        room to start workers.
        """
        self._check_open("start a job")
        book, showing = self._find(job_id), Showing(progress, job_id)
        run = JobRun(book, self, cancel_with_awaiter=cancel_with_awaiter, kill_on_cancel=kill_on_cancel)
        self.ask(self._beginning(book, run, JobStartAsked(book, self._engine.clock.wall()), showing))
        return run

    def _start_unawaited(self, job_id: str, progress: ShowProgress) -> JobRun:
        """Like `start`, for a thread that is about to wait for the run: what stands in the way is raised there."""
        book, showing = self._find(job_id), Showing(progress, job_id)
        run = JobRun(book, self, cancel_with_awaiter=False, kill_on_cancel=False)
        coordinator = self._coordinator()
        coordinator.check_thread()
        begin = self._beginning(book, run, JobStartAsked(book, self._engine.clock.wall()), showing)
        begun = coordinator.ask_later(begin)
        begun.add_done_callback(run.begun)
        return run

    def _beginning(
        self,
        book: JobBook,
        run: JobRun,
        message: JobStartAsked | FailedItemsReset,
        showing: Showing,
        on_ended: Callable[[Ended], None] | None = None,
    ) -> Callable[[], None]:
        display = run.display = make_display(showing, book, self._engine.listeners, self._engine.clock.now)
        speaking = with_speech(book, beside_bar=are_shown() or (display is not None and display.draws))

        def begin() -> None:
            self._check_open("start a job")  # once more: nobody closes it between this and the start
            if on_ended is not None:
                self._coordinator().subscribe_early(book, on_ended)
            self._engine.begin(message)
            # Registered first: a job without items ends while it starts.
            with self._jobs_lock:
                self._runs.setdefault(book.number, []).append(run)
            try:
                self._engine.handle(message._replace(handler=speaking))
            except BaseException:
                self._take_run(book, -1)
                raise
            if display is not None:
                display.begin()

        return begin

    def pause(self, job_id: str) -> None:
        """Pause a running job: active items continue, new items won't start until it is resumed.

        Its workers are free for other jobs as soon as they have ended the item that they run. Does nothing to a paused
        job. Raises `JobNotFoundError`; `JobStateError` for a pending or finished job.
        """
        self._handle(JobPaused(self._find_open(job_id, "pause a job")))

    def resume(self, job_id: str) -> None:
        """Resume a paused job; does nothing to a running one.

        Raises `JobNotFoundError`, `JobStateError`; `JournalError` while the journal can't be written.
        """
        book = self._find_open(job_id, "resume a job")
        self._check_journal()
        self._handle(JobResumed(book))

    def cancel(self, job_id: str, *, kill: bool = False) -> None:
        """Cancel a job: pending items won't start, active items may complete; with ``kill`` they are ended at once.

        ``cancelled`` is true at once, the status becomes ``cancelled`` with ``job:finished``, when the last active
        item has ended. Items that did not run, wait for a retry or were killed end as pending. A pending job is
        cancelled at once, a finished one stays as it is. Raises `JobNotFoundError`.
        """
        book = self._find_open(job_id, "cancel a job")
        self._handle(JobCancelled(book, self._engine.clock.wall(), kill))

    def retry_failed(self, job_id: str, *, progress: ShowProgress = False) -> JobRun:
        """Run the failed items of a finished job again, with ``attempts`` 0 and their history kept.

        Returns a new run; where nothing failed it is resolved already. ``progress`` is as in `start`. A job that only
        the journal has runs with the handler that is in there. Raises `JobNotFoundError`; `JobStateError` for a job
        that has not ended or was cancelled; `JournalError` where items or handler are not in the journal.
        """
        book, showing = self.take_up(job_id, "retry failed items"), Showing(progress, job_id)
        run = JobRun(book, self, cancel_with_awaiter=False, kill_on_cancel=False)
        if book.status is JobStatus.COMPLETED:
            run.resolve()
            return run
        self.ask(self._beginning(book, run, FailedItemsReset(book, self._engine.clock.wall()), showing))
        return run

    # -- for the drop-ins ------------------------------------------------------------------------------------

    def start_table(
        self,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        on_ended: Callable[[Ended], None] | None = None,
        *,
        sealed: bool = True,
        showing: Showing = Showing(),  # noqa: B008 - frozen
    ) -> tuple[JobBook, JobRun]:
        """Start a job that is not among `jobs`; not ``sealed``: of which items are still to come.

        ``on_ended`` gets the indices of items as they end, and None at the end, on the coordinator's thread.
        """
        self._check_open("start a job")
        with self._jobs_lock:
            number = self._next_number
            self._next_number += 1
        name = f"call-{number}"
        packed = self._pack(name, handler, table.rule, options.seed)
        book = JobBook(number, name, table, options, packed, sealed=sealed, listed=False)
        run = JobRun(book, self, cancel_with_awaiter=False, kill_on_cancel=False)
        self.ask(self._beginning(book, run, JobStartAsked(book, self._engine.clock.wall()), showing, on_ended))
        return book, run

    def _pack(self, name: str, function: Callable[..., Any], rule: str, seed: int = 0) -> PackedHandler:
        return pack_handler(name, function, None, rule, seed, travels=self._backend.capabilities.handlers_travel)

    def start_recorded(
        self,
        job_id: str,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        on_ended: Callable[[Ended], None] | None = None,
        *,
        seed_given: bool = False,
        showing: Showing = Showing(),  # noqa: B008 - frozen
    ) -> JobRun:
        """Like `start_table`, for a job that the journal knows by this id, or will. Raises `JournalError`."""
        self._check_open("start a job")
        travels = self._backend.capabilities.handlers_travel
        new = NewJob(job_id, table, options, handler, None, seed_given=seed_given, travels=travels)
        book = self._add(new, strict=False, same_items=True)
        run = JobRun(book, self, cancel_with_awaiter=False, kill_on_cancel=False)
        self.ask(self._beginning(book, run, JobStartAsked(book, self._engine.clock.wall()), showing, on_ended))
        return run

    # -- inside ----------------------------------------------------------------------------------------------

    def check_waiting_allowed(self, what: str) -> None:
        """Raise RuntimeError where waiting for a run would wait for itself; QueueClosedError in a fork."""
        self._engine.check_process()
        if self._engine.listeners.is_here:
            raise RuntimeError(
                f"{what}: expected to be called outside listeners and done-callbacks, which the run waits for; "
                "it would never return"
            )

    def subscribe(self, book: JobBook, put: Callable[[Ended], None]) -> Callable[[], None]:
        """Have the indices of ended items put somewhere, those so far first; returns how to end it."""
        coordinator = self._coordinator()
        coordinator.ask(partial(coordinator.subscribe, book, put))

        def unsubscribe() -> None:
            coordinator.ask_later(partial(coordinator.unsubscribe, book, put))

        return unsubscribe

    def resolve_run(self, book: JobBook) -> None:
        """A job's last event was delivered: its run resolves; its callbacks are called on the listener thread."""
        run, listeners = self._take_run(book, 0), self._engine.listeners
        if run is None:
            return
        if (book.spoke or run.display is not None) and not listeners.is_here:
            listeners.post(partial(self._resolve, run), book)  # after what was logged, and after the bar's end
        else:
            self._resolve(run)

    def _give_up(self, book: JobBook | None, error: InternalError) -> None:
        """The last resort of the coordinator: the runs of this job, or of all, are resolved with the error, at once."""
        with self._jobs_lock:
            numbers = list(self._runs) if book is None else [book.number]
            runs = [run for number in numbers for run in self._runs.pop(number, ())]
        for run in runs:
            callbacks = run.resolve(error)
            self._engine.listeners.post(run.end_display)
            self._engine.listeners.post(partial(run.run_callbacks, callbacks))

    def _resolve(self, run: JobRun) -> None:
        run.end_display()
        if callbacks := run.resolve():
            call = partial(run.run_callbacks, callbacks)
            listeners = self._engine.listeners
            call() if listeners.is_here else listeners.post(call)

    def _take_run(self, book: JobBook, at: int) -> JobRun | None:
        """The job's first or last unresolved run; it may have been started again before its end was told."""
        with self._jobs_lock:
            runs = self._runs.get(book.number)
            if not runs:  # cancelled before it started
                return None
            run = runs.pop(at)
            if not runs:
                del self._runs[book.number]
            return run

    def _on_listener_added(self) -> None:
        self._check_open("add a listener")

    def _coordinator(self) -> Coordinator:
        self._engine.check_process()
        return self._engine.coordinator(self._announce, self._give_up_runs)

    def ask(self, call: Callable[[], T]) -> T:
        """Run something on the coordinator's thread and wait for its value."""
        return self._coordinator().ask(call)

    def _handle(self, message: Message) -> None:
        self.ask(partial(self._engine.handle, message))

    def _check_open(self, what: str) -> None:
        self._engine.check_process()
        if self._closed:
            raise QueueClosedError(f"expected an open queue to {what}, got one that was closed; make a new one")
        if (broken := self._engine.broken) is not None:
            raise broken

    def __reduce__(self) -> NoReturn:
        raise TypeError("a JobQueue can't be pickled: it belongs to the process that made it")


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """The method, without holding its object."""
    found = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        if (alive := found()) is not None:
            alive(*arguments)

    return call
