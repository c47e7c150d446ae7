"""The queues that calls run on: the warm one that all share; one of its own for a journal or another engine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future

from mpqueue._dropin.shared_pool import THREADS, shared_pool
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.surroundings.interpreter_exit import is_exiting
from mpqueue._queue.choosing import choose_backend, journal_path
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.mailbox import Bell


def is_warm(journal: str | os.PathLike[str] | None, backend: str | Backend) -> bool:
    """True where a call needs no queue of its own."""
    return journal is None and isinstance(backend, str)


def own_queue(concurrency: int | None, journal: str | os.PathLike[str] | None, backend: str | Backend) -> JobQueue:
    """A queue for one call. Raises what `JobQueue` raises."""
    engine = choose_backend(backend)
    threads = THREADS if engine.capabilities.own_processes and engine.capabilities.is_here else None
    return JobQueue(concurrency, threads_per_worker=threads, journal=journal, backend=engine)


@contextlib.contextmanager
def queue_for(
    concurrency: int | None, journal: str | os.PathLike[str] | None, backend: str | Backend
) -> Iterator[JobQueue]:
    """The queue of one call, which waits for its end. Raises what `JobQueue` raises."""
    if is_warm(journal, backend):
        with shared_pool.lease(concurrency) as queue:
            yield queue
    else:
        with own_queue(concurrency, journal, backend) as queue:
            yield queue


@contextlib.asynccontextmanager
async def queue_in_loop_for(
    concurrency: int | None, journal: str | os.PathLike[str] | None, backend: str | Backend
) -> AsyncIterator[JobQueue]:
    """`queue_for` that does not block the loop."""
    if is_warm(journal, backend):
        with shared_pool.lease(concurrency) as queue:
            yield queue
    else:
        async with own_queue(concurrency, journal, backend) as queue:
            yield queue


class WarmQueue:
    """The queue of the shared pool. Raises what `SharedPool.borrow` raises."""

    def __init__(self, concurrency: int | None) -> None:
        self.queue = shared_pool.borrow(concurrency)

    def end(self, *, kill: bool) -> None:  # noqa: ARG002 - the workers stay
        """See `Loan`."""
        shared_pool.give_back(self.queue)

    def await_end(self) -> None:
        """See `Loan`."""

    async def await_end_later(self) -> None:
        """`await_end` that does not block the loop."""


class OwnQueue:
    """A queue for one stream alone. Raises what `JobQueue` raises.

    It ends on a thread of its own, so that it can be dropped anywhere. Another stream of this program with the same
    journal waits for that; other queues and other programs are refused meanwhile.
    """

    def __init__(self, concurrency: int | None, journal: str | os.PathLike[str] | None, backend: str | Backend) -> None:
        self._path = journal_path(journal)
        if self._path is not None and (ending := _ending.get(self._path)) is not None:
            ending._join()
        self.queue = own_queue(concurrency, journal, backend)
        self._owner: int = os.getpid()
        self._ended: Future[None] = Future()
        self._thread: threading.Thread | None = None

    def end(self, *, kill: bool) -> None:
        """See `Loan`."""
        if os.getpid() != self._owner:
            return
        # Not a daemon: else the program's end would cut it short, and the journal would not be closed.
        if is_exiting():
            self._ended.set_result(None)
            return
        self._thread = threading.Thread(target=self._close, args=(kill,), name="mpqueue-closer", daemon=False)
        if self._path is not None:
            _ending[self._path] = self
        self._thread.start()

    def _close(self, kill: bool) -> None:
        try:
            self.queue.close(kill=kill)
        except BaseException as error:  # noqa: BLE001 - raised where its end is waited for
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)
        finally:
            if self._path is not None and _ending.get(self._path) is self:
                del _ending[self._path]

    def _join(self) -> None:
        if self._thread is not None and self._owner == os.getpid():
            self._thread.join()

    def await_end(self) -> None:
        """See `Loan`. Raises `JournalError` where not all could be written into the journal."""
        if os.getpid() == self._owner:
            self._join()
            self._ended.result()

    async def await_end_later(self) -> None:
        """`await_end` that does not block the loop."""
        if os.getpid() == self._owner:
            bell = Bell()
            self._ended.add_done_callback(lambda _: bell.ring())
            await bell.wait()
            self._ended.result()


#: By the journal's path: what is ending now. A fork has none of it.
_ending: dict[str, OwnQueue] = {}


LentQueue = WarmQueue | OwnQueue
