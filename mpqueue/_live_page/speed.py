"""How fast a job goes just now, and when it will be over at that rate."""

from __future__ import annotations

from collections import deque

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
