"""An alarm that a thread sets again and again, and that wakes another one only where it was not set anew in time.

A thread that looked at each chunk would need the interpreter each time, and so stop the one that runs the handlers
twice: 0.25 ms a chunk where all CPUs are busy, 0.7% of its time. The system's own timers are set anew without
waking a thread, in 2 us; where there are none (elsewhere than on Linux, or no descriptor is left) a sleeper looks every
time.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from mpqueue._os import monotonic as clock
from mpqueue._os.system import c_library, checked, choose

#: Seconds after which a thread that waits for a timer returns in any case: its descriptors may have been closed.
LONGEST_WAIT = 60.0


class Alarm(Protocol):
    """An alarm for which one thread waits; any thread may set it, the one that waits too."""

    def set(self, seconds: float) -> None:
        """Go off in so many seconds, and not when it was to go off before. Raises OSError where it is broken."""

    def wait(self) -> None:
        """Return when it has gone off since the last return; also, now and then, when it has not."""

    def close(self) -> None:
        """Free what it has. To be called when no thread waits."""


class TimerAlarm:
    """An `Alarm` by a timer of the kernel.

    It is never read, since a handler may have closed its descriptor and opened a file in its place: epoll tells each
    time that it goes off (edge-triggered).

    Raises OSError where it can't be made, AttributeError where the system has none.
    """

    def __init__(self) -> None:
        libc = c_library()
        self._set_time = libc.timerfd_settime
        self._timer = checked(libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            self._epoll = select.epoll()  # type: ignore[attr-defined,unused-ignore]
            self._epoll.register(self._timer, select.EPOLLIN | select.EPOLLET)  # type: ignore[attr-defined,unused-ignore]
        except BaseException:
            os.close(self._timer)
            raise

    def set(self, seconds: float) -> None:
        # An interval of nothing, and the time: seconds and nanoseconds each.
        after = (ctypes.c_long * 4)(0, 0, *divmod(max(1, int(seconds * 1e9)), 1_000_000_000))
        checked(self._set_time(self._timer, 0, after, None))

    def wait(self) -> None:
        """Return when the timer has gone off, or after `LONGEST_WAIT` seconds."""
        self._epoll.poll(LONGEST_WAIT)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._timer)


class SleepingAlarm:
    """A thread that sleeps until it is time, and looks then whether it still is."""

    def __init__(self) -> None:
        self._due = self._gone_off = 0.0  # the second is written by the thread that waits only
        self._until = -math.inf  #: when the thread that waits will look again by itself, which writes this too
        self._wake = threading.Event()

    def set(self, seconds: float) -> None:
        """Set the alarm; wakes the waiting thread only if that would look again too late by itself."""
        self._due = due = clock.monotonic() + seconds
        if due < self._until:
            self._wake.set()

    def wait(self) -> None:
        """Sleep until the alarm is due, however often it is set anew meanwhile."""
        while True:
            due = self._due
            until = math.inf if due == self._gone_off else due
            pause = until - clock.monotonic()
            if pause <= 0:
                self._gone_off = due
                return
            self._until = until  # said before it looks again, as `set` sets before it looks: one of both sees
            if self._due == due:
                self._wake.wait(None if until == math.inf else pause)
            self._until = -math.inf
            self._wake.clear()

    def close(self) -> None:
        """Do nothing: a sleeper has nothing open."""


def _make_timer() -> Alarm:
    try:
        return TimerAlarm()
    except (OSError, AttributeError):  # no descriptor is left, say
        return SleepingAlarm()


#: The best alarm that there is.
make_alarm: Callable[[], Alarm] = choose(linux=_make_timer, posix=SleepingAlarm)
