"""`JobRun`: a started job as a future that can also be awaited, and iterated over while its items finish."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self

from mpqueue._core.messages import JobCancelled
from mpqueue._core.state.item_table import Failure
from mpqueue._output.progress import DRAWING_WAIT_S
from mpqueue._parent.replies import Bell, Mailbox, Reply, SafeEvent, SafeFuture, Turns, runs_loop
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem, R_co, T_co
from mpqueue.errors import (
    InternalError,
    JournalError,
    QueueClosedError,
    SinkError,
    TooManyFailuresError,
    WorkerStartError,
)
from mpqueue.status import FAILED

if TYPE_CHECKING:
    from mpqueue._output.progress import Display
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.registry import Held

Ended = Sequence[int] | None  #: indices of items that ended; None: the job has ended


class JobRun(SafeFuture[Job[T_co, R_co]], Generic[T_co, R_co]):
    """One run of a job. Resolves to the finished `Job` after its last event, even if items failed.

    ``result()`` never raises because of the items: a cancelled job has the status ``cancelled``. It raises
    `WorkerStartError` if no worker could be started any more, which interrupts the job: its items stay pending; and
    `SinkError` and `InternalError`, see there. An unresolved run keeps its queue alive.
    """

    def __init__(
        self, held: Held, owner: JobQueue, *, cancel_with_awaiter: bool = False, kill_on_cancel: bool = False
    ) -> None:
        super().__init__()
        self.job: Job[T_co, R_co] = held.job
        self._book = held.book
        self._owner: JobQueue | None = owner
        self._now = owner._host.engine.clock.now  #: holds only the clock, not the queue
        self._displays: Sequence[Display] = ()  #: the display of its progress; ended before it resolves
        self._cancel_with_awaiter = cancel_with_awaiter
        self._kill_on_cancel = kill_on_cancel
        self._callback_lock = threading.Lock()
        self._callbacks: list[Callable[[JobRun[T_co, R_co]], object]] = []
        self._trouble: JournalError | None = None
        self._is_troubled = SafeEvent()
        self._alarms: list[Callable[[], object]] = []  #: called when it resolves, and when there is trouble
        self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> Job[T_co, R_co]:
        """Wait for the job's end, at most ``timeout`` seconds (then TimeoutError; the job goes on).

        Raises RuntimeError if it would wait for itself: in a listener, in a done-callback or in the job's own sink;
        `JournalError` while the job is paused because its journal can't be written (it goes on once that is possible);
        `WorkerStartError` if no worker could be started any more, so that the rest of its items is pending; `SinkError`
        if its results could not be written into its sink; and `InternalError` if an internal error of mpqueue ended the
        job.
        """
        self._check_waiting_allowed("run.result()", instead="" if timeout == 0 else "await run")
        return self._await_job(timeout)

    def _await_job(self, timeout: float | None = None) -> Job[T_co, R_co]:
        """`result`, if waiting is allowed."""
        self._await_news(timeout)
        return super().result(None if timeout is None else 0.0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """None once the job has ended, or the error that `result` would then raise; waits like it."""
        self._check_waiting_allowed("run.exception()", instead="" if timeout == 0 else "await run")
        self._await_news(timeout)
        return super().exception(None if timeout is None else 0.0)

    def as_completed(self) -> Iterator[JobItem[T_co, R_co]]:
        """Yield the items as they end, completed or failed: first those that already have.

        Leaving the loop cancels nothing. Items that are pending at the end, because the job was cancelled, are not
        yielded. At the end it raises the errors of `result`; in the job's own sink RuntimeError.
        """
        ended: Mailbox[Ended] = Mailbox()
        unsubscribe = self._subscribe(ended.put)
        try:
            while (indices := ended.take()) is not None:
                for index in indices:
                    yield self.job.items[index]
            self._check_fault()
        finally:
            unsubscribe()

    def __aiter__(self) -> AsyncIterator[JobItem[T_co, R_co]]:
        return RunItems(self)

    def _check_fault(self) -> None:
        if (error := self._what_ended_it) is not None:
            raise error

    @property
    def _what_ended_it(self) -> InternalError | SinkError | WorkerStartError | None:
        """The error that the run raises: an internal error, unwritten results, or a lack of workers."""
        delivery = self._book.delivery
        return self._book.fault or (None if delivery is None else delivery.error) or self._book.interrupted

    def __await__(self) -> Generator[Any, None, Job[T_co, R_co]]:
        return self._wait_in_loop().__await__()

    def add_done_callback(self, fn: Callable[[JobRun[T_co, R_co]], object]) -> None:
        """Call ``fn(run)`` when the run resolves, on the listener thread; at once if it has already."""
        with self._callback_lock:
            if not self.done():
                self._callbacks.append(fn)
                return
        super().add_done_callback(fn)  # type: ignore[arg-type]  # which is called with this run

    def cancel(self) -> bool:
        """Cancel the job, as ``queue.cancel`` does; returns True. The run resolves when the job has ended."""
        self._cancel()
        return True

    def __dir__(self) -> list[str]:
        """List the attributes, without those that are for the makers of futures only."""
        return [name for name in super().__dir__() if not name.startswith("set_")]

    def _check_waiting_allowed(self, what: str, *, instead: str = "") -> None:
        owner = self._owner
        if owner is not None and not self.done():
            owner._host.check_waiting_allowed(what, self._book, instead=instead)

    def _await_news(self, timeout: float | None) -> None:
        """Wait until the run is done, at most ``timeout`` seconds. Raises an error if there is trouble."""
        self._over.wait(timeout, unless=self._is_troubled)
        self._check_trouble()

    def _check_trouble(self) -> None:
        trouble = self._trouble
        if trouble is not None and not self.done():
            raise JournalError(str(trouble)) from trouble

    async def _wait_in_loop(self) -> Job[T_co, R_co]:
        self._check_waiting_allowed("await run")
        if not self.done():
            try:
                await self._news_later()
            except BaseException:
                self._awaiter_cancelled()
                raise
            self._check_trouble()
        return self.result()

    async def _news_later(self, timeout: float | None = None) -> None:
        """Wait until the run is done, or there is trouble, at most ``timeout`` seconds."""
        alarm = Bell()
        self._alarms.append(alarm.ring)  # first: the other thread rings after it has made the news
        try:
            if self._trouble is None and not self.done():
                await alarm.wait(timeout)
        finally:
            self._alarms.remove(alarm.ring)

    def _awaiter_cancelled(self) -> None:
        """Note that a task that awaits the run was cancelled: detach it, or cancel the job with it."""
        if self._cancel_with_awaiter:
            with contextlib.suppress(QueueClosedError):
                self._cancel(kill=self._kill_on_cancel)

    def _cancel(self, *, kill: bool = False) -> None:
        """Cancel this job, even if another one has its id by now. `Job.cancelled` is true afterwards.

        Raises `QueueClosedError` in a fork.
        """
        owner = self._owner
        if owner is None or self.done():
            return
        host = owner._host
        host.engine.check_process()
        message = JobCancelled(self._book, host.engine.clock.wall(), kill)
        with contextlib.suppress(QueueClosedError):  # all jobs have ended
            host.engine.coordinator().ask(partial(host.engine.handle, message))

    def _subscribe(self, put: Callable[[Ended], None]) -> Callable[[], None]:
        owner = self._owner
        if owner is None:
            put(self._book.table.ended_indices())
            put(None)
            return lambda: None
        return owner._host.subscribe(self._book, put)

    # -- for the queue and the drop-ins ----------------------------------------------------------------------

    def _begun(self, answer: Reply[None]) -> None:
        """Note that the job was started, or (if the answer raises) could not be: then `result` raises that."""
        error = answer.exception()
        if error is not None:
            self._owner = None
            self.set_exception(error)

    def _disturb(self, trouble: JournalError | None) -> None:
        """Raise the error in calls that wait for the run, since it can't go on; None: it can again."""
        self._trouble = trouble
        if trouble is None:
            self._is_troubled.clear()
        else:
            self._is_troubled.set()
            self._wake_awaiters()

    def _wake_awaiters(self) -> None:
        for ring in list(self._alarms):
            ring()

    def _resolve(
        self, error: InternalError | SinkError | WorkerStartError | None = None
    ) -> list[Callable[[JobRun[T_co, R_co]], object]]:
        """Resolve the run when the job's last event was delivered, or (``error``) will not be.

        Returns the callbacks to `_run_callbacks`.
        """
        error = self._what_ended_it if error is None else error
        self._owner = None
        with self._callback_lock:
            callbacks, self._callbacks = self._callbacks, []
            if not self.done():
                if error is None:
                    self.set_result(self.job)
                else:
                    self.set_exception(error)
        self._wake_awaiters()
        return callbacks

    def _run_callbacks(self, callbacks: list[Callable[[JobRun[T_co, R_co]], object]]) -> None:
        """Call these; if one raises, that is logged, and the others are called."""
        for callback in callbacks:
            super().add_done_callback(callback)  # type: ignore[arg-type]  # as above

    def _end_display(self) -> None:
        """Stop showing its progress: it is about to resolve. On the listener thread."""
        for display in self._displays:
            display.end()

    def _end_bar(self) -> None:
        """End a display that calls no code of the user's, on any thread: a caller that waited for the run goes on."""
        for display in self._displays:
            if display.draws:
                display.end()

    @property
    def _tells(self) -> bool:
        """True if a function gets its progress, the last state just before the run resolves."""
        return any(not display.draws for display in self._displays)

    @property
    def _last_call_comes(self) -> bool:
        """True while a function's last call, or logs, may be to come, and this thread may wait for them."""
        owner = self._owner
        if not (self._tells or self._book.spoke) or owner is None or self.done():
            return False
        engine = owner._host.engine
        return not (engine.is_fork or engine.listeners.is_here)

    def _await_last_call(self, timeout: float | None) -> None:
        """Wait, at the job's end, until logs were delivered, and a function has got the last state of the progress.

        At most ``timeout`` seconds, or `DRAWING_WAIT_S` on a thread with an event loop, which the function may need.
        """
        if self._last_call_comes:
            may_need_loop = self._tells and runs_loop() and (timeout is None or timeout > DRAWING_WAIT_S)
            self._over.wait(DRAWING_WAIT_S if may_need_loop else timeout)

    async def _await_last_call_later(self, timeout: float | None = None) -> None:
        """Wait as `_await_last_call` does, without blocking the loop."""
        if self._last_call_comes:
            await self._news_later(timeout)

    def _kill(self) -> None:
        """Cancel the job and end the items that run. Does not wait, and never raises."""
        owner = self._owner
        if owner is not None and not self.done():
            owner._host.engine.coordinator().post(JobCancelled(self._book, 0.0, kill=True))

    def _outcomes(self) -> tuple[list[Any], dict[int, Failure]]:
        """All results by position (None if there is none), and the final failures, once it is done.

        Without a journal it costs nothing per item: the list is the job's own. Raises `JournalError`.
        """
        table = self._book.table
        return table.results if table.source is None else table.all_results(), self._failures()

    def _failures(self) -> dict[int, Failure]:
        """The final failures, by position."""
        table = self._book.table
        return {index: failure for index, failure in table.failures.items() if table.status[index] == FAILED}

    def _error_of(self, failures: dict[int, Failure], on_error: str) -> BaseException:
        """Return a group of all errors, or the first one, with a note on its item and the number of other failures."""
        first, *others = sorted(failures)
        if on_error == "group":
            errors = [failures[index].error for index in (first, *others)]
            return BaseExceptionGroup(f"{len(errors)} of {self.job.total} items failed", errors)
        note = f"mpqueue: raised by item {self.job.items[first]._named}"
        if others:
            positions = ", ".join(str(index) for index in others[:10])
            note += f"; {len(others)} more failed: items {positions}{', ...' if len(others) > 10 else ''}"
        error = failures[first].error
        error.add_note(note)
        return error

    def _too_many(self, failures: dict[int, Failure], max_failures: int) -> TooManyFailuresError:
        """The error if more items failed than allowed."""
        first = min(failures)
        error = TooManyFailuresError(
            f"{len(failures)} items failed, which is more than max_failures={max_failures}; the first is item "
            f"{self.job.items[first]._named}: {failures[first].shown}. What had not run by then was not run."
        )
        error.__cause__ = failures[first].error
        return error


