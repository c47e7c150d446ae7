"""What tests of code that uses mpqueue can use too: an engine without processes, and a clock that stands still."""

from __future__ import annotations

from typing import NoReturn

from mpqueue._engines.inline import InlinePool
from mpqueue._engines.inline import crash as _crash

__all__ = ["FakeClock", "InlinePool", "crash"]


def crash(exitcode: int | None = None, signal: str | None = "SIGKILL") -> NoReturn:
    """In a handler on an `InlinePool`: die, as far as the queue can tell, of that signal or with that exit code.

    Nothing of the chunk that was not sent counts, the item at hand is charged a try, and the rest runs again on
    the next worker. Raises a BaseException that the handler must let pass; RuntimeError anywhere else.
    """
    _crash(exitcode, signal)


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
