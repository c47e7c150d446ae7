"""What the items of a chunk cost: seconds, CPU seconds and, for those that ran alone, the peak of memory.

Measured once a stretch and divided among its items, so that a tiny item costs nothing more: 1 us a stretch, which aims
at 15 ms; 4 us an item for those of 5 ms or above, 25 us more where it needed new pages.
"""

from __future__ import annotations

import math
import time

from mpqueue._os.memory import memory_use as memory

#: Seconds below which the peak of an item that ran alone is not read: it would cost more than half a percent of it.
PEAK_SECONDS = 0.005
#: Seconds that items have to take, as far as is known, for their peak to be counted at all.
WORTH_COUNTING = 0.002


class Costs:
    """Of one chunk. Written by the main thread, read by it and by the watchdog."""

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int, float, float]] = []  #: lo, hi, seconds an item, CPU seconds an item
        self._peaks: dict[int, int] = {}  #: by position
        self._cpu = 0.0
        self._counting = False

    def stretch_begins(self, lo: int, hi: int, pace: float | None) -> None:
        """The items from lo to hi are about to run; ``pace`` is what an item takes, where that is known."""
        self._counting = hi - lo == 1 and (pace is None or pace >= WORTH_COUNTING)
        if self._counting:
            memory.peak.begin()
        self._cpu = time.process_time()

    def stretch_ended(self, lo: int, hi: int, seconds: float, cut_pace: float | None, packing: float = 0.0) -> float:
        """They took so long; all but the last ``cut_pace`` each, where the stretch was cut off. Returns the last pace.

        ``packing``: for how long results were pickled meanwhile, which is not among the seconds.
        The clock was not read between them, so the last one's share is what is left.
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
