"""The costs of a chunk's items and the time of this worker: counted for each chunk, sent with each report.

A chunk costs six looks at the clock and two at the CPU time, 4 us in all, whatever it holds. So it is always counted,
and a job that was slow can be asked why afterwards.

How many items run under one mark, a *stretch*, follows from what is known of them. Their seconds, CPU seconds and, for
those that ran alone, the peak of memory are measured once a stretch and divided among its items, so that a tiny item
costs nothing more: 1 us a stretch, which aims at 15 ms; 4 us an item for those of 5 ms or above, 25 us more where it
needed new pages.
"""

from __future__ import annotations

import math
import time

from mpqueue._os.memory import memory_use as memory
from mpqueue._os.process.process_facts import read_run_delay
from mpqueue._wire.frames import WorkTimes
from mpqueue._wire.pace import STRETCH_SECONDS

#: Seconds between two looks there, which cost 10 us each.
INTERVAL = 0.05


class RunDelay:
    """Seconds for which the main thread was ready to run and had no CPU. Zero where the system does not tell."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._known = 0

    def begin(self, now: float) -> None:
        """Begin to count: what was before, while the worker had nothing to do, does not count."""
        if now - self._looked_at >= INTERVAL:
            self._look(now)

    def take(self, now: float) -> float:
        """Seconds since the last look; zero where that was a moment ago: then the next one has them too."""
        if now - self._looked_at < INTERVAL:
            return 0.0
        before = self._known
        self._look(now)
        return (self._known - before) / 1e9

    def _look(self, now: float) -> None:
        self._looked_at = now
        if (delay := read_run_delay()) is not None:
            self._known = delay


run_delay = RunDelay()


class ChunkTimes:
    """The times of one chunk. The totals only grow, on the main thread; a report remembers what it has counted.

    CPU times are known where the worker is a process of its own.
    """

    def __init__(self, begun: float, *, own_process: bool) -> None:
        self.loading = self.setup = self.unpacking = self.handling = self.packing = 0.0
        self._begun = begun
        self._told = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._own_process = own_process
        self._cpu = 0.0
        if own_process:
            self._cpu = time.process_time()
            run_delay.begin(begun)

    def take(self, now: float, packing: float) -> WorkTimes:
        """Take the times since the last call; ``packing`` is the seconds that this report itself has taken so far."""
        totals = (self.loading, self.setup, self.unpacking, self.handling, self.packing)
        loading, setup, unpacking, handling, packed = (
            total - told for total, told in zip(totals, self._told, strict=True)
        )
        self._told = totals
        begun, self._begun = self._begun, now
        cpu = delayed = 0.0
        if self._own_process:
            cpu, self._cpu = self._cpu, time.process_time()
            cpu, delayed = self._cpu - cpu, run_delay.take(now)
        return WorkTimes(
            begun=begun,
            ended=now,
            loading=loading,
            setup=setup,
            unpacking=unpacking,
            handling=handling,
            packing=packed + packing,
            cpu=cpu,
            delayed=delayed,
        )


#: A stretch holds at most this many times the items of the one before it.
STRETCH_GROWTH = 8
#: Seconds from which on an item goes under a mark of its own: if its worker dies, it is known which item it was.
ALONE = 0.004


def first_size(pace: float | None) -> int:
    """Items of a chunk's first stretch; ``pace`` is what an item takes, where that is known."""
    return _fitting(pace) if pace else 1


def next_size(pace: float, ran: int) -> int:
    """Items of the stretch after one of ``ran`` items."""
    return min(_fitting(max(pace, 1e-9)), ran * STRETCH_GROWTH)


def _fitting(pace: float) -> int:
    return int(STRETCH_SECONDS / pace) if pace < ALONE else 1


def expected_seconds(size: int, pace: float | None) -> float:
    """Return the seconds that a stretch of so many items will take."""
    return min(size * (pace or 0.0), STRETCH_SECONDS)


#: Seconds below which the peak of an item that ran alone is not read: it would cost more than half a percent of it.
PEAK_SECONDS = 0.005
#: Seconds that items have to take, as far as is known, for their peak to be counted at all.
WORTH_COUNTING = 0.002


class Costs:
    """The costs of one chunk. Written by the main thread, read by it and by the watchdog."""

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int, float, float]] = []  #: lo, hi, seconds an item, CPU seconds an item
        self._peaks: dict[int, int] = {}  #: by position
        self._cpu = 0.0
        self._counting = False

    def stretch_begins(self, lo: int, hi: int, pace: float | None) -> None:
        """Begin to measure the items from lo to hi; ``pace`` is what an item takes, where that is known."""
        self._counting = hi - lo == 1 and (pace is None or pace >= WORTH_COUNTING)
        if self._counting:
            memory.peak.begin()
        self._cpu = time.process_time()

    def stretch_ended(self, lo: int, hi: int, seconds: float, cut_pace: float | None, packing: float = 0.0) -> float:
        """Note that the stretch took so long; all items but the last ``cut_pace`` each, if it was cut off.

        Returns the last pace. ``packing``: seconds in which results were pickled meanwhile, which are not among them.
        The clock was not read between the items, so the last one's share is what is left.
        """
        count, cpu = hi - lo, max(0.0, time.process_time() - self._cpu - packing)
        if self._counting and seconds >= PEAK_SECONDS and (peak := memory.peak.end()) is not None:
            self._peaks[lo] = peak
        if cut_pace is not None and count > 1:
            cpu_pace = min(cut_pace, cpu / count)
            self._stretches.append((lo, hi - 1, cut_pace, cpu_pace))
            lo = hi - 1
            seconds, cpu = max(0.0, seconds - cut_pace * (count - 1)), cpu - cpu_pace * (count - 1)
        pace = seconds / (hi - lo)
        self._stretches.append((lo, hi, pace, cpu / (hi - lo)))
        return pace

    def between(self, first: int, done: int, pace: float) -> list[tuple[int, float, float]]:
        """(items, seconds an item, CPU seconds an item) from first to done; ``pace`` where a stretch has not ended."""
        known = [
            (min(hi, done) - max(lo, first), seconds, cpu)
            for lo, hi, seconds, cpu in list(self._stretches)
            if min(hi, done) > max(lo, first)
        ]
        rest = done - first - sum(count for count, _, _ in known)
        return [*known, (rest, pace, math.nan)] if rest > 0 else known

    def peaks_between(self, first: int, done: int) -> dict[int, int]:
        """The peaks that are known, by position from ``first`` on."""
        return {at - first: peak for at, peak in list(self._peaks.items()) if first <= at < done}
