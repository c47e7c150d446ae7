"""`Executor`: `concurrent.futures.ProcessPoolExecutor` on mpqueue's workers.

The first `submit` starts the workers; `shutdown`, leaving a ``with`` block, dropping the last reference and the end of
the program each let submitted calls end first, and then end the workers.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import operator
import pickle
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Unpack

from mpqueue._core.state.item_table import Failure
from mpqueue._declared import At, takes
from mpqueue._dropin.call_stream import CallFuture, CallStream
from mpqueue._dropin.whole_map import read_call
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.inbox import SystemClock
from mpqueue._parent.interpreter_exit import is_exiting, on_exit
from mpqueue._queue.arguments import script_for
from mpqueue._queue.growing_jobs import Stream
from mpqueue._queue.host import close_beside
from mpqueue._queue.job_items import R
from mpqueue._queue.job_queue import JobQueue
from mpqueue._worker.handlers.called import Call
from mpqueue.errors import (
    ItemPicklingError,
    RemoteError,
    RemoteTraceback,
    ResultPicklingError,
    SetupError,
    WorkerCrashedError,
    WorkerStartError,
)

if TYPE_CHECKING:
    from mpqueue._keywords import PoolKeywords
    from mpqueue._queue.job_items import MaybeCoroutine

P = ParamSpec("P")


#: Arguments of `Executor` beside the options.
_OWN_NAMES = ("max_workers", "initializer", "initargs", "max_tasks_per_child", "mp_context")


class Executor(concurrent.futures.Executor):
    """Runs calls in worker processes; if a worker dies, only its call loses a try.

    Like `concurrent.futures.ProcessPoolExecutor`, with retries: a call that raises is tried again ``max_retries`` (3)
    times, after 0.1, 0.2 and 0.4 s; ``max_retries=0`` means one try, ``retry`` is a policy. After ``timeout`` seconds,
    the try's worker is killed. ``max_workers`` None: one per CPU that the process may use. ``progress=True`` draws a
    bar of the calls submitted so far, a callable gets their `Progress`. With ``seed`` the ``current_item().rng`` of a
    call depends only on its place among the submitted calls. ``initializer(*initargs)`` is called in each new worker.
    ``mp_context`` is accepted and has no effect: workers are always fresh processes, which import the main module first
    if it has an ``if __name__ == "__main__":``. ``backend`` is the engine that the workers run on, one of
    `mpqueue.backends`; ``max_workers`` None then takes all of its workers, and options that it does not support raise
    ValueError.

    It never breaks: a crash fails or retries its own call. Any thread may call any method.
    """

    @takes(GivenOptions, At.POOL)
    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        *,
        mp_context: Any = None,  # noqa: ARG002
        **options: Unpack[PoolKeywords],
    ) -> None:
        max_workers = None if max_workers is None else operator.index(max_workers)  # as the standard library does
        # The same checks and errors as there.
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None and not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child is not None and max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
        asked, engine, of_calls = read_call("Executor", At.POOL, options, _OWN_NAMES)
        self._queue = JobQueue(
            max_workers,
            per_worker={"items": max_tasks_per_child},
            initializer=None if initializer is None else functools.partial(initializer, *initargs),
            preload=script_for(engine, starts_now=False),
            backend=engine,
        )
        self._max_workers = self._queue.concurrency  # other libraries look at it in the standard library's executor
        self._calls = _Calls(self._queue, of_calls, Showing(asked.progress))
        self._finalizer = weakref.finalize(self, self._calls.abandon)
        self._finalizer.atexit = False  # the calls have their own hook

    def submit(self, fn: Callable[P, MaybeCoroutine[R]], /, *args: P.args, **kwargs: P.kwargs) -> CallFuture[R]:
        """Submit ``fn(*args, **kwargs)`` to a worker. Raises RuntimeError after `shutdown`."""
        return self._calls.submit(Call(fn, args, kwargs))

    def map(
        self,
        fn: Callable[..., MaybeCoroutine[R]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Yield the results of ``fn`` over the iterables, in order; all calls are submitted at once.

        With ``buffersize``, the iterables are read only that far ahead of the last result taken. Raises TimeoutError if
        a result is not ready ``timeout`` seconds after the call, and a call's error in its place. Then, and when the
        iterator is closed, calls that have not started are cancelled. Chunks are sized while calls run, so
        ``chunksize`` has no effect.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and (isinstance(buffersize, bool) or not isinstance(buffersize, int)):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        now = SystemClock().now
        end = None if timeout is None else now() + timeout

        def time_left() -> float | None:
            return None if end is None else max(0.0, end - now())

        calls = zip(*iterables, strict=False)
        # The `submit` of a subclass gets all calls, as in the standard library.
        if buffersize is None and getattr(self.submit, "__func__", None) is Executor.submit:
            return self._calls.submit_block(fn, calls).results(time_left)
        submitted: Iterator[Future[Any]] = (self.submit(fn, *args) for args in calls)  # holds `self`
        return _results(deque(itertools.islice(submitted, buffersize)), submitted, time_left)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let submitted calls end, then end the workers; no more calls can be submitted.

        With ``wait`` it returns after that. With ``cancel_futures`` calls that no worker has are cancelled. In a
        done-callback it does not wait.
        """
        self._calls.end()
        if cancel_futures:
            self._calls.drop_waiting()
        if wait:
            self._calls.wait()

    def kill_workers(self) -> None:
        """End everything at once: waiting and running calls are cancelled, the workers are killed."""
        self._calls.end()
        self._calls.kill()
        self._calls.wait()

    terminate_workers = kill_workers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down and wait. If left or interrupted by Ctrl-C, end everything at once. Does nothing in a fork."""
        if self._queue._host.engine.is_fork:
            return
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self.kill_workers()
            else:
                self.shutdown(wait=True)
        except BaseException:
            self._calls.kill()
            raise


def _results(
    futures: deque[Future[R]], more: Iterator[Future[R]], time_left: Callable[[], float | None]
) -> Iterator[R]:
    """Yield the results; for each one taken, one more call is submitted. Holds no result."""
    try:
        while futures:
            futures[0].exception(time_left())  # waits; one that is not ready in time is still among them
            yield futures.popleft().result()
            futures.extend(itertools.islice(more, 1))
    finally:
        for future in futures:  # perhaps in a garbage collection, on any thread
            if isinstance(future, CallFuture):
                future._drop_later()
            else:  # of a subclass's own submit
                future.cancel()


class _Calls(CallStream):
    """The calls of an executor. Held by it, and by the queue while calls are open.

    Every end (a `shutdown`, the garbage collection, the interpreter's exit) seals the stream. The workers end after the
    last call: the end of the stream closes the queue, or a thread that waits has done so before.
    """

    def __init__(self, queue: JobQueue, options: JobOptions, showing: Showing) -> None:
        super().__init__(queue, error_of, options, showing=showing)
        self._refusal: str | None = None
        self._take_back: Callable[[], None] = lambda: None

    def check_open(self) -> None:
        """Raise RuntimeError after its end."""
        if self._refusal is not None:
            raise RuntimeError(f"cannot schedule new futures after {self._refusal}")

    def _open(self) -> Stream:
        stream = super()._open()
        self._take_back = on_exit(self._exit)  # called before the hook of the queue, which was registered before
        if sys.version_info >= (3, 12):
            # No thread, and so no worker, starts once the main thread has ended; but the last calls must run.
            self._queue._host.engine.await_starts()
        return stream

    def end(self) -> None:
        """Submit nothing more; the workers end after the last call."""
        with self._lock:
            self.abandon()
        if not self._is_open:
            self._close()

    def abandon(self) -> None:
        """End it, since the executor is no longer referenced. In a garbage collection: only posts."""
        self._refusal = self._refusal or "shutdown"
        self.seal()

    def wait(self) -> None:
        """Wait until the workers have ended."""
        try:
            self._queue._host.check_waiting_allowed("executor.shutdown()")
            if self._is_open:
                self._queue._host.engine.coordinator().check_thread()
        except RuntimeError:  # in a done-callback, or a garbage collection on such a thread, for which the end waits
            return
        self._close()

    def _end(self) -> None:
        super()._end()
        if not is_exiting():  # `_exit` follows, or is waiting
            close_beside(self._close)

    def _close(self) -> None:
        """End the workers, or wait until another thread has."""
        try:
            self._queue.close()
        finally:
            self._take_back()

    def _exit(self) -> None:
        """Shut down at the interpreter's exit, when no thread can be started any more."""
        self._refusal = "interpreter shutdown"
        self.seal()
        self._close()


# -- The errors of the executor's futures, of the kinds that `concurrent.futures.ProcessPoolExecutor` raises. ----------
#
# The executor never breaks. But programs for one that can break use ``except BrokenProcessPool`` for a worker that
# dies, so these errors are of that kind too.


class ExecutorCrashedError(WorkerCrashedError, BrokenProcessPool):
    """The worker died while it ran the call. The executor and other calls are not affected."""


class ExecutorSetupError(SetupError, BrokenProcessPool):
    """The initializer failed in every worker; ``__cause__`` is its last error."""


class ExecutorStartError(WorkerStartError, BrokenProcessPool):
    """No worker could be started for 30 s; ``__cause__`` is the last reason."""


class ExecutorResultError(ResultPicklingError, pickle.PicklingError):
    """The call's result can't be pickled in the worker."""


class ExecutorUnpicklingError(ResultPicklingError, BrokenProcessPool):
    """The call's result can't be unpickled here; ``__cause__`` is the reason."""


def error_of(failure: Failure) -> BaseException:
    """Return the error that a failed call's future raises, with the worker's traceback as its cause."""
    error = failure.error
    made = error if failure.own is None else _kin(failure.own)
    cause = error.__cause__ if made.__cause__ is None else made.__cause__
    if isinstance(cause, RemoteTraceback):
        # The type that the standard library uses: some programs look at its ``tb``.
        cause = _RemoteTraceback(f'\n"""\n{cause.text}"""')  # type: ignore[arg-type] # a text there too
    made.__cause__ = cause
    return made


def _kin(error: BaseException) -> BaseException:
    match error:
        case WorkerCrashedError():
            return ExecutorCrashedError(str(error), error.exitcode, error.signal, error.pid)
        case SetupError():
            return ExecutorSetupError(str(error))
        case WorkerStartError():
            return ExecutorStartError(str(error))
        case ItemPicklingError() if error.__cause__ is not None:
            note = f"the call's function or arguments can't be pickled; it was not made ({error})"
            error.__cause__.add_note(f"mpqueue: {note}")
            return error.__cause__
        case ResultPicklingError():
            there = isinstance(error.__cause__, RemoteTraceback)
            return (ExecutorResultError if there else ExecutorUnpicklingError)(str(error))
        case RemoteError() if error._itself is not None:  # a SystemExit, CancelledError or the like
            return error._itself
        case _:
            return error
