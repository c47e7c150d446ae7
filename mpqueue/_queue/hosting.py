"""What the drop-ins ask of a queue beyond its interface: short ways to its threads, and who its workers are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from mpqueue._core.messages import LanesWanted, Message
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue._parent.coordinator import Coordinator
from mpqueue._parent.machinery import Engine
from mpqueue.errors import QueueClosedError

T = TypeVar("T")

#: Seconds after which one who waits for the listener thread looks whether it still lives.
LOOK_AGAIN = 1.0


class Hosting:
    """A part of `JobQueue`, which sets these attributes."""

    _engine: Engine

    def _coordinator(self) -> Coordinator:
        raise NotImplementedError

    def want_workers(self, count: int) -> None:
        """Let there be at least so many workers, now."""
        coordinator = self._coordinator()
        books = coordinator.scheduler.books
        if books.opened and len(books.lanes) >= count:  # neither is ever taken back
            return

        def want() -> None:
            self._engine.handle(LanesWanted(count))
            self._engine.open_pool()

        coordinator.ask(want)

    def await_starts(self) -> None:
        """Wait until the workers exist as processes, answering or not: 20 ms for each."""
        self._engine.await_starts()

    def post(self, message: Message) -> None:
        """Tell the coordinator something. Does not wait."""
        self._coordinator().post(message)

    def handle(self, message: Message) -> None:
        """Inside `ask`: have a message handled now."""
        self._engine.handle(message)

    def tell(self, notice: Callable[[], None]) -> None:
        """Have something done on the listener thread, after all that was posted before."""
        self._engine.listeners.post(notice)

    def await_told(self) -> None:
        """Wait until all that was posted to the listener thread has been told; does nothing on that thread."""
        listeners, told = self._engine.listeners, threading.Event()
        if listeners.is_here:
            return
        with contextlib.suppress(QueueClosedError):
            self.ask_later(partial(listeners.post, told.set))
            while listeners.is_alive and not told.wait(LOOK_AGAIN):
                pass

    @property
    def nothing_to_tell(self) -> bool:
        """True where the listener thread has done all that it was asked to."""
        return self._engine.listeners.idle

    def ask_later(self, call: Callable[[], T]) -> Future[T]:
        """Have something run on the coordinator's thread, between two messages. Does not wait."""
        return self._coordinator().ask_later(call)

    @property
    def is_broken(self) -> bool:
        """True where a mistake of mpqueue's own has ended the queue."""
        return self._engine.broken is not None

    def do_later(self, call: Callable[[], object], job: JobBook) -> None:
        """The same where nobody looks at what comes of it: what it raises is a mistake of ours, which ends the job."""
        self._coordinator().do_later(call, job)

    def worker_pids(self, timeout: float | None = None) -> list[int]:
        """The process ids of the workers that are there; with ``timeout`` wait so long for those that are starting."""
        coordinator = self._coordinator()
        lanes = coordinator.scheduler.books.lanes
        if timeout is not None:
            settled: Future[None] = Future()
            coordinator.ask(
                lambda: coordinator.when(lambda: all(lane.state is not LaneState.STARTING for lane in lanes), settled)
            )
            settled.result(timeout)
        return coordinator.ask(lambda: [lane.pid for lane in lanes if lane.pid is not None])

    def now(self) -> float:
        """Seconds by the queue's clock."""
        return self._engine.clock.now()

    def abandon(self) -> None:
        """Nobody uses the queue any more: end everything, in the background. Callable inside a garbage collection."""
        self._engine.abandon()
