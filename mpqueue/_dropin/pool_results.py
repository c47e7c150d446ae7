"""The results and errors of `Pool`, which come as those of `multiprocessing.pool.Pool` do, at the same times.

The result of a call is settled on the coordinator's thread, so the waiting thread is only woken; that of a map, and any
with a callback, on the queue's listener thread, and the result is ready after the callback was called.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import pool as standard
from typing import TYPE_CHECKING, Any, TypeVar

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.stream_results import StreamResults, ended_error
from mpqueue._parent.system.replies import SafeEvent
from mpqueue.errors import ItemPicklingError, QueueClosedError, RemoteError, ResultPicklingError

if TYPE_CHECKING:
    from mpqueue._dropin.process_pool import Pool
    from mpqueue._queue.run import JobRun


log = logging.getLogger("mpqueue")

R = TypeVar("R")
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
                pool._calls.drop([self], kill=True)

    def _settle(self, callback: Callback | None) -> None:
        pool = self._pool
        if callback and pool is not None:
            pool._queue._host.tell(partial(self._call_back, callback))
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

    def _started(self, run: JobRun) -> None:
        """Take the batch's run, which may have ended before."""
        self._run = run
        run.add_done_callback(self._collect)

    def _cancel(self) -> None:
        if (run := self._run) is not None:
            run._kill()

    def _collect(self, run: JobRun) -> None:
        self._run = None
        results, failures = run._outcomes()
        if run._fault is not None:
            self._raise(run._fault)
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

    def _start(self) -> None:
        self._input.start()

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
