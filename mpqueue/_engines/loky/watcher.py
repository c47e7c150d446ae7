"""One thread that waits for everything at once: ends of processes, bells, stacks, and timers.

It knows nothing of lanes: others give it functions to call. It calls them on its thread, one after another, so state
that is only used there needs no lock. It sleeps while nothing happens.

It has its own loop on the standard library's selectors: importing asyncio's takes 30 ms, a tenth of a cold queue's time
to its first result.
"""

from __future__ import annotations

import sched
import selectors
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from mpqueue._os.channels import make_selector
from mpqueue._parent.inbox import Waker
from mpqueue._parent.surroundings.clock import SystemClock

Call = Callable[[], object]


class Watcher:
    """The thread, started at once. Owner: the pool, which calls `stop` and waits.

    ``on_fault`` gets an error of a call, which should have none.
    """

    def __init__(self, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self._on_fault = on_fault
        self._selector = make_selector()
        self._waker = Waker()
        self._readers: dict[int, Call] = {}
        self._calls: deque[Call] = deque()
        self._timers = sched.scheduler(SystemClock().now, lambda _: None)
        self._running = True
        self.on_readable(self._waker.fileno(), self._waker.clear)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self._close()
            raise

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` on the watcher's thread, in the order of the calls. From any thread; never blocks.

        Does nothing once the watcher has stopped.
        """
        self._calls.append(partial(function, *args))
        self._waker.wake()

    def later(self, delay: float, function: Callable[..., object], *args: Any) -> sched.Event:
        """Call ``function`` in ``delay`` seconds, unless it is cancelled (`cancel`). Watcher thread only."""
        return self._timers.enter(delay, 0, self._make, (partial(function, *args),))

    def cancel(self, timer: sched.Event) -> None:
        """Cancel the call, if it was not made yet. Watcher thread only."""
        with suppress(ValueError):  # it was made
            self._timers.cancel(timer)

    def on_readable(self, fd: int, function: Call) -> None:
        """Call ``function`` whenever ``fd`` is readable or at its end, until `forget`. Watcher thread only."""
        if fd not in self._readers:
            self._selector.register(fd, selectors.EVENT_READ)
        self._readers[fd] = function

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``; call it before that is closed. Watcher thread only."""
        if self._readers.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def stop(self) -> None:
        """End the thread after everything that is due now. Watcher thread only."""
        self._running = False

    def _run(self) -> None:
        until_timer = None
        try:
            while self._running:
                until_timer = self._step(until_timer)
        finally:
            self._close()

    def _step(self, until_timer: float | None) -> float | None:
        """Wait at most that long for events, and make their calls; returns the seconds to the next timer."""
        for key, _ in self._selector.select(0.0 if self._calls else until_timer):
            # An earlier call may have removed it.
            if (reader := self._readers.get(key.fd)) is not None and not self._make(reader):
                self.forget(key.fd)  # otherwise it would be called for ever
        for _ in range(len(self._calls)):
            self._make(self._calls.popleft())
        return self._timers.run(blocking=False)  # makes the calls that are due

    def _make(self, call: Call) -> bool:
        try:
            call()
        except BaseException as error:
            self._on_fault(error)
            return False
        return True

    def _close(self) -> None:
        self._waker.close()
        self._selector.close()
        self._readers.clear()
        self._calls.clear()
        for timer in self._timers.queue:
            self.cancel(timer)
