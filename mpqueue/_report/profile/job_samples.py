"""What all workers have sampled of one job's handler, as it comes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mpqueue._wire.sampled_stacks import Stack, Stacks, load_stacks

#: Stacks that are kept separate: of the job, of a worker, and of each of the slowest items.
MOST_STACKS, MOST_OF_WORKER, MOST_OF_ITEM = 5_000, 1_000, 500
#: Items that are kept apart.
SLOWEST = 10
#: Reports that wait until they are merged, by who brings the next one or by who looks.
WAITING = 64


class Merged(NamedTuple):
    """Seconds by stack: of all workers, of each, and of the items for which there are most, by index."""

    whole: dict[Stack, float]
    workers: dict[int, dict[Stack, float]]
    items: dict[int, dict[Stack, float]]


class JobSamples:
    """One job's. Satisfies `mpqueue._core.state.job_book.Samples`; `merged` may be called on any thread.

    Merging costs 10 to 20 us a report. If no caller has looked, the coordinator merges 64 of them at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Sequence[int], bytes]] = deque()
        self._clear()

    def _clear(self) -> None:
        self._whole = Stacks(MOST_STACKS)
        self._workers: dict[int, Stacks] = {}
        self._items: dict[int, Stacks] = {}
        self._of_item: dict[int, float] = {}
        self._known: dict[Stack, Stack] = {}

    def begin(self) -> None:
        """The job starts: nothing of an earlier run counts any more."""
        with self._lock:
            self._waiting.clear()
            self._clear()

    def keep(self, lane: int, indices: Sequence[int], data: bytes) -> None:
        """A worker's samples of these items, as they came."""
        self._waiting.append((lane, indices, data))
        if len(self._waiting) >= WAITING:
            with self._lock:
                self._merge()

    def merged(self) -> Merged:
        """All that has come."""
        with self._lock:
            self._merge()
            return Merged(
                dict(self._whole.seconds),
                {lane: dict(stacks.seconds) for lane, stacks in sorted(self._workers.items())},
                {index: dict(stacks.seconds) for index, stacks in self._items.items()},
            )

    def _merge(self) -> None:
        while self._waiting:
            lane, indices, data = self._waiting.popleft()
            worker = self._workers.get(lane)
            if worker is None:
                worker = self._workers[lane] = Stacks(MOST_OF_WORKER)
            items: dict[int, list[tuple[Stack, float]]] = {}
            for position, loaded, seconds in load_stacks(data):
                if position < len(indices):  # what comes after was given to other workers
                    stack = self._known.setdefault(loaded, loaded)
                    self._whole.add(stack, seconds)
                    worker.add(stack, seconds)
                    items.setdefault(indices[position], []).append((stack, seconds))
            for index, samples in items.items():
                self._keep_item(index, samples)
            if len(self._known) > 2 * MOST_STACKS:
                self._known = {stack: stack for stack in self._whole.seconds}

    def _keep_item(self, index: int, samples: list[tuple[Stack, float]]) -> None:
        """Where the item is among the slowest. Earlier tries of one that was not are lost."""
        took = self._of_item.get(index, 0.0) + sum(seconds for _, seconds in samples)
        if index not in self._items:
            if len(self._items) >= SLOWEST:
                least = min(self._of_item, key=self._of_item.__getitem__)
                if took <= self._of_item[least]:
                    return
                del self._items[least], self._of_item[least]
            self._items[index] = Stacks(MOST_OF_ITEM)
        self._of_item[index] = took
        for stack, seconds in samples:
            self._items[index].add(stack, seconds)
