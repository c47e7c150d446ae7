"""`JobQueue`, the object that users hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, Unpack, overload

from mpqueue import _options as checks
from mpqueue._call_checks import check_calls, check_items, no_such_attribute
from mpqueue._core.messages import ItemsDropped, JobCancelled, JobPaused, JobResumed, JobSealed, LanesResized, Message
from mpqueue._core.state.item_table import DISCARD, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._declared import At, check_names, read, takes
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._output.progress import Showing, ShowProgress
from mpqueue._parent.listeners import SafeEmitter
from mpqueue._parent.queue_runtime import QueueRuntime
from mpqueue._queue.announcer import Announcer, OpenRuns
from mpqueue._queue.arguments import (
    check_cost,
    check_job,
    check_queue,
    choose_backend,
    choose_needs,
    choose_sink,
    journal_path,
    make_growing,
    make_job,
)
from mpqueue._queue.host import Closer, QueueHost
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem, R, T, positions_of
from mpqueue._queue.registry import Held, Registry, say_never_started
from mpqueue._queue.run import JobRun
from mpqueue._wire.item_names import IdRule, check_label
from mpqueue._wire.pickling.packed_handler import HandlerTransport, PackedHandler, pack_handler
from mpqueue._wire.pickling.script import Script
from mpqueue.errors import JobNotFoundError, JobStateError, QueueClosedError
from mpqueue.retry import check_seconds
from mpqueue.status import OVER, JobStatus, Pruned, QueueStats

if TYPE_CHECKING:
    from mpqueue._keywords import JobKeywords, OpenKeywords, QueueKeywords, StagesKeywords
    from mpqueue._live_page.server import Page
    from mpqueue._queue.growing_jobs import Stage
    from mpqueue._queue.job_items import Handler, HandlerWith
    from mpqueue._queue.recorded.job_record import JobPlan

    class RunKeywords(JobKeywords, total=False):
        """The keywords of `run` that choose no overload."""

        id: str | None
        progress: ShowProgress
        on_error: Literal["collect", "raise", "group"]


Setup = Callable[[], Any]

_NOTHING: Any = object()  #: no handler was named


#: Names that users of other libraries look for in a queue, with their equivalents.
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
    """Runs a function over many items in worker processes, and returns every result and every error.

    ``concurrency`` workers (3) start with the first job. None: one per CPU that the process may use; ``"physical"``:
    one per core, however many hyperthreads it has; inside a worker both mean one. ``max_retries`` (3) or ``retry`` say
    how often a failed item is tried again, ``timeout`` how many seconds one try may take; a job can have its own.
    ``progress_interval`` merges ``job:progress`` events, to at most one in that many seconds. ``per_worker`` is a dict
    of limits, all optional: ``"threads"``, the inner threads of BLAS, OpenMP and the like (None: CPUs / workers);
    ``"items"``, after which a worker is replaced; ``"memory"``, the private memory that it may have (bytes, or
    ``"2GB"``; an item that needs more fails with `MemoryLimitError`, and its worker is replaced); and
    ``"setup_timeout"``, the seconds after which the worker of a slow ``setup`` is replaced. ``initializer`` is called
    once in each new worker, before anything else, in its main thread; if it fails in every worker, jobs fail with
    `SetupError`. ``preload`` is a list of modules to import, or a function to call, once in a separate process that
    forks the workers (loky on Linux only): a new worker is ready within tens of milliseconds, and workers share these
    pages. If it fails, jobs fail with `WorkerStartError`. If it starts threads, there is a warning, and workers start
    the ordinary way, each with the imports, or the call, before its initializer. ``backend`` is the engine that the
    workers run on: loky, for processes on this machine, or one of `mpqueue.backends`, where ``concurrency=None`` takes
    all workers, also those added later.

    ``resources`` are what items may use beside workers, under any name, such as ``{"gpu": 2, "license": 5}``;
    ``"memory"`` limits their use of the machine's memory; see `create_job`. With ``gpu_env`` a worker sees only the
    GPUs that its items hold: ``CUDA_VISIBLE_DEVICES`` is set before it imports anything for them. If the program has
    that variable, it must name at least as many GPUs as there are units; else ValueError.

    With ``journal``, the path of a file, the queue records there how each item ends: the same program, run again for
    any reason, runs only the missing items, see `create_job`. One queue at a time may have it open.

    A context manager, also an asynchronous one: leaving it ends every process and thread that it started. Methods that
    take the id of a job also take the `Job`. All methods may be called from any thread, from listeners and from
    done-callbacks; in a forked child they raise `QueueClosedError`.

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
            transport = self._backend.capabilities.handler_transport
            packed = pack_handler(
                "initializer",
                asked.initializer,
                None,
                IdRule.POSITION,
                transport=transport,
                argument="initializer",
                script=script,
            )
        imports = (
            pack_handler("preload", first, None, IdRule.POSITION, transport=HandlerTransport.WHOLE)
            if callable(first) and not isinstance(first, Script)
            else first
        )
        self._engine = QueueRuntime(
            self._options, self._backend, packed, journal=journal_path(asked.journal), preload=imports
        )
        self._jobs = Registry(self._engine, self._options, self._backend)
        self._runs = OpenRuns(self._engine)
        self._last_job: Job | None = None
        self._size: int | None = None  #: the number of workers, once it has been changed
        self._closer = Closer(self._engine, self._runs)
        #: The queue's methods for the rest of the package; its public names are for users.
        self._host = QueueHost(self, self._engine, self._backend, self._jobs, self._runs, self._closer)
        self._engine.announce = Announcer(self, self._engine, self._runs, self._options.progress_interval).announce
        finalizer = weakref.finalize(self, self._engine.abandon)
        finalizer.atexit = False  # the engine has its own, earlier hook

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> Any:
            raise no_such_attribute("JobQueue", name, _ELSEWHERE, self)

    @property
    def concurrency(self) -> int:
        """The number of workers; if a cluster's are all used, the number that it has now, at least 1.

        Setting it calls `resize`.
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
        """The tries after the first, for jobs that set none."""
        return self._options.retry.max_retries

    @property
    def last_job(self) -> Job | None:
        """The job that was created last, even if the call that ran it was interrupted; None before the first.

        None also once that job was cleared.
        """
        return self._last_job

    # -- create jobs -----------------------------------------------------------------------------------------

    @overload
    def create_job(
        self, id: str, items: Iterable[T], handler: Handler[T, R], *, setup: None = None, **options: Unpack[JobKeywords]
    ) -> Job[T, R]: ...
    @overload
    def create_job(
        self, id: str, items: Iterable[T], handler: HandlerWith[T, R], *, setup: Setup, **options: Unpack[JobKeywords]
    ) -> Job[T, R]: ...
    @takes(GivenOptions, At.JOB)
    def create_job(self, id: str, items: Iterable[Any], handler: Callable[..., Any], **options: Any) -> Job:
        """Create a job without starting it.

        ``items`` are mappings with an ``"id"``, objects with an ``.id``, or plain values, whose id is their position:
        the first item decides for all. The list is copied now; items are pickled when they are dispatched. The handler
        is serialized now, once. ``setup`` is called once in each worker before the job's first item there, and the
        handler is then called as ``handler(item, state)`` with its return value; a generator function yields the state
        and is finished at the job's end. ``timeout`` is in seconds per try. Waiting jobs with a higher ``priority`` go
        first. ``chunksize`` items are sent together; None: as many as take 45 ms. At most ``concurrency`` workers run
        its items at a time (None: all). With ``capture_output``, the output of each item is kept as ``item.stdout`` and
        ``item.stderr``, instead of being shown. ``seed``, a whole number from 0 up, makes ``current_item().rng`` give
        the same numbers each time; None: different ones each time, and ``job.seed`` is the seed. With ``profile``, each
        worker samples up to 100 times per second which line the handler is at, for `Job.profile` and the report.

        ``label`` sets the items' names for people, see `JobItem.label`: a function of the item, or the key or attribute
        of the item that names it. The function is called in this process when an item is shown; if it raises, or
        returns None, the item has its default name.

        With ``cost`` the costliest items go first, so that no long one is left for the end: a function of an item
        (``os.path.getsize``), a number for each, or ``"recorded"``: the seconds of its last run in the journal. Items
        with no known cost count as the mean. Any unit will do.

        ``uses``, such as ``{"cpu": 2, "memory": "3GB", "gpu": 1}``, says what an item needs while it runs: numbers, or
        functions of an item, which are called now; or one function that returns all of it. As many items run at a time
        as fit into ``concurrency`` CPUs, the memory of the machine or its control group, and the queue's ``resources``.
        Items start in their order; those of other jobs may pass one that waits, for 5 seconds. Needs that can never be
        met raise ValueError. A handler finds its units in `current_item().uses`. Inner threads of workers follow
        ``"cpu"``.

        A job stops early if more than ``max_failures`` items fail after its start, or if it is not over after
        ``deadline`` seconds: it is cancelled, running items may end, and ``job.stopped_why`` gives the reason.

        With ``results="discard"`` workers drop the handlers' return values. With a sink, see `mpqueue.sinks`, results
        go there as items end, and not into memory: ``job.results`` is then the sink, and ``item.result`` raises, unless
        a journal has the results as well. The sink is checked now, opened at the start, and closed before the job ends;
        until then a file is marked as a part. If the sink raises, the job is cancelled, running items are killed, and
        its run raises `SinkError`. A slow sink slows its job.

        With ``replace``, the queue's job of that id is removed first if it is not running, as when a notebook's cell is
        run again. Its record in a journal still counts.

        If the queue's journal has a job of that id, this one continues it: items that have ended count, and do not run
        again. Items are recognized by their ids, or else by their values, never by their position. ``rerun`` decides
        whether the items may differ, which of them have changed, and which run again, see `Rerun`. Keys are taken now,
        so that a file that changes while the job runs is processed again next time. Code means all that is sent with
        the handler, and the source of your own modules. If the recorded job was over, this one has ended too, and its
        run resolves at once. `plan_job` shows beforehand which items will run.

        Raises `JobExistsError` for an id that is taken, `HandlerPicklingError` for a handler that can't be serialized,
        `JournalMismatchError` if the journal has it with other items, `JournalError` if that can't be read or written,
        TypeError or ValueError for any other wrong argument, and errors of the iterable and of ``key``; then nothing is
        created.
        """
        asked = read(GivenOptions, At.JOB, "JobQueue.create_job", options, ("id", "items", "handler"))
        return self._create(id, items, handler, asked).job

    @overload
    def open_job(
        self,
        id: str,
        items: Iterable[T] = ...,
        handler: Handler[T, R] = ...,
        *,
        setup: None = None,
        **options: Unpack[OpenKeywords],
    ) -> Job[T, R]: ...
    @overload
    def open_job(
        self,
        id: str,
        items: Iterable[T] = ...,
        handler: HandlerWith[T, R] = ...,
        *,
        setup: Setup,
        **options: Unpack[OpenKeywords],
    ) -> Job[T, R]: ...
    @takes(GivenOptions, At.OPEN)
    def open_job(
        self, id: str, items: Iterable[Any] = (), handler: Callable[..., Any] = _NOTHING, **options: Any
    ) -> Job:
        """Create a job that may begin without items and gets more while it runs; otherwise like `create_job`.

        Items are added by `add_items` and by its handlers (``current_item().add``), until `seal`: a sealed job ends
        when all its items have ended. While ``max_waiting`` items wait for a worker, `add_items` waits or refuses. Ids
        are text, numbers, bytes or tuples of these. There is no ``cost``, and ``uses`` takes no functions.

        A job that the journal has goes on with all items, also those that handlers had added: items that have not ended
        run, and given items that are recorded already are left out, even if they have changed. Its `Rerun` has neither
        ``update`` nor ``key``. With another ``version``, or ``redo="all"``, it begins anew; for items without ids,
        ``redo`` takes no list. Raises the errors of `create_job`.
        """
        asked = read(GivenOptions, At.OPEN, "JobQueue.open_job", options, ("id", "items", "handler"))
        if handler is _NOTHING:
            raise TypeError(
                "open_job: expected a handler, got none; it may begin without items: open_job(id, handler=f)"
            )
        return self._create(id, items, handler, asked, is_open=True).job

    def _create(
        self, id: str, items: Iterable[Any], handler: Callable[..., Any], asked: GivenOptions, *, is_open: bool = False
    ) -> Held:
        self._closer.check_open("create a job")
        job_id, options, sink = self._check_job(id, handler, asked, is_open=is_open)
        if asked.replace:
            self._jobs.check_replaceable(job_id)
        else:
            self._jobs.check_free(job_id)
        began, outlet = self._engine.clock.now(), self._engine.journal_outlet
        check_items(items)
        table = make_growing(items) if is_open else make_table(items)
        read_at = self._engine.clock.now()
        needs = choose_needs(asked, None if is_open else table, self._options, self._backend, self.concurrency)
        transport = self._backend.capabilities.handler_transport
        book = make_job(
            job_id, table, options, handler, asked, is_open=is_open, transport=transport, results=sink, needs=needs
        )
        packed: PackedHandler = book.handler
        book.timings.items_read(read_at - began)
        book.timings.handler_packed(self._engine.clock.now() - read_at, packed.size, packed.weight, packed.name)
        if asked.replace:
            self._jobs.forget_replaced(job_id)
        record = None
        if outlet is not None:
            from mpqueue._queue.recorded.growing_record import OpenRecord
            from mpqueue._queue.recorded.job_record import JobRecord  # only journals need it

            record = (OpenRecord if is_open else JobRecord)(book, (handler, asked.setup), asked)
        held = self._jobs.add(book, record)
        self._last_job = held.job
        return held

    def _check_job(
        self, id: str, handler: Callable[..., Any], asked: GivenOptions, *, is_open: bool = False
    ) -> tuple[str, JobOptions, Any]:
        """Return the id, the options and the sink of a job. Raises errors for wrong arguments other than the items."""
        job_id, cores = checks.check_text("id", id), getattr(self._backend, "count_cores", None)
        options, outlet = checks.job_options(self._options, asked, count_cores=cores), self._engine.journal_outlet
        self._check_rerun(asked, is_open=is_open)
        if asked.setup is None or callable(asked.setup):
            check_calls(handler, with_state=asked.setup is not None)
        check_job(self._backend, options)
        sink = choose_sink(asked.results, None if outlet is None else outlet.journal.path)
        check_label(asked.label)
        check_cost(asked, has_journal=outlet is not None)
        return job_id, options, sink

    def _check_rerun(self, asked: GivenOptions, *, is_open: bool = False) -> None:
        if asked.rerun is None:
            return
        from mpqueue._queue.recorded.record_options import check_of_open_job, check_rerun

        rerun = check_rerun(asked.rerun, has_journal=self._engine.journal_outlet is not None)
        if is_open:
            check_of_open_job(rerun)

    @takes(GivenOptions, At.JOB)
    def plan_job(
        self,
        id: str,
        items: Iterable[Any],
        handler: Callable[..., Any],
        **options: Unpack[JobKeywords],
    ) -> JobPlan:
        """Return what `create_job` with these arguments, and ``update`` of `Rerun`, would find; runs nothing.

        Writes nothing. Takes the items' identities and keys, and reads how recorded ones ended, but no results. Without
        a journal all items are new. Raises the errors of `create_job` for wrong arguments, and `JournalError`; but the
        handler is not serialized, and ``cost`` and ``uses`` are not called. Open jobs have no plan: their items are
        known only once they have been sealed.
        """
        from mpqueue._queue.recorded.job_record import plan  # its job may never run
        from mpqueue._queue.recorded.record_options import Rerun

        self._closer.check_open("plan a job")
        asked = read(GivenOptions, At.JOB, "JobQueue.plan_job", options, ("id", "items", "handler"))
        job_id, given, sink = self._check_job(id, handler, asked)
        check_items(items)
        table, outlet = make_table(items), self._engine.journal_outlet
        reader, recorded = (None, None) if outlet is None else (outlet.journal.reader, outlet.journal.find(job_id))
        return plan(
            reader, recorded, table, (handler, asked.setup), asked.rerun or Rerun(),
            max_retries=given.retry.max_retries, wants_results=sink is not DISCARD,
        )  # fmt: skip

    def add_items(self, job_id: str | Job, items: Iterable[Any], *, wait: bool = True) -> int:
        """Give an open job more items, before it is started or while it runs; returns how many of them are new.

        An item whose id the job has already is left out; items without ids are all new. The list is copied. May be
        called on any thread, also in listeners. If the job has ``max_waiting``, and that many of its items wait for a
        worker, this waits until there is room, also while the job is paused; with ``wait=False``, or if the job was not
        started, it raises `JobFullError` and adds nothing.

        If the queue has a journal, the items are on disk when this returns, with ``wait=False`` within 0.2 s; items
        that an earlier run of the program had added are left out. Raises `JournalError` while the journal can't be
        written: then nothing is added, unless the error says so.

        Raises `JobNotFoundError`; `JobStateError` for a job that is not open, or was sealed or cancelled meanwhile:
        some of the items may have been added then; TypeError for items without the ids that the job's have, or with ids
        that are not text, numbers, bytes or tuples of these; and errors of the iterable.
        """
        from mpqueue._queue.growing_jobs import add_items

        return add_items(self._host, self._find_open(job_id, "add items"), items, wait=wait)

    def seal(self, job_id: str | Job) -> None:
        """Seal an open job: only its own handlers may add items from now on, and it ends when all items have ended.

        Does nothing to a job that is sealed. `close` seals all. Raises `JobNotFoundError`.
        """
        self._handle(JobSealed(self._find_open(job_id, "seal a job")))

    # -- run them --------------------------------------------------------------------------------------------

    def start(
        self,
        job_id: str | Job[T, R],
        *,
        progress: ShowProgress = False,
        cancel_with_awaiter: bool = False,
        kill_on_cancel: bool = False,
    ) -> JobRun[T, R]:
        """Start a pending job; returns at once, with a run that resolves when the job has ended.

        With ``cancel_with_awaiter``, cancelling a task that awaits the run cancels the job, with ``kill_on_cancel``
        also the items that run then. The first start of a queue starts its workers.

        ``progress=True`` draws a bar on stderr if that is a terminal, or in a notebook, and writes a line every 5 s
        elsewhere, unless pytest runs or ``MPQUEUE_PROGRESS=0``. A callable gets a `Progress` 10 times per second and at
        the end, on the listener thread.

        Raises `JobNotFoundError`; `JobStateError` for a job that is not pending; `WorkerStartError` if there is no room
        to start workers.
        """
        self._closer.check_open("start a job")
        job_id = self._jobs.id_of(job_id)
        held, showing = self._jobs.find(job_id), Showing(progress, job_id)
        run = JobRun(held, self, cancel_with_awaiter=cancel_with_awaiter, kill_on_cancel=kill_on_cancel)
        self._host.start(run, showing)
        return run

    @overload
    def run(
        self, items: Iterable[T], handler: Handler[T, R], *, setup: None = None, **options: Unpack[RunKeywords]
    ) -> Job[T, R]: ...
    @overload
    def run(
        self, items: Iterable[T], handler: HandlerWith[T, R], *, setup: Setup, **options: Unpack[RunKeywords]
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
        """Create a job, start it and wait for its end. ``options`` are those of `create_job`.

        ``progress`` is as in `start`: True for a bar, or a callable.

        ``on_error`` is for items that fail for good. ``"collect"``: nothing is raised, see ``job.failures`` and
        ``job.raise_for_failures()``; ``"raise"``: at the end, the first failure in item order is raised as itself, with
        a note that names its item and the others; ``"group"``: an `ExceptionGroup` of all is raised. With the last two,
        more than ``max_failures`` raise `TooManyFailuresError`. The job is then in `last_job`.

        If the wait is interrupted (Ctrl-C), the job is cancelled, its running items are killed, and the interruption
        goes on; the job with its ended items is in `last_job`, and in the exception as ``job``.
        """
        self._host.check_waiting_allowed("queue.run()", instead="await queue.start(queue.create_job(...))")
        names = ("items", "handler", "id", "progress", "on_error")
        asked = read(GivenOptions, At.JOB, "JobQueue.run", options, names)
        checks.check_progress("progress", progress)
        checks.check_on_error(on_error, ("collect", "raise", "group"))
        held = self._create(self._jobs.free_id() if id is None else id, items, handler, asked)
        run = JobRun(held, self)
        self._host.start(run, Showing(progress, held.book.id), waits_for_run=True)
        return self._await(run, on_error, asked.max_failures)

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
        """`run_stages` without the wait: returns the run at once. Raises its errors before anything runs."""
        from mpqueue._queue.growing_jobs import make_pipeline  # most programs have none

        self._closer.check_open("start a job")
        checks.check_progress("progress", progress)
        asked = read(GivenOptions, At.STAGES, "JobQueue.start_stages", options, ("items", "stages", "id", "progress"))
        outlet = self._engine.journal_outlet
        self._check_rerun(asked)
        job_id = self._jobs.free_id() if id is None else checks.check_text("id", id)
        self._jobs.check_free(job_id)
        check_label(asked.label)
        sink = choose_sink(asked.results, None if outlet is None else outlet.journal.path)
        head, named = make_pipeline(
            job_id, items, stages, asked, self._options, self._backend, self.concurrency, sink=sink
        )
        record = None
        if outlet is not None:
            from mpqueue._queue.recorded.growing_record import StagesRecord  # only journals need it

            assert head.pipeline is not None
            functions = [(name, stage.handler, stage.options.setup) for name, stage in named]
            record = StagesRecord(head.pipeline, functions, asked)
        held = self._jobs.add(head, record)
        run = JobRun(held, self)
        try:
            self._host.start(run, Showing(progress))
        except BaseException:
            self._jobs.forget(head)
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
        on_error: Literal["collect", "raise", "group"] = "collect",
        **options: Unpack[StagesKeywords],
    ) -> Job:
        """Run each item through several handlers, one after the other, and wait for all of them.

        ``stages`` are functions, or `Stage`s with options of their own. Each item goes on as soon as it can: the value
        that a stage returns is the next stage's item, and stays pickled between the workers. Each value of a generator
        is an item of its own. If several stages have items for a worker, the last one goes first; a stage waits while
        the next one has enough. A failed item is tried again by its stage only.

        Returns a job with one item for each input. Its result is that of the last stage; if a stage yields, the list of
        all its results, in the order in which they were yielded. If an item fails in a stage for good, the input has
        failed with a `StageError` that names the stage. Each stage is a job too, ``id/name``, for progress and reports;
        it keeps no results. Pausing or cancelling one of them applies to all.

        ``progress`` is as in `start`, a line for each stage. ``priority``, ``seed``, ``max_failures``, ``deadline``,
        ``profile``, ``results`` and ``label`` are as in `create_job`, for the whole: a sink gets a row per input.
        ``on_error`` is as in `run`. If the wait is interrupted (Ctrl-C), everything is cancelled, running items are
        killed, and the interruption goes on.

        On a queue with a journal, a later call with the same ``id`` continues this one. An input that has ended does
        not run again; for the others, values that a stage has passed on are reused, unless they are bigger than 4 MB
        or a stage's code has changed. ``rerun`` is as in `create_job`, for the inputs: an input runs again in all
        stages. Code means that of all stages. Raises the errors of `create_job`.
        """
        self._host.check_waiting_allowed("queue.run_stages()", instead="await queue.start_stages(...)")
        check_names(
            GivenOptions, At.STAGES, "JobQueue.run_stages", options, ("items", "stages", "id", "progress", "on_error")
        )
        checks.check_on_error(on_error, ("collect", "raise", "group"))
        run = self.start_stages(items, stages, id=id, progress=progress, **options)
        return self._await(run, on_error, options.get("max_failures"))

    def _await(self, run: JobRun, on_error: Literal["collect", "raise", "group"], max_failures: Any) -> Job:
        """Wait for the job's end and return it. An interruption of the wait ends running items, and goes on.

        The interruption gets the job, and a note on where to find it.
        """
        try:
            job = run._await_job()
        except BaseException as error:
            with suppress(AttributeError):
                error.job = run.job  # type: ignore[attr-defined]
            if isinstance(error, KeyboardInterrupt):
                error.add_note(
                    f"mpqueue: job {run.job.id!r} is cancelled; {run.job.completed} of its {run.job.total} items have "
                    "completed: see queue.last_job"
                )
            if not run.done():  # otherwise it never began
                with suppress(QueueClosedError):
                    run._cancel(kill=True)
            run._end_bar()
            raise
        failures = {} if on_error == "collect" else run._failures()
        if failures and job.stopped_why is not None and max_failures is not None and len(failures) > max_failures:
            raise run._too_many(failures, max_failures)
        if failures:
            raise run._error_of(failures, on_error)
        return job

    def pause(self, job_id: str | Job) -> None:
        """Pause a running job: active items continue, new items won't start until it is resumed.

        Its workers are free for other jobs as soon as their current items have ended. Does nothing to a paused job.
        Raises `JobNotFoundError`; `JobStateError` for a pending or finished job.
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

        ``cancelled`` is true at once; the status becomes ``cancelled`` with ``job:finished``, when the last active item
        has ended. Items that did not run, wait for a retry or were killed end as pending. A pending job is cancelled at
        once, a finished one stays as it is. Raises `JobNotFoundError`.
        """
        book = self._find_open(job_id, "cancel a job")
        self._handle(JobCancelled(book, self._engine.clock.wall(), kill))

    def cancel_items(self, job_id: str | Job, items: Iterable[JobItem | Hashable], *, kill: bool = False) -> None:
        """Cancel single items of a job that has not ended, while the others go on.

        ``items`` are views (``job.items[3]``, an item of an event), ids or positions, as in `retry_failed`. An item
        that waits, also for its next try, fails at once with an `ItemCancelledError`, without losing a try; if the job
        has not started, as soon as it does. An item that runs may complete, but is not tried again. With ``kill``, its
        worker is killed, so it ends at once too: other items that were sent to that worker run again without losing a
        try. On engines that can't kill, it runs to its end.

        Cancelled items count as failed, except for ``max_failures``. `retry_failed` runs them again. With a journal,
        they stay cancelled in the next run. In a job with stages, an input is cancelled with all items made from it.
        Items that have ended stay as they are. Costs a look at all items that wait.

        Raises `JobNotFoundError`; TypeError, ValueError, KeyError or IndexError for items that are not the job's.
        """
        book = self._find_open(job_id, "cancel items")
        checks.check_bool("kill", kill)
        positions = positions_of(book, items)
        if positions:
            self._handle(ItemsDropped(book, positions, kill))

    def resize(self, concurrency: int, *, kill: bool = False) -> None:
        """Change the number of workers; returns at once.

        New workers start at once. Surplus workers, those with the highest numbers, end once they have finished their
        current item and the few that were sent with it; with ``kill`` at once, and their items run again without losing
        a try. Running jobs go on meanwhile. The inner threads of workers (``per_worker["threads"]``) stay as they were.
        On a cluster, workers for which it has no room now start once it has, and ``concurrency=None`` ends: the number
        no longer follows the cluster's.

        Raises TypeError or ValueError for anything but a whole number from 1 up, and on an engine whose workers are not
        the queue's own; `QueueClosedError`.
        """
        self._closer.check_open("resize the queue")
        checks.check_concurrency(concurrency)
        checks.check_bool("kill", kill)
        if not self._backend.capabilities.own_processes:
            raise ValueError(f"resize: expected an engine with workers of the queue's own, got {self._backend!r}")
        self._handle(LanesResized(concurrency, kill))
        self._size = concurrency

    def retry_failed(
        self,
        job_id: str | Job[T, R],
        *,
        items: Iterable[JobItem | Hashable] | None = None,
        progress: ShowProgress = False,
    ) -> JobRun[T, R]:
        """Run the failed items of a finished job again, with ``attempts`` 0 and their history kept.

        With ``items``, only these run, and the others stay failed: views (``job.items[3]``, those of ``job.failures``),
        ids (or the text or label of an item, as in ``job.items["a.jpg"]``), or positions if the ids are not numbers
        themselves.

        Returns a new run; if nothing failed it is resolved already. ``progress`` is as in `start`. A job that only the
        journal has runs with the recorded handler. Raises `JobNotFoundError`; `JobStateError` for a job that has not
        ended or was cancelled, that another thread is just creating, or reading from the journal for a retry, or whose
        results went into a sink, and for an item that has not failed; `JournalError` if items or handler are not in the
        journal; ValueError if this queue lacks the recorded needs of its items (``uses``; functions are not recorded,
        with a warning); TypeError, ValueError, KeyError or IndexError for items that are not the job's. If it raises,
        nothing runs again.
        """
        self._closer.check_open("retry failed items")
        job_id = self._jobs.id_of(job_id)
        held, showing = self._jobs.reopen(job_id, "retry failed items"), Showing(progress, job_id)
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
            self._host.start_again(run, showing, positions)
        return run

    def _find_open(self, job_id: str | Job, what: str) -> JobBook:
        self._closer.check_open(what)
        return self._jobs.find(self._jobs.id_of(job_id)).book

    def _handle(self, message: Message) -> None:
        self._engine.coordinator().ask(partial(self._engine.handle, message))

    # -- look at them ----------------------------------------------------------------------------------------

    def get_job(self, job_id: str | Job[T, R]) -> Job[T, R] | None:
        """The job of that id, also one that only the journal has; None if there is none.

        A `Job` is returned as it is, or None if the queue does not have it (any more). Works on a closed queue too.
        Raises `JournalError` if the journal can't be read.
        """
        self._engine.check_process()
        try:
            return self._jobs.get(self._jobs.id_of(job_id))
        except JobNotFoundError:
            return None

    def jobs(self) -> list[Job]:
        """All jobs of the queue, in the order they were created, after those that only its journal has.

        The items of the latter are read on first use. Works on a closed queue too.
        """
        self._engine.check_process()
        return self._jobs.all()

    def load_job(self, job_id: str | Job[T, R]) -> Job[T, R]:
        """Return a recorded job without its handler, to look at its items, results and failures.

        Works on a closed queue too. Raises `JobNotFoundError`, `JournalError` if it can't be read.
        """
        self._engine.check_process()
        job = self._jobs.load(self._jobs.id_of(job_id))
        len(job.items)  # reads them now, so that errors are raised here
        return job

    def get_stats(self) -> QueueStats:
        """Count the jobs that are running (or paused), pending, and completed (in any final state).

        Works on a closed queue. Jobs that only the journal has do not count.
        """
        self._engine.check_process()
        books = self._jobs.books()
        pending = sum(book.status is JobStatus.PENDING for book in books)
        ended = sum(book.status.final for book in books)
        return QueueStats(len(books) - pending - ended, pending, ended, len(books))

    def clear_job(self, job_id: str | Job) -> None:
        """Remove a pending or finished job, also from the journal; a `Job` that is still held stays readable.

        If the job has more than 32 MB of results in the journal, those that are not in memory can't be read any more.
        Raises `JobNotFoundError`; `JobStateError` for a running or paused job, and, with a journal, for one that
        another thread is just creating, or reading from it for a retry; `JournalError`, which leaves the job in place.
        """
        self._closer.check_open("clear a job")
        cleared = self._jobs.id_of(job_id)
        self._jobs.remove(cleared)
        if self._last_job is not None and self._last_job.id == cleared:
            self._last_job = None  # its objects are freed with it

    def prune(
        self, job_id: str | Job | None = None, *, gone: bool = True, older_than: float | str | None = None
    ) -> Pruned:
        """Make the journal smaller: one job, or all but those that are running, paused or just being created.

        Replaced outcomes are dropped. With ``gone``, the outcomes of items that are not in the job's list any more are
        dropped, with their files: if such an item comes back, it runs again. Jobs that ended more than ``older_than``
        seconds ago, also cancelled ones, are removed. The file shrinks.

        Each job is one transaction: if the program ends meanwhile, the job is there as before or as after it. Other
        processes may read meanwhile. Results are not loaded. It needs disk space for the rows of the largest job; the
        first time, if an older version made the file, for twice the file. Returns how much it took out.

        Raises `JournalError` for a queue without a journal, if there is not enough disk space, and, for a named job, if
        its rows are damaged; `JobNotFoundError`; `JobStateError` for a job that is running or paused, or that another
        thread is just creating; TypeError or ValueError.
        """
        self._closer.check_open("prune its journal")
        pruned = None if job_id is None else checks.check_text("job_id", self._jobs.id_of(job_id))
        checks.check_bool("gone", gone)
        age = None if older_than is None else check_seconds("older_than", older_than)
        return self._jobs.prune(pruned, gone=gone, older_than=age)

    def serve(self, host: str = "127.0.0.1", port: int = 0, *, hosts: Iterable[str] = ()) -> Page:
        """Serve a live page of this queue's jobs, on a thread of its own; returns at once, with a `Page`.

        ``page.url`` is its address, with a token in it. With the token, a browser can see everything and cancel jobs;
        without it, nothing. ``port=0`` takes a free port. The page is for this machine, or for others through a tunnel
        (``ssh -L``). With another ``host`` it is sent over the network unencrypted; ``hosts`` are then the host names
        that browsers may use. `close` closes it too, after the last job.

        Raises ImportError without the extra ``dashboard``, OSError if the port is taken.
        """
        self._closer.check_open("serve a page")
        address = checks.check_address(host, port, hosts)
        try:
            from mpqueue._live_page.server import Page  # few programs need it
            from mpqueue._queue.live_pages import QueueView
        except ImportError as error:
            raise ImportError(
                f"serve() needs Starlette and uvicorn ({error}): `pip install 'mpqueue[dashboard]'`"
            ) from error
        page = Page(QueueView(self, self._engine, self._jobs), *address)
        self._closer.pages.add(page)
        if self._closer.closed:  # since the first check
            page.close()
        self._closer.check_open("serve a page")
        return page

    def _on_listener_added(self) -> None:
        self._closer.check_open("add a listener")

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self, *, wait: bool = True, kill: bool = False) -> None:
        """End the queue. Afterwards its calls raise `QueueClosedError`; jobs and their results stay readable.

        It waits for started jobs and their retries; paused jobs are cancelled; pending ones stay pending. With
        ``wait=False`` running jobs are cancelled, and running items end in the background. With ``kill`` running items
        are killed, and it does not wait for listeners. From a listener or a sink it acts as ``wait=False``. A second
        call waits until the first one has ended the queue, except with ``wait=False``, and in a signal handler that
        interrupts that one; ``close(kill=True)`` also cuts it short. Raises `JournalError` if it waited for the end,
        and not all of it could be written into the journal.
        """
        says = not (kill or self._closer.closed)
        self._closer.close(self, wait=wait, kill=kill)
        if says:
            say_never_started(self._jobs.books(), "the queue is closed")

    def drain(self, within: float | str = 30.0) -> None:
        """End the queue so that a journal's next run goes on: no new item starts, running ones have ``within`` seconds.

        Items that still run then are taken back: their workers are killed, and they lose no attempt. Jobs end as
        ``cancelled``, or as usual if all their items have ended; other items are pending again, also those that wait
        for a retry. When this returns, all ended items are in the journal, and the queue is closed, see `close`.
        ``within=0`` takes everything back at once. It cuts short a `close` or `drain` that would wait longer. From a
        listener or a sink it ends in the background. It waits at most 30 s more for listeners to get all events.

        Raises TypeError or ValueError for anything but a time from 0 up, in seconds or as text (``"5m"``);
        `JournalError` if not all of it could be written into the journal.
        """
        self._closer.drain(self, check_seconds("within", within))

    async def adrain(self, within: float | str = 30.0) -> None:
        """An awaitable `drain`: the event loop goes on meanwhile. If the wait is cancelled, everything ends at once."""
        seconds = check_seconds("within", within)
        await self._closer.close_beside_loop(partial(self._closer.drain, self, seconds))

    def __repr__(self) -> str:
        stats, workers = self.get_stats(), self.concurrency
        size = "closed" if self._closer.closed else f"of {workers} worker{'' if workers == 1 else 's'}"
        jobs = f"{stats.running} running, {stats.pending} pending, {stats.completed} completed"
        return f"<{type(self).__name__} {size}; jobs: {jobs}>"

    def _repr_html_(self) -> str:
        """Return a table of the jobs for notebooks."""
        from mpqueue._output.notebook_forms import queue_as_html  # few programs need it

        return queue_as_html(repr(self), self.jobs())

    def __enter__(self) -> Self:
        self._closer.check_open("enter a queue")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._host.engine.is_fork:  # the queue belongs to another process; the exception goes on
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
