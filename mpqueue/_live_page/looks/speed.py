"""How fast a job goes just now, when it will be over at that rate, and how fast it went all the time."""

from __future__ import annotations

from collections import deque
from typing import Any

from mpqueue._core.state.timings import Timings

#: Seconds over which the rate is taken, at least; and longer until so many items were done.
WINDOW, LEAST = 20.0, 5
#: Seconds between two samples, at least.
EVERY = 0.5


class Pace:
    """Of one job. A pause is left out."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._ended = 0

    def look(self, now: float, ended: int, partly: float, *, running: bool) -> None:
        """So many items have ended by now, and of running ones that much is done."""
        samples, done = self._samples, ended + partly
        if not running or ended < self._ended:  # failed items run again
            samples.clear()
        self._ended = ended
        if not running:
            return
        # The last sample moves along where it is close to the one before it, or nothing was done since.
        if len(samples) > 1 and (now - samples[-2][0] < EVERY or samples[-2][1] == samples[-1][1]):
            samples.pop()
        samples.append((now, done))
        while len(samples) > 2 and samples[1][0] < now - WINDOW and done - samples[1][1] >= LEAST:
            samples.popleft()

    @property
    def rate(self) -> float | None:
        """Items a second; None if not known yet."""
        if len(self._samples) < 2:
            return None
        (start, before), (end, done) = self._samples[0], self._samples[-1]
        return (done - before) / (end - start) if end > start and done > before else None

    def eta(self, left: float) -> float | None:
        """Seconds until so many more items are done."""
        return left / self.rate if self.rate is not None else None


#: Stretches of time, all of one length, of a throughput.
STRETCHES = 120


def throughput(timings: Timings, now: float, offset: float) -> dict[str, Any] | None:
    """How many tries a second completed and failed, stretch by stretch of the job's run; None before the first.

    As JSON has it.

    ``offset`` turns moments of the monotonic clock into seconds since the epoch. What a report told of is spread evenly
    over the time that its worker had for it. Costs 2 us a report.
    """
    end = now if timings.finished is None else timings.finished
    spans = [span for span in timings.spans() if span.items]
    if not spans or end <= timings.started:
        return None
    width = (end - timings.started) / STRETCHES
    completed, failed = [0.0] * STRETCHES, [0.0] * STRETCHES
    for span in spans:
        first = min(STRETCHES - 1, max(0, int((span.begun - timings.started) / width)))
        last = min(STRETCHES - 1, max(first, int((span.ended - timings.started) / width)))
        share = 1 / (last + 1 - first)
        for at in range(first, last + 1):
            completed[at] += (span.items - span.failures) * share
            failed[at] += span.failures * share
    return {
        "since": round(1000 * (timings.started + offset)),
        "every": width,
        "completed": [round(one / width, 3) for one in completed],
        "failed": [round(one / width, 3) for one in failed],
    }
