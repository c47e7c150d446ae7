"""The only module of the parent that reads the time."""

from __future__ import annotations

import time
from typing import Protocol

from mpqueue._os import system as clock


class Clock(Protocol):
    """The source of the coordinator's times."""

    def now(self) -> float:
        """Seconds of the monotonic clock, which workers share."""

    def wall(self) -> float:
        """Seconds since the epoch, for people."""


#: Seconds that this process has had a CPU, all its threads together.
cpu_seconds = time.process_time


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return clock.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, as the program sees them: a test may have frozen them."""
        return time.time()
