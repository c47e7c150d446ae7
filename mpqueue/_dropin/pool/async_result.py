"""`AsyncResult`: what `apply_async`, `map_async` and `starmap_async` return.

Settled on the coordinator's thread, which costs the waiting thread nothing but its own waking; callbacks are called on
the queue's listener thread, and the result is ready after that.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import ApplyResult
from multiprocessing.pool import MapResult as StandardMapResult
from typing import TYPE_CHECKING, Any, TypeVar

from mpqueue._dropin.pool.pool_errors import error_of
from mpqueue._dropin.stream_results import ended_error
from mpqueue._output.progress import PATIENCE
from mpqueue._parent.surroundings.replies import SafeEvent
from mpqueue._queue.mailbox import runs_loop

if TYPE_CHECKING:
    from mpqueue._dropin.pool.process_pool import Pool
    from mpqueue._queue.run import Ended, JobRun

log = logging.getLogger("mpqueue")

T = TypeVar("T")
Callback = Callable[[Any], object]


class AsyncResult(ApplyResult[T]):
    """A result that may still have to come. Holds its pool until it is ready."""

    def __init__(self, pool: Pool, callback: Callback | None = None, error_callback: Callback | None = None) -> None:
        self._pool: Pool | None = pool
        self._event = SafeEvent()
        self._callback = callback
        self._error_callback = error_callback
        self._success = False
        self._value: Any = None
        self._index = -1  #: of a single call in its stream

    def ready(self) -> bool:
        """True once the call has returned or failed, and its callback was called."""
        return self._event.is_set()

    def successful(self) -> bool:
        """True where the call returned. Raises ValueError before it is `ready`."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is `ready`, at most ``timeout`` seconds."""
        self._event.wait(timeout)

    def get(self, timeout: float | None = None) -> T:
        """The result, or what the call raised. Raises `multiprocessing.TimeoutError` after ``timeout`` seconds."""
        self.wait(timeout)
        if not self.ready():
            raise multiprocessing.TimeoutError
        if self._success:
            value: T = self._value
            return value
        raise self._value

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

    def _settle(self, callback: Callback | None) -> None:
        pool = self._pool
        if callback and pool is not None:
            pool._tell(partial(self._call_back, callback))
        else:
            self._finish()

    def _call_back(self, callback: Callback) -> None:
        """On the listener thread."""
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


def _nothing(_: float | None) -> None:
    pass


def _await_end(run: JobRun, pool: Pool | None, timeout: float | None) -> None:
    run._end_bar()
    run._await_last_call(PATIENCE if timeout is None else timeout)
    if pool is not None:
        pool._await_told()


class MapResult(AsyncResult[list[T]], StandardMapResult[T]):
    """The results of a whole batch, or its first failure in item order, once all of its items have ended.

    A function that gets the pool's progress has had the batch's last state before the result is ready; unless a thread
    waits for the result for which the function may wait: the listener thread, or one with an event loop.
    """

    def __init__(self, pool: Pool, callback: Callback | None = None, error_callback: Callback | None = None) -> None:
        super().__init__(pool, callback, error_callback)
        self._run: JobRun | None = None
        self._await_end: Callable[[float | None], object] = _nothing
        self._has_ended = False
        self._hurries = False  #: it is ready as soon as the batch has ended
        self._lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is `ready`, its bar has ended, and what its calls have logged was delivered."""
        pool = self._pool
        if pool is not None and (pool._is_listener_here() or runs_loop()):
            self._hurry()
        super().wait(timeout)
        if self.ready():
            self._await_end(timeout)
            self._await_end = _nothing

    def _started(self, run: JobRun) -> None:
        """This is the batch's run. It may have ended before."""
        with self._lock:
            self._run = run
            ended = self._has_ended
        if ended:
            self._collect_in_turn(run)

    def _on_ended(self, ended: Ended) -> None:
        """On the coordinator's thread: items have ended; None: all have."""
        if ended is not None:
            return
        with self._lock:
            self._has_ended = True
            run = self._run
        if run is not None:
            self._collect_in_turn(run)

    def _collect_in_turn(self, run: JobRun) -> None:
        if run._tells and not self._hurries:
            run.add_done_callback(lambda _: self._collect(run))  # after the function's last call
        else:
            self._collect(run)

    def _hurry(self) -> None:
        """A thread is about to wait for it for which the function may wait."""
        with self._lock:
            self._hurries = True
            run = self._run if self._has_ended else None
        if run is not None:
            self._collect(run)

    def _cancel(self) -> None:
        """End the work: no caller waits for it any more."""
        if self._run is not None:
            self._run._kill()

    def _collect(self, run: JobRun) -> None:
        pool = self._pool
        if pool is None or not pool._forget_map(self):
            return  # the pool's end was quicker
        self._run = None
        if run._spoke or run._display is not None:
            self._await_end = partial(_await_end, run, pool if run._spoke else None)
        results, failures = run._outcomes()
        if run._fault is not None:
            self._raise(run._fault)
        elif run.job.cancelled and run.job.completed + len(failures) < len(results):
            self._give_up()
        elif failures:
            self._raise(error_of(failures[min(failures)]))
        else:
            self._return(results)
