"""`CallStream`: calls of any functions on one stream of a queue, single ones and blocks of many.

    submit (any thread) -> stream -> coordinator: these have ended -> their receivers: futures, results of a `Pool`

The coordinator's thread takes outcomes if that runs no code of users, else the queue's listener thread does; those of a
`CallBlock`, the calls of one `Executor.map`, are taken by its consumer, which saves a future per call. The first call
opens the stream. From then until the stream has ended, it is held by the queue's coordinator, and holds its queue
alive.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.stream_results import Arrivals
from mpqueue._options import JobOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.replies import SafeFuture
from mpqueue._queue.growing_jobs import Stream, open_stream
from mpqueue._queue.job_items import R
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.run import Ended
from mpqueue._wire.pickling.packed_functions import FunctionPacker
from mpqueue._worker.handlers.called import Call, run_call
from mpqueue.errors import ItemCancelledError, QueueClosedError

if TYPE_CHECKING:
    from mpqueue._queue.job_items import MaybeCoroutine

#: The number of outcomes that are freed at a time.
MANY = 1000


class Receiver(Protocol):
    """The receiver of one call's outcome: one of the last three methods is called once."""

    _index: int  #: the index of its call in the stream

    def _quietly(self, settle: Callable[..., object], *arguments: Any) -> bool:
        """Settle it by ``settle`` here; if that would run users' code, do nothing and return False."""

    def _return(self, result: Any) -> None: ...

    def _raise(self, error: BaseException) -> None: ...

    def _give_up(self) -> object:
        """Give up: the call was cancelled, or the stream ended first."""


_Settled = tuple[Receiver, Any, Failure | None]


