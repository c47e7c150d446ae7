"""`Pool`: like `multiprocessing.Pool`, with retries, timeouts, and crashes that cost one try.

map, starmap      -> an ordinary job: columns, chunks sized while it runs
imap              -> a stream of its own, whose input is read on a thread of its own
apply             -> one stream of calls, which all calls of the pool share
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import operator
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import pool as standard
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, Unpack

from mpqueue._call_checks import check_callable
from mpqueue._core.state.item_table import Failure, read_all
from mpqueue._declared import At, takes
from mpqueue._dropin.call_stream import CallStream
from mpqueue._dropin.lent_queues import Loan
from mpqueue._dropin.stream_results import Arrivals, StreamResults, ended_error, read_whole_chunks
from mpqueue._dropin.whole_map import read_call, start_batch
from mpqueue._options import Concurrency, GivenOptions, choose_concurrency, named_seed
from mpqueue._os.process_signals import join_long
from mpqueue._output.progress import showing_stream
from mpqueue._parent.interpreter_exit import is_exiting
from mpqueue._parent.replies import SafeEvent
from mpqueue._queue.arguments import script_for
from mpqueue._queue.growing_jobs import open_stream
from mpqueue._queue.job_queue import JobQueue
from mpqueue._worker.handlers.called import Call, StarCall
from mpqueue.errors import (
    HandlerPicklingError,
    ItemPicklingError,
    QueueClosedError,
    RemoteError,
    ResultPicklingError,
    shown,
)

if TYPE_CHECKING:
    from mpqueue._keywords import PoolKeywords
    from mpqueue._queue.run import JobRun


S = TypeVar("S")
R = TypeVar("R")

#: The mapper of the standard library's starmaps, which its types lack.
_STAR = vars(standard)["starmapstar"]
#: Arguments of `Pool` beside the options.
_OWN_NAMES = ("processes", "initializer", "initargs", "maxtasksperchild", "context")
#: Seconds that `_pool` waits for workers that are starting.
START_WAIT_S = 30.0
#: The number of chunks per worker of a `map`, if chunks count as the tasks of ``maxtasksperchild``.
TASKS_PER_WORKER = 4


class Pool(standard.Pool):
    """Worker processes with the methods of `multiprocessing.pool.Pool`; it counts as an instance of that.

    ``processes`` workers (None: one per CPU that the process may use; ``"physical"``: one per core) start at once; each
    calls ``initializer(*initargs)`` first, in its main thread, and is replaced after ``maxtasksperchild`` tasks (a
    call, or a chunk of a map). ``context`` is ignored: workers are always new processes, never forks. If the main
    module has an ``if __name__ == "__main__":``, each worker imports it first. A call that raises, or whose worker
    dies, is tried again, ``max_retries`` (3) times, after 0.1, 0.2 and 0.4 s, or as ``retry`` says; one try may take
    ``timeout`` seconds. ``progress=True`` draws a bar for each map and imap, a callable gets their `Progress`. With
    ``seed``, which must be a whole number from 0 up, ``current_item().rng`` gives the same numbers each time: for an
    item, they depend on its place and on the number of earlier maps and imaps of the pool; for an ``apply``, on the
    number of earlier ones. ``backend`` is the engine that the workers run on, one of `mpqueue.backends`; ``processes``
    None then takes all of its workers, and options that it does not support raise ValueError.

    Leaving its ``with`` block terminates it.
    """

    _state = standard.INIT  #: also if `__init__` refuses its arguments

    @takes(GivenOptions, At.POOL)
    def __init__(
        self,
        processes: Concurrency = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any | None = None,  # noqa: ARG002 - the standard library's signature
        **options: Unpack[PoolKeywords],
    ) -> None:
        asked, engine, self._options = read_call("Pool", At.POOL, options, _OWN_NAMES)
        if isinstance(processes, str):
            processes = choose_concurrency(processes, getattr(engine, "count_cores", None), "processes")
        processes = None if processes is None else operator.index(processes)
        self._processes = engine.count_workers() if processes is None else processes
        if self._processes < 1:
            raise ValueError("Number of processes must be at least 1")
        tasks: Any = maxtasksperchild
        if tasks is not None and (not isinstance(tasks, int) or tasks <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._batches = itertools.count()  #: numbers of maps and imaps
        self._progress = asked.progress
        self._lock = threading.Lock()  #: guards the state while something starts
        script = script_for(engine, starts_now=True)
        self._iterators: weakref.WeakSet[PoolIterator[Any]] = weakref.WeakSet()
        self._closer: threading.Thread | None = None
        prepare = None if initializer is None else partial(initializer, *initargs)
        try:
            self._queue = JobQueue(
                processes,
                per_worker={"items": maxtasksperchild},
                initializer=prepare,
                preload=script,
                backend=engine,
            )
        except HandlerPicklingError as error:
            raise own_error(error) from None
        options_of_calls = replace(self._options, seed=named_seed(self._options.seed, "calls"))
        self._calls = CallStream(self._queue, error_of, options_of_calls)
        self._sends_handlers_whole = not engine.capabilities.shares_memory
        weakref.finalize(self, self._queue._host.engine.abandon).atexit = False  # the queue has its own, earlier hook
        self._queue._host.want_workers(self._processes)
        self._state = standard.RUN

    def __del__(self) -> None:
        if self._state == standard.RUN:
            warnings.warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={self._processes}>"

    # -- one call --------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> R:
        """Call ``func(*args, **kwds)`` in a worker; returns its value."""
        return self._wait_for(self.apply_async(func, args, kwds))

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[R]:
        """Call ``func(*args, **kwds)`` in a worker, without waiting. Costs about 10 us.

        ``callback`` is called with the result, or ``error_callback`` with the error, on a thread of the pool, before
        the result is ready.
        """
        result: AsyncResult[R] = AsyncResult(self, callback, error_callback)
        with self._lock:
            self._check_running()
            self._calls.submit_for(result, Call(func, args, kwds))
        return result

    # -- all at once -----------------------------------------------------------------------------------------

    def map(self, func: Callable[[S], R], iterable: Iterable[S], chunksize: int | None = None) -> list[R]:
        """``[func(item) for item in iterable]`` in the workers.

        Waits for all items even if one fails, and raises the first failure in item order. ``chunksize`` items are sent
        together (None: as many as take 45 ms). An interruption (Ctrl-C) ends the running items.
        """
        return self._wait_for(self._map_async(func, iterable, None, chunksize))

    def starmap(
        self, func: Callable[..., R], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[R]:
        """``[func(*item) for item in iterable]`` in the workers; the rest is as in `map`."""
        return self._wait_for(self._map_async(func, iterable, _STAR, chunksize))

    def _wait_for(self, result: AsyncResult[R]) -> R:
        try:
            result.wait()
        except BaseException:  # Ctrl-C: no caller will ask for it
            result._cancel()
            raise
        return result.get()

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        mapper: object,
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult[Any]:
        """Start a map: the standard library's `map_async` and `starmap_async` call this."""
        self._check_running()
        if chunksize is not None:
            chunksize = _check_chunksize(chunksize)
        result: MapResult[Any] = MapResult(self, callback, error_callback)
        try:
            items = read_all(iterable, "iterable")
        except Exception as error:
            if not hasattr(iterable, "__len__"):  # read before anything is started, as in the standard library
                raise
            result._raise(error)
            return result
        if not items:
            result._callback = None  # as in the standard library
            result._return([])
            return result
        handler = self._as_handler(func)
        # Chunks count as tasks; their default size is the standard library's formula.
        per_task = chunksize or -(-len(items) // (self._processes * TASKS_PER_WORKER))
        options = replace(self._options, chunksize=chunksize, items_per_task=per_task, seed=self._next_seed())
        try:
            with self._lock:
                self._check_running()
                run = start_batch(
                    self._queue,
                    StarCall(handler) if mapper is _STAR else handler,
                    items,
                    options,
                    progress=self._progress,
                )
        except HandlerPicklingError as error:
            result._raise(own_error(error))
        else:
            result._run = run
            run.add_done_callback(result._collect)  # it may have ended before
        return result

    def _next_seed(self) -> int:
        """The seed of the next map or imap, by its number: the first one has the pool's own."""
        number = next(self._batches)
        return named_seed(self._options.seed, str(number)) if number else self._options.seed

    def _as_handler(self, func: Callable[..., Any]) -> Any:
        """The function, sent such that its worker goes on with the globals that it has there."""
        check_callable(func, "func")
        return func if self._sends_handlers_whole else self._calls.functions.pack(func)

    # -- one by one ------------------------------------------------------------------------------------------

    def imap(self, func: Callable[[S], R], iterable: Iterable[S], chunksize: int | None = 1) -> PoolIterator[R]:
        """Yield the results of ``func`` over the items, in order, while the work goes on.

        The input is read on a thread of its own, only as far ahead of the results as needed to keep the workers busy:
        it may be endless. As many items are sent together as take 45 ms; ``chunksize`` only sets how many are read at a
        time, and how many count as a task of ``maxtasksperchild``. A failed call raises in its place, and the iterator
        goes on. Dropping the iterator ends its work.
        """
        return self._iterate(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[S], R], iterable: Iterable[S], chunksize: int | None = 1
    ) -> PoolIterator[R]:
        """Like `imap`, in the order in which the calls end: no result waits for a slower one."""
        return self._iterate(func, iterable, chunksize, ordered=False)

    def _iterate(
        self, func: Callable[..., R], iterable: Iterable[Any], chunksize: int | None, *, ordered: bool
    ) -> PoolIterator[R]:
        self._check_running()
        size = 1 if chunksize is None else _check_chunksize(chunksize)
        items: Iterator[Any] = itertools.chain.from_iterable([iterable])  # reading it shows whether it is iterable
        handler = self._as_handler(func)
        showing = showing_stream(self._progress, func, iterable)
        options = replace(self._options, items_per_task=size, seed=self._next_seed())
        if size > 1:
            items = read_whole_chunks(items, size)

        arrivals, workers = Arrivals(ordered), self._processes
        with self._lock:
            self._check_running()
            stream = open_stream(self._queue, handler, arrivals.news.put, options, showing=showing)

        def window() -> int:
            return max(stream.window(workers), 2 * size * workers)

        iterator: PoolIterator[R] = PoolIterator(stream, arrivals, items, window, Loan(self._queue, keeps=self))
        iterator._input.start()
        self._iterators.add(iterator)
        return iterator

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls. Calls so far are done; then the workers end, in the background."""
        with self._lock:
            if self._state != standard.RUN:
                return
            self._state = standard.CLOSE
            self._calls.seal()
        if is_exiting():
            return
        self._closer = threading.Thread(target=self._queue.close, name="mpqueue-pool-closer", daemon=True)
        self._closer.start()

    def terminate(self) -> None:
        """End everything now, running calls included. Waiting for a result raises `QueueClosedError`."""
        with self._lock:
            self._state = standard.TERMINATE
        self._queue.close(kill=True)
        for iterator in list(self._iterators):
            iterator._input.stop()
        self._calls.give_up_rest()

    def join(self) -> None:
        """Wait until the pool has ended; after `close`, until all its calls are done.

        That includes the rest of the inputs of `imap`, even if their results are not taken. Raises ValueError unless
        `close` or `terminate` was called, RuntimeError in a callback.
        """
        if self._state == standard.RUN:
            raise ValueError("Pool is still running")
        self._queue._host.check_waiting_allowed("pool.join()")
        for iterator in list(self._iterators):
            iterator._input.lift_window()
        if self._closer is not None and not sys.is_finalizing():  # otherwise that thread stands still
            join_long(self._closer)

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if not self._queue._host.engine.is_fork:
            self.terminate()

    def _check_running(self) -> None:
        if self._state != standard.RUN:
            raise ValueError("Pool not running")

    # -- private names that programs use -------------------------------------------------------------------------

    @property
    def _pool(self) -> list[PoolWorker]:
        """The workers; waits for starting ones."""
        if self._state != standard.RUN:
            return []
        try:
            pids = self._queue._host.worker_pids(START_WAIT_S)
        except (QueueClosedError, TimeoutError):
            return []
        return [PoolWorker(pid, self._queue) for pid in pids]

    def _repopulate_pool(self) -> None:
        """Do nothing: workers are replaced automatically."""


class PoolWorker(NamedTuple):
    """Stands in for the `multiprocessing.Process` in the list of a pool's workers."""

    pid: int
    owner: JobQueue

    def is_alive(self) -> bool:
        """True while the pool has this worker."""
        try:
            return self.pid in self.owner._host.worker_pids()
        except QueueClosedError:
            return False


