"""Kinds of needs, by what they need: finds the one that goes next of those that fit, without a look at each.

A k-d tree (Bentley, "Multidimensional Binary Search Trees Used for Associative Searching", 1975). Which kinds there are
is fixed; what changes is where the first item of each stands. Each node has the least and the most that its kinds need
of each resource, and the first of their places in the order; so a search leaves out what can't fit, and what goes later
than what it has found. With n kinds and d resources that matter, it looks at some n ** (1 - 1/d) nodes at most: log n
where only one does. A change costs log n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mpqueue._core.state.needs.resources import CPUS, Needs, NeedsRange

#: Where a kind's first item stands; the lower goes first.
Standing = tuple[float, ...]
_Entry = tuple[Standing, int]  #: and the kind
#: Stands where nothing waits: behind everything.
_NOTHING: _Entry = ((math.inf,), 0)


class KindTree:
    """The kinds of which items wait. Those that are *marked* are left out by `mark_before`."""

    def __init__(self, kinds: Sequence[Needs]) -> None:
        self._names = (CPUS, *sorted({name for needs in kinds for name, _ in needs.amounts}))
        width = 1 << (len(kinds) - 1).bit_length()
        self._leaves = [0] * len(kinds)  #: by kind: its node. Below a node are twice its number, and the one after that
        self._least: list[Standing] = [()] * (2 * width)
        self._most: list[Standing] = [()] * (2 * width)
        points = [tuple(needs.amount(name) for name in self._names) for needs in kinds]
        self._lay_out(list(range(len(kinds))), 1, width, points)
        self.clear()

    def _lay_out(self, kinds: list[int], node: int, width: int, points: Sequence[Standing]) -> None:
        columns = [*zip(*(points[kind] for kind in kinds), strict=True)]
        self._least[node], self._most[node] = tuple(map(min, columns)), tuple(map(max, columns))
        if width == 1:
            self._leaves[kinds[0]] = node
            return
        values = [len(set(column)) for column in columns]
        widest = values.index(max(values))
        kinds.sort(key=lambda kind: points[kind][widest])
        half = width // 2
        for below, part in ((2 * node, kinds[:half]), (2 * node + 1, kinds[half:])):
            if part:
                self._lay_out(part, below, half, points)

    def clear(self) -> None:
        """Forget everything."""
        self._first = [_NOTHING] * len(self._least)
        self._first_unmarked = [_NOTHING] * len(self._least)

    def put(self, kind: int, standing: Standing | None, *, marked: bool) -> None:
        """Note where the first item of that kind stands now; None: none waits."""
        node, entry = self._leaves[kind], _NOTHING if standing is None else (standing, kind)
        first, unmarked = entry, _NOTHING if marked else entry
        while (first, unmarked) != (self._first[node], self._first_unmarked[node]):
            self._first[node], self._first_unmarked[node] = first, unmarked
            node //= 2
            if not node:
                return
            left, right = 2 * node, 2 * node + 1
            first = min(self._first[left], self._first[right])
            unmarked = min(self._first_unmarked[left], self._first_unmarked[right])

    def standing(self, kind: int) -> Standing:
        """Return the standing of the kind's first item. Only for a kind of which one waits."""
        return self._first[self._leaves[kind]][0]

    def first(self, ranges: Iterable[NeedsRange], before: Standing) -> int | None:
        """The first kind in one of these ranges, of those that stand ``before`` that; None: there is none."""
        found = nothing = (before, 0)
        for each in ranges:
            if each.least and any(least > 0 for name, least in each.least.items() if name not in self._names):
                continue  # no kind needs any of that
            low = [each.least.get(name, 0) for name in self._names]
            high = [each.cpus, *(each.amounts[name] for name in self._names[1:])]
            nodes = [1]
            while nodes:
                node = nodes.pop()
                if self._first[node] >= found:
                    continue
                all_fit = True
                for least, most, lowest, highest in zip(self._least[node], self._most[node], low, high, strict=True):
                    if least > highest or most < lowest:
                        break
                    all_fit = all_fit and least >= lowest and most <= highest
                else:
                    left, right = 2 * node, 2 * node + 1
                    if all_fit:
                        found = self._first[node]
                    else:
                        nodes += (right, left) if self._first[left] < self._first[right] else (left, right)
        return None if found is nothing else found[1]

    def mark_before(self, standing: Standing) -> list[int]:
        """Mark the kinds that stand before that; returns those that were not marked, in their order.

        Costs log n, and as much as these are.
        """
        end = (standing, 0)
        found, above, nodes = list[_Entry](), list[int](), [1]
        while nodes:
            node = nodes.pop()
            if self._first_unmarked[node] >= end:
                continue
            if node < len(self._least) // 2:
                above.append(node)
                nodes += (2 * node, 2 * node + 1)
            else:
                found.append(self._first_unmarked[node])
                self._first_unmarked[node] = _NOTHING
        for node in reversed(above):
            self._first_unmarked[node] = min(self._first_unmarked[2 * node], self._first_unmarked[2 * node + 1])
        return [kind for _, kind in sorted(found)]