class CallStream:
    """A stream of calls, for any thread. ``error_of`` makes the receiver's error of a failure.

    A receiver gets its outcome after the call's logs were delivered.
    """

    def __init__(
        self,
        queue: JobQueue,
        error_of: Callable[[Failure], BaseException],
        options: JobOptions,
        *,
        showing: Showing = Showing(),  # noqa: B008 - frozen
    ) -> None:
        self._queue = queue
        self._error_of = error_of
        self._options = options
        self._showing = showing
        engine = queue._host.engine
        self.functions = FunctionPacker(script=engine.script)
        self._receivers: dict[int, Receiver | CallBlock[Any]] = {}  #: by the indices of calls that have not ended
        self._lock = threading.RLock()  #: held by the thread that adds calls; a garbage collection may seal it there
        self._is_open = False
        self._stream: Stream  #: set once it is open
        self._is_over = False  #: True once no more outcomes come

    def submit(self, call: Call) -> CallFuture[Any]:
        """Submit this call; does not wait."""
        future: CallFuture[Any] = CallFuture(self)
        self.submit_for(future, call)
        return future

    def submit_for(self, receiver: Receiver, call: Call) -> None:
        """Submit this call for this receiver; does not wait."""
        packed = Call(self.functions.pack(call.function), call.args, call.kwargs)
        with self._lock:
            # First: it may end as soon as it is added.
            receiver._index = index = self._next_index()
            self._receivers[index] = receiver
            self._stream.add([packed])
        if self._is_over:  # closed meanwhile
            self.give_up_rest()

    def submit_block(
        self, function: Callable[..., MaybeCoroutine[R]], arguments: Iterable[tuple[Any, ...]]
    ) -> CallBlock[R]:
        """Read all arguments, and call the function with each of them; does not wait for the calls."""
        given = []
        for args in arguments:  # not under the lock: they may wait for another thread's `submit`
            self.check_open()  # and an endless input is not read for ever
            given.append(args)
        packed = self.functions.pack(function)
        calls = [Call(packed, args, {}) for args in given]
        with self._lock:
            first = self._next_index()
            block: CallBlock[R] = CallBlock(self, range(first, first + len(calls)))
            if calls:
                self._receivers.update(dict.fromkeys(block.indices, block))  # first, as above
                self._stream.add(calls)
        if self._is_over:
            self.give_up_rest()
        return block

    def _next_index(self) -> int:
        """The index of the next call to be added, under the lock. The first call opens the stream."""
        self.check_open()
        if not self._is_open:
            self._stream = self._open()
            self._is_open = True
        elif self._is_over and self._stream.fault is not None:
            raise self._stream.fault
        return self._stream.next_index

    def check_open(self) -> None:
        """Raise an error if it takes no more calls."""

    def _open(self) -> Stream:
        """Open the stream, under the lock."""
        return open_stream(self._queue, run_call, self._on_ended, self._options, showing=self._showing)

    def drop(self, receiver: Receiver, *, kill: bool = False) -> bool:
        """Cancel this call; True if it is cancelled. See `CallFuture.cancel`."""
        index = receiver._index
        is_dropped = index in self._receivers and self._stream.drop(index, kill=kill)
        return is_dropped and bool(receiver._give_up())

    def drop_later(self, indices: Sequence[int]) -> None:
        """Cancel those of these calls that no worker has. Does not wait: callable in a garbage collection."""
        if indices:
            self._tell(Stream.drop_later, indices)

    def drop_waiting(self) -> None:
        """Cancel all calls that no worker has, once no more are submitted. Does not wait."""
        self.drop_later(list(self._receivers))

    def seal(self) -> None:
        """Seal the stream: it ends with the last call. Callable in a garbage collection."""
        self._tell(Stream.seal)

    def kill(self) -> None:
        """End the stream at once: no more calls start, running ones are killed, all futures are cancelled."""
        self._tell(Stream.cancel)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call a method of the stream that only posts a message, if it was opened and has not ended."""
        if self._is_open and not self._is_over:
            with contextlib.suppress(QueueClosedError):  # it has ended; or this is a fork of its owner
                call(self._stream, *arguments)

    def check_waiting_allowed(self) -> None:
        """Raise RuntimeError if waiting for a future would wait for itself."""
        self._queue._host.check_waiting_allowed("waiting for a call")

    # -- outcomes --------------------------------------------------------------------------------------------

    def _on_ended(self, indices: Ended) -> None:
        """Settle the calls that have ended, or have the listener thread do it. On the coordinator's thread."""
        listeners = self._queue._host.engine.listeners
        if indices is None:
            listeners.post(self._end)
        elif self._stream.has_user_objects or not listeners.idle:
            listeners.post(lambda: self._settle_loud(self._settle(indices)))
        elif loud := self._settle(indices):
            listeners.post(partial(self._settle_loud, loud))

    def _settle(self, indices: Sequence[int]) -> deque[_Settled]:
        """Settle these calls; returns those whose receivers have callbacks, for the listener thread."""
        loud: deque[_Settled] = deque()
        receivers = [self._receivers.pop(index, None) for index in indices]
        if len(all_of_them := {*receivers}) == 1 and isinstance(block := all_of_them.pop(), CallBlock):
            block._put(indices)
            return loud
        for index, receiver in zip(indices, receivers, strict=True):
            if isinstance(receiver, CallBlock):
                receiver._put([index])
            elif receiver is not None:
                outcome = self._stream.take(index)
                if not receiver._quietly(self._resolve, receiver, *outcome):
                    loud.append((receiver, *outcome))
        return loud

    def _settle_loud(self, loud: deque[_Settled]) -> None:
        """Settle calls whose receivers have callbacks, on the listener thread, which then holds no result."""
        while loud:
            self._resolve(*loud.popleft())

    def _resolve(self, receiver: Receiver, result: Any, failure: Failure | None) -> None:
        if failure is None:
            receiver._return(result)
        elif isinstance(failure.own, ItemCancelledError):
            receiver._give_up()
        else:
            receiver._raise(self._error_of(failure))

    def error_of(self, failure: Failure) -> BaseException:
        """Return the error to be raised for a failure of a block."""
        return CancelledError() if isinstance(failure.own, ItemCancelledError) else self._error_of(failure)

    def free_later(self, arrivals: Arrivals) -> None:
        """Free the outcomes of ended calls that no consumer takes any more. Does not wait, as above."""

        def free() -> None:
            while indices := arrivals.take(MANY):
                self._stream.take_all(indices)

        with contextlib.suppress(QueueClosedError):
            self._queue._host.engine.listeners.post(free)

    def _end(self) -> None:
        """Settle the remaining calls, on the listener thread, since the stream has ended."""
        self._is_over = True
        self.give_up_rest()

    def give_up_rest(self) -> None:
        """Give up the calls that have no outcome, and never will: the stream has ended."""
        fault = self._stream.fault if self._is_open else None
        for index in list(self._receivers):
            receiver = self._receivers.pop(index, None)
            if receiver is None:  # another thread did it first
                continue
            if fault is None or isinstance(receiver, CallBlock):
                receiver._give_up()
            else:
                receiver._raise(fault)


