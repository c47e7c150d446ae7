"""`JobQueue`: what users hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, Unpack, overload

from mpqueue import _options as checks
from mpqueue._call_checks import check_calls, check_items, no_such_attribute
from mpqueue._core.messages import ItemsDropped, JobCancelled, JobPaused, JobResumed, JobSealed, LanesResized, Message
from mpqueue._core.state.item_table import ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._declared import At, check_names, read, takes
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._output.progress import Showing, ShowProgress, check_progress
from mpqueue._parent.listeners import SafeEmitter
from mpqueue._parent.machinery import Engine
from mpqueue._queue.announcer import Announcer
from mpqueue._queue.choosing import (
    check_job,
    check_queue,
    choose_backend,
    choose_needs,
    choose_sink,
    discards,
    journal_path,
)
from mpqueue._queue.closer import Closer
from mpqueue._queue.host import QueueHost
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem, positions_of
from mpqueue._queue.new_job import NewJob, check_cost
from mpqueue._queue.open_runs import JobStarter, OpenRuns
from mpqueue._queue.recorded.record_options import check_open_record, record_options
from mpqueue._queue.registry import Registry
from mpqueue._queue.run import JobRun
from mpqueue._wire.item_names import IdRule, check_label
from mpqueue._wire.pickling.packed_handler import PackedHandler, Travels, pack_handler
from mpqueue._wire.pickling.script import Script
from mpqueue.errors import JobNotFoundError, JobStateError, QueueClosedError
from mpqueue.retry import check_seconds
from mpqueue.status import OVER, Pruned, QueueStats

if TYPE_CHECKING:
    from mpqueue._keywords import JobKeywords, OpenKeywords, QueueKeywords, StagesKeywords
    from mpqueue._live_page.server import Page
    from mpqueue._queue.growing.stages import Stage
    from mpqueue._queue.recorded.job_plan import JobPlan

T = TypeVar("T")
R = TypeVar("R")

_NOTHING: Any = object()  #: no handler was named


def _bring_home(error: BaseException, job: Job) -> None:
    """Give the interruption of a wait for a job that job, and a note that says where it is."""
    with suppress(AttributeError):
        error.job = job  # type: ignore[attr-defined]
    if isinstance(error, KeyboardInterrupt):
        error.add_note(
            f"mpqueue: job {job.id!r} is cancelled; {job.completed} of its {job.total} items have completed: see "
            "queue.last_job"
        )


#: What users of other libraries look for in a queue, and what does that.
_ELSEWHERE = {
    **dict.fromkeys(("stop", "shutdown", "terminate", "stop_and_join"), "queue.close(), or queue.cancel(job)"),
    **dict.fromkeys(
        ("submit", "apply_async", "schedule", "put", "enqueue"), "mpqueue.Executor().submit(), or queue.add_items()"
    ),
    **dict.fromkeys(("map", "map_async", "starmap"), "queue.run(items, function), or mpqueue.map()"),
    **dict.fromkeys(("imap", "imap_unordered"), "mpqueue.imap()"),
    **dict.fromkeys(("join", "wait"), "queue.start(job).result()"),
    "progress": "queue.run(..., progress=True)",
}


class JobQueue(SafeEmitter):
    """Runs a function over many items in worker processes, and brings every result and every error home.

    ``concurrency`` workers start with the first job. None: one for each CPU that the process may use; ``"physical"``:
    one for each core, whose hyperthreads count once; one inside a worker. ``max_retries`` (3) or ``retry`` say how
    often a failed item is tried again, ``timeout`` how many seconds one try may take; both can be given nearer, for one
    job. ``progress_interval`` merges ``job:progress`` events to at most one in so many seconds. ``per_worker`` is a
    dict of limits, each of them optional: ``"threads"``, the inner threads of BLAS, OpenMP and the like (None: CPUs /
    workers); ``"items"``, after which a worker is replaced; ``"memory"``, the private memory that it may have (bytes,
    or ``"2GB"``; an item that needs more fails with `MemoryLimitError`, and its worker is replaced); and
    ``"setup_timeout"``, the seconds that a ``setup`` may take, or its worker is replaced. ``initializer`` is called
    once in each new worker, before anything else, in its main thread; one that fails everywhere fails the jobs with
    `SetupError`. ``preload`` is a list of modules, or a function, that a process of its own imports, or calls, once
    (loky on Linux only): workers are forked from it, so a new one is at work within some tens of milliseconds, and all
    have these pages in common. What fails there fails the jobs with `WorkerStartError`; what starts threads makes
    workers start the ordinary way, with a warning, and each imports, or calls, by itself, before its initializer.
    ``backend`` is the engine that the workers run on: loky, for processes on this machine, or one of
    `mpqueue.backends`, of which ``concurrency=None`` takes all workers, also those that come later.

    ``resources`` says what items may use besides workers, by any name, such as ``{"gpu": 2, "license": 5}``, and with
    ``"memory"`` how much of the machine's; see `create_job`. With ``gpu_env`` a worker sees only the GPUs that its
    items hold: ``CUDA_VISIBLE_DEVICES`` is set before it imports anything for them. If that is set in the program, it
    must name at least as many GPUs as there are units; else ValueError.

    With ``journal``, the path of a file, the queue records there how each item ends: the same program, run again
    for any reason, runs only what is missing, see `create_job`. One queue at a time may have it open.

    A context manager, also an asynchronous one: leaving it ends every process and thread that it started. Where a
    method takes the id of a job, the `Job` itself will do. All methods may be called from any thread, from listeners
    and from done-callbacks; in a forked child they raise `QueueClosedError`.

    Raises TypeError or ValueError for options out of range or beyond the engine, `JournalError` for a journal that
    can't be used, NotImplementedError under Cygwin and on free-threaded builds of Python.
    """

    @takes(GivenOptions, At.QUEUE)
    def __init__(
        self, concurrency: checks.Concurrency = 3, max_retries: int | None = None, **options: Unpack[QueueKeywords]
    ) -> None:
        given = {"concurrency": concurrency, "max_retries": max_retries, **options}
        asked = read(GivenOptions, At.QUEUE, "JobQueue", given)
        super().__init__()
        checks.check_platform()
        checks.check_interpreter()
        self._backend = choose_backend(asked.backend)
        self._options = checks.queue_options(
            asked,
            count_cpus=self._backend.count_workers,
            count_cores=getattr(self._backend, "count_cores", None),
        )
        first = checks.check_preload(asked.preload)
        script = first if isinstance(first, Script) else None  # a drop-in's, which no engine has to fork for
        check_queue(
            self._backend,
            self._options,
            has_initializer=asked.initializer is not None,
            has_preload=first is not None and script is None,
        )
        packed = None
        if asked.initializer is not None:
            travels = self._backend.capabilities.handlers_travel
            packed = pack_handler(
                "initializer",
                asked.initializer,
                None,
                IdRule.POSITION,
                travels=travels,
                argument="initializer",
                script=script,
            )
        imports = (
            pack_handler("preload", first, None, IdRule.POSITION, travels=Travels.WHOLE)
            if callable(first) and not isinstance(first, Script)
            else first
        )
        self._engine = Engine(
            self._options, self._backend, packed, journal=journal_path(asked.journal), preload=imports
        )
        self._jobs = Registry(self._engine, self._options, self._backend)
        self._runs = OpenRuns(self._engine)
        self._last_job: Job | None = None
        self._size: int | None = None  #: how many workers there are, once that has been changed
        self._closer = Closer(self._engine, self._runs)
        self._starter = JobStarter(self._engine, self._runs, self._closer, self._jobs)
        #: What the rest of the package asks of a queue, so that its own names are for users.
        self._host = QueueHost(self, self._engine, self._backend, self._jobs, self._starter, self._closer)
        self._engine.announce = Announcer(self, self._engine, self._runs, self._options.progress_interval).announce
        finalizer = weakref.finalize(self, self._engine.abandon)
        finalizer.atexit = False  # the engine has its own, earlier hook

    if not TYPE_CHECKING:  # type checkers know what there is

        def __getattr__(self, name: str) -> Any:
            raise no_such_attribute("JobQueue", name, _ELSEWHERE, self)

    @property
    def concurrency(self) -> int:
        """The number of workers; on a cluster of which all are used, of those that it has now, at least 1.

        To set it is to `resize`.
        """
        if self._size is not None:
            return self._size
        there = self._engine.count_lanes() if self._options.may_grow else None
        return self._options.concurrency if there is None else max(1, there)

    @concurrency.setter
    def concurrency(self, count: int) -> None:
        self.resize(count)

    @property
    def max_retries(self) -> int:
        """The tries after the first, where a job says nothing else."""
        return self._options.retry.max_retries

    @property
    def last_job(self) -> Job | None:
        """The job that was created last, also where the call that ran it was interrupted; None before the first.

        None also once that job was cleared.
        """
        return self._last_job

    # -- create jobs -----------------------------------------------------------------------------------------

    @overload
    def create_job(
        self,
        id: str,
        items: Iterable[T],
        handler: Callable[[T], NoReturn],
        *,
        setup: None = None,
        **options: Unpack[JobKeywords],
    ) -> Job[T, Any]: ...
    @overload
    def create_job(
        self,
        id: str,
        items: Iterable[T],
        handler: Callable[[T], Coroutine[Any, Any, R]],
        *,
        setup: None = None,
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @overload
    def create_job(
        self,
        id: str,
        items: Iterable[T],
        handler: Callable[[T], R],
        *,
        setup: None = None,
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @overload
    def create_job(
        self,
        id: str,
        items: Iterable[T],
        handler: Callable[[T, Any], Coroutine[Any, Any, R]],
        *,
        setup: Callable[[], Any],
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @overload
    def create_job(
        self,
        id: str,
        items: Iterable[T],
        handler: Callable[[T, Any], R],
        *,
        setup: Callable[[], Any],
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @takes(GivenOptions, At.JOB)
    def create_job(self, id: str, items: Iterable[Any], handler: Callable[..., Any], **options: Any) -> Job:
        """Create a job without starting it.

        ``items`` are mappings with an ``"id"``, objects with an ``.id``, or plain values, whose id is their position:
        the first item decides for all. The list is copied, the items are pickled when they are dispatched. The handler
        is serialized now, once. With ``setup``, that is called once in each worker before the job's first item there,
        and the handler is called as ``handler(item, state)`` with what it returned; a generator function yields the
        state and is finished at the job's end. ``timeout`` is seconds a try. Of jobs that wait for workers the one
        with the higher ``priority`` goes first. ``chunksize`` is how many are sent together; None: as many as take
        45 ms. At most ``concurrency`` workers run its items at a time (None: all). With
        ``capture_output``, what each item writes to stdout and stderr is kept as ``item.stdout`` and ``item.stderr``,
        instead of being shown. ``seed``, a whole number from 0 up, makes ``current_item().rng`` give
        the same numbers each time; None: others each time, and ``job.seed`` says which.
        With ``profile`` each worker looks up to a hundred times a second where the handler is, to the line, for
        `Job.profile` and the report; and the times of each single chunk are kept for `Job.trace`, where else those of
        long jobs are merged.

        ``label`` chooses what each item is called where people see it, see `JobItem.label`: a function of the item, or
        the key or attribute of the item that names it. It is called in this process when an item is shown; where it
        raises, or gives None, the item is called what it is called without.

        With ``cost`` the costliest items go first, so that no long one is left for the end: a function of an item
        (``os.path.getsize``), a number for each, or ``"recorded"``: the seconds that it took when it ran last, as the
        journal has it. Items of which nothing is known count as the mean. Any unit will do.

        ``uses``, such as ``{"cpu": 2, "memory": "3GB", "gpu": 1}``, says what an item needs while it runs: numbers, or
        functions of an item, which are called now; or one function that gives all of it. So many items run at a time as
        fit: into ``concurrency`` CPUs, the memory of the machine or its control group, and the queue's ``resources``.
        Small items may pass a large one that waits, for a few seconds. What can never be met is refused with
        ValueError. `current_item().uses` tells a handler which units it has. Inner threads of workers follow ``"cpu"``.

        A job stops early where more than ``max_failures`` items fail after its start, or where it is not over after
        ``deadline`` seconds: it is cancelled, what runs may end, and ``job.stopped_why`` says so.

        With ``results="discard"`` what handlers return stays in the workers, and is gone. With a sink, see
        `mpqueue.sinks`, it goes there as items end, and not into memory: ``job.results`` is the sink then, and
        ``item.result`` raises, unless a journal has the results as well. The sink is checked now and opened at the
        start. What is written is whole, or it stays a part: the job ends once the sink has been closed. If the sink
        raises, the job is cancelled, what runs is ended, and its run raises `SinkError`. A slow sink slows its job.

        With ``replace`` a job of that id that the queue has, and that does not run, makes room for this one, as where a
        notebook's cell is run again. What a journal has of it counts.

        Where the queue's journal has a job of that id, this one goes on where that was: what has ended counts, and is
        not run again. Items are known by their ids, or else by their values, never by their position. ``rerun`` says
        whether they may be others than before, which have changed, and what runs again, see `Rerun`. Keys are taken
        now, so that a file that changes while the job runs is done again next time. Code is all that is sent with the
        handler, and the source of your own modules. A job that was over is so at once, and its run resolves at once.
        `plan_job` says beforehand what will run.

        Raises `JobExistsError` for an id that is taken, `HandlerPicklingError` for a handler that can't be serialized,
        `JournalMismatchError` for one that the journal has with other items, `JournalError` where that can't be read
        or written, TypeError or ValueError for anything else that is wrong, and what the iterable and ``key`` raise;
        nothing is created then.
        """
        self._closer.check_open("create a job")
        job_id = checks.check_text("id", id)
        asked = read(GivenOptions, At.JOB, "JobQueue.create_job", options, ("id", "items", "handler"))
        return self._create(job_id, items, handler, asked, is_open=False)

    @overload
    def open_job(
        self,
        id: str,
        items: Iterable[T] = ...,
        handler: Callable[[T], Coroutine[Any, Any, R]] = ...,
        *,
        setup: None = None,
        **options: Unpack[OpenKeywords],
    ) -> Job[T, R]: ...
    @overload
    def open_job(
        self,
        id: str,
        items: Iterable[T] = ...,
        handler: Callable[[T], R] = ...,
        *,
        setup: None = None,
        **options: Unpack[OpenKeywords],
    ) -> Job[T, R]: ...
    @overload
    def open_job(
        self,
        id: str,
        items: Iterable[T] = ...,
        handler: Callable[[T, Any], Coroutine[Any, Any, R]] = ...,
        *,
        setup: Callable[[], Any],
        **options: Unpack[OpenKeywords],
    ) -> Job[T, R]: ...
    @overload
    def open_job(
        self,
        id: str,
        items: Iterable[T] = ...,
        handler: Callable[[T, Any], R] = ...,
        *,
        setup: Callable[[], Any],
        **options: Unpack[OpenKeywords],
    ) -> Job[T, R]: ...
    @takes(GivenOptions, At.OPEN)
    def open_job(
        self, id: str, items: Iterable[Any] = (), handler: Callable[..., Any] = _NOTHING, **options: Any
    ) -> Job:
        """Create a job that may begin without items, and gets more while it runs; else as `create_job`.

        They come by `add_items` and from its handlers (``current_item().add``), until `seal`: it ends when it is sealed
        and nothing of it is left. Where ``max_waiting`` items wait for a worker, `add_items` waits or refuses. Its ids
        are text, numbers, bytes or tuples of these. It has no ``cost``, and ``uses`` without functions.

        Of a job that the journal has, it goes on with all items, also those that handlers had added: what has not ended
        runs, and what is given and recorded already is left out, whatever has changed in it. Its `Rerun` has neither
        ``update`` nor ``key``. With another ``version``, or ``redo="all"``, it begins anew; without ids ``redo`` takes
        no list. Raises what `create_job` raises.
        """
        self._closer.check_open("create a job")
        job_id = checks.check_text("id", id)
        asked = read(GivenOptions, At.OPEN, "JobQueue.open_job", options, ("id", "items", "handler"))
        if handler is _NOTHING:
            raise TypeError(
                "open_job: expected a handler, got none; it may begin without items: open_job(id, handler=f)"
            )
        return self._create(job_id, items, handler, asked, is_open=True)

    def _create(
        self, job_id: str, items: Iterable[Any], handler: Callable[..., Any], asked: GivenOptions, *, is_open: bool
    ) -> Job:
        options = self._job_options(asked)
        recorder = self._engine.recorder
        record = record_options(asked.rerun, has_journal=recorder is not None)
        if asked.setup is None or callable(asked.setup):
            check_calls(handler, with_state=asked.setup is not None)
        check_job(self._backend, options)
        if asked.replace:
            self._jobs.check_replaceable(job_id)
        else:
            self._jobs.check_free(job_id)
        sink = choose_sink(asked.results, None if recorder is None else recorder.journal.path)
        check_label(asked.label)
        check_cost(asked, has_journal=recorder is not None)
        if is_open:
            check_open_record(record)
        began = self._engine.clock.now()
        check_items(items)
        table = _make_growing(items) if is_open else make_table(items)
        read_at = self._engine.clock.now()
        needs = choose_needs(asked, None if is_open else table, self._options, self._backend, self.concurrency)
        travels = self._backend.capabilities.handlers_travel
        kind = _new_open_job() if is_open and recorder is not None else NewJob
        new = kind(job_id, table, options, handler, asked, is_open=is_open, travels=travels, results=sink, needs=needs)
        packed: PackedHandler = new.book.handler
        new.book.timings.items_read(read_at - began)
        new.book.timings.handler_packed(self._engine.clock.now() - read_at, packed.size, packed.weight, packed.name)
        if asked.replace:
            self._jobs.let_go(job_id)
        job = self._last_job = self._jobs.add(new.book, new, record).job
        return job

    def _job_options(self, asked: GivenOptions) -> JobOptions:
        return checks.job_options(self._options, asked, count_cores=getattr(self._backend, "count_cores", None))

    @takes(GivenOptions, At.JOB)
    def plan_job(
        self,
        id: str,
        items: Iterable[Any],
        handler: Callable[..., Any],
        **options: Unpack[JobKeywords],
    ) -> JobPlan:
        """Return what `create_job` with the same arguments, and ``update`` of `Rerun`, would find: runs nothing.

        Writes nothing. Takes the items' identities and keys, and reads how recorded ones ended, but no results. Without
        a journal all items are new. Raises what `create_job` raises of these arguments, and `JournalError`. There is
        no plan for open jobs: which items they run is known only when they have been sealed.
        """
        from mpqueue._queue.recorded.job_plan import plan  # of a job that may never run

        self._closer.check_open("plan a job")
        asked = read(GivenOptions, At.JOB, "JobQueue.plan_job", options, ("id", "items", "handler"))
        recorder, given = self._engine.recorder, self._job_options(asked)
        record = record_options(asked.rerun, has_journal=recorder is not None)
        check_items(items)
        table, journal = make_table(items), None if recorder is None else recorder.journal
        reader, recorded = (None, None) if journal is None else (journal.reader, journal.find(id))
        return plan(
            reader, recorded, table, (handler, asked.setup), record,
            max_retries=given.retry.max_retries, wants_results=not discards(asked.results),
        )  # fmt: skip

    def add_items(self, job_id: str | Job, items: Iterable[Any], *, wait: bool = True) -> int:
        """Give an open job more items, before it is started or while it runs; returns how many of them are new.

        An item whose id the job has already is left out; items without ids are all new. The list is copied. May be
        called on any thread, also in listeners. Where the job was made with ``max_waiting``, and so many of its items
        wait for a worker, this waits until there is room, also while the job is paused; with ``wait=False``, and where
        the job was not started, it raises `JobFullError` and adds nothing.

        Where the queue has a journal, the items are on disk when this returns, with ``wait=False`` within 0.2 s; those
        that an earlier run of the program had added are left out. Raises `JournalError` while the journal can't be
        written: nothing is added then, unless the error says so.

        Raises `JobNotFoundError`; `JobStateError` for a job that is not open, or was sealed or cancelled meanwhile:
        some of the items may have been added then; TypeError for items without the ids that the job's have, or with
        ids that are not text, numbers, bytes or tuples of these; and what the iterable raises.
        """
        from mpqueue._queue.growing.open_job import add_items

        return add_items(self._host, self._find_open(job_id, "add items"), items, wait=wait)

    def seal(self, job_id: str | Job) -> None:
        """No more items are added to an open job but by its own handlers: it ends when nothing of it is left.

        Does nothing to a job that is sealed. `close` seals all. Raises `JobNotFoundError`.
        """
        self._handle(JobSealed(self._find_open(job_id, "seal a job")))

    # -- run them --------------------------------------------------------------------------------------------

    @overload
    def start(
        self,
        job_id: Job[T, R],
        *,
        progress: ShowProgress = False,
        cancel_with_awaiter: bool = False,
        kill_on_cancel: bool = False,
    ) -> JobRun[T, R]: ...
    @overload
    def start(
        self,
        job_id: str,
        *,
        progress: ShowProgress = False,
        cancel_with_awaiter: bool = False,
        kill_on_cancel: bool = False,
    ) -> JobRun: ...
    def start(
        self,
        job_id: str | Job,
        *,
        progress: ShowProgress = False,
        cancel_with_awaiter: bool = False,
        kill_on_cancel: bool = False,
    ) -> JobRun:
        """Start a pending job; returns at once, with a run that resolves when the job has ended.

        With ``cancel_with_awaiter``, cancelling a task that awaits the run cancels the job, with ``kill_on_cancel``
        also the items that run then. The first start of a queue starts its workers.

        ``progress=True`` draws a bar on stderr, where that is a terminal or this is a notebook, and writes a line
        every 5 s elsewhere, unless pytest runs or ``MPQUEUE_PROGRESS=0``. A callable gets a `Progress` ten times a
        second and at the end, on the listener thread.

        Raises `JobNotFoundError`; `JobStateError` for a job that is not pending; `WorkerStartError` where there is no
        room to start workers.
        """
        self._closer.check_open("start a job")
        job_id = self._jobs.id_of(job_id)
        held, showing = self._jobs.find(job_id), Showing(progress, job_id)
        run = JobRun(held, self, cancel_with_awaiter=cancel_with_awaiter, kill_on_cancel=kill_on_cancel)
        self._starter.start(held.book, run, showing)
        return run

    @overload
    def run(
        self,
        items: Iterable[T],
        handler: Callable[[T], NoReturn],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        on_error: Literal["collect", "raise", "group"] = "collect",
        setup: None = None,
        **options: Unpack[JobKeywords],
    ) -> Job[T, Any]: ...
    @overload
    def run(
        self,
        items: Iterable[T],
        handler: Callable[[T], Coroutine[Any, Any, R]],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        on_error: Literal["collect", "raise", "group"] = "collect",
        setup: None = None,
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @overload
    def run(
        self,
        items: Iterable[T],
        handler: Callable[[T], R],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        on_error: Literal["collect", "raise", "group"] = "collect",
        setup: None = None,
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @overload
    def run(
        self,
        items: Iterable[T],
        handler: Callable[[T, Any], Coroutine[Any, Any, R]],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        on_error: Literal["collect", "raise", "group"] = "collect",
        setup: Callable[[], Any],
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @overload
    def run(
        self,
        items: Iterable[T],
        handler: Callable[[T, Any], R],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        on_error: Literal["collect", "raise", "group"] = "collect",
        setup: Callable[[], Any],
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    @takes(GivenOptions, At.JOB)
    def run(
        self,
        items: Iterable[Any],
        handler: Callable[..., Any],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        on_error: Literal["collect", "raise", "group"] = "collect",
        **options: Any,
    ) -> Job:
        """Create a job, start it and wait for its end: the one-shot. ``options`` are those of `create_job`.

        ``progress`` is as in `start`: True for a bar, or a callable.

        Items that fail for good, by ``on_error``: ``"collect"``: nothing is raised, see ``job.failures`` and
        ``job.raise_for_failures()``; ``"raise"``: after all is done, the first failure in item order is raised as
        itself, with a note that names its item and the others; ``"group"``: an `ExceptionGroup` of all is raised. With
        these two, more than ``max_failures`` raise `TooManyFailuresError`. The job is in `last_job` then.

        Where the wait is interrupted (Ctrl-C), the job is cancelled, its running items are ended, and the interruption
        goes on; what has ended is in `last_job`, which the exception has as ``job``.
        """
        self._host.check_waiting_allowed("queue.run()", instead="await queue.start(queue.create_job(...))")
        check_names(GivenOptions, At.JOB, "JobQueue.run", options, ("items", "handler", "id", "progress", "on_error"))
        check_progress(progress)
        checks.check_on_error(on_error, ("collect", "raise", "group"))
        job_id = self._jobs.free_id() if id is None else id
        self.create_job(job_id, items, handler, **options)
        held = self._jobs.find(job_id)
        run = JobRun(held, self)
        self._starter.start_unawaited(held.book, run, Showing(progress, job_id))
        try:
            job = self._await(run)
        except BaseException:
            self._starter.take_back_sink(held.book)
            raise
        if on_error != "collect":
            run._raise_failures(on_error, options.get("max_failures"))
        return job

    @takes(GivenOptions, At.STAGES)
    def start_stages(
        self,
        items: Iterable[Any],
        stages: Sequence[Stage | Callable[..., Any]],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        **options: Unpack[StagesKeywords],
    ) -> JobRun:
        """`run_stages` without the wait: returns the run at once. Raises what that raises before anything runs."""
        from mpqueue._queue.growing.stages import make_pipeline  # most programs have none

        self._closer.check_open("start a job")
        check_progress(progress)
        asked = read(GivenOptions, At.STAGES, "JobQueue.start_stages", options, ("items", "stages", "id", "progress"))
        recorder = self._engine.recorder
        record = record_options(asked.rerun, has_journal=recorder is not None)
        job_id = self._jobs.free_id() if id is None else checks.check_text("id", id)
        self._jobs.check_free(job_id)
        check_label(asked.label)
        sink = choose_sink(asked.results, None if recorder is None else recorder.journal.path)
        head, named = make_pipeline(
            job_id, items, stages, asked, self._options, self._backend, self.concurrency, sink=sink
        )
        held = self._jobs.add(
            head, None if recorder is None else _new_pipeline(head, named, seed_given=asked.seed is not None), record
        )
        run = JobRun(held, self)
        try:
            self._starter.start_pipeline(head, run, progress)
        except BaseException:
            self._jobs.discard(head)
            raise
        self._last_job = held.job
        return run

    @takes(GivenOptions, At.STAGES)
    def run_stages(
        self,
        items: Iterable[Any],
        stages: Sequence[Stage | Callable[..., Any]],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        **options: Unpack[StagesKeywords],
    ) -> Job:
        """Run each item through several handlers, one after the other, and wait for the end of all.

        ``stages`` are functions, or `Stage`s with options of their own. Each item goes on as soon as it can: what a
        stage returns is the next stage's item, and stays pickled on its way from worker to worker. A generator's
        values are items of their own, any number of them. Where more than one stage has items for a worker, the last
        one goes first; a stage waits while the next one has enough. A failed item is tried again by its stage alone.

        Returns a job with one item for each input. Its result is that of the last stage; where something was yielded
        on the way, the list of all its results, in the order in which they were yielded. Where an item fails in a stage
        for good, the input has failed with a `StageError` that names the stage. Each stage is a job too, ``id/name``,
        for progress and reports; it keeps no results. To pause or cancel one of them does it to all.

        ``progress`` is as in `start`, a line for each stage. ``priority``, ``seed``, ``max_failures``, ``deadline``,
        ``profile``, ``results`` and ``label`` are as in `create_job`, for the whole: a sink gets a row for
        each input. Failed items do not raise. Where the wait is interrupted (Ctrl-C), all is cancelled, running items
        are ended, and the interruption goes on.

        On a queue with a journal, a later call with the same ``id`` goes on where this one was. An input that has ended
        is not run again; of the others, what a stage has passed on is not done again, unless it is bigger than 4 MB.
        ``rerun`` is as in `create_job`, for the inputs: an input runs again in all stages. Code is that of all stages.
        Raises what `create_job` raises.
        """
        self._host.check_waiting_allowed("queue.run_stages()", instead="await queue.start_stages(...)")
        check_names(GivenOptions, At.STAGES, "JobQueue.run_stages", options, ("items", "stages", "id", "progress"))
        run = self.start_stages(items, stages, id=id, progress=progress, **options)
        return self._await(run)

    def _await(self, run: JobRun) -> Job:
        """Wait for the job's end and return it. If the wait is interrupted, what runs is ended, and that goes on."""
        try:
            return run._await_job()
        except BaseException as error:
            _bring_home(error, run.job)
            if not run.done():  # else it never began
                with suppress(QueueClosedError):
                    run._cancel(kill=True)
            run._end_bar()
            raise

    def pause(self, job_id: str | Job) -> None:
        """Pause a running job: active items continue, new items won't start until it is resumed.

        Its workers are free for other jobs as soon as they have ended the item that they run. Does nothing to a paused
        job. Raises `JobNotFoundError`; `JobStateError` for a pending or finished job.
        """
        self._handle(JobPaused(self._find_open(job_id, "pause a job")))

    def resume(self, job_id: str | Job) -> None:
        """Resume a paused job; does nothing to a running one.

        Raises `JobNotFoundError`, `JobStateError`; `JournalError` while the journal can't be written.
        """
        book = self._find_open(job_id, "resume a job")
        self._jobs.check_journal()
        self._handle(JobResumed(book))

    def cancel(self, job_id: str | Job, *, kill: bool = False) -> None:
        """Cancel a job: pending items won't start, active items may complete; with ``kill`` they are ended at once.

        ``cancelled`` is true at once, the status becomes ``cancelled`` with ``job:finished``, when the last active
        item has ended. Items that did not run, wait for a retry or were killed end as pending. A pending job is
        cancelled at once, a finished one stays as it is. Raises `JobNotFoundError`.
        """
        book = self._find_open(job_id, "cancel a job")
        self._handle(JobCancelled(book, self._engine.clock.wall(), kill))

    def cancel_items(self, job_id: str | Job, items: Iterable[JobItem | Hashable], *, kill: bool = False) -> None:
        """Cancel single items of a job that has not ended, while the others go on.

        ``items`` are views (``job.items[3]``, an item of an event), ids or positions, as in `retry_failed`. An item
        that waits, also for its next try, fails at once with an `ItemCancelledError`, without losing a try; if the job
        has not started, as soon as it does. An item that runs may complete, but is not tried again. With ``kill`` it is
        ended at once like the others, by killing its worker: what else was sent to that worker runs again without
        losing a try. On engines that can't kill, it runs to its end.

        Cancelled items count as failed, except for ``max_failures``. `retry_failed` runs them again. With a journal,
        they stay cancelled in the next run. Of a job with stages, an input is cancelled with all that came of it. What
        has ended stays as it is. Costs a look at all items that wait.

        Raises `JobNotFoundError`; TypeError, ValueError, KeyError or IndexError for items that are not the job's.
        """
        book = self._find_open(job_id, "cancel items")
        checks.check_bool("kill", kill)
        positions = positions_of(book, items)
        if positions:
            self._handle(ItemsDropped(book, positions, kill))

    def resize(self, concurrency: int, *, kill: bool = False) -> None:
        """Have so many workers from now on; returns at once.

        More start at once. Of too many, those with the highest numbers go, each when it has ended the item that it runs
        and the few that were sent with it; with ``kill`` at once, and what they ran runs again without losing a try.
        Running jobs go on meanwhile. The inner threads of workers (``per_worker["threads"]``) stay as they were.

        Raises TypeError or ValueError for anything but a whole number from 1 up, and on an engine whose workers are not
        the queue's own; QueueClosedError.
        """
        self._closer.check_open("resize the queue")
        checks.check_concurrency(concurrency)
        checks.check_bool("kill", kill)
        able = self._backend.capabilities
        if not (able.own_processes and able.is_here):
            raise ValueError(f"resize: expected an engine with workers of the queue's own, got {self._backend!r}")
        self._handle(LanesResized(concurrency, kill))
        self._size = concurrency

    @overload
    def retry_failed(
        self,
        job_id: Job[T, R],
        *,
        items: Iterable[JobItem | Hashable] | None = None,
        progress: ShowProgress = False,
    ) -> JobRun[T, R]: ...
    @overload
    def retry_failed(
        self,
        job_id: str,
        *,
        items: Iterable[JobItem | Hashable] | None = None,
        progress: ShowProgress = False,
    ) -> JobRun: ...
    def retry_failed(
        self,
        job_id: str | Job,
        *,
        items: Iterable[JobItem | Hashable] | None = None,
        progress: ShowProgress = False,
    ) -> JobRun:
        """Run the failed items of a finished job again, with ``attempts`` 0 and their history kept.

        With ``items``, only these of them, and the others stay failed: views (``job.items[3]``, those of
        ``job.failures``), ids (or the text or label of an item, as in ``job.items["a.jpg"]``), or positions where the
        ids are not numbers themselves.

        Returns a new run; where nothing failed it is resolved already. ``progress`` is as in `start`. A job that only
        the journal has runs with the handler that is in there. Raises `JobNotFoundError`; `JobStateError` for a job
        that has not ended or was cancelled, that another thread is just creating, or reading from the journal for a
        retry, or whose results went into a sink, and for an item that has not failed; `JournalError` where items or
        handler are not in the journal; ValueError where this queue lacks what its items need, as the journal has it
        (``uses``; not of functions, with a warning); TypeError, ValueError, KeyError or IndexError for items that are
        not the job's. Where it raises, nothing runs again.
        """
        self._closer.check_open("retry failed items")
        job_id = self._jobs.id_of(job_id)
        held, showing = self._jobs.take_up(job_id, "retry failed items"), Showing(progress, job_id)
        if held.book.delivery is not None:
            raise JobStateError(
                f"job {job_id!r}: expected a job that keeps its results to retry failed items, got one whose rows have "
                "gone into a sink; with a journal, create_job() with rerun=Rerun(redo='failed'), replace=True and a "
                "new sink writes them all anew"
            )
        positions = None if items is None else positions_of(held.book, items)
        run = JobRun(held, self)
        if held.book.status in OVER and not (held.book.failed if positions is None else positions):
            run._resolve()
        else:
            self._starter.start_again(held.book, run, showing, positions)
        return run

    def _find_open(self, job_id: str | Job, what: str) -> JobBook:
        self._closer.check_open(what)
        return self._jobs.find(self._jobs.id_of(job_id)).book

    def _handle(self, message: Message) -> None:
        self._host.ask(partial(self._engine.handle, message))

    # -- look at them ----------------------------------------------------------------------------------------

    @overload
    def get_job(self, job_id: Job[T, R]) -> Job[T, R] | None: ...
    @overload
    def get_job(self, job_id: str) -> Job | None: ...
    def get_job(self, job_id: str | Job) -> Job | None:
        """The job of that id, also one that only the journal has; None where there is none.

        A `Job` is given back, or None where the queue does not have it (any more). Works on a closed queue too.
        Raises `JournalError` where the journal can't be read.
        """
        self._engine.check_process()
        try:
            return self._jobs.get(self._jobs.id_of(job_id))
        except JobNotFoundError:
            return None

    def jobs(self) -> list[Job]:
        """All jobs of the queue, in the order they were created, after those that only its journal has.

        The items of the latter are read when they are asked for. Works on a closed queue too.
        """
        self._engine.check_process()
        return self._jobs.all()

    @overload
    def load_job(self, job_id: Job[T, R]) -> Job[T, R]: ...
    @overload
    def load_job(self, job_id: str) -> Job: ...
    def load_job(self, job_id: str | Job) -> Job:
        """A job that the journal holds, as it stood, without its handler: to look at its items, results and failures.

        Works on a closed queue too. Raises `JobNotFoundError`, `JournalError` where it can't be read.
        """
        self._engine.check_process()
        job = self._jobs.load(self._jobs.id_of(job_id))
        len(job.items)  # reads them, so that what can't be read is known now
        return job

    def get_stats(self) -> QueueStats:
        """Count the jobs running (or paused), pending and completed (ended, however). Works on a closed queue.

        Those that only the journal has do not count.
        """
        self._engine.check_process()
        return self._jobs.stats()

    def clear_job(self, job_id: str | Job) -> None:
        """Remove a pending or finished job, also from the journal; a `Job` that is still held stays readable.

        Of a job with more than 32 MB of results in the journal, those that are not in memory can't be read any more.
        Raises `JobNotFoundError`; `JobStateError` for a running or paused job, and, with a journal, for one that
        another thread is just creating, or reading from it for a retry; `JournalError`, and then it stays.
        """
        self._closer.check_open("clear a job")
        cleared = self._jobs.id_of(job_id)
        self._jobs.remove(cleared)
        if self._last_job is not None and self._last_job.id == cleared:
            self._last_job = None  # what it holds goes with it

    def prune(
        self, job_id: str | Job | None = None, *, gone: bool = True, older_than: float | str | None = None
    ) -> Pruned:
        """Make the journal smaller: of one job, or of all but those that are running, paused or just being created.

        Rows of a job are written anew, few instead of many. With ``gone``, the outcomes of items that are not in the
        job's list any more are dropped, with their files: should such an item come back, it runs again. Jobs that ended
        more than ``older_than`` seconds ago, also cancelled ones, are removed whole. The file shrinks.

        Each job is one transaction: whatever ends the program meanwhile, it is there as before or as after that.
        Others may read meanwhile. Results are not loaded. It needs room on the disk for the rows of the largest job;
        the first time, where an older version made the file, for twice the file. Returns how much it took out.

        Raises `JournalError` for a queue without a journal, where there is not enough room, and, for a job that was
        named, where its rows are damaged; `JobNotFoundError`; `JobStateError` for a job that is running or paused, or
        that another thread is just creating; TypeError or ValueError.
        """
        self._closer.check_open("prune its journal")
        pruned = None if job_id is None else self._jobs.id_of(job_id)
        checks.check_prune(pruned, gone)
        age = None if older_than is None else check_seconds("older_than", older_than)
        return self._jobs.prune(pruned, gone=gone, older_than=age)

    def serve(self, host: str = "127.0.0.1", port: int = 0, *, hosts: Iterable[str] = ()) -> Page:
        """Serve a live page of this queue's jobs, on a thread of its own; returns at once, with a `Page`.

        ``page.url`` is its address, with a token in it. With the token, a browser can see everything and
        cancel jobs; without it, it can do nothing. ``port=0`` takes a free port. The page is for this machine; through
        a tunnel (``ssh -L``) it is for another one. With another ``host`` it is sent over the network unencrypted;
        ``hosts`` are then the names under which browsers may ask for it. `close` closes it too, after the last job.

        Raises ImportError without the extra ``dashboard``, OSError where the port is taken.
        """
        self._closer.check_open("serve a page")
        address = checks.check_address(host, port, hosts)
        try:
            from mpqueue._live_page.server import Page  # which few programs need
            from mpqueue._queue.live_pages import QueueView
        except ImportError as error:
            raise ImportError(
                f"serve() needs Starlette and uvicorn ({error}): `pip install 'mpqueue[dashboard]'`"
            ) from error
        page = Page(QueueView(self, self._engine, self._jobs), *address)
        self._closer.show_end(page)
        self._closer.check_open("serve a page")
        return page

    def _on_listener_added(self) -> None:
        self._closer.check_open("add a listener")

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self, *, wait: bool = True, kill: bool = False) -> None:
        """End the queue. Afterwards its calls raise `QueueClosedError`; jobs and their results stay readable.

        Started jobs are waited for, also their retries; paused ones are cancelled; pending ones stay pending. With
        ``wait=False`` running jobs are cancelled, and what runs ends in the background. With ``kill`` running items
        are ended at once, and listeners are not waited for. From a listener or a sink it acts as ``wait=False``. A
        second call waits until the first one has ended the queue, except with ``wait=False``, and in a signal handler
        that interrupts that one; ``close(kill=True)`` also cuts it short. Raises `JournalError` where the end was
        waited for, and not all of it could be written into the journal.
        """
        says = not (kill or self._closer.closed)
        self._closer.close(self, wait=wait, kill=kill)
        if says:
            self._jobs.say_never_started()

    def drain(self, within: float | str = 30.0) -> None:
        """End the queue so that a journal's next run goes on: no new item starts, running ones have ``within`` seconds.

        What still runs then is taken back: its worker is killed, and it loses no attempt. Jobs end as ``cancelled``, or
        as usual if nothing of them is left; items that have not ended are pending again, also those that wait for a
        retry. What has ended is in the journal when this returns, and the queue is closed, see `close`. ``within=0``
        takes everything back at once. Cuts a `close` or a `drain` short that waits for longer. From a listener or a
        sink it ends in the background. Listeners that have not got all events 30 s after that are not waited for.

        Raises TypeError or ValueError for anything but a time from 0 up, in seconds or as text (``"5m"``);
        `JournalError` where not all of it could be written into the journal.
        """
        self._closer.drain(self, check_seconds("within", within))

    async def adrain(self, within: float | str = 30.0) -> None:
        """`drain` that can be awaited: the event loop goes on meanwhile. If the wait is cancelled, all ends at once."""
        seconds = check_seconds("within", within)
        await self._closer.close_beside_loop(partial(self._closer.drain, self, seconds))

    def __repr__(self) -> str:
        stats, workers = self.get_stats(), self.concurrency
        size = "closed" if self._closer.closed else f"of {workers} worker{'' if workers == 1 else 's'}"
        jobs = f"{stats.running} running, {stats.pending} pending, {stats.completed} completed"
        return f"<{type(self).__name__} {size}; jobs: {jobs}>"

    def _repr_html_(self) -> str:
        """For notebooks: its jobs as a table."""
        from mpqueue._output.notebook_forms import queue_as_html  # which few programs need

        return queue_as_html(repr(self), self.jobs())

    def __enter__(self) -> Self:
        self._closer.check_open("enter a queue")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._host.engine.is_fork:  # nothing of it is here, and what leaves the block goes on
            return
        if kind is not None:
            self.close(kill=True)
            return
        try:
            self.close()
        except BaseException:
            self.close(kill=True)
            raise

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closer.close_beside_loop(partial(self.__exit__, kind, error, trace))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a JobQueue can't be pickled: it belongs to the process that made it")


def _make_growing(items: Iterable[Any]) -> ItemTable:
    from mpqueue._queue.growing.open_job import make_growing  # most jobs are lists

    return make_growing(items)


def _new_pipeline(head: JobBook, stages: Sequence[tuple[str, Stage]], *, seed_given: bool) -> NewJob:
    """A job with stages that is recorded."""
    from mpqueue._queue.recorded.new_pipeline import NewPipeline  # a part of what only journals need

    assert head.pipeline is not None
    functions = [(name, stage.handler, stage.options.get("setup")) for name, stage in stages]
    return NewPipeline(head.pipeline, functions, seed_given=seed_given)


def _new_open_job() -> type[NewJob]:
    """The kind of an open job that is recorded."""
    from mpqueue._queue.recorded.new_open_job import NewOpenJob  # a part of what only journals need

    return NewOpenJob
