"""Where this worker's time goes: counted for each chunk, told with each report.

A chunk costs six looks at the clock and two at the CPU time, 4 us in all, whatever it holds. So it is always counted,
and a job that was slow can be asked why afterwards.
"""

from __future__ import annotations

import time

from mpqueue._os.process.cpu_time import read_run_delay
from mpqueue._wire.frames import WorkTimes

#: Seconds between two looks there, which cost 10 us each.
INTERVAL = 0.05


class RunDelay:
    """Seconds for which the main thread was ready to run and had no CPU. Zero where the system does not tell."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._known = 0

    def begin(self, now: float) -> None:
        """What comes counts; what was before it, while the worker had nothing to do, does not."""
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
        """What was spent since the last call; ``packing`` is what this report itself took so far."""
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
