"""Sets and clears one lane's flags, on a thread that may be abandoned.

`Event.set` takes a lock that a worker killed at the wrong moment leaves taken for ever (docs/adr/0003), so no thread
that matters may call it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from multiprocessing.synchronize import Event
from typing import NamedTuple

from mpqueue._wire.flags import Flags
from mpqueue._wire.ledger import FLAG_JOB, NOBODY, Ledger


class _Order(NamedTuple):
    job: int
    pause: bool
    cancel: bool


class FlagSetter:
    """The thread of one lane, started with its first order. Owner: the lane, which calls `end`."""

    def __init__(self, flags: Flags, ledger: Ledger, name: str) -> None:
        self._flags: Flags | None = flags
        self._ledger = ledger
        self._name = name
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, job: int, *, pause: bool, cancel: bool) -> None:
        """Make the flags say this of that job, some time soon, in the order of the calls. One caller thread; 2 us."""
        if self._flags is None:
            return
        self._orders.put(_Order(job, pause, cancel))
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            # While the interpreter exits there are no new threads, and the workers are about to be killed.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def end(self) -> threading.Thread | None:
        """To be called once the worker is dead: no order is carried out any more. Returns the thread that will end."""
        flags, self._flags = self._flags, None
        self._orders.put(None)
        if self._thread is not None and flags is not None:
            for event in (flags.pause, flags.cancel):
                _free(event)
        return self._thread

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            flags = self._flags
            if flags is not None:
                # They count for nobody while they change: what they said of the last job is no news of this one.
                self._ledger.words[FLAG_JOB] = NOBODY
                _set(flags.pause, order.pause)
                _set(flags.cancel, order.cancel)
                self._ledger.words[FLAG_JOB] = order.job
            # It holds semaphores, which are to go with the lane.
            del flags


def _set(event: Event, value: bool) -> None:
    # `end` may release the lock while we hold it, and then our own release is one too many.
    with contextlib.suppress(ValueError, AssertionError):
        if value:
            event.set()
        else:
            event.clear()


def _free(event: Event) -> None:
    """Release the lock of an Event where a dead worker has left it taken, so that a `set` stuck in it comes back."""
    lock = event._cond._lock  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else gives a dead process's lock back
    lock.acquire(block=False)
    with contextlib.suppress(ValueError):
        lock.release()
