"""The monotonic clock of both sides: seconds that always pass.

Taken from `time.clock_gettime`, which neither freezegun nor time-machine changes for this clock, whether they came
before this module or after it. With a frozen `time.monotonic` a deadline would never come. It is the same clock, so its
numbers may be compared with those of the other: on macOS that is not CLOCK_MONOTONIC, which goes on while the machine
sleeps.
"""

from __future__ import annotations

import time
from functools import partial

#: The one that `time.monotonic` reads.
_CLOCK: int = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)

#: Seconds, 0.1 us.
monotonic = partial(time.clock_gettime, _CLOCK)

#: The same in nanoseconds, as an int.
monotonic_ns = partial(time.clock_gettime_ns, _CLOCK)
