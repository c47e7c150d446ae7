"""The name of this system, and the choice of the forms of its facilities. Only this module decides that.

If the forms of a facility differ, its module has one for Linux and one for every POSIX system, and chooses one by
`choose` while it is loaded. So calls cost nothing more, and a test can run each form anywhere. The form for Windows is
in `mpqueue._os.windows`, which other systems don't load; if there is none, Windows uses the portable one. Facts that
only Linux reports are read below `PROC`.

The monotonic clock is here too, which every process reads. It is `time.clock_gettime`, which neither freezegun nor
time-machine changes for this clock, even if they are loaded before this module. With a frozen `time.monotonic` a
deadline would never come. It is the clock of `time.monotonic`, so their values may be compared: on macOS that is not
CLOCK_MONOTONIC, which goes on while the machine sleeps.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from functools import partial
from typing import Any, TypeVar

_L = TypeVar("_L")
_P = TypeVar("_P")

#: Python's name of this system: ``linux``, ``darwin``, ``win32``, ... Tests set ``MPQUEUE_PORTABLE=1``, which workers
#: inherit: then the portable forms are used on Linux too, as on a system without its own forms.
NAME: str = "portable" if os.environ.get("MPQUEUE_PORTABLE") == "1" else sys.platform

#: True if the kernel is Linux: its forms are used, and the portable form if the kernel refuses one.
IS_LINUX: bool = NAME == "linux"

#: The kernel's files about processes. Other systems have none there, so what Linux reports in them is unknown.
PROC: str = "/proc" if IS_LINUX else "/dev/null/proc"

#: True on Windows. Type checkers need `sys.platform` itself, which they know.
IS_WINDOWS: bool = NAME == "win32"


def choose(*, linux: _L, posix: _P) -> _L | _P:
    """Return the form for this system: ``posix`` needs only facilities that are the same on every POSIX system."""
    return linux if IS_LINUX else posix


@functools.cache
def c_library() -> Any:
    """The C library of this process, called with the global lock released. AttributeError: no such function."""
    import ctypes  # loaded only if used

    return ctypes.CDLL("ucrtbase" if IS_WINDOWS else None, use_errno=True)


def checked(result: int) -> int:
    """Return the result of a function of `c_library`; if it is negative, raise its OSError."""
    if result < 0:
        import ctypes

        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


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
