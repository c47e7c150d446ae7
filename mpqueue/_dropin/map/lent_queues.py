"""The queues that streams run on: the warm one that all calls share, or, for one with a journal, one of its own."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from typing import Protocol

from mpqueue._dropin.shared_pool import THREADS, shared_pool
from mpqueue._queue.choosing import journal_path
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.mailbox import Bell


class LentQueue(Protocol):
    """A queue for one stream, until its `end`."""

    queue: JobQueue

    def end(self, *, kill: bool) -> None:
        """It is not needed any more; with ``kill`` what runs is ended at once.

        Does not wait. Callable anywhere, once.
        """

    def await_end(self) -> None:
        """After `end`: wait until what was the stream's alone is free. Raises what ending it has raised."""

    async def await_end_later(self) -> None:
        """`await_end` that does not block the loop."""


class WarmQueue:
    """The queue of the shared pool. Raises what `SharedPool.borrow` raises."""

    def __init__(self, concurrency: int | None) -> None:
        self.queue = shared_pool.borrow(concurrency)

    def end(self, *, kill: bool) -> None:  # noqa: ARG002 - the workers stay
        """See `LentQueue`."""
        shared_pool.give_back(self.queue)

    def await_end(self) -> None:
        """See `LentQueue`."""

    async def await_end_later(self) -> None:
        """See `LentQueue`."""


class OwnQueue:
    """A queue with a journal, which others can have once it has ended. Raises what `JobQueue` raises.

    It ends on a thread of its own, so that it can be dropped anywhere. Another stream of this program with the same
    journal waits for that; other queues and other programs are refused meanwhile.
    """

    def __init__(self, concurrency: int | None, journal: str | os.PathLike[str]) -> None:
        self._path = journal_path(journal)
        if (ending := _ending.get(self._path)) is not None:
            ending._join()
        self.queue = JobQueue(concurrency, threads_per_worker=THREADS, journal=journal)
        self._owner: int = os.getpid()
        self._ended: Future[None] = Future()
        self._thread: threading.Thread | None = None

    def end(self, *, kill: bool) -> None:
        """See `LentQueue`."""
        if os.getpid() != self._owner:
            return
        # Not a daemon: else the program's end would cut it short, and the journal would not be closed.
        if sys.is_finalizing():  # all queues have ended, and no thread would begin
            self._ended.set_result(None)
            return
        self._thread = threading.Thread(target=self._close, args=(kill,), name="mpqueue-closer", daemon=False)
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
            if _ending.get(self._path) is self:
                del _ending[self._path]

    def _join(self) -> None:
        if self._thread is not None and self._owner == os.getpid():
            self._thread.join()

    def await_end(self) -> None:
        """See `LentQueue`. Raises `JournalError` where not all could be written into the journal."""
        if os.getpid() == self._owner:
            self._join()
            self._ended.result()

    async def await_end_later(self) -> None:
        """See `LentQueue`."""
        if os.getpid() == self._owner:
            bell = Bell()
            self._ended.add_done_callback(lambda _: bell.ring())
            await bell.wait()
            self._ended.result()


#: By the journal's path: what is ending now. A fork has none of it.
_ending: dict[str | None, OwnQueue] = {}
