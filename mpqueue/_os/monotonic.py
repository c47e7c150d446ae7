"""The monotonic clock of both sides: seconds that always pass.

Taken from `time.clock_gettime`, which neither freezegun nor time-machine changes for this clock, even if they are
loaded before this module. With a frozen `time.monotonic` a deadline would never come. It is the clock of
`time.monotonic`, so their values may be compared: on macOS that is not CLOCK_MONOTONIC, which goes on while the machine
sleeps.
"""

from __future__ import annotations

import sys
import time
from functools import partial

if sys.platform == "win32":
    # There `time.perf_counter` reads this counter, and from Python 3.13 on `time.monotonic`.
    from mpqueue._os.windows import kernel32

    monotonic, monotonic_ns = kernel32.monotonic, kernel32.monotonic_ns
else:
    #: The clock that `time.monotonic` reads.
    _CLOCK: int = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)

    #: Seconds, 0.1 us.
    monotonic = partial(time.clock_gettime, _CLOCK)

    #: Nanoseconds, as an int.
    monotonic_ns = partial(time.clock_gettime_ns, _CLOCK)
