"""Sets and clears one lane's flags, on a thread that may be abandoned.

`Event.set` takes a lock that a worker killed at the wrong moment leaves taken for ever (docs/adr/0004), so no thread
that matters may call it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from multiprocessing.synchronize import Event

from mpqueue._parent.users_threads import Errands
from mpqueue._wire.memory.ledger import Ledger
from mpqueue._wire.seed import Flags


class FlagSetter:
    """The thread of one lane, started with its first order. Owner: the lane, which calls `end`."""

    def __init__(self, flags: Flags, ledger: Ledger, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self._flags: Flags | None = flags
        self._ledger = ledger
        self._errands = Errands(name, on_fault)

    def put(self, job: int, *, pause: bool, cancel: bool) -> None:
        """Make the flags say this of that job, some time soon, in the order of the calls. One caller thread; 2 us."""
        if self._flags is not None:
            self._errands.put(functools.partial(self._carry_out, job, pause, cancel))

    def end(self) -> threading.Thread | None:
        """To be called once the worker is dead: no order is carried out any more. Returns the thread that will end."""
        flags, self._flags = self._flags, None
        self._errands.end()
        if self._errands.thread is not None and flags is not None:
            for event in (flags.pause, flags.cancel):
                _free(event)
        return self._errands.thread

    def _carry_out(self, job: int, pause: bool, cancel: bool) -> None:
        flags = self._flags
        if flags is not None:
            # They count for no job while they change: what they said of the last job does not hold for this one.
            self._ledger.withdraw_flags()
            _set(flags.pause, pause)
            _set(flags.cancel, cancel)
            self._ledger.give_flags(job)


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
