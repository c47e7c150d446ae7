"""One thread that starts all workers of a pool, one after another.

The kernel kills a worker when the *thread* that started it ends (`PR_SET_PDEATHSIG`), so that thread must outlive all
its workers; and threads that loky starts for a lane inherit from it that they are daemons, which no exit waits for,
and that a pipe whose worker is dead is an error.
Knows nothing of lanes or loky.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker

from mpqueue._os import standard_streams
from mpqueue._os.memory import locks
from mpqueue._os.process.process_signals import block_interrupts, report_broken_pipes

Start = Callable[[], object]


class Starter:
    """The thread, started at once. Owner: the pool, which calls `stop` when its last worker is gone.

    ``on_fault`` gets what a start has raised, which none should.
    """

    def __init__(self, name: str, on_end: Callable[[], object], on_fault: Callable[[BaseException], object]) -> None:
        self._on_fault = on_fault
        self._starts: queue.SimpleQueue[Start | None] = queue.SimpleQueue()
        self._on_end = on_end
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def submit(self, start: Start) -> None:
        """Have ``start`` called on the starter's thread. From any thread; never blocks."""
        self._starts.put(start)

    def stop(self) -> None:
        """End the thread after the starts that were submitted before; ``on_end`` is its last act."""
        self._starts.put(None)

    def _run(self) -> None:
        report_broken_pipes()
        try:
            while (start := self._starts.get()) is not None:
                standard_streams.keep_taken()
                _block_interrupts()
                try:
                    start()
                except BaseException as error:
                    self._on_fault(error)
                # A start holds a lane's semaphores; it must not be held while this thread waits for the next one.
                del start
        finally:
            self._on_end()


def _block_interrupts() -> None:
    """Block SIGINT, as a worker inherits: a Ctrl-C can't hit it before it has left the terminal's group.

    Before every start, since Python 3.11 unblocks SIGINT whenever it starts the resource tracker, which semaphores
    that have names do.
    """
    if not locks.AVAILABLE:
        with contextlib.suppress(Exception):  # no descriptors, say: then the start fails for the same reason, and tells
            resource_tracker.ensure_running()
    block_interrupts()
