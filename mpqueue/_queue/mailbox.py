"""`Mailbox`: threads put things in, a thread or a coroutine takes them out. `Bell`: wakes the coroutine.

`Turns`: lets other tasks run while a coroutine does not wait. Coroutines may run in asyncio or in trio, which is found
out when they wait.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from mpqueue._os.process.process_signals import wait_long

if TYPE_CHECKING:
    import asyncio

M = TypeVar("M")

#: Seconds for which a coroutine that need not wait holds the loop.
HOLD = 0.01


class Rings(Protocol):
    """An object that wakes a waiting caller."""

    def ring(self) -> None:
        """Wake the caller. Callable on any thread."""


class Bell:
    """Wakes the coroutine that made it. Rings once; each wait needs a new one."""

    def __init__(self) -> None:
        import asyncio  # only programs that use it import it

        self._event: Any
        self._call: Callable[..., object]
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            import trio

            self._loop = None
            self._event = trio.Event()
            self._call = trio.lowlevel.current_trio_token().run_sync_soon
        else:
            self._event = asyncio.Event()
            self._call = self._loop.call_soon_threadsafe

    def ring(self) -> None:
        """Wake the coroutine. Callable on any thread; does nothing if the loop has ended, since then no task waits."""
        try:
            self._call(self._event.set)
        except RuntimeError:  # trio's RunFinishedError is one too
            if self._loop is not None and not self._loop.is_closed():
                raise

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until it rings, at most ``timeout`` seconds.

        Interruptions are raised: `asyncio.CancelledError`, `trio.Cancelled`.
        """
        if timeout is None:
            await self._event.wait()
        elif self._loop is None:
            import trio

            with trio.move_on_after(timeout):
                await self._event.wait()
        else:
            timer = self._loop.call_later(timeout, self._event.set)
            try:
                await self._event.wait()
            finally:
                timer.cancel()

    async def wait_shielded(self) -> None:
        """Wait until it rings, even if the task has been cancelled, or is cancelled meanwhile."""
        if self._loop is None:
            import trio

            with trio.CancelScope(shield=True):
                await self._event.wait()
            return
        import asyncio

        while not self._event.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._event.wait()


def runs_loop() -> bool:
    """True on a thread that runs an event loop, whose tasks stand still while the thread waits."""
    if "asyncio" in sys.modules:
        import asyncio

        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return True
    if "trio" in sys.modules:
        import trio

        with contextlib.suppress(RuntimeError):
            trio.lowlevel.current_trio_token()
            return True
    return False


async def let_others_run() -> None:
    """Give the loop's other tasks a turn."""
    alarm = Bell()
    alarm.ring()
    await alarm.wait()


class Turns:
    """Lets the loop's other tasks run while a coroutine takes many things in a row without waiting.

    Turns are given by time, since each costs 10 us, too much for one thing.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due = now() + HOLD

    async def give(self) -> None:
        """Let others run if the last turn was `HOLD` seconds ago. Interruptions are raised."""
        if self._now() >= self._due:
            self._due = self._now() + HOLD  # first: an interrupted turn counts as one, and the next call goes on
            await let_others_run()


class Mailbox(Generic[M]):
    """A queue of things, first in, first out. Any thread puts; one thread or coroutine takes at a time."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[M] = queue.SimpleQueue()
        self._fetched: deque[M] = deque()  #: by the takers, from the queue
        self._alarm: Bell | None = None

    def is_empty(self) -> bool:
        """True if there is nothing to take."""
        return not self._fetched and self._queue.empty()

    def put(self, message: M) -> None:
        """Put something in. Never blocks."""
        self._queue.put(message)
        alarm = self._alarm
        if alarm is not None:
            alarm.ring()

    def take(self, timeout: float | None = None) -> M:
        """Return the next thing, and wait for it. Raises TimeoutError if nothing comes within ``timeout`` seconds."""
        self.wait(timeout)
        return self._fetched.popleft()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until there is something to take; an interruption (Ctrl-C) loses nothing. Raises TimeoutError."""
        if not self._fetched and not wait_long(self._fetch, timeout):
            raise TimeoutError

    def _fetch(self, seconds: float | None) -> bool:
        # In one call: an interruption right after `get` would lose its result.
        gets = iter(partial(self._queue.get, True, seconds), self)  # never equal
        with contextlib.suppress(queue.Empty):
            self._fetched.extend(itertools.islice(gets, 1))
        return bool(self._fetched)

    async def take_later(self) -> M:
        """Return the next thing, and wait for it without blocking the loop."""
        await self.wait_later()
        return self.take()

    async def wait_later(self) -> None:
        """`wait` without blocking the loop. Raises RuntimeError if another task waits: only one would be woken."""
        while self.is_empty():
            if self._alarm is not None:
                raise RuntimeError("expected one task at a time to wait for what comes next, got a second one")
            self._alarm = alarm = Bell()
            try:
                if self._queue.empty():  # nothing came before there was a bell
                    await alarm.wait()
            finally:
                self._alarm = None
