"""The live pages of a queue, and what each is given to see and to do."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.machinery import Engine
from mpqueue._parent.running import LaneNow, LaneStack
from mpqueue.errors import JobNotFoundError, MPQueueError, QueueClosedError

if TYPE_CHECKING:
    from mpqueue._live_page.server import Page
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.registry import Registry


#: Seconds until a worker is taken for one that can't be asked.
STACK_PATIENCE = 2.0


class LivePages:
    """The pages that are open."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pages: list[Page] = []

    def add(self, page: Page) -> None:
        """To be closed with the queue."""
        with self._lock:
            self._pages.append(page)

    def close(self) -> None:
        """Everything has ended: the pages show it, and end."""
        with self._lock:
            pages, self._pages = self._pages, []
        for page in pages:
            page.close()


class QueueView:
    """Satisfies `_live_page.served.Served`. Holds the queue weakly: a page keeps no queue alive."""

    def __init__(self, queue: JobQueue, engine: Engine, jobs: Registry) -> None:
        self._queue = weakref.ref(queue)
        self._jobs = weakref.ref(jobs)
        self._engine = engine
        self._size = queue.concurrency
        self.can_resize = queue._backend.capabilities.own_processes

    @property
    def concurrency(self) -> int:
        queue = self._queue()
        if queue is not None:
            self._size = queue.concurrency
        return self._size

    def books(self) -> Sequence[JobBook] | None:
        jobs = self._jobs()
        return None if jobs is None else jobs.books()

    def lanes(self) -> Sequence[LaneNow]:
        return self._engine.lanes_now()

    def stacks(self) -> Sequence[LaneStack]:
        if not self.can_resize:
            raise MPQueueError("expected an engine with workers of the queue's own, which can be asked where they are")
        return self._engine.stacks_now(STACK_PATIENCE)

    def now(self) -> float:
        return self._engine.clock.now()

    def wall(self) -> float:
        return self._engine.clock.wall()

    def resize(self, concurrency: int) -> None:
        queue = self._queue()
        if queue is None:
            raise QueueClosedError("the queue is closed")
        queue.resize(concurrency)

    def act(self, number: int, action: str, *, kill: bool = False) -> None:
        queue = self._queue()
        if queue is None:
            raise QueueClosedError("the queue is closed")
        book = next((book for book in self.books() or () if book.number == number), None)
        if book is None:
            raise JobNotFoundError(
                f"expected a job of this queue, got number {number}, which it does not have (any more)"
            )
        match action:
            case "pause":
                queue.pause(book.id)
            case "resume":
                queue.resume(book.id)
            case "cancel":
                queue.cancel(book.id, kill=kill)
            case "retry-failed":
                queue.retry_failed(book.id)
