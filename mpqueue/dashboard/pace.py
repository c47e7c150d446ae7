"""How fast a job goes just now, and when it will be over at that rate."""

from __future__ import annotations

from collections import deque

#: Seconds over which the rate is taken, and at least between two samples.
WINDOW = 20.0
EVERY = 0.5


class Pace:
    """Of one job. A pause is left out."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def look(self, now: float, done: float, *, running: bool) -> None:
        """So much is done now."""
        samples = self._samples
        if not running or (samples and done < samples[-1][1]):  # failed items run again
            samples.clear()
            if not running:
                return
        if len(samples) > 1 and now - samples[-2][0] < EVERY:
            samples.pop()
        samples.append((now, done))
        while len(samples) > 2 and samples[0][0] < now - WINDOW:
            samples.popleft()

    @property
    def rate(self) -> float | None:
        """Items a second; None where nobody can tell yet."""
        if len(self._samples) < 2:
            return None
        (start, before), (end, done) = self._samples[0], self._samples[-1]
        return (done - before) / (end - start) if end > start and done > before else None

    def eta(self, left: float) -> float | None:
        """Seconds until so many more items are done."""
        return left / self.rate if self.rate is not None else None
