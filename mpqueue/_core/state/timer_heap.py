"""The timer heap: everything that waits for a moment, retries and deadlines alike.

Pure: holds due times, knows no clock. A waiting item holds no worker, only its entry here.
"""

from __future__ import annotations

import heapq
from enum import IntEnum, auto
from typing import NamedTuple


class TimerKind(IntEnum):
    """The kinds of timers, by what falls due."""

    RETRY = auto()  #: an item's delay is over (subject: job number; detail: item index)
    LANE_CHECK = auto()  #: a timeout may have passed on a lane (subject: lane; detail: generation)
    STEAL_CHECK = auto()  #: look for items stuck behind a slow one
    LIMIT_SETTLED = auto()  #: a lowered limit is visible to the worker (subject: lane; detail: generation)
    LANE_START = auto()  #: start a worker again (subject: lane; detail: generation)
    NO_LANES = auto()  #: give up where still no worker could be started
    SETUP_AGAIN = auto()  #: a lane may try a job's setup again (subject: job number; detail: lane)
    LOOK = auto()  #: read the clock, while a limit is running: a process may have slept
    DRAINED = auto()  #: what still runs in a queue that drains has had its time (detail: 1 once its workers are killed)
    STOP = auto()  #: a job stops (subject: job number; detail: 1 for its failures, 0 for its time)
    GO_ON = auto()  #: a step has asked as many lanes as it may: the next goes on
    APART = auto()  #: an item that has to run apart has waited long enough for others, or they for it


class Timer(NamedTuple):
    """One entry; equal times keep the order in which they were set."""

    due: float
    serial: int
    kind: TimerKind
    subject: int = 0
    detail: int = 0
    epoch: int = 0


class TimerHeap:
    """A heap of timers. Entries are never removed early: their taker checks whether they still mean something."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, kind: TimerKind, subject: int = 0, detail: int = 0, epoch: int = 0) -> None:
        """Set a timer for the moment ``due``."""
        self._serial += 1
        heapq.heappush(self._heap, Timer(due, self._serial, kind, subject, detail, epoch))

    def next_due(self) -> float | None:
        """Return the moment at which the first timer falls due; None while there is none."""
        return self._heap[0].due if self._heap else None

    def take_due(self, now: float) -> list[Timer]:
        """Take out every timer that is due, in order."""
        due = []
        while self._heap and self._heap[0].due <= now:
            due.append(heapq.heappop(self._heap))
        return due

    def clear(self) -> None:
        """Forget every timer."""
        self._heap.clear()
