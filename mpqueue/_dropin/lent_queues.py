"""The queues that calls run on: the warm one that `mpqueue.map` and the like share, or one for a single call.

The warm one is made at first use, and ended when it is idle for a while. A call that has a journal, or an engine of its
own, gets its own queue.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial

from mpqueue._engines.loky.loky_pool import count_cpus
from mpqueue._options import GivenOptions
from mpqueue._os.process_handle import in_each_fork
from mpqueue._parent.interpreter_exit import is_exiting
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.replies import Bell, SafeFuture
from mpqueue._queue.arguments import journal_path
from mpqueue._queue.host import close_beside
from mpqueue._queue.job_queue import JobQueue
from mpqueue._wire.frames import THREAD_VARIABLES

#: Seconds without a call after which its workers end; it may take twice as long.
IDLE_SECONDS = 30.0


class SharedPool:
    """A queue, ended when it is idle, and the number of its calls. It grows as needed and never shrinks."""

    def __init__(
        self,
        threads: int | None = None,
        initializer: Callable[[], object] | None = None,
        backend: str | Backend = "loky",
    ) -> None:
        self._backend = backend
        self._threads = threads
        self._initializer = initializer
        self._lock = threading.RLock()  # a garbage collection may return the queue while a borrower holds the lock
        self._queue: JobQueue | None = None
        self._users = 0
        self._was_used = False  #: since the last look

    def borrow(self, concurrency: int | None) -> JobQueue:
        """Return the queue, with at least that many workers (None: one per CPU). `give_back` it once."""
        with self._lock:
            queue = self._queue
            if queue is not None and queue._host.engine.broken is not None:
                self._queue = None
                close_beside(partial(queue.close, kill=True))
                queue = None
            if queue is None:
                queue = JobQueue(
                    concurrency,
                    per_worker={"threads": self._threads},
                    initializer=self._initializer,
                    backend=self._backend,
                )
                self._look_later(queue)
                self._queue, self._users = queue, 0
            self._users += 1
            self._was_used = True
        try:
            queue._host.want_workers(count_cpus() if concurrency is None else concurrency)
        except BaseException:
            self.give_back(queue)
            raise
        return queue

    def _look_later(self, queue: JobQueue) -> None:
        look = partial(self._look, weakref.ref(queue))  # a queue's own timers must not hold it
        queue._host.engine.coordinator().inbox.call_later(IDLE_SECONDS, look)

    def _look(self, looked_at: weakref.ref[JobQueue]) -> None:
        """End the queue if there was no call between two looks. On its coordinator's thread."""
        with self._lock:
            queue = looked_at()
            if queue is None or queue is not self._queue:
                return
            was_used, self._was_used = self._was_used, False
            if was_used or self._users:
                self._look_later(queue)
                return
            self._queue = None
        with contextlib.suppress(RuntimeError):  # no room for a thread: it ends because nothing refers to it
            close_beside(queue.close)

    def give_back(self, queue: JobQueue) -> None:
        """Note that a call has ended. Callable in a garbage collection."""
        with self._lock:
            if queue is self._queue:
                self._users -= 1

    def end(self, *, kill: bool = False) -> bool:
        """End the pool and wait for that; the next call makes a new one.

        If a call uses it, returns False and leaves it running; with ``kill`` it ends too, and such calls fail.
        """
        with self._lock:
            if self._users and not kill:
                return False
            queue, self._queue = self._queue, None
        if queue is not None:
            queue.close(kill=kill)
        return True

    def reset_in_fork(self) -> None:
        """Forget the pool in a forked child: it is the parent's, and its lock may be held."""
        self._lock = threading.RLock()
        self._queue = None


# One inner thread per worker, unless the user has set it: the pool may grow to all CPUs later.
THREADS = None if any(name in os.environ for name in THREAD_VARIABLES) else 1
shared_pool = SharedPool(THREADS)
in_each_fork(shared_pool.reset_in_fork)


