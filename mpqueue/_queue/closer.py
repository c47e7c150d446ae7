"""How a queue ends: `JobQueue.close`, leaving a ``with`` block, and what both promise."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable

from mpqueue._parent.machinery import Engine
from mpqueue._queue.live_pages import LivePages
from mpqueue._queue.mailbox import Bell
from mpqueue._queue.open_runs import OpenRuns
from mpqueue.errors import QueueClosedError


class Closer:
    """Knows whether the queue is open, and ends it once. Any thread may call any method."""

    def __init__(self, engine: Engine, runs: OpenRuns, pages: LivePages) -> None:
        self._engine = engine
        self._runs = runs
        self._pages = pages
        self.closed = False
        self._thread: threading.Thread | None = None

    def check_open(self, what: str) -> None:
        """Raise `QueueClosedError` where the queue is closed, or belongs to another process."""
        self._engine.check_process()
        if self.closed:
            raise QueueClosedError(f"expected an open queue to {what}, got one that was closed; make a new one")
        if (broken := self._engine.broken) is not None:
            raise broken

    def close(self, owner: object, *, wait: bool, kill: bool) -> None:
        """See `JobQueue.close`. The ``owner``, the queue, is held until all has ended: dropped, it would be killed."""
        self._engine.check_process()
        self.closed = True
        here = self._engine.listeners.is_here
        if kill and not here:
            for run in self._runs:
                run._end_bar()
            self._engine.shutdown(kill=True)
            self._pages.close()
            return
        self._engine.close_jobs(cancel=here or not wait)
        if wait and not here:
            self._finish(owner, kill=False)
            self._engine.check_written()
        elif self._thread is None:
            self._thread = threading.Thread(
                target=self._finish, args=(owner,), kwargs={"kill": kill}, name="mpqueue-closer", daemon=True
            )
            self._thread.start()

    def _finish(self, _: object, *, kill: bool) -> None:
        if not kill:
            concurrent.futures.wait(list(self._runs))
        self._engine.shutdown(kill=kill, wait_for_listeners=not kill)
        self._pages.close()

    async def close_beside_loop(self, close: Callable[[], None], kill: Callable[[], None]) -> None:
        """Call ``close`` on another thread, and wait for it; where that is interrupted, call ``kill`` and wait on."""
        closed: concurrent.futures.Future[None] = concurrent.futures.Future()
        alarm = Bell()

        def run() -> None:
            try:
                close()
                closed.set_result(None)
            except BaseException as failure:  # noqa: BLE001 - raised by whoever leaves the block
                closed.set_exception(failure)
            finally:
                alarm.ring()

        thread = threading.Thread(target=run, name="mpqueue-closer", daemon=True)
        thread.start()
        try:
            await alarm.wait()
        except BaseException:
            kill()
            thread.join()
            raise
        closed.result()