class RunItems(Generic[T_co, R_co]):
    """The items of a run as they end, for ``async for``.

    An iterator, since a cancelled wait would end a generator: here the next ``anext`` goes on, and no item is lost. The
    loop's other tasks run even while items come faster than they are taken.
    """

    def __init__(self, run: JobRun[T_co, R_co]) -> None:
        self._run = run
        self._items = run.job.items
        self._ended: Mailbox[Ended] = Mailbox()
        self._unsubscribe: Callable[[], None] | None = None  #: nothing to end before the first wait
        self._indices: Iterator[int] = iter(())
        self._is_over = False
        self._turns = Turns(run._now)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobItem[T_co, R_co]:
        await self._turns.give()  # before an item is taken, so that an interrupted turn loses none
        while True:
            for index in self._indices:
                return self._items[index]
            if self._is_over:
                raise StopAsyncIteration
            if self._unsubscribe is None:
                self._unsubscribe = self._run._subscribe(self._ended.put)
            indices = await self._ended.take_later()
            if indices is None:
                self._close()
                self._run._check_fault()
            else:
                self._indices = iter(indices)

    async def aclose(self) -> None:
        """End the iteration, for `contextlib.aclosing`. The job goes on."""
        self._close()
        self._ended.put(None)  # for a task that waits

    def _close(self) -> None:
        self._is_over = True
        self._indices = iter(())
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()

    def __del__(self) -> None:
        if hasattr(self, "_unsubscribe"):  # the iterator was made
            self._close()
