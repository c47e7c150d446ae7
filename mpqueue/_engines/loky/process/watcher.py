"""One thread that waits for everything at once: processes that end, bells, stacks, and moments in time.

It knows nothing of lanes: others give it functions to call. What it calls runs on its thread, one after another, so
state that is only touched there needs no lock. It sleeps while nothing happens.

A loop of its own on the standard library's selectors: asyncio has one too, but its import takes 30 ms, a tenth of what
a cold queue needs for its first result.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import selectors
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from mpqueue._parent.surroundings.clock import SystemClock
from mpqueue._parent.waker import Waker

_log = logging.getLogger("mpqueue")

Call = Callable[[], object]


class WatcherTimer:
    """A call at a moment, until it is cancelled. Watcher thread only."""

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call

    def cancel(self) -> None:
        """Do not make the call."""
        self._call = None

    def take(self) -> Call | None:
        """The call, which is to be made now; None where it was cancelled."""
        call, self._call = self._call, None
        return call


class Watcher:
    """The thread, started at once. Owner: the pool, which calls `stop` and waits."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._readers: dict[int, Call] = {}
        self._calls: deque[Call] = deque()
        self._timers: list[tuple[float, int, WatcherTimer]] = []
        self._serial = itertools.count()
        self._now = SystemClock().now
        self._running = True
        self.on_readable(self._waker.fileno(), self._waker.clear)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self._close()
            raise

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function`` called on the watcher's thread, in the order of the calls. From any thread; never blocks.

        Does nothing once the watcher has stopped.
        """
        self._calls.append(partial(function, *args))
        self._waker.wake()

    def later(self, delay: float, function: Callable[..., object], *args: Any) -> WatcherTimer:
        """Have ``function`` called in ``delay`` seconds, unless the timer is cancelled. Watcher thread only."""
        timer = WatcherTimer(partial(function, *args))
        heapq.heappush(self._timers, (self._now() + delay, next(self._serial), timer))
        return timer

    def on_readable(self, fd: int, function: Call) -> None:
        """Call ``function`` whenever ``fd`` is readable or at its end, until `forget`. Watcher thread only."""
        if fd not in self._readers:
            self._selector.register(fd, selectors.EVENT_READ)
        self._readers[fd] = function

    def forget(self, fd: int) -> None:
        """Look at ``fd`` no more; to be called before it is closed. Watcher thread only."""
        if self._readers.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def stop(self) -> None:
        """End the thread after what is due now. Watcher thread only."""
        self._running = False

    def _run(self) -> None:
        try:
            while self._running:
                self._step()
        finally:
            self._close()

    def _step(self) -> None:
        for key, _ in self._selector.select(self._pause()):
            # One that was called before may have had it forgotten.
            if (reader := self._readers.get(key.fd)) is not None:
                _make(reader)
        for _ in range(len(self._calls)):
            _make(self._calls.popleft())
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].take()
            if call is not None:
                _make(call)

    def _pause(self) -> float | None:
        if self._calls:
            return 0.0
        return max(0.0, self._timers[0][0] - self._now()) if self._timers else None

    def _close(self) -> None:
        self._waker.close()
        self._selector.close()
        self._readers.clear()
        self._calls.clear()
        self._timers.clear()


def _make(call: Call) -> None:
    try:
        call()
    except BaseException:
        _log.exception("watching a worker failed; please report it")
