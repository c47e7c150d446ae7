"""Time: a heap of timers, and time in which no process could run, which does not count."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from enum import IntEnum, auto
from typing import NamedTuple


class TimerKind(IntEnum):
    """The kinds of timers."""

    RETRY = auto()  #: an item's delay is over (subject: job number; detail: item index)
    LANE_CHECK = auto()  #: a timeout may have passed on a lane (subject: lane; detail: generation)
    STEAL_CHECK = auto()  #: look for items stuck behind a slow one
    LIMIT_SETTLED = auto()  #: a lowered limit is visible to the worker (subject: lane; detail: generation)
    LANE_START = auto()  #: start a worker again (subject: lane; detail: generation)
    NO_LANES = auto()  #: give up if still no worker could be started
    SETUP_AGAIN = auto()  #: a lane may try a job's setup again (subject: job number; detail: lane)
    DRAINED = auto()  #: the time of running items in a draining queue is over (detail: 1 once its workers are killed)
    STOP = auto()  #: a job stops (subject: job number; detail: 1 for its failures, 0 for its time)
    GO_ON = auto()  #: a step has asked as many lanes as it may: the next one goes on
    APART = auto()  #: an item that has to run apart has waited long enough for others, or they for it


class Timer(NamedTuple):
    """One entry; equal times keep the order in which they were set."""

    due: float
    serial: int
    kind: TimerKind
    subject: int = 0
    detail: int = 0
    epoch: int = 0


class TimerHeap:
    """A heap of timers. Entries are never removed early: their taker checks whether they are still valid."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, kind: TimerKind, subject: int = 0, detail: int = 0, epoch: int = 0) -> None:
        """Set a timer for the moment ``due``."""
        self._serial += 1
        heapq.heappush(self._heap, Timer(due, self._serial, kind, subject, detail, epoch))

    def next_due(self) -> float | None:
        """Return the moment at which the first timer falls due; None if there is none."""
        return self._heap[0].due if self._heap else None

    def take_due(self, now: float) -> list[Timer]:
        """Take out every timer that is due, in order."""
        due = []
        while self._heap and self._heap[0].due <= now:
            due.append(heapq.heappop(self._heap))
        return due

    def clear(self) -> None:
        """Forget every timer."""
        self._heap.clear()


# -- Time in which no process could run does not count. ----------------------------------------------------------------
#
# A stopped group of processes, a frozen control group or a paused virtual machine runs nothing, while the clock goes
# on. The process that wakes first must not find the others late. So the time from the coordinator's last step before
# such a sleep to the first one after it extends every running limit, and a little more, in which the workers wake too.
# (A closed laptop needs none of this: the monotonic clock stands still meanwhile.)
#
# Pure: times are arguments. `Lookout` finds sleeps, `Sleeps` keeps them. While a limit is running the coordinator reads
# the clock every `LOOK` seconds, so that a sleep extends a limit by at most that much more than it took.

#: The most seconds between two readings of the clock, while any limit is running.
LOOK = 1.0
#: Seconds by which a reading has to be late to count as sleep. A busy machine is late by less.
NOTICED = 0.5
#: Seconds after a sleep that do not count either: others may wake later.
GRACE = 1.0
#: Seconds between two readings of the CPU's clock, which takes longer than the other.
CPU_LOOK = 0.05
#: The most sleeps that are remembered. A running limit never needs more of them.
MAX_SLEEPS = 1000


class Lookout:
    """Finds out that no process could run. ``cpu`` returns the seconds that this process has had a CPU.

    A process that was late because of other work, or of another thread, has used a CPU meanwhile: that was no sleep.
    """

    def __init__(self, now: float, cpu: Callable[[], float]) -> None:
        self._cpu = cpu
        self._last = self._cpu_at = now
        self._cpu_then = cpu()

    def look(self, now: float, planned: float | None) -> float | None:
        """Look at the time, at each step; ``planned``: the longest planned wait before the step in seconds, None: any.

        Returns the moment of the step before, if there was a sleep in between.
        """
        last, self._last = self._last, now
        slept = planned is not None and now - last - planned > NOTICED
        if slept or now - self._cpu_at > CPU_LOOK:
            used, self._cpu_at = self._cpu() - self._cpu_then, now
            self._cpu_then += used
            if slept and planned is not None and now - last - planned - used > NOTICED:
                return last
        return None


class Sleeps:
    """The latest sleeps, as stretches of time that do not overlap, in order."""

    def __init__(self) -> None:
        self._sleeps: deque[tuple[float, float]] = deque(maxlen=MAX_SLEEPS)

    def add(self, since: float, until: float) -> None:
        """Note that no process could run from ``since`` to ``until``; some may have been late afterwards."""
        if self._sleeps:
            since = max(since, self._sleeps[-1][1])
        until += GRACE
        if until > since:
            self._sleeps.append((since, until))

    def after(self, moment: float) -> float:
        """Return the seconds by which a limit that began to run at that moment is extended."""
        total = 0.0
        for since, until in reversed(self._sleeps):
            if until <= moment:
                break
            total += until - max(since, moment)
        return total
