"""The system's counter: the same for all processes, and not changed by what freezes Python's clocks."""

from __future__ import annotations

import ctypes
import sys

from mpqueue._os.windows import kernel32

assert sys.platform == "win32"


def _frequency() -> int:
    found = ctypes.c_int64()
    kernel32.checked(kernel32.performance_frequency(found))
    return found.value


_PER_SECOND = _frequency()


def monotonic_ns() -> int:
    """Nanoseconds since the machine was started. 1 us."""
    count = ctypes.c_int64()
    kernel32.performance_counter(count)
    return count.value * 1_000_000_000 // _PER_SECOND


def monotonic() -> float:
    """Seconds since the machine was started. 1 us."""
    count = ctypes.c_int64()
    kernel32.performance_counter(count)
    return count.value / _PER_SECOND
