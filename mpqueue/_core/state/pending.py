"""The items of a job that may be dispatched now, in order.

Fresh items are kept as ranges, so a million of them cost one entry; items handed back return to their old place.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import islice

#: A chunk of at most this many items begins with the few that a worker has handed back: they need no report of their
#: own. For more, a list of their indices would cost as much.
MOST_JOINED = 500


class Care(IntEnum):
    """The care with which an item is handled; each level includes those before it."""

    NONE = 0
    CAREFUL = 1  #: packed, marked and answered by itself
    ALONE = 2  #: with its group, on a lane with no other chunk, and with none on lanes that would die with it
    APART = 3  #: in a new worker, while nothing else runs in the whole queue


class PendingItems:
    """Four lines of waiting items, taken in this order: groups, suspects, due retries, fresh ones.

    A *suspect* was in a worker when it died, or was sent together with an item that could not be unpickled: it is sent
    in a careful chunk, packed and marked alone.

    If it is unknown which item a dead worker ran, the items that it may have run stay together as a *group*, which is
    halved when its worker dies again. Items of it that did not run stay a group. An item that is suspected again, or
    is known to kill workers, is a group of its own.

    ``kinds``: by item, a number for what it needs; items that are taken together need the same. None: all do.
    """

    def __init__(self, count: int, kinds: Sequence[int] | None = None) -> None:
        self._kinds = kinds
        self.any_alone = False  #: some item has to be alone, or had to
        self._fresh: list[tuple[int, int]] = [(0, count)] if count else []
        self._due: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._care: dict[int, Care] = {}  #: items that are not handled like all others
        self._groups: deque[list[int]] = deque()
        self._count = count

    def __len__(self) -> int:
        return self._count

    @property
    def next_care(self) -> Care:
        """The care that the next items from `take` need."""
        if self._groups:
            return self._care[self._groups[0][0]]
        return Care.CAREFUL if self._suspects else Care.NONE

    @property
    def head(self) -> int:
        """The next item. Only if there is one."""
        if self._groups:
            return self._groups[0][0]
        line = self._suspects or self._due
        return line[0] if line else self._fresh_head()

    def _fresh_head(self) -> int:
        return self._fresh[0][0]

    def take(self, size: int) -> tuple[Sequence[int], Care]:
        """Take up to ``size`` items, or all of a group; they need the same, and the same care."""
        if self._groups:
            care, group = self.next_care, self._groups.popleft()
            self._count -= len(group)
            return group, care
        if self._suspects:
            return self._take_from(self._suspects, size), Care.CAREFUL
        if self._due:
            return self._take_from(self._due, size), Care.NONE
        return self._take_fresh(size), Care.NONE

    def _take_fresh(self, size: int) -> Sequence[int]:
        lo = end = self._fresh[0][0]
        if self._kinds is not None:
            size = self._alike(range(lo, min(lo + size, self._fresh[0][1])))
        while self._fresh and self._fresh[0][0] == end and end < lo + size:
            hi = self._fresh[0][1]
            end = min(hi, lo + size)
            if end == hi:
                heapq.heappop(self._fresh)
            else:
                heapq.heapreplace(self._fresh, (end, hi))
        self._count -= end - lo
        if self._fresh and end - lo < size // 2 and size <= MOST_JOINED:
            return [*range(lo, end), *self._take_fresh(size - (end - lo))]
        return range(lo, end)

    def add(self, indices: range) -> None:
        """Add fresh items."""
        if indices:
            heapq.heappush(self._fresh, (indices.start, indices.stop))
            self._count += len(indices)

    def _take_from(self, line: deque[int], size: int) -> Sequence[int]:
        size = min(size, len(line))
        if self._kinds is not None:
            size = self._alike([*islice(line, size)])
        taken = [line.popleft() for _ in range(size)]
        self._count -= len(taken)
        return taken

    def _alike(self, indices: Sequence[int]) -> int:
        """Return how many of these items, from the first on, need the same."""
        kinds = self._kinds
        assert kinds is not None
        first = kinds[indices[0]]
        return next((at for at, index in enumerate(indices) if kinds[index] != first), len(indices))

    def put_group(self, indices: Sequence[int], *, halved: bool = False) -> None:
        """Put back items of which one killed its worker: together or in two halves, with nothing beside them."""
        for index in indices:
            self.handle_with(index, Care.ALONE)
        middle = (len(indices) + 1) // 2 if halved else len(indices)
        self._groups += [list(part) for part in (indices[:middle], indices[middle:]) if part]
        self._count += len(indices)

    def limit_group(self, most: int) -> None:
        """Split the next group, which is taken as a whole, if it has more items than that."""
        if self._groups and len(self._groups[0]) > most:
            group = self._groups.popleft()
            self._groups.extendleft((group[most:], group[:most]))

    def put_back(self, indices: Sequence[int]) -> None:
        """Put back items of one chunk that did not run."""
        if isinstance(indices, range) and (not self._care or self._care.keys().isdisjoint(indices)):
            self.add(indices)
            return
        self.put_group([index for index in indices if self._care.get(index) is Care.ALONE])
        for index in indices:
            if self._care.get(index) is not Care.ALONE:
                self.add_due(index)

    def add_due(self, index: int) -> None:
        """Add an item whose retry's delay is over."""
        care = self._care.get(index, Care.NONE)
        if care >= Care.ALONE:
            self._groups.append([index])
        else:
            (self._suspects if care else self._due).append(index)
        self._count += 1

    def remove(self, gone: Collection[int]) -> None:
        """Remove these items, as far as they wait. Costs a look at each line, and at all items handed back."""
        if not gone:
            return
        self._remove_fresh(gone)
        for line in (self._due, self._suspects):
            self._keep_in(line, [index for index in line if index not in gone])
        groups = [[index for index in group if index not in gone] for group in self._groups]
        self._count -= sum(map(len, self._groups)) - sum(map(len, groups))
        self._groups = deque(group for group in groups if group)

    def _keep_in(self, line: deque[int], kept: list[int]) -> None:
        if len(kept) < len(line):
            self._count -= len(line) - len(kept)
            line.clear()
            line.extend(kept)

    def _remove_fresh(self, gone: Collection[int]) -> None:
        ordered, left = sorted(gone), list[tuple[int, int]]()
        for lo, hi in self._fresh:
            start = lo
            for index in ordered[bisect_left(ordered, lo) : bisect_left(ordered, hi)]:
                left.append((start, index))
                start = index + 1
                self._count -= 1
            left.append((start, hi))
        self._fresh = [part for part in left if part[0] < part[1]]
        heapq.heapify(self._fresh)

    def suspect(self, indices: Iterable[int]) -> None:
        """Send these items with care until the job ends; those that were suspects before, alone."""
        for index in indices:
            self.handle_with(index, Care.ALONE if index in self._care else Care.CAREFUL)

    def handle_with(self, index: int, care: Care) -> None:
        """Handle this item with at least that much care until the job ends. It must not be waiting now."""
        self._care[index] = max(care, self._care.get(index, Care.NONE))
        self.any_alone |= care >= Care.ALONE

    def clear(self) -> None:
        """Forget all items, but not that one had to be alone: it may still run, and nothing begins beside it."""
        self._fresh.clear()
        self._due.clear()
        self._suspects.clear()
        self._care.clear()
        self._groups.clear()
        self._count = 0


