"""A thread that does things in order: started with the first one, and left behind where it is stuck in one."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable


class Errands:
    """Owner: a lane, which calls `end`. One thread puts; what is put must not raise."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._put = 0  # each of the two is written by one thread
        self._done = 0
        self.thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """True where something that was put has not been done."""
        return self._put != self._done

    def put(self, errand: Callable[[], object]) -> None:
        """Have ``errand`` done some time soon. 2 us."""
        self._put += 1
        self._waiting.put(errand)
        if self.thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            # While the interpreter exits there are no new threads, and the workers are about to be killed.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self.thread = thread

    def end(self) -> None:
        """The thread ends once it has done what was put before."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (errand := self._waiting.get()) is not None:
            errand()
            del errand  # what it holds must not live until the next one
            self._done += 1
