"""`SafeEvent`, `Reply`, `SafeFuture` and `Mailbox`: one thread waits, another sets them. Setting one never blocks.

`threading.Event` and `concurrent.futures.Future` are guarded by a lock that functions in Python take and release. A
Ctrl-C between the two leaves it taken for ever, and then blocks the thread that sets the event: the coordinator, for
example, and with it the whole queue. Here each waiting thread has its own raw lock, in which it waits by one call in C,
and which only the setting thread releases.
"""

from __future__ import annotations

import _thread
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, _base
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from mpqueue._os.process_signals import wait_long

if TYPE_CHECKING:
    import asyncio


T = TypeVar("T")


class SafeEvent:
    """A `threading.Event` whose `set` works and does not block, even after interrupted calls. On any thread."""

    __slots__ = ("_is_set", "waiting")

    def __init__(self) -> None:
        self._is_set = False
        self.waiting: deque[_thread.LockType] = deque()  #: one for each waiting thread, taken until it may go on

    def is_set(self) -> bool:
        """True from `set` on, until `clear`."""
        return self._is_set

    def set(self) -> None:
        """Wake all waiting threads. Callable in a signal handler or garbage collection; if interrupted, repeat it."""
        self._is_set = True
        for lock in tuple(self.waiting) if self.waiting else ():
            with contextlib.suppress(RuntimeError):  # it was released before, and its thread is about to go on
                lock.release()

    def clear(self) -> None:
        """Make `wait` wait again from now on."""
        self._is_set = False

    def wait(self, timeout: float | None = None, unless: SafeEvent | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; False if it was not. Signals interrupt that.

        Setting the event ``unless`` ends the wait too.
        """
        if self._is_set:
            return True
        lock = _thread.allocate_lock()
        lock.acquire()
        events = (self,) if unless is None else (self, unless)
        for event in events:
            event.waiting.append(lock)
        try:
            # Appended before this check, as `set` sets before its check: one of the two notices.
            if not (self.is_set() or (unless is not None and unless.is_set())):
                wait_long(partial(_acquire, lock), timeout)
            return self.is_set()
        finally:
            for event in events:
                event.waiting.remove(lock)


def _acquire(lock: _thread.LockType, seconds: float | None) -> bool:
    return lock.acquire(True, -1 if seconds is None else max(0.0, min(seconds, threading.TIMEOUT_MAX)))


class Reply(Generic[T]):
    """A value or an error that one thread gives another, once: only the first counts.

    ``told`` is called with it, on the giving thread.
    """

    __slots__ = ("_given", "_outcomes", "_told")

    def __init__(self, told: Callable[[Reply[T]], object] | None = None) -> None:
        self._outcomes: list[tuple[T, None] | tuple[None, BaseException]] = []
        self._given = SafeEvent()
        self._told = told

    def done(self) -> bool:
        """True once it was given."""
        return bool(self._outcomes)

    def set_result(self, value: T) -> None:
        """Set the value. Never blocks."""
        self._give((value, None))

    def set_exception(self, error: BaseException) -> None:
        """Set the error that `result` raises. Never blocks."""
        self._give((None, error))

    def _give(self, outcome: tuple[T, None] | tuple[None, BaseException]) -> None:
        self._outcomes.append(outcome)
        self._given.set()
        told, self._told = self._told, None
        if told is not None:
            told(self)

    def wait(self, timeout: float | None = None, unless: SafeEvent | None = None) -> bool:
        """Wait until it was given, at most ``timeout`` seconds, see `SafeEvent.wait`; False if it was not."""
        return self._given.wait(timeout, unless)

    def result(self, timeout: float | None = None) -> T:
        """Return the value once it was given, or raise the error. Raises TimeoutError after ``timeout`` seconds."""
        if (error := self.exception(timeout)) is not None:
            try:
                raise error
            finally:
                del error, self  # no cycle through the traceback, which would keep its objects
        return self._outcomes[0][0]  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error once it was given; None for a value. Raises TimeoutError after ``timeout`` seconds."""
        if not self._given.wait(timeout):
            raise TimeoutError
        return self._outcomes[0][1]


class _Condition(threading.Condition):
    """A condition whose lock is taken, and released, by one call in C each: no interruption comes inside these."""

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))


class _Waiters(list[Any]):
    """The waiters that `concurrent.futures.wait` and `as_completed` give a future; each waits for its own ``event``."""

    def append(self, waiter: Any) -> None:
        """Add a waiter, whose event the future's end sets from now on. It does not wait yet."""
        if not isinstance(waiter.event, SafeEvent):
            waiter.event = SafeEvent()
        super().append(waiter)


