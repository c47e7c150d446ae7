"""`ApplyCalls`: the calls of `Pool.apply_async`, of any functions, on one stream.

While calls are under way, the coordinator holds their results, and these the pool; else it holds nothing of the pool,
so that an unused pool can be garbage-collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from mpqueue._dropin.pool.async_result import AsyncResult
from mpqueue._options import JobOptions
from mpqueue._queue.growing.stream import Stream, open_stream
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.run import Ended
from mpqueue._wire.pickling.packed_functions import FunctionPacker
from mpqueue._worker.handlers.called import Call, run_call
from mpqueue.errors import InternalError, QueueClosedError


class ApplyCalls:
    """`start` is called by one thread at a time."""

    def __init__(self, owner: JobQueue, options: JobOptions, functions: FunctionPacker) -> None:
        self._functions = functions
        self._waiting = waiting = _Waiting()
        self._stream = waiting.stream = open_stream(owner, run_call, waiting.on_ended, options)

    def start(
        self, result: AsyncResult[Any], func: Callable[..., Any], args: Iterable[Any], kwds: Mapping[str, Any]
    ) -> None:
        """Have the call made, and the result settled when it has ended."""
        call = Call(self._functions.pack(func), args, kwds)
        index = self._stream.next_index  # no count of its own, which an interruption would leave one ahead
        result._stream, result._index = self._stream, index
        self._waiting[index] = result  # before the call can end
        try:
            self._stream.add([call])
        except BaseException:
            if self._stream.next_index == index:  # an interruption came first
                self._waiting.pop(index, None)
            raise
        if self._stream.fault is not None:  # else it would wait for a stream that has ended
            self._waiting.fail(self._stream.fault)

    def cancel(self, result: AsyncResult[Any]) -> None:
        """End the call: no caller waits for it any more."""
        with suppress(QueueClosedError):
            self._stream.drop(result._index, kill=True)

    def seal(self) -> None:
        """No more calls will come."""
        self._stream.seal()

    def give_up(self) -> None:
        """The pool has ended: waiting for a call ends."""
        while self._waiting:
            with suppress(KeyError):  # the coordinator was quicker
                self._waiting.popitem()[1]._give_up()


class _Waiting(dict[int, AsyncResult[Any]]):
    """The results of calls that are under way, by index."""

    stream: Stream | None = None

    def on_ended(self, indices: Ended) -> None:
        """On the coordinator's thread: these calls have ended; None: the stream has."""
        if self.stream is None:
            return
        if indices is None:
            if self.stream.fault is not None:
                self.fail(self.stream.fault)
        elif self.stream.foreign:
            self.stream.tell(partial(self._settle, indices))
        else:
            self._settle(indices)

    def _settle(self, indices: Sequence[int]) -> None:
        """On a thread that may free what they held."""
        for index in indices:
            result = self.pop(index, None)
            if result is not None and result._stream is not None:
                result._set_outcome(*result._stream.take(index))

    def fail(self, error: InternalError) -> None:
        """The stream was ended by a mistake of mpqueue's own."""
        while self:
            with suppress(KeyError):  # another thread was quicker
                self.popitem()[1]._fail(error)
