"""The costs of a chunk's items and the use of this worker's time: measured for each chunk, sent with each report.

A chunk costs six readings of the clock and two of the CPU time, 4 us in total, for any number of items. So it is always
measured, and a slow job can be explained afterwards.

How many items run under one mark, a *stretch*, follows from their known times. Their seconds, CPU seconds and, for
those that ran alone, the peak of memory are measured once per stretch and divided among its items, so that a tiny item
costs nothing more: 1 us per stretch, which aims at 15 ms; 25 us per item of 5 ms or above.
"""

from __future__ import annotations

import math
import time

from mpqueue._os import process_facts as memory
from mpqueue._os.process_facts import read_run_delay
from mpqueue._wire.frames import STRETCH_SECONDS, WorkTimes

#: Seconds between two readings, which cost 10 us each.
READ_INTERVAL_S = 0.05


class RunDelay:
    """Seconds for which the main thread was ready to run and had no CPU. Zero if the system does not report it."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._known = 0

    def begin(self, now: float) -> None:
        """Begin to count: time before, while the worker had nothing to do, does not count."""
        if now - self._looked_at >= READ_INTERVAL_S:
            self._look(now)

    def take(self, now: float) -> float:
        """Take the seconds since the last reading; zero if that was a moment ago: then the next one includes them."""
        if now - self._looked_at < READ_INTERVAL_S:
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

    CPU times are known if the worker has its own process.
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
        """Take the times since the last call; ``packing`` is the seconds of this report itself so far."""
        told, self._told = self._told, (self.loading, self.setup, self.unpacking, self.handling, self.packing)
        begun, self._begun = self._begun, now
        cpu = delayed = 0.0
        if self._own_process:
            cpu, self._cpu = self._cpu, time.process_time()
            cpu, delayed = self._cpu - cpu, run_delay.take(now)
        return WorkTimes(
            begun=begun,
            ended=now,
            loading=self.loading - told[0],
            setup=self.setup - told[1],
            unpacking=self.unpacking - told[2],
            handling=self.handling - told[3],
            packing=self.packing - told[4] + packing,
            cpu=cpu,
            delayed=delayed,
        )


#: A stretch holds at most this many times the items of the one before it.
STRETCH_GROWTH = 8
#: Seconds from which on an item gets its own mark: if its worker dies, it is known to be the one.
ALONE_S = 0.004


def first_size(pace: float | None) -> int:
    """Return the number of items of a chunk's first stretch; ``pace`` is seconds per item, if known."""
    return _fitting(pace) if pace else 1


def next_size(pace: float, ran: int) -> int:
    """Return the number of items of the stretch after one of ``ran`` items."""
    return min(_fitting(max(pace, 1e-9)), ran * STRETCH_GROWTH)


def _fitting(pace: float) -> int:
    return int(STRETCH_SECONDS / pace) if pace < ALONE_S else 1


def expected_seconds(size: int, pace: float | None) -> float:
    """Return the seconds that a stretch of that many items will take."""
    return min(size * (pace or 0.0), STRETCH_SECONDS)


#: Seconds below which the peak of an item that ran alone is not read: that would cost more than 0.5% of it.
PEAK_SECONDS = 0.005
#: The least expected seconds of items for which peaks are measured at all.
WORTH_COUNTING = 0.002


class Costs:
    """The costs of one chunk. Written by the main thread, read by it and by the chunk timer."""

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int, float, float]] = []  #: lo, hi, seconds per item, CPU seconds per item
        self._peaks: dict[int, int] = {}  #: by position
        self._cpu = 0.0
        self._counting = False

    def stretch_begins(self, lo: int, hi: int, pace: float | None) -> None:
        """Begin to measure the items from lo to hi; ``pace`` is seconds per item, if known."""
        is_worth_it = hi - lo == 1 and (pace is None or pace >= WORTH_COUNTING)
        self._counting = is_worth_it and memory.begin_peak()
        self._cpu = 0.0
        self.handler_begins()

    def handler_begins(self) -> None:
        """Read the CPU time, when the clock is read: items run from now on."""
        self._cpu -= time.process_time()

    def handler_ended(self) -> None:
        """Read the CPU time: no item of the stretch runs, for now or any more."""
        self._cpu += time.process_time()

    def stretch_ended(self, lo: int, hi: int, seconds: float, cut_pace: float | None) -> float:
        """Note the seconds of the stretch; if it was cut off, all items but the last took ``cut_pace`` each.

        Returns the last pace. The clock was not read between the items, so the last one gets the rest.
        """
        count, cpu = hi - lo, max(0.0, self._cpu)
        if self._counting and seconds >= PEAK_SECONDS and (peak := memory.peak()) is not None:
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
        """(items, seconds per item, CPU seconds per item) from first to done; ``pace`` for an unfinished stretch."""
        known = [
            (min(hi, done) - max(lo, first), seconds, cpu)
            for lo, hi, seconds, cpu in list(self._stretches)
            if min(hi, done) > max(lo, first)
        ]
        rest = done - first - sum(count for count, _, _ in known)
        return [*known, (rest, pace, math.nan)] if rest > 0 else known

    def peaks_between(self, first: int, done: int) -> dict[int, int]:
        """The known peaks, by position from ``first`` on."""
        return {at - first: peak for at, peak in list(self._peaks.items()) if first <= at < done}
