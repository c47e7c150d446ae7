"""Time in which no process could run does not count.

A stopped group of processes, a frozen control group or a paused virtual machine runs nothing, while the clock goes on.
Whichever process wakes first must not find that the others are late. So the time from the coordinator's last step
before such a sleep to the first one after it puts off every limit that was running, and a little more, in which the
workers wake too. (A laptop that is closed needs none of this: the monotonic clock stands still meanwhile.)

Pure: times are arguments. `Lookout` finds sleeps, `Sleeps` keeps them. While a limit is running the coordinator looks
at the clock every `LOOK` seconds, so that a sleep puts off a limit by that much more than it took, at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

#: Seconds between two looks at the clock, at most, while any limit is running.
LOOK = 1.0
#: Seconds by which a look has to be late to count as sleep. A busy machine is late by less.
NOTICED = 0.5
#: Seconds after a sleep that do not count either: others may wake later.
GRACE = 1.0
#: Seconds between two looks at the CPU's clock, which takes longer than the other.
CPU_LOOK = 0.05
#: Sleeps that are remembered. No limit sees as many that are not far behind it.
MOST = 1000


class Lookout:
    """Finds out that no process could run. ``cpu`` tells the seconds that this process has had a CPU.

    A process that was late because it had something else to do, or was kept from it by another of its threads, has used
    a CPU meanwhile: that was no sleep.
    """

    def __init__(self, now: float, cpu: Callable[[], float]) -> None:
        self._cpu = cpu
        self._last = self._cpu_at = now
        self._cpu_then = cpu()

    def look(self, now: float, planned: float | None) -> float | None:
        """Look at the time, at each step; ``planned``: seconds that it might be waited before the step, None: any.

        Returns the moment of the step before, where there was a sleep in between.
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
    """The sleeps of late, as stretches of time that do not overlap, in order."""

    def __init__(self) -> None:
        self._sleeps: deque[tuple[float, float]] = deque(maxlen=MOST)

    def add(self, since: float, until: float) -> None:
        """Note that no process could run from ``since`` to ``until``; some may have been late afterwards."""
        if self._sleeps:
            since = max(since, self._sleeps[-1][1])
        until += GRACE
        if until > since:
            self._sleeps.append((since, until))

    def after(self, moment: float) -> float:
        """Return the seconds by which a limit is put off that began to run at that moment."""
        total = 0.0
        for since, until in reversed(self._sleeps):
            if until <= moment:
                break
            total += until - max(since, moment)
        return total
