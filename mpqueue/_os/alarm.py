"""An alarm that a thread sets repeatedly, and that wakes another thread only if it was not set again in time.

A thread that looks at each chunk would need the interpreter each time, and so interrupt the handlers' thread twice:
0.25 ms per chunk if all CPUs are busy, 0.7% of its time. Timers of the system are set again without waking a thread, in
2 us; if there are none (on other systems than Linux, or if no descriptor is left), a sleeper looks every time.
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

from mpqueue._os import system as clock
from mpqueue._os.system import c_library, checked, choose

#: Seconds after which a thread that waits for a timer returns in any case: a handler may have closed its descriptors.
LONGEST_WAIT = 60.0


class Alarm(Protocol):
    """An alarm for which one thread waits; any thread may set it, including that one."""

    def set(self, seconds: float) -> None:
        """Go off in that many seconds, instead of at the earlier time. Raises OSError if it is broken."""

    def wait(self) -> None:
        """Return when it has gone off since the last return; now and then also when it has not."""

    def close(self) -> None:
        """Free its resources. To be called when no thread waits."""


class TimerAlarm:
    """An `Alarm` by a timer of the kernel.

    It is never read, since a handler may have closed its descriptor and opened a file in its place: epoll reports each
    time that it goes off (edge-triggered).

    Raises OSError if it can't be made, AttributeError if the system has none.
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
        # A zero interval, and the time: seconds and nanoseconds each.
        after = (ctypes.c_long * 4)(0, 0, *divmod(max(1, int(seconds * 1e9)), 1_000_000_000))
        checked(self._set_time(self._timer, 0, after, None))

    def wait(self) -> None:
        """Return when the timer has gone off, or after `LONGEST_WAIT` seconds."""
        self._epoll.poll(LONGEST_WAIT)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._timer)


class SleepingAlarm:
    """A thread that sleeps until the time, and then checks whether the time has moved."""

    def __init__(self) -> None:
        self._due = self._gone_off = 0.0  # only the waiting thread writes the second one
        self._until = -math.inf  #: the time of the waiting thread's next look, which that thread writes too
        self._wake = threading.Event()

    def set(self, seconds: float) -> None:
        """Set the alarm; wakes the waiting thread only if its next look would be too late."""
        self._due = due = clock.monotonic() + seconds
        if due < self._until:
            self._wake.set()

    def wait(self) -> None:
        """Sleep until the alarm is due, even if it is set again meanwhile."""
        while True:
            due = self._due
            until = math.inf if due == self._gone_off else due
            pause = until - clock.monotonic()
            if pause <= 0:
                self._gone_off = due
                return
            self._until = until  # written before the look, as `set` sets before its look: one of the two notices
            if self._due == due:
                self._wake.wait(None if until == math.inf else pause)
            self._until = -math.inf
            self._wake.clear()

    def close(self) -> None:
        """Do nothing: a sleeper has no resources."""


def _make_timer() -> Alarm:
    try:
        return TimerAlarm()
    except (OSError, AttributeError):  # for example, no descriptor is left
        return SleepingAlarm()


#: The best alarm of this system.
make_alarm: Callable[[], Alarm] = choose(linux=_make_timer, posix=SleepingAlarm)
