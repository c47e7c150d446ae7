"""The one warm pool that `mpqueue.map` and its kin share: made when first needed, gone when idle for a while."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from mpqueue._engine.pool import count_cpus
from mpqueue.options import check_concurrency
from mpqueue.queue import JobQueue

#: Seconds without a call after which its workers end.
IDLE_SECONDS = 30.0


class SharedPool:
    """A queue, how many calls use it, and the timer that ends it. Grows to what is asked, never shrinks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a garbage collection may give back while a borrower holds it
        self._queue: JobQueue | None = None
        self._owner = 0
        self._users = 0
        self._timer: threading.Timer | None = None

    def borrow(self, concurrency: int | None) -> JobQueue:
        """The queue, with at least so many workers (None: one for each CPU). `give_back` it once."""
        if concurrency is not None:
            check_concurrency(concurrency)
        with self._lock:
            if self._queue is None:
                self._queue, self._owner, self._users = JobQueue(concurrency), os.getpid(), 0
            self._users += 1
            self._cancel_timer()
            queue = self._queue
        try:
            queue.want_workers(count_cpus() if concurrency is None else concurrency)
        except BaseException:
            self.give_back(queue)
            raise
        return queue

    def give_back(self, queue: JobQueue) -> None:
        """A call has ended. Callable from a garbage collection."""
        with self._lock:
            if queue is not self._queue or self._owner != os.getpid():
                return
            self._users -= 1
            if self._users == 0:
                self._timer = threading.Timer(IDLE_SECONDS, self._end_if_idle)
                self._timer.name = "mpqueue-idle-pool"
                self._timer.daemon = True
                with contextlib.suppress(RuntimeError):  # the interpreter is exiting
                    self._timer.start()

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
        with self._lock:
            queue, self._queue = self._queue, None
            self._cancel_timer()
        if queue is not None and self._owner == os.getpid():
            queue.close(kill=True)

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._users or self._queue is None:
                return
            queue, self._queue = self._queue, None
        queue.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset_in_fork(self) -> None:
        """In a forked child: the parent's pool is not ours, and its lock may be taken."""
        self._lock = threading.RLock()
        self._queue, self._timer, self._users = None, None, 0


shared_pool = SharedPool()
os.register_at_fork(after_in_child=shared_pool.reset_in_fork)
