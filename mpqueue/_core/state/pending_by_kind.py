"""The waiting items of a job with needs: a line for each kind of needs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mpqueue._core.state.pending import Care, LongestFirst, PendingItems, stretches
from mpqueue._core.state.resources import CPUS, JobNeeds, Needs, NeedsRange


class PendingByKind(PendingItems):
    """Pending items; `take` returns items of one kind, the one last turned to. See `PendingItems`.

    If items have to be alone, those of the current kind wait: these go before all others, with any needs. It takes as
    much memory as a line for each kind; each call costs its cost in the lines concerned, and the logarithm of their
    number.
    """

    def __init__(self, needs: JobNeeds, count: int, costs: Sequence[float] | None = None) -> None:
        super().__init__(0)
        self._kinds = needs.of  #: the kind of each item; None: there is only one
        self._lines = [
            PendingItems(0) if costs is None else LongestFirst(costs, empty=True) for _ in range(len(needs.kinds))
        ]
        self._counts = [0] * len(self._lines)
        self._alone: set[int] = set()  #: kinds whose next items have to be alone
        self._tree = KindTree(needs.kinds)
        self.passed: OrderedDict[int, float] = OrderedDict()  #: kinds that were passed by others: since when
        self.passed_and_gone: set[int] = set()  #: those with no item waiting here any more
        self.kind = 0
        self.add(range(count))

    def turn_to(self, kind: int) -> bool:
        """Take items of this kind from now on; False, without a change, if there are none."""
        if not self._lines[kind]:
            return False
        self.kind = kind
        return True

    def first(self, ranges: Iterable[NeedsRange]) -> int | None:
        """Return the kind with the earliest item, of those with needs in one of these ranges."""
        return self._tree.first(ranges, self._end)

    @property
    def _end(self) -> Standing:
        """The standing after those of all kinds that may go next."""
        return (1,) if self._alone else (math.inf,)

    def pass_all_before(self, kind: int | None, now: float) -> None:
        """Note that the kinds that wait before this one (None: all) were passed."""
        passed = self._tree.mark_before(self._end if kind is None else self._tree.standing(kind))
        self.passed.update(dict.fromkeys(passed, now))

    def pass_(self, kind: int, now: float) -> None:
        """Note that the kind was passed."""
        if kind not in self.passed:
            self.passed[kind] = now
            self._note(kind)

    def forget_passed(self, kind: int) -> None:
        """Forget that the kind was passed: it had its turn, or is gone."""
        if self.passed.pop(kind, None) is not None:
            self.passed_and_gone.discard(kind)
            self._note(kind)

    def longest_passed(self) -> int | None:
        """Return the waiting kind that was passed first; None if none was passed."""
        if self._alone:
            passed = [kind for kind in self._alone if kind in self.passed]
            return min(passed, key=lambda kind: (self.passed[kind], self._tree.standing(kind)), default=None)
        return next((kind for kind in self.passed if self._lines[kind]), None)

    @property
    def at_hand(self) -> int:
        """The number of items that `take` could return next."""
        return len(self._lines[self.kind])

    @property
    def next_care(self) -> Care:
        """The care for the next items: those that have to be alone, or those of the kind turned to."""
        if self._alone:
            return max(self._lines[kind].next_care for kind in self._alone)
        return self._lines[self.kind].next_care

    @property
    def any_apart(self) -> bool:
        """True if an item has to run while nothing else does."""
        return any(line.any_apart for line in self._lines)

    def take(self, size: int) -> tuple[Sequence[int], Care]:
        """Take up to ``size`` items of the kind last turned to; they need the same care."""
        taken = self._lines[self.kind].take(size)
        self._note(self.kind)
        return taken

    def add(self, indices: range) -> None:
        """Add fresh items."""
        for kind, parts in self._shares(indices).items():
            for part in parts:
                self._lines[kind].add(part)
            self._note(kind)

    def put_group(self, indices: Sequence[int], *, halved: bool = False) -> None:
        """Put back a group, see `PendingItems.put_group`; all are of one kind, since they were sent together."""
        kind = self._kind_of(indices[0])
        self._lines[kind].put_group(indices, halved=halved)
        self._note(kind)

    def put_back(self, indices: Sequence[int]) -> None:
        """Put back items that did not run."""
        for kind, parts in self._shares(indices).items():
            for part in parts:
                self._lines[kind].put_back(part)
            self._note(kind)

    def remove(self, gone: Collection[int]) -> None:
        """Remove these items, as far as they wait."""
        for kind, parts in self._shares(sorted(gone)).items():
            self._lines[kind].remove(set().union(*parts))
            self._note(kind)

    def add_due(self, index: int) -> None:
        """Add an item whose retry's delay is over."""
        kind = self._kind_of(index)
        self._lines[kind].add_due(index)
        self._note(kind)

    def suspect(self, indices: Iterable[int]) -> None:
        """Suspect these items, of any kinds, see `PendingItems.suspect`."""
        for index in indices:
            self._lines[self._kind_of(index)].suspect([index])

    def handle_with(self, index: int, care: Care) -> None:
        """Handle this item with at least that much care until the job ends. It must not be waiting now."""
        self._lines[self._kind_of(index)].handle_with(index, care)

    def clear(self) -> None:
        """Forget everything."""
        for line in self._lines:
            line.clear()
        self._count, self._counts = 0, [0] * len(self._lines)
        self._alone.clear()
        self._tree.clear()
        self.passed.clear()
        self.passed_and_gone.clear()

    def _kind_of(self, index: int) -> int:
        return 0 if self._kinds is None else self._kinds[index]

    def _shares(self, indices: Any) -> dict[int, list[Any]]:
        """Return these items by kind: unchanged if there is one kind, else as ranges."""
        if self._kinds is None:
            return {0: [indices]} if indices else {}
        found: dict[int, list[int]] = {}
        for index in indices:
            found.setdefault(self._kinds[index], []).append(index)
        return {kind: [*stretches(own)] for kind, own in found.items()}

    def _note(self, kind: int) -> None:
        """Note that the line of that kind has changed, or whether it was passed."""
        line, passed = self._lines[kind], kind in self.passed
        self._count += len(line) - self._counts[kind]
        self._counts[kind] = len(line)
        is_alone = bool(line) and line.next_care >= Care.ISOLATED
        (self._alone.add if is_alone else self._alone.discard)(kind)
        is_gone = passed and not line
        (self.passed_and_gone.add if is_gone else self.passed_and_gone.discard)(kind)
        self._tree.put(kind, (not is_alone, *line.head) if line else None, marked=passed)