class CallFuture(SafeFuture[R]):
    """The future of one call; it can end the call even while it runs. Callbacks are called on the listener thread."""

    def __init__(self, owner: CallStream) -> None:
        super().__init__()
        self._owner: CallStream | None = owner
        self._index = -1

    def cancel(self, *, kill: bool = False) -> bool:
        """Cancel the call; True if it will not run, or (``kill``) its worker is being ended for it.

        A call that a worker has, or is about to get, runs on (False) unless ``kill`` is given; then other calls of that
        worker run again elsewhere without losing a try.
        """
        owner = self._owner
        if owner is None or self.done():
            return super().cancel()
        return owner.drop(self, kill=kill)

    def _drop_later(self) -> None:
        """`cancel` without an answer, callable from a garbage collection."""
        owner = self._owner
        if owner is not None and not self.done():
            owner.drop_later([self._index])

    def running(self) -> bool:
        """True while a worker runs the call."""
        owner = self._owner
        return owner is not None and not self.done() and owner._stream.is_running(self._index)

    def result(self, timeout: float | None = None) -> R:
        """Return the call's value, or raise its error. Waits at most ``timeout`` seconds (TimeoutError).

        Raises RuntimeError in a done-callback, where it would wait for itself.
        """
        self._check_waiting(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the call's error, None if it has none. Waits as `result` does."""
        self._check_waiting(timeout)
        return super().exception(timeout)

    def _check_waiting(self, timeout: float | None) -> None:
        owner = self._owner
        if timeout is None and owner is not None and not self.done():
            owner.check_waiting_allowed()

    # -- see `Receiver` --------------------------------------------------------------------------------------

    def _quietly(self, settle: Callable[..., object], *arguments: Any) -> bool:
        with self._condition:  # no callback is added meanwhile
            if self._done_callbacks:  # type: ignore[attr-defined]
                return False
            settle(*arguments)
        return True

    def _return(self, result: R) -> None:
        self._owner = None
        if not self.cancelled():
            self.set_result(result)

    def _raise(self, error: BaseException) -> None:
        self._owner = None
        if not self.cancelled():
            self.set_exception(error)

    def _give_up(self) -> bool:
        """Cancel the future and wake its waiters; return False if it has ended meanwhile."""
        if not super().cancel():
            return False
        self._owner = None
        with self._condition:
            if self._state == "CANCELLED":  # otherwise another thread has notified them
                self.set_running_or_notify_cancel()
        return True


class CallBlock(Generic[R]):
    """The calls of one `Executor.map`, whose results are taken in order. One consumer at a time."""

    def __init__(self, owner: CallStream, indices: range) -> None:
        self.indices = indices
        self._owner = owner
        self._left = len(indices)  #: outcomes that were not taken
        self._arrivals = Arrivals(ordered=True, first=indices.start)

    def results(self, time_left: Callable[[], float | None]) -> Iterator[R]:
        """Yield the results in order. A call's error is raised in its place; TimeoutError when no time is left.

        When it ends, calls that have not started are cancelled. It holds no result that was taken.
        """
        try:
            while self._left:
                outcomes = deque(self._take(time_left))
                self._left -= len(outcomes)
                while outcomes:
                    if type(outcomes[0]) is Failure:
                        raise self._owner.error_of(outcomes[0])
                    yield outcomes.popleft()
        finally:
            if self._left:
                self._owner.drop_later(self.indices)

    def _take(self, time_left: Callable[[], float | None]) -> list[Any]:
        """Return the next outcomes, at least one."""
        if time_left() is None and self._arrivals.news.is_empty():
            self._owner.check_waiting_allowed()
        while not (indices := self._arrivals.take(len(self.indices))):
            if self._arrivals.are_over:
                raise self._owner._stream.fault or CancelledError
            self._arrivals.news.wait(time_left())
        return self._owner._stream.take_all(indices)

    def __del__(self) -> None:
        if getattr(self, "_left", 0):  # all have ended, and are not taken any more
            self._owner.free_later(self._arrivals)

    # -- for the stream --------------------------------------------------------------------------------------

    def _put(self, indices: Sequence[int]) -> None:
        """Note that these calls have ended."""
        self._arrivals.news.put(indices)

    def _give_up(self) -> None:
        """Stop waiting for outcomes that will never come: the stream has ended, perhaps by an internal error."""
        self._arrivals.news.put(None)