def _check_chunksize(chunksize: int) -> int:
    size = operator.index(chunksize)
    if size < 1:
        raise ValueError(f"Chunksize must be 1+, not {shown(chunksize)}")
    return size


# -- The results and errors, which come as those of `multiprocessing.pool.Pool` do, at the same times. -----------------
#
# The result of a call is settled on the coordinator's thread, so the waiting thread is only woken; that of a map, and
# any with a callback, on the queue's listener thread, and the result is ready after the callback was called.


log = logging.getLogger("mpqueue")

T = TypeVar("T")
Callback = Callable[[Any], object]
#: Two classes that the standard library's types lack.
_standard: Any = standard


class AsyncResult(standard.ApplyResult[T]):
    """A result that may not be ready yet. Holds its pool until it is ready.

    Waiting for it and taking it is the standard library's own code, which reads the event and the value.
    """

    def __init__(self, pool: Pool, callback: Callback | None = None, error_callback: Callback | None = None) -> None:
        self._pool: Pool | None = pool
        self._event = SafeEvent()
        self._callback = callback
        self._error_callback = error_callback
        self._success = False
        self._value: Any = None
        self._index = -1  #: of a single call in its stream

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready. Raises RuntimeError in a callback, where it would wait for itself."""
        pool = self._pool
        if timeout is None and pool is not None and not self.ready():
            pool._calls.check_waiting_allowed()
        super().wait(timeout)

    # -- see `Receiver` --------------------------------------------------------------------------------------

    def _quietly(self, settle: Callable[..., object], *arguments: Any) -> bool:
        settle(*arguments)
        return True

    def _return(self, result: Any) -> None:
        self._success, self._value = True, result
        self._settle(self._callback)

    def _raise(self, error: BaseException) -> None:
        self._value = error
        self._settle(self._error_callback)

    def _give_up(self) -> None:
        self._value = ended_error()
        self._settle(None)

    def _cancel(self) -> None:
        """End the work: no caller waits for it any more."""
        if (pool := self._pool) is not None:
            with suppress(QueueClosedError):
                pool._calls.drop(self, kill=True)

    def _settle(self, callback: Callback | None) -> None:
        pool = self._pool
        if callback and pool is not None:
            pool._queue._host.engine.listeners.post(partial(self._call_back, callback))
        else:
            self._finish()

    def _call_back(self, callback: Callback) -> None:
        """Call the callback, on the listener thread."""
        try:
            callback(self._value)
        except BaseException:
            log.exception("a callback raised (%r); the pool goes on", callback)
        finally:
            self._finish()

    def _finish(self) -> None:
        self._callback = self._error_callback = None
        self._event.set()
        self._pool = None


class MapResult(AsyncResult[list[T]], standard.MapResult[T]):
    """The results of a whole batch, or its first failure in item order, once its run has resolved.

    By then its bar has ended, and what its calls have logged was delivered.
    """

    _run: JobRun | None = None  #: until it is ready

    def _cancel(self) -> None:
        if (run := self._run) is not None:
            run._kill()

    def _collect(self, run: JobRun) -> None:
        self._run = None
        results, failures = run._outcomes()
        if run._book.fault is not None:
            self._raise(run._book.fault)
        elif run.job.cancelled and run.job.completed + len(failures) < len(results):
            self._give_up()
        elif failures:
            self._raise(error_of(failures[min(failures)]))
        else:
            self._return(results)


class PoolIterator(StreamResults[R], standard.IMapIterator):  # type: ignore[type-arg]  # none when it runs
    """The results, in order or as they come. A failed call raises in its place, and the iterator goes on.

    Dropping it ends the work and its running calls; so nothing runs for an iterator that is no longer referenced. Any
    number of threads may read from it. It holds its pool until its end. The input is read on a thread of its own.
    """

    _timed_out = multiprocessing.TimeoutError

    def next(self, timeout: float | None = None) -> R:
        """Return the next result. Raises `multiprocessing.TimeoutError` if none comes within ``timeout`` seconds."""
        return self.__next__(timeout)

    def _error_of(self, failure: Failure) -> BaseException:
        return error_of(failure)

    def __del__(self) -> None:
        if not hasattr(self, "_all_done") or sys.is_finalizing() or self._lent.queue._host.engine.is_fork:
            return
        if not (self._taken or self._is_closed or self._arrivals.are_over or self._input.drained):
            log.warning("an iterator of Pool.imap was dropped before a result was read from it; its work was ended")
        super().__del__()


# -- errors ------------------------------------------------------------------------------------------------------------


class _Told(str):
    """A text that is its own repr: `MaybeEncodingError` takes reprs of objects that only the worker had."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def error_of(failure: Failure) -> BaseException:
    """Return the error of a call that failed for good, with the worker's traceback as its cause."""
    error, own = failure.error, failure.own
    if isinstance(own, ItemPicklingError) and own.__cause__ is not None:
        return own_error(own)
    if isinstance(own, ResultPicklingError):
        made: BaseException = _standard.MaybeEncodingError(_Told(own.reason or own), _Told(own.value or "(not known)"))
    elif isinstance(own, RemoteError) and "builtins.Exception" in own.bases:
        made = _standard.MaybeEncodingError(_Told("the exception can't be pickled"), _Told(own))
    else:
        made = error
    if failure.traceback is not None:
        made.__cause__ = _standard.RemoteTraceback(f'\n"""\n{failure.traceback}"""')
    elif made is not error:
        made.__cause__ = error
    return made


def own_error(error: Exception) -> BaseException:
    """Return the cause of a pickling error, with a note that names the culprit; the error itself if it has no cause."""
    cause, note = error.__cause__, f"mpqueue: {error}"
    if cause is None:
        return error
    if note not in getattr(cause, "__notes__", ()):
        cause.add_note(note)
    return cause
