"""What befalls workers: a thread that kills, breaks and stops them at random moments, and lets the stopped go on."""

from __future__ import annotations

import heapq
import random
import signal
import threading
import time
from collections.abc import Sequence

from tests.chaos.audit import Struck
from tests.chaos.workers import is_young, strike, workers

#: What strikes, and how often in comparison.
STRIKES = {signal.SIGKILL: 6, signal.SIGSEGV: 2, signal.SIGTERM: 1, signal.SIGSTOP: 4}

#: Mean seconds between two strikes, in one mood or another.
MOODS = (1.0, 0.3, 0.1, 0.02)

#: How often a worker is struck that may be starting, in comparison: one that never gets to answer is no news.
STARTING = 0.2


class Striker:
    """The thread. It strikes the workers of this program; ``moods`` are mean seconds between two strikes."""

    def __init__(self, rng: random.Random, struck: Struck, moods: Sequence[float] = MOODS) -> None:
        self._moods = moods
        self._rng = rng
        self._struck = struck
        self._stop = threading.Event()
        self._stopped: list[tuple[float, int]] = []  #: when they are to go on
        self.strikes = 0
        self._thread = threading.Thread(target=self._run, name="chaos-striker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; all that it had stopped goes on."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        rng, mood, mood_ends = self._rng, 0.3, 0.0
        while not self._stop.is_set():
            if time.monotonic() >= mood_ends:
                mood, mood_ends = rng.choice(self._moods), time.monotonic() + rng.uniform(0.2, 4)
            self._stop.wait(min(rng.expovariate(1 / mood), 2.0))
            if pid := choose(rng):
                self._strike(pid)
            self._let_go(time.monotonic())
        self._let_go(float("inf"))

    def _strike(self, pid: int) -> None:
        (number,) = self._rng.choices(list(STRIKES), list(STRIKES.values()))
        if number == signal.SIGSTOP:
            self._struck.stopped.add(pid)
            going_on = time.monotonic() + 10 ** self._rng.uniform(-3, 0.3)
            heapq.heappush(self._stopped, (going_on, pid))
        else:
            self._struck.signals[pid].add(number.name)  # noted first: what comes of it is seen at once
        self.strikes += strike(pid, number)

    def _let_go(self, now: float) -> None:
        while self._stopped and self._stopped[0][0] <= now:
            strike(heapq.heappop(self._stopped)[1], signal.SIGCONT)


def choose(rng: random.Random) -> int | None:
    """One of the workers; seldom one that starts, else there are none for too long."""
    found = workers()
    pid = rng.choice(found) if found else None
    return pid if pid is None or not is_young(pid) or rng.random() < STARTING else None
