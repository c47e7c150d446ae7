"""`serve`, and what the live page of a queue is given to see and to do."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.job_book import JobBook
from mpqueue._options import QueueOptions, check_address
from mpqueue._parent.machinery import Engine
from mpqueue._parent.running import LaneNow
from mpqueue.errors import JobNotFoundError, QueueClosedError

if TYPE_CHECKING:
    from mpqueue._live_page.server import Page


class Serving:
    """The part of `JobQueue` that has pages; it sets these attributes."""

    _engine: Engine
    _options: QueueOptions
    _jobs: dict[str, JobBook]
    _jobs_lock: threading.RLock
    _pages: list[Page]
    _closed: bool

    def _check_open(self, what: str) -> None:
        raise NotImplementedError

    def serve(self, host: str = "127.0.0.1", port: int = 0, *, hosts: Iterable[str] = ()) -> Page:
        """Serve a live page of this queue's jobs, on a thread of its own; returns at once, with a `Page`.

        ``page.url`` is its address, with a token in it: whoever has that can see everything and cancel jobs, nobody
        else can do anything. ``port=0`` takes a free port. The page is for this machine; through a tunnel
        (``ssh -L``) it is for another one. With another ``host`` it is sent over the network unencrypted; ``hosts``
        are then the names under which browsers may ask for it. `close` closes it too, after the last job.

        Raises ImportError without the extra ``dashboard``, OSError where the port is taken.
        """
        self._check_open("serve a page")
        address = check_address(host, port, hosts)
        try:
            from mpqueue._live_page.server import Page  # which few programs need
        except ImportError as error:
            raise ImportError(
                f"serve() needs Starlette and uvicorn ({error}): `pip install 'mpqueue[dashboard]'`"
            ) from error
        page = Page(_View(self), *address)
        with self._jobs_lock:
            self._pages.append(page)
        if self._closed:  # meanwhile, and perhaps without this page
            self._close_pages()
        self._check_open("serve a page")
        return page

    def _close_pages(self) -> None:
        """Everything has ended: the pages show it, and end."""
        with self._jobs_lock:
            pages, self._pages = self._pages, []
        for page in pages:
            page.close()


class _View:
    """Satisfies `dashboard.served.Served`. Holds the queue weakly: a page keeps nobody's queue alive."""

    def __init__(self, queue: Any) -> None:
        self._queue = weakref.ref(queue)
        self._engine: Engine = queue._engine  # noqa: SLF001 - the other half of the same class
        self.concurrency: int = queue.concurrency

    def books(self) -> Sequence[JobBook] | None:
        queue = self._queue()
        if queue is None:
            return None
        with queue._jobs_lock:  # noqa: SLF001
            return list(queue._jobs.values())  # noqa: SLF001

    def lanes(self) -> Sequence[LaneNow]:
        return self._engine.lanes_now()

    def now(self) -> float:
        return self._engine.clock.now()

    def wall(self) -> float:
        return self._engine.clock.wall()

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
