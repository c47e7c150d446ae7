"""For tests of code that uses mpqueue: an engine without processes, a clock that stands still, a clean end."""

from __future__ import annotations

from typing import NoReturn

from mpqueue._engines.inline import InlinePool
from mpqueue._engines.inline import crash as _crash

__all__ = ["FakeClock", "InlinePool", "close_shared_pool", "crash", "facts"]


def crash(exitcode: int | None = None, signal: str | None = "SIGKILL") -> NoReturn:
    """Die, in a handler on an `InlinePool`, as far as the queue can tell, of that signal or with that exit code.

    Nothing of the chunk that was not sent counts, the item at hand is charged a try, and the rest runs again on
    the next worker. Raises a BaseException that the handler must let pass; RuntimeError anywhere else.
    """
    _crash(exitcode, signal)


def close_shared_pool(*, kill: bool = False) -> bool:
    """End the workers that `map`, `imap` and their kin share, and wait for their ends; the next call starts new ones.

    They end by themselves half a minute after the last call, and with the program; a test ends them where it looks at
    processes, or where the next test is to begin with new ones. If a call uses them, returns False and leaves them
    alone; with ``kill``, ends them all the same, and such calls fail. Else returns True, also where there are none.
    """
    from mpqueue._dropin.lent_queues import shared_pool  # not needed for the rest

    if kill:
        shared_pool.close()
        return True
    return shared_pool.end_if_idle()


def facts() -> dict[str, bool]:
    """Return, by name, whether each facility of the operating system is there; tried out once in this process.

    ``shared memory``: big items and results go through it, else through a socket; ``leases``: it is used again.
    ``leash``: workers end with the program also while they hold the GIL. ``pidfd``: the kernel tells of ends.
    ``process table``: processes that left their worker's group are found. ``unnamed semaphores``: nothing of them can
    stay in ``/dev/shm``.
    """
    from mpqueue._os.facts import facts as found  # few programs ask

    return dict(found())


class FakeClock:
    """A clock whose time passes only by `advance`; starts at 0, on a wall clock of 1,000,000,000."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch, as this clock has it."""
        return 1_000_000_000.0 + self._now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._now += seconds
