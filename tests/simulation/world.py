"""Simulated time, and threads of which a seed decides who goes on.

Every thread is a greenlet: where it would wait, it says for what (`World.wait`), and the world runs whoever may go on,
one at a time, in an order that the seed decides. Where nobody may, time passes until somebody may or something is due.
Who is woken may be late, as on a busy machine. A world in which nobody may ever go on is stuck, and that is a failure.
"""

from __future__ import annotations

import heapq
import itertools
import math
import queue
import random
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import greenlet

from mpqueue._parent.replies import SafeEvent

T = TypeVar("T")

#: Seconds by which who is woken may be late; mostly not at all.
LATENESS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e-5, 0.0005, 0.02)
#: Things that may happen in one history: more is a livelock.
MOST_STEPS = 50_000


class StuckError(AssertionError):
    """Nobody will ever go on."""


class ProgramKilled(greenlet.GreenletExit):  # type: ignore[misc]
    """The simulated program has been killed: none of its threads takes another step."""


class World:
    """Time, threads, and what is due. ``current`` is the one in which everything happens now."""

    current: World

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.time = 0.0
        self.steps = 0
        self.threads: list[Thread] = []
        self.digest = 0  #: of all that has happened
        self._calendar: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self._hub = greenlet.getcurrent()
        self.here: Thread | None = None

    # -- a clock, as `mpqueue._parent.inbox.Clock` -----------------------------------------------------

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return self.time

    def wall(self) -> float:
        """Seconds since the epoch."""
        return 1_000_000_000.0 + self.time

    # -- what happens --------------------------------------------------------------------------------------------

    def note(self, what: object) -> None:
        """Something happened that would be the same in another run of the same seed."""
        self.digest = zlib.crc32(f"{self.time:.9f} {what}".encode(), self.digest)

    def call_at(self, moment: float, call: Callable[[], object]) -> None:
        """Have something happen then."""
        heapq.heappush(self._calendar, (max(moment, self.time), next(self._serial), call))

    def wait(self, ready: Callable[[], object], timeout: float | None = None) -> bool:
        """The calling thread goes on once that is ready, or after so many seconds; whether it is ready."""
        thread = self.here
        if thread is None:
            assert ready(), "what is due at a moment must not wait"
            return True
        thread.ready = ready
        thread.deadline = math.inf if timeout is None else self.time + timeout
        thread.due = None
        self._hub.switch()
        if thread.is_killed:
            raise ProgramKilled
        return bool(ready())

    def run(self, is_over: Callable[[], bool]) -> None:
        """Let things happen until it is over."""
        while not is_over():
            self.steps += 1
            assert self.steps < MOST_STEPS, "it goes round in circles"
            runnable = [thread for thread in self.threads if self._may_go_on(thread)]
            is_due = bool(self._calendar) and self._calendar[0][0] <= self.time
            if runnable or is_due:
                at = self.rng.randrange(len(runnable) + is_due)
                if at < len(runnable):
                    self._go_on(runnable[at])
                else:
                    heapq.heappop(self._calendar)[2]()
            else:
                self._pass_time()

    def _may_go_on(self, thread: Thread) -> bool:
        if not thread.ready() and self.time < thread.deadline:
            thread.due = None
            return False
        if thread.due is None:
            thread.due = self.time + self.rng.choice(LATENESS)
        return thread.due <= self.time

    def _go_on(self, thread: Thread) -> None:
        self.here = thread
        try:
            thread.run.switch()
        finally:
            self.here = None
        if thread.run.dead:
            self.threads.remove(thread)

    def _pass_time(self) -> None:
        moments = [self._calendar[0][0]] if self._calendar else []
        moments += [thread.deadline if thread.due is None else thread.due for thread in self.threads]
        moment = min(moments, default=math.inf)
        if moment == math.inf:
            raise StuckError(f"at {self.time} all wait for ever: {[thread.name for thread in self.threads]}")
        self.time = max(self.time, moment)

    def kill(self) -> None:
        """Nothing that was begun goes on."""
        self._calendar.clear()
        for thread in list(self.threads):
            thread.is_killed = True
            if thread.run:  # it has begun
                self._go_on(thread)
        assert not any(thread.run for thread in self.threads), "it would not end"
        self.threads.clear()


class Thread:
    """What `threading.Thread` is to the parent's code."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] = lambda: None,
        name: str = "",
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name
        self.ident: int | None = None
        self.ready: Callable[[], object] = lambda: True
        self.deadline = math.inf
        self.due: float | None = None
        self.is_killed = False
        self._world = World.current
        self.run = greenlet.greenlet(lambda: target(*args, **(kwargs or {})), self._world._hub)

    def start(self) -> None:
        """It may begin."""
        self.ident = id(self)
        self._world.threads.append(self)

    def is_alive(self) -> bool:
        """True from its start to its end."""
        return self.ident is not None and not self.run.dead

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._world.wait(lambda: not self.is_alive(), timeout)


class Lock:
    """A lock, also one that its holder may take again."""

    def __init__(self) -> None:
        self._holder: object = None
        self._depth = 0

    def __enter__(self) -> None:
        me = World.current.here or self
        if self._holder is not None and self._holder is not me:
            World.current.wait(lambda: self._holder is None)
        self._holder, self._depth = me, self._depth + 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder = None


class Queue(Generic[T]):
    """What `queue.SimpleQueue` is to the parent's code."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        """Put something in."""
        self._items.append(item)

    def get(self, timeout: float | None = None) -> T:
        """Take what was put in first. Raises `queue.Empty` after ``timeout`` seconds."""
        World.current.wait(lambda: self._items, timeout)
        return self.get_nowait()

    def get_nowait(self) -> T:
        """The same without waiting."""
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def empty(self) -> bool:
        """True where there is nothing in it."""
        return not self._items


def wait_for(event: SafeEvent, timeout: float | None = None, unless: SafeEvent | None = None) -> bool:
    """What `SafeEvent.wait` is to the parent's code."""

    def is_over() -> bool:
        return event.is_set() or (unless is not None and unless.is_set())

    return event.is_set() or (World.current.wait(is_over, timeout) and event.is_set())