#: States in which a future does not change any more.
_OVER = frozenset({_base.CANCELLED, _base.CANCELLED_AND_NOTIFIED, _base.FINISHED})


class SafeFuture(Future[T]):
    """A future that its maker resolves without blocking, even after interrupted waits for it.

    One gap is left: a Ctrl-C at the moment when `concurrent.futures.wait` or `as_completed` has the locks of all its
    futures leaves them locked.
    """

    def __init__(self) -> None:
        super().__init__()
        # With the types of `Future`: for a type checker this is a future like any other.
        self._condition: threading.Condition = _Condition()
        self._waiters: list[Any] = _Waiters()
        self._over = SafeEvent()

    def done(self) -> bool:
        """True once it has a result or an exception, or was cancelled."""
        return self._state in _OVER

    def cancel(self) -> bool:
        """Cancel the future like `Future.cancel`. An interrupted call has either cancelled it or not."""
        try:
            return super().cancel()
        finally:
            if self.done():
                self._over.set()

    def result(self, timeout: float | None = None) -> T:
        """Return the result, or raise the exception; waits at most ``timeout`` seconds, then TimeoutError."""
        self._await_over(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception, None if there is a result; waits like `result`."""
        self._await_over(timeout)
        return super().exception(0)

    def _await_over(self, timeout: float | None) -> None:
        if not self.done() and not self._over.wait(timeout):
            raise TimeoutError

    def _invoke_callbacks(self) -> None:
        """Called by `Future` once it is over."""
        self._over.set()
        super()._invoke_callbacks()  # type: ignore[misc]


# -- A check that threads are threads: gevent may have put greenlets in their place. -----------------------------------

#: Arguments of `gevent.monkey.patch_all` that a queue can't work with, each with the module that it patches.
_NEEDED = {"thread": "threading", "queue": "queue", "select": "select"}


def what_is_patched() -> list[str]:
    """Return the arguments of `patch_all` that have patched modules that a queue needs. 0.1 us without gevent."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return []
    return [name for name, module in _NEEDED.items() if monkey.is_module_patched(module)]


def check_real() -> None:
    """Raise RuntimeError if gevent has patched modules that a queue needs unpatched.

    A queue waits for its workers on threads of its own. As greenlets these run only while the program waits, and locks
    from before the patch are never released: both wait for ever.
    """
    if patched := what_is_patched():
        leave_out = ", ".join(f"{name}=False" for name in _NEEDED)
        raise RuntimeError(
            "expected real threads, got greenlets, with which a queue would wait for ever: gevent.monkey has patched "
            f"{', '.join(patched)}; call gevent.monkey.patch_all({leave_out}), or use the queue in a process of its own"
        )


def prepare_to_leave() -> None:
    """Let gevent set itself up here, before anything wakes the threads from before its patch.

    Each of them gets its own hub when it next waits, and a program's first hub imports modules, under locks that are
    greenlets' by then: two threads at once, or one and the interpreter's exit, would wait for each other for ever
    (gevent 26.9). Later hubs need no imports.
    """
    sys.modules["gevent"].get_hub()


# -- `Mailbox`: threads put things in, a thread or a coroutine takes them out. `Bell` wakes the coroutine. -------------
#
# `Turns` lets other tasks run while a coroutine does not wait. Coroutines may run in asyncio or in trio, which is found
# out when they wait.

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
            alarm = Bell()
            alarm.ring()
            await alarm.wait()


class Mailbox(Generic[M]):
    """A queue of things, first in, first out. Any thread puts; one thread or coroutine takes at a time."""

    def __init__(self) -> None:
        self._messages: deque[M] = deque()
        self._has_news = SafeEvent()  #: for the thread that takes
        self._alarm: Bell | None = None

    def is_empty(self) -> bool:
        """True if there is nothing to take."""
        return not self._messages

    def put(self, message: M) -> None:
        """Put something in. Never blocks."""
        self._messages.append(message)
        self._has_news.set()
        alarm = self._alarm
        if alarm is not None:
            alarm.ring()

    def take(self, timeout: float | None = None) -> M:
        """Return the next thing, and wait for it. Raises TimeoutError if nothing comes within ``timeout`` seconds."""
        self.wait(timeout)
        return self._messages.popleft()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until there is something to take; an interruption (Ctrl-C) loses nothing. Raises TimeoutError."""
        if self._messages:
            return
        self._has_news.clear()
        # Cleared before this look, as `put` appends before it sets: one of the two notices.
        if not self._messages and not self._has_news.wait(timeout):
            raise TimeoutError

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
                if not self._messages:  # nothing came before there was a bell
                    await alarm.wait()
            finally:
                self._alarm = None
