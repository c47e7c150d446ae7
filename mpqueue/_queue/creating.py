"""How jobs are made: `create_job`, and `run`, the one-shot."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, NoReturn, TypedDict, TypeVar, Unpack, overload

from mpqueue import _options as checks
from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import QueueOptions
from mpqueue._output.progress import ShowProgress, check_progress
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.machinery import Engine
from mpqueue._queue.choosing import check_job
from mpqueue._queue.job import Job
from mpqueue._queue.past_jobs import NewJob
from mpqueue._queue.run import JobRun
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue.errors import JobExistsError, QueueClosedError, shown
from mpqueue.retry import RetryPolicy

T = TypeVar("T")
R = TypeVar("R")


class JobKeywords(TypedDict, total=False):
    """The options of `create_job`, for the type checker."""

    max_retries: int | None
    retry: RetryPolicy | None
    timeout: float | None
    priority: int
    chunksize: int | None
    capture_output: bool
    seed: int | None
    strict: bool
    trace: bool


class Creating:
    """The making half of `JobQueue`, which sets these attributes."""

    _engine: Engine
    _options: QueueOptions
    _backend: Backend
    _jobs: dict[str, JobBook]
    _jobs_lock: threading.RLock
    _next_number: int
    _run_numbers: itertools.count[int]

    def _check_open(self, what: str) -> None:
        raise NotImplementedError

    def check_waiting_allowed(self, what: str) -> None:
        """See `JobQueue`."""
        raise NotImplementedError

    def _start_unawaited(self, job_id: str, progress: ShowProgress) -> JobRun:
        raise NotImplementedError

    def cancel(self, job_id: str, *, kill: bool = False) -> None:
        """See `JobQueue`."""
        raise NotImplementedError

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
    def create_job(
        self,
        id: str,
        items: Iterable[Any],
        handler: Callable[..., Any],
        *,
        setup: Callable[[], Any] | None = None,
        max_retries: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        priority: int = 0,
        chunksize: int | None = None,
        capture_output: bool = False,
        seed: int | None = None,
        strict: bool = False,
        trace: bool = False,
    ) -> Job:
        """Create a job without starting it.

        ``items`` are mappings with an ``"id"``, objects with an ``.id``, or plain values, whose id is their position:
        the first item decides for all. The list is copied, the items are pickled when they are dispatched. The handler
        is serialized now, once. With ``setup``, that is called once in each worker before the job's first item there,
        and the handler is called as ``handler(item, state)`` with what it returned; a generator function yields the
        state and is finished at the job's end. ``timeout`` is seconds a try. Of jobs that wait for workers the one
        with the higher ``priority`` goes first. ``chunksize`` is how many items travel together; None: as many as take
        45 ms. With ``capture_output``, what each item writes to stdout and stderr is kept as ``item.stdout`` and
        ``item.stderr``, instead of being shown. ``seed``, a whole number from 0 up, makes ``current_item().rng`` give
        the same numbers each time; None: others each time, and ``job.seed`` says which.
        ``trace`` keeps the times of each single chunk for `Job.trace`, where else those of long jobs are merged.

        Where the queue's journal has a job of that id, this one goes on where that was: what has ended counts, and is
        not run again; ``items`` must have the same ids. Should the items or the handler's code have changed, as far as
        that can be told, there is a warning, with ``strict`` a `JournalMismatchError`. A job that was over is so at
        once, and its run resolves at once.

        Raises `JobExistsError` for an id that is taken, `HandlerPicklingError` for a handler that can't be serialized,
        `JournalMismatchError` for one that the journal has with other items, `JournalError` where that can't be read
        or written, TypeError or ValueError for anything else that is wrong, and what the iterable raises; nothing is
        created then.
        """
        self._check_open("create a job")
        if not isinstance(id, str):
            raise TypeError(f"id: expected a str, got {shown(id)} of type {type(id).__name__}")
        options = checks.job_options(
            self._options,
            max_retries=max_retries,
            retry=retry,
            timeout=timeout,
            priority=priority,
            chunksize=chunksize,
            capture_output=capture_output,
            seed=seed,
            trace=trace,
        )
        if not isinstance(strict, bool):
            raise TypeError(f"strict: expected True or False, got {shown(strict)}")
        check_job(self._backend, options)
        self._check_free(id)
        table, began = make_table(items), self._engine.clock.now()
        travels = self._backend.capabilities.handlers_travel
        new = NewJob(id, table, options, handler, setup, seed_given=seed is not None, travels=travels)
        packed: PackedHandler = new.book.handler
        new.book.timings.handler_packed(self._engine.clock.now() - began, packed.size, packed.weight)
        return Job(self._add(new, strict=strict))

    def _add(self, new: NewJob, *, strict: bool, same_items: bool = False) -> JobBook:
        recorder, book = self._engine.recorder, new.book
        if recorder is not None:
            new.prepare_recording()
        with self._jobs_lock:
            self._check_free(book.id)
            book.number = self._next_number
            self._next_number += 1
            if recorder is not None:
                new.record_or_go_on(recorder, self._engine.clock.wall(), strict=strict, same_items=same_items)
            self._jobs[book.id] = book
        return book

    def _check_free(self, job_id: str) -> None:
        if job_id in self._jobs:
            raise JobExistsError(
                f"job {job_id!r}: expected a new id, got one that is taken; clear_job() frees it once that job ended"
            )

    @overload
    def run(
        self,
        items: Iterable[T],
        handler: Callable[[T], NoReturn],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
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
        setup: Callable[[], Any],
        **options: Unpack[JobKeywords],
    ) -> Job[T, R]: ...
    def run(
        self,
        items: Iterable[Any],
        handler: Callable[..., Any],
        *,
        id: str | None = None,
        progress: ShowProgress = False,
        **options: Any,
    ) -> Job:
        """Create a job, start it and wait for its end: the one-shot. ``options`` are those of `create_job`.

        ``progress`` is as in `start`: True for a bar, or a callable.

        Failed items do not raise: see ``job.failures`` and ``job.raise_for_failures()``. Where the wait is interrupted
        (Ctrl-C), the job is cancelled, its running items are ended, and the interruption goes on.
        """
        self.check_waiting_allowed("queue.run()")
        check_progress(progress)
        job_id = self._free_id() if id is None else id
        self.create_job(job_id, items, handler, **options)
        run = self._start_unawaited(job_id, progress)
        try:
            return run.result()
        except BaseException:
            if not run.done():  # else it never began
                with suppress(QueueClosedError):
                    self.cancel(job_id, kill=True)
            run.end_bar()
            raise

    def _free_id(self) -> str:
        while (job_id := f"job-{next(self._run_numbers)}") in self._jobs:
            pass
        return job_id
