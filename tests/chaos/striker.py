"""What befalls workers: a thread that kills, breaks and stops them at random moments, and lets the stopped go on."""

from __future__ import annotations

import heapq
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from mpqueue._engines.loky.process.worker_process import WorkerProcess
from tests.chaos.audit import Struck

#: What strikes, and how often in comparison.
STRIKES = {signal.SIGKILL: 6, signal.SIGSEGV: 2, signal.SIGTERM: 1, signal.SIGSTOP: 4}

#: Mean seconds between two strikes, in one mood or another.
MOODS = (1.0, 0.3, 0.1, 0.02)

#: How often a worker is struck that has not answered yet, in comparison: one that never gets to answer is no news.
STARTING = 0.2


class Striker:
    """The thread. ``lanes`` tells who could be struck now; ``moods`` are mean seconds between two strikes."""

    def __init__(
        self, rng: random.Random, struck: Struck, lanes: Callable[[], list[Any]], moods: Sequence[float] = MOODS
    ) -> None:
        self._moods = moods
        self._rng = rng
        self._struck = struck
        self._lanes = lanes
        self._stop = threading.Event()
        self._stopped: list[tuple[float, int, WorkerProcess]] = []  #: when they are to go on
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
            lanes = self._lanes()
            lane = rng.choice(lanes) if lanes else None
            if lane is not None and (lane.ask_for_stack is not None or rng.random() < STARTING):
                self._strike(lane)
            self._let_go(time.monotonic())
        self._let_go(float("inf"))

    def _strike(self, lane: Any) -> None:
        (number,) = self._rng.choices(list(STRIKES), list(STRIKES.values()))
        worker: WorkerProcess = lane.worker
        self.strikes += 1
        if number == signal.SIGSTOP:
            self._struck.stopped.add(worker.pid)
            going_on = time.monotonic() + 10 ** self._rng.uniform(-3, 0.3)
            heapq.heappush(self._stopped, (going_on, self.strikes, worker))
        else:
            self._struck.signals[worker.pid].add(number.name)
        worker.send(number)

    def _let_go(self, now: float) -> None:
        while self._stopped and self._stopped[0][0] <= now:
            heapq.heappop(self._stopped)[2].send(signal.SIGCONT)
