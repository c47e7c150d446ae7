"""What tests of code that uses mpqueue can use too: a clock that stands still until it is told."""

from __future__ import annotations


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