# -- Kinds of needs: finds the next one that fits, without a look at each. ---------------------------------------------
#
# A k-d tree (Bentley, "Multidimensional Binary Search Trees Used for Associative Searching", 1975). The kinds are
# fixed; only the standing of each one's first item changes. Each node has the least and the most needs of its kinds for
# each resource, and the first of their standings; so a search leaves out kinds that can't fit, and those later than the
# one found. With n kinds and d relevant resources, it looks at about n ** (1 - 1/d) nodes at most: log n for one
# resource. A change costs log n.

#: The standing of a kind's first item; the lower goes first.
Standing = tuple[float, ...]
_Entry = tuple[Standing, int]  #: and the kind
#: The standing if nothing waits: behind everything.
_NOTHING: _Entry = ((math.inf,), 0)


class KindTree:
    """The kinds with waiting items. Kinds that are *marked* are left out by `mark_before`."""

    def __init__(self, kinds: Sequence[Needs]) -> None:
        self._names = (CPUS, *sorted({name for needs in kinds for name, _ in needs.amounts}))
        width = 1 << (len(kinds) - 1).bit_length()
        self._leaves = [0] * len(kinds)  #: by kind: its node; below a node are twice its number, and the next
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
        """Note the standing of that kind's first item; None: none waits."""
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
        """Return the standing of the kind's first item. Only for a kind with one waiting."""
        return self._first[self._leaves[kind]][0]

    def first(self, ranges: Iterable[NeedsRange], before: Standing) -> int | None:
        """Return the first kind in one of these ranges, of those ``before`` that standing; None: there is none."""
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
        """Mark the kinds before that standing; returns those that were not marked, in their order.

        Costs log n, and a step for each of these.
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
