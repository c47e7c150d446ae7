"""The end of a queue, by `JobQueue.close` or by leaving a ``with`` block."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mpqueue._parent.machinery import PATIENCE, Engine
from mpqueue._parent.surroundings.interpreter_exit import is_exiting
from mpqueue._parent.surroundings.replies import Reply
from mpqueue._queue.mailbox import Bell
from mpqueue._queue.open_runs import OpenRuns
from mpqueue.errors import QueueClosedError

if TYPE_CHECKING:
    from mpqueue._live_page.server import Page


class Closer:
    """Knows whether the queue is open, and ends it once. Any thread may call any method."""

    def __init__(self, engine: Engine, runs: OpenRuns) -> None:
        self._engine = engine
        self._runs = runs
        self._pages: weakref.WeakSet[Page] = weakref.WeakSet()  #: the thread of an open page holds it
        self.closed = False
        self._thread: threading.Thread | None = None

    def check_open(self, what: str) -> None:
        """Raise `QueueClosedError` if the queue is closed, or belongs to another process."""
        self._engine.check_process()
        if self.closed:
            raise QueueClosedError(f"expected an open queue to {what}, got one that was closed; make a new one")
        if (broken := self._engine.broken) is not None:
            raise broken

    def show_end(self, page: Page) -> None:
        """Close the page together with the queue; at once if the queue was closed meanwhile."""
        self._pages.add(page)
        if self.closed:
            self._close_pages()

    def _close_pages(self) -> None:
        for page in [*self._pages]:
            page.close()

    def close(self, owner: object, *, wait: bool, kill: bool) -> None:
        """End the queue, as `JobQueue.close` says.

        The ``owner``, the queue, is held until all has ended: a queue without references is killed.
        """
        self._engine.check_process()
        self.closed = True
        here = self._engine.is_awaited_here
        if kill and not here:
            self._end(owner, kill=True)
            return
        self._engine.close_jobs(cancel=here or not wait)
        self._finish(partial(self._end, owner, kill=kill), wait=wait and not here)

    def drain(self, owner: object, within: float) -> None:
        """Drain the queue, as `JobQueue.drain` says; ``owner`` as in `close`."""
        self._engine.check_process()
        self.closed = True
        by = self._engine.clock.now() + within
        self._engine.close_jobs(cancel=True, within=within)
        self._finish(partial(self._end, owner, by=by), wait=not self._engine.is_awaited_here)

    def _finish(self, end: Callable[[], None], *, wait: bool) -> None:
        if wait:
            end()
            self._engine.check_written()
        elif self._thread is None and not is_exiting():
            self._thread = threading.Thread(target=end, name="mpqueue-closer", daemon=True)
            self._thread.start()

    def _end(self, _: object, *, kill: bool = False, by: float | None = None) -> None:
        """Wait for the runs and end everything, or wait until another thread has done so.

        ``by`` is the time by which the jobs of a draining queue should be over.
        """
        if not kill:
            patience = None if by is None else max(0.0, by - self._engine.clock.now()) + PATIENCE
            self._await_runs(patience)
            # The wait was cut short, or listeners take too long.
            kill = self._engine.cut_short.is_set() or not all(run.done() for run in self._runs)
        if kill:
            for run in self._runs:
                run._end_bar()
        self._engine.shutdown(kill=kill, wait_for_listeners=not kill, by=by)
        self._engine.await_end(by)
        self._close_pages()

    def _await_runs(self, patience: float | None) -> None:
        now = self._engine.clock.now
        until = None if patience is None else now() + patience
        for run in list(self._runs):
            run._over.wait(None if until is None else max(0.0, until - now()), self._engine.cut_short)

    async def close_beside_loop(self, close: Callable[[], None]) -> None:
        """Call ``close`` on another thread and wait for it, while the event loop goes on.

        If the wait is interrupted, everything ends at once, as with ``kill``; the call waits for that too.
        """
        closed = Reply[None]()
        alarm = Bell()

        def run() -> None:
            try:
                close()
                closed.set_result(None)
            except BaseException as failure:  # noqa: BLE001 - raised by the code that leaves the block
                closed.set_exception(failure)
            finally:
                alarm.ring()

        thread = threading.Thread(target=run, name="mpqueue-closer", daemon=True)
        thread.start()
        try:
            await alarm.wait()
        except BaseException as interruption:
            self._engine.cut_short.set()
            if not isinstance(interruption, GeneratorExit):  # the coroutine was dropped, and can't await
                await alarm.wait_shielded()
            raise
        finally:
            thread.join()  # the thread is at its end once it has rung
        closed.result()
