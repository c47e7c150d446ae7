"""For tests of code that uses mpqueue: an engine without processes, a clock that tests set, a clean end."""

from __future__ import annotations

from typing import NoReturn

from mpqueue._engines.inline import InlinePool
from mpqueue._engines.inline import crash as _crash

__all__ = ["FakeClock", "InlinePool", "close_shared_pool", "crash", "facts"]


def crash(exitcode: int | None = None, signal: str | None = "SIGKILL") -> NoReturn:
    """Simulate the death of the worker by that signal or with that exit code, in a handler on an `InlinePool`.

    The chunk's results that were not yet sent are lost, the current item loses a try, and the rest runs again on the
    next worker. Raises a BaseException that the handler must let pass; elsewhere RuntimeError.
    """
    _crash(exitcode, signal)


def close_shared_pool(*, kill: bool = False) -> bool:
    """End the workers that `map`, `imap` and the like share, and wait for their ends; the next call starts new ones.

    They end by themselves 30 s after the last call, and with the program; a test ends them if it looks at processes, or
    if the next test needs new ones. If a call uses them, returns False and leaves them running; with ``kill``, they end
    too, and such calls fail. Otherwise returns True, even if there are none.
    """
    from mpqueue._dropin.lent_queues import shared_pool  # the other functions don't need it

    return shared_pool.end(kill=kill)


def facts() -> dict[str, bool]:
    """Return, by name, whether each facility of the operating system works here; tried out once per process.

    ``shared memory``: for big items and results, else a socket; ``leases``: it is used again. ``leash``: workers end
    with the program even while they hold the GIL. ``pidfd``: the kernel reports ends. ``process table``: processes that
    left their worker's group are found. ``unnamed semaphores``: they leave nothing in ``/dev/shm``.
    """
    from mpqueue._os.facts import facts as found  # few programs use it

    return dict(found())


class FakeClock:
    """A clock whose time passes only by `advance`; starts at 0, its wall clock at 1,000,000,000 s."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch, by this clock."""
        return 1_000_000_000.0 + self._now

    def advance(self, seconds: float) -> None:
        """Let that many seconds pass."""
        self._now += seconds
