"""The one warm pool that `mpqueue.map` and its kin share: made when first needed, gone when idle for a while."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from mpqueue._engines.loky.loky_pool import count_cpus
from mpqueue._options import check_concurrency
from mpqueue._os.process.own_forks import in_each_fork
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.surroundings.replies import SafeEvent
from mpqueue._queue.job_queue import JobQueue
from mpqueue._wire.means import THREAD_VARIABLES

#: Seconds without a call after which its workers end; at most twice as long.
IDLE_SECONDS = 30.0


class SharedPool:
    """A queue, how many calls use it, and the thread that ends it when idle. Grows to what is asked, never shrinks."""

    def __init__(
        self,
        threads_per_worker: int | None = None,
        initializer: Callable[[], object] | None = None,
        backend: str | Backend = "loky",
    ) -> None:
        self._backend = backend
        self._threads = threads_per_worker
        self._initializer = initializer
        self._lock = threading.RLock()  # a garbage collection may give back while a borrower holds it
        self._queue: JobQueue | None = None
        self._owner = 0
        self._users = 0
        self._was_used = False  #: since the thread last looked
        self._over = SafeEvent()  #: set when the queue is ended

    def borrow(self, concurrency: int | None) -> JobQueue:
        """The queue, with at least so many workers (None: one for each CPU). `give_back` it once."""
        if concurrency is not None:
            check_concurrency(concurrency)
        with self._lock:
            if self._queue is not None and self._queue._host.is_broken:
                self._leave()
            if self._queue is None:
                self._open(concurrency)
            queue = self._queue
            assert queue is not None
            self._users += 1
            self._was_used = True
        try:
            queue._host.want_workers(count_cpus() if concurrency is None else concurrency)
        except BaseException:
            self.give_back(queue)
            raise
        return queue

    def _open(self, concurrency: int | None) -> None:
        self._queue = JobQueue(
            concurrency, threads_per_worker=self._threads, initializer=self._initializer, backend=self._backend
        )
        self._owner, self._users, self._over = os.getpid(), 0, SafeEvent()
        watch = threading.Thread(target=self._watch, args=(self._over,), name="mpqueue-idle-pool", daemon=True)
        watch.start()

    def _watch(self, over: SafeEvent) -> None:
        """On a thread of its own: end the pool when there was no call between two looks."""
        while not over.wait(IDLE_SECONDS):
            with self._lock:
                was_used, self._was_used = self._was_used, False
            if not was_used:
                self.end_if_idle()

    def give_back(self, queue: JobQueue) -> None:
        """A call has ended. Callable from a garbage collection."""
        with self._lock:
            if queue is self._queue and self._owner == os.getpid():
                self._users -= 1

    @contextlib.contextmanager
    def lease(self, concurrency: int | None) -> Iterator[JobQueue]:
        """`borrow` and `give_back`."""
        queue = self.borrow(concurrency)
        try:
            yield queue
        finally:
            self.give_back(queue)

    def close(self) -> None:
        """End the pool now; the next call makes a new one. Calls that use it fail."""
        queue = self._take()
        if queue is not None and self._owner == os.getpid():
            queue.close(kill=True)

    def end_if_idle(self) -> bool:
        """End the pool, but where a call uses it, which is False; the next call makes a new one."""
        with self._lock:
            if self._users:
                return False
            queue = self._take()
        if queue is not None:
            queue.close()
        return True

    def _take(self) -> JobQueue | None:
        with self._lock:
            queue, self._queue = self._queue, None
            self._over.set()
        return queue

    def _leave(self) -> None:
        """A mistake of mpqueue's own has ended the queue: the next one is another."""
        queue = self._take()
        if queue is not None and self._owner == os.getpid():
            threading.Thread(target=queue.close, kwargs={"kill": True}, name="mpqueue-closer", daemon=True).start()

    def reset_in_fork(self) -> None:
        """In a forked child: the parent's pool is not ours, and its lock may be taken."""
        self._lock = threading.RLock()
        self._queue = None


# One inner thread a worker, unless the user has said how many: whatever was asked first, it may grow to all CPUs.
THREADS = None if any(name in os.environ for name in THREAD_VARIABLES) else 1
shared_pool = SharedPool(THREADS)
in_each_fork(shared_pool.reset_in_fork)