class Loan:
    """A queue for one call or stream, until its `end`, also as a context. ``keeps`` is held until then."""

    def __init__(self, queue: JobQueue, keeps: object = None) -> None:
        self.queue = queue
        self._keeps = keeps

    def count_workers(self) -> int:
        """Return how many workers the borrower has that asked for no number."""
        return self.queue.concurrency

    def end(self, *, kill: bool) -> None:  # noqa: ARG002 - the workers stay
        """End the loan: the borrower does not need the queue any more. With ``kill`` running items are killed.

        Does not wait. Callable anywhere, once.
        """
        self._keeps = None

    def await_end(self) -> None:
        """Wait, after `end`, until the borrower's own parts are freed. Raises errors of ending them."""

    async def await_end_later(self) -> None:
        """`await_end` that does not block the loop."""

    def __enter__(self) -> JobQueue:
        return self.queue

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(kill=kind is not None)
        self.await_end()

    async def __aenter__(self) -> JobQueue:
        return self.queue

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(kill=kind is not None)
        await self.await_end_later()


class WarmQueue(Loan):
    """The queue of a pool. Raises the errors of `SharedPool.borrow`."""

    def __init__(self, concurrency: int | None, pool: SharedPool = shared_pool) -> None:
        self._pool = pool
        super().__init__(pool.borrow(concurrency))

    def count_workers(self) -> int:
        """Return the number of CPUs: the pool has as many, or more."""
        return count_cpus()

    def end(self, *, kill: bool) -> None:  # noqa: ARG002 - the workers stay
        """Give the queue back."""
        self._pool.give_back(self.queue)


class OwnQueue(Loan):
    """A queue for a single call or stream. Raises the errors of `JobQueue`.

    It ends on a thread of its own, so that it can be dropped anywhere. Another one of this program with the same
    journal waits for that; other queues and other programs are refused meanwhile.
    """

    def __init__(self, concurrency: int | None, journal: str | os.PathLike[str] | None, engine: Backend) -> None:
        self._path = journal_path(journal)
        if self._path is not None and (closed := _closed.get(self._path)) is not None:
            closed.exception()
        threads = THREADS if engine.capabilities.own_processes and engine.capabilities.is_here else None
        super().__init__(JobQueue(concurrency, per_worker={"threads": threads}, journal=journal, backend=engine))
        self._closed: SafeFuture[None] | None = None

    @property
    def _is_fork(self) -> bool:
        return self.queue._host.engine.is_fork

    def end(self, *, kill: bool) -> None:
        """Close the queue on a thread of its own, which the program's exit waits for."""
        if self._is_fork or is_exiting():
            return
        # Otherwise the program's end would cut it short, and the journal would not be closed.
        self._closed = close_beside(partial(self.queue.close, kill=kill), is_awaited_at_exit=True)
        if self._path is not None:
            _closed[self._path] = self._closed

    def await_end(self) -> None:
        """Wait until the queue is closed. Raises `JournalError` if not all could be written."""
        if self._closed is not None and not self._is_fork:
            self._closed.result()

    async def await_end_later(self) -> None:
        """`await_end` that does not block the loop."""
        if self._closed is not None and not self._is_fork:
            bell = Bell()
            self._closed.add_done_callback(lambda _: bell.ring())
            await bell.wait()
            self._closed.result()


#: By the journal's path: the ends of queues. A fork has none of them.
_closed: weakref.WeakValueDictionary[str, SafeFuture[None]] = weakref.WeakValueDictionary()
in_each_fork(_closed.clear)


def lend(concurrency: int | None, asked: GivenOptions, engine: Backend) -> Loan:
    """Return the queue of one call: the warm one, unless it has a journal or an engine of its own.

    Raises the errors of `JobQueue`.
    """
    if asked.journal is None and asked.backend == "loky":
        return WarmQueue(concurrency)
    return OwnQueue(concurrency, asked.journal, engine)