class LongestFirst(PendingItems):
    """Pending items whose fresh ones go in the order of falling ``costs``: each time one of the largest left.

    This is list scheduling by longest processing time (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969),
    whose last item ends at most a third later than in the best order. Equal costs keep the order of the items. Costs
    0.5 us per item.
    """

    def __init__(self, costs: Sequence[float], kinds: Sequence[int] | None = None) -> None:
        super().__init__(0, kinds)
        self._costs = costs
        self._heap: list[tuple[float, int]] = []
        self.add(range(len(costs)))

    def _fresh_head(self) -> int:
        return self._heap[0][1]

    def add(self, indices: range) -> None:
        """Add fresh items, each with a cost."""
        self._count += len(indices)
        more = [(-self._costs[index], index) for index in indices]
        if len(more) > len(self._heap):
            self._heap += more
            heapq.heapify(self._heap)
        else:
            for entry in more:
                heapq.heappush(self._heap, entry)

    def _remove_fresh(self, gone: Collection[int]) -> None:
        left = [entry for entry in self._heap if entry[1] not in gone]
        self._count -= len(self._heap) - len(left)
        self._heap = left
        heapq.heapify(left)

    def _take_fresh(self, size: int) -> Sequence[int]:
        taken, kinds = [heapq.heappop(self._heap)[1]], self._kinds
        while self._heap and len(taken) < size and (kinds is None or kinds[self._heap[0][1]] == kinds[taken[0]]):
            taken.append(heapq.heappop(self._heap)[1])
        self._count -= len(taken)
        return taken

    def clear(self) -> None:
        """See `PendingItems.clear`."""
        super().clear()
        self._heap.clear()


def stretches(indices: Sequence[int]) -> Iterator[range]:
    """Yield ascending indices as ranges as long as possible."""
    start = 0
    for at in range(1, len(indices) + 1):
        if at == len(indices) or indices[at] != indices[at - 1] + 1:
            yield range(indices[start], indices[at - 1] + 1)
            start = at
