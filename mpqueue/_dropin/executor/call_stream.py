"""`CallStream`: calls of any functions on one stream of a queue: single ones, each with a future, and blocks of many.

    submit (any thread) -> stream -> coordinator: these have ended -> listener thread: takes them, resolves the futures

A call of `submit` creates the future and the function's name only.
Holds its queue alive, and is held by the queue's coordinator, until the stream has ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.executor.call_block import CallBlock
from mpqueue._dropin.executor.call_future import CallFuture
from mpqueue._options import JobOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.surroundings.replies import SafeEvent
from mpqueue._queue.growing.stream import open_stream
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.run import Ended
from mpqueue._wire.pickling.packed_functions import FunctionPacker
from mpqueue._worker.handlers.called import Call, run_call
from mpqueue.errors import ItemCancelledError, QueueClosedError


class CallStream:
    """Any thread may call any method. ``error_of`` turns a failure into what the future raises."""

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
        engine = queue._host.engine
        self._functions = FunctionPacker(share_globals=engine.has_initializer, script=engine.script)
        self._futures: dict[int, CallFuture[Any]] = {}
        self._blocks: list[CallBlock[Any]] = []
        self._lock = threading.Lock()
        self._is_over = False  #: no outcome will be taken any more
        self.ended = SafeEvent()  #: set when the stream has ended and all futures are resolved
        self.on_end: Callable[[], object] = lambda: None  #: called then, on the listener thread
        self._stream = open_stream(queue, run_call, self._on_ended, options, showing=showing)

    def submit(self, calls: Sequence[Call]) -> list[CallFuture[Any]]:
        """Have these calls made; does not wait."""
        functions = self._functions.pack_all([call.function for call in calls])
        packed = [Call(function, call.args, call.kwargs) for function, call in zip(functions, calls, strict=True)]
        futures: list[CallFuture[Any]] = [CallFuture(self) for _ in packed]
        with self._lock:  # until they are in the books, no outcome is taken
            self._check_fault()
            for index, future in zip(self._stream.add(packed), futures, strict=True):
                future._index = index
                self._futures[index] = future
        return futures

    def submit_block(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> CallBlock[Any]:
        """Have the function called with each of these arguments; does not wait."""
        (packed,) = self._functions.pack_all([function])
        calls = [Call(packed, args, {}) for args in arguments]
        with self._lock:  # as above
            self._check_fault()
            block: CallBlock[Any] = CallBlock(self, self._stream.add(calls), self._error_of)
            if calls:
                self._blocks.append(block)
        return block

    def _check_fault(self) -> None:
        if self._is_over and self._stream.fault is not None:
            raise self._stream.fault

    def is_running(self, future: CallFuture[Any]) -> bool:
        """True while a worker runs the call."""
        return self._stream.is_running(future._index)

    def drop(self, futures: Sequence[CallFuture[Any]], *, kill: bool = False) -> list[CallFuture[Any]]:
        """Cancel these calls, in one go; returns those that are cancelled. See `CallFuture.cancel`."""
        open_ = {future._index: future for future in futures if not future.done()}
        dropped = self._stream.drop_all(list(open_), kill=kill) if open_ else []
        return [future for index in dropped if (future := open_[index])._give_up()]

    def drop_later(self, indices: Sequence[int]) -> None:
        """Cancel those of these calls that no worker has. Does not wait: callable from a garbage collection."""
        if indices and not self.ended.is_set():
            with contextlib.suppress(QueueClosedError):  # ended meanwhile, or the parent's, and this is a fork
                self._stream.drop_later(indices)

    def drop_waiting(self) -> None:
        """Cancel all calls that no worker has."""
        with self._lock:
            futures, blocks = list(self._futures.values()), list(self._blocks)
        self.drop(futures)
        for block in blocks:
            self.drop_later(block.indices)

    def seal(self) -> None:
        """No more calls will come: the stream ends with the last one. Callable from a garbage collection."""
        self._stream.seal()

    def kill(self) -> None:
        """End the stream at once: no call starts any more, what runs is ended, all futures are cancelled."""
        self._stream.cancel(kill=True)

    def check_waiting_allowed(self) -> None:
        """Raise RuntimeError where waiting for a future would be waiting for oneself."""
        self._queue._host.check_waiting_allowed("waiting for a call")

    # -- outcomes --------------------------------------------------------------------------------------------

    def _on_ended(self, indices: Ended) -> None:
        """On the coordinator's thread."""
        if indices is None:
            self._queue._host.tell(self._end)
        elif len(indices) == 1 and self._is_quiet and self._lock.acquire(blocking=False):
            try:
                future = self._futures.pop(indices[0], None)
            finally:
                self._lock.release()
            if future is None:  # one of a block
                self._queue._host.tell(partial(self._settle, indices))
            else:
                self._settle_here(future, *self._stream.take(indices[0]))
        else:
            self._queue._host.tell(partial(self._settle, indices))

    @property
    def _is_quiet(self) -> bool:
        """True where the listener thread has nothing to do, and freeing a call runs no code of users' classes."""
        return self._queue._host.nothing_to_tell and not self._stream.foreign

    def _settle_here(self, future: CallFuture[Any], result: Any, failure: Failure | None) -> None:
        """A single call that returned, whose future has no callbacks: that spares the other thread's turn."""
        if failure is not None or not future._return_quietly(result):
            self._queue._host.tell(partial(self._resolve, future, result, failure))

    def _settle(self, indices: Sequence[int]) -> None:
        """On the listener thread: resolve the futures of calls that have ended, and put into blocks what is theirs."""
        with self._lock:
            block = self._block_of(indices)
            futures = [] if block else [self._futures.pop(index, None) for index in indices]
        if block is not None:
            self._put(block, indices)
        futures.reverse()
        for index in indices if futures else ():
            future = futures.pop()
            if future is not None:
                self._resolve(future, *self._stream.take(index))
            elif len(indices) > 1:  # it may be one of a block
                self._settle([index])
            else:  # Ctrl-C has interrupted its `submit`: it has no future
                self._stream.take(index)

    def _block_of(self, indices: Sequence[int]) -> CallBlock[Any] | None:
        """The block that all of these are in; None where there is none."""
        if not self._blocks:
            return None
        lo, hi = min(indices), max(indices)
        return next((block for block in self._blocks if lo in block.indices and hi in block.indices), None)

    def _put(self, block: CallBlock[Any], indices: Sequence[int]) -> None:
        if block.put(indices, self._stream.take_all(indices)):
            with self._lock:
                self._blocks.remove(block)

    def _resolve(self, future: CallFuture[Any], result: Any, failure: Failure | None) -> None:
        if failure is None:
            future._return(result)
        elif isinstance(failure.own, ItemCancelledError):
            future._give_up()
        else:
            future._raise(self._error_of(failure))

    def _end(self) -> None:
        """On the listener thread: what has no outcome now will never have one."""
        with self._lock:
            futures, self._futures = list(self._futures.values()), {}
            blocks, self._blocks = self._blocks, []
            self._is_over = True
        fault = self._stream.fault
        for future in futures:
            if fault is None:
                future._give_up()
            else:
                future._raise(fault)
        for block in blocks:
            block.give_up(fault)
        self.ended.set()
        self.on_end()
