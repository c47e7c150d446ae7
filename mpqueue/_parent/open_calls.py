"""The calls under way in one lane: their futures, and when the last one is resolved.

The futures handed out are ours, not the executor's, so that waiting callers get an answer also when the executor's
thread is stuck, and no answer comes after we said that the worker is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

Call = Future[bytes]


class Calls:
    """Futures of one lane. Any thread may call any method.

    A call is *open* until it is settled, and counts as under way until its callbacks have run as well.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Call] = set()
        self._settling: set[Call] = set()
        self._closed: BaseException | None = None
        self._when_empty: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._open) + len(self._settling)

    @property
    def is_closed(self) -> bool:
        """True once `close` was called: the worker is known to be dead."""
        return self._closed is not None

    def begin(self) -> Call:
        """A new call; failed already where `close` was called."""
        call: Call = Future()
        with self._lock:
            if self._closed is None:
                self._open.add(call)
                return call
        call.set_exception(self._closed)
        return call

    def settle(self, call: Call, result: bytes | None, error: BaseException | None) -> None:
        """Resolve ``call`` and run its callbacks, here and now. Does nothing where it has been settled before."""
        with self._lock:
            if call not in self._open:
                return
            self._open.remove(call)
            self._settling.add(call)
        try:
            if error is not None:
                call.set_exception(error)
            else:
                call.set_result(result if result is not None else b"")
        finally:
            with self._lock:
                self._settling.discard(call)
            self._tell_when_empty()

    def close(self, error: BaseException) -> None:
        """Fail all calls that begin from now on; those under way go on."""
        with self._lock:
            self._closed = error

    def fail_all(self, error: BaseException) -> None:
        """Fail the calls that are still open."""
        for call in list(self._open):
            self.settle(call, None, error)

    def abandon_settling(self) -> None:
        """The callbacks that run now may never end: do not wait for them."""
        with self._lock:
            self._settling.clear()
        self._tell_when_empty()

    def when_empty(self, function: Callable[[], object]) -> None:
        """Call ``function`` once none is under way: here and now, or on the thread that settles the last."""
        with self._lock:
            self._when_empty = function
        self._tell_when_empty()

    def _tell_when_empty(self) -> None:
        with self._lock:
            if self._open or self._settling or self._when_empty is None:
                return
            function, self._when_empty = self._when_empty, None
        function()
