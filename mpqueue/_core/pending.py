"""The items of a job that may be dispatched now, in order.

Fresh items are kept as ranges, so a million of them cost one entry; what was handed back goes to its old place.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import islice


class PendingItems:
    """Three lines of waiting items, taken in this order: suspects, due retries, fresh ones.

    A *suspect* was in a worker when it died, or travelled with something that could not be unpickled: it goes out in
    a careful chunk, packed and marked alone. One that comes under suspicion again has such a chunk to itself.
    """

    def __init__(self, count: int) -> None:
        self._fresh: list[tuple[int, int]] = [(0, count)] if count else []
        self._due: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._suspected: set[int] = set()
        self._loners: set[int] = set()
        self._count = count

    def __len__(self) -> int:
        return self._count

    def take(self, size: int) -> tuple[Sequence[int], bool]:
        """Up to ``size`` items, and whether they go in a careful chunk."""
        if self._suspects:
            return self._take_from(self._suspects, self._suspects_together(size)), True
        if self._due:
            return self._take_from(self._due, size), False
        lo = end = self._fresh[0][0]
        while self._fresh and self._fresh[0][0] == end and end < lo + size:
            hi = self._fresh[0][1]
            end = min(hi, lo + size)
            if end == hi:
                heapq.heappop(self._fresh)
            else:
                heapq.heapreplace(self._fresh, (end, hi))
        self._count -= end - lo
        return range(lo, end), False

    def add(self, indices: range) -> None:
        """More fresh items have come."""
        if indices:
            heapq.heappush(self._fresh, (indices.start, indices.stop))
            self._count += len(indices)

    def _suspects_together(self, size: int) -> int:
        for position, index in enumerate(islice(self._suspects, size)):
            if index in self._loners:
                return max(1, position)
        return size

    def _take_from(self, line: deque[int], size: int) -> Sequence[int]:
        taken = [line.popleft() for _ in range(min(size, len(line)))]
        self._count -= len(taken)
        return taken

    def put_back(self, indices: Sequence[int]) -> None:
        """These items did not run after all."""
        if isinstance(indices, range):
            lo, hi = indices.start, indices.stop
            if indices and (not self._suspected or self._suspected.isdisjoint(indices)):
                heapq.heappush(self._fresh, (lo, hi))
                self._count += hi - lo
                return
        for index in indices:
            self.add_due(index)

    def add_due(self, index: int) -> None:
        """A retry's delay is over."""
        (self._suspects if index in self._suspected else self._due).append(index)
        self._count += 1

    def suspect(self, indices: Sequence[int]) -> None:
        """These items go out carefully from now on, until the job ends; those that were suspects before, alone."""
        self._loners.update(self._suspected.intersection(indices))
        self._suspected.update(indices)

    def clear(self) -> None:
        """Forget everything."""
        self._fresh.clear()
        self._due.clear()
        self._suspects.clear()
        self._suspected.clear()
        self._loners.clear()
        self._count = 0
