"""The waiting items of a job whose items have different needs: a line for each kind of needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mpqueue._core.state.pending import Care, LongestFirst, PendingItems, stretches


class PendingByKind(PendingItems):
    """The same as `PendingItems`, of which `take` gives items of one kind: that which was turned to last.

    ``kinds`` says of each item which kind it is. Costs as much as a line for each kind that occurs.
    """

    def __init__(self, kinds: Sequence[int], costs: Sequence[float] | None = None) -> None:
        super().__init__(0)
        self._kinds = kinds
        self._lines = [
            PendingItems(0) if costs is None else LongestFirst(costs, empty=True)
            for _ in range(max(kinds, default=0) + 1)
        ]
        self.kind = 0
        self.add(range(len(kinds)))

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def turn_to(self, kind: int) -> bool:
        """From now on items of this kind are taken; False where there are none, and then nothing changes."""
        if not self._lines[kind]:
            return False
        self.kind = kind
        return True

    def has(self, kind: int) -> bool:
        """True where items of this kind wait."""
        return len(self._lines[kind]) > 0

    def waiting(self) -> list[int]:
        """The kinds of which items wait; that whose first one is the first of all, first.

        Where some have to be alone, theirs only: they go before all others, whatever they need.
        """
        found = [kind for kind, line in enumerate(self._lines) if line]
        alone = [kind for kind in found if self._lines[kind].next_care >= Care.ISOLATED]
        return sorted(alone or found, key=lambda kind: self._lines[kind].head)

    @property
    def at_hand(self) -> int:
        """How many items `take` could give next."""
        return len(self._lines[self.kind])

    @property
    def next_care(self) -> Care:
        """How the items have to be handled that go next: those that have to be alone, or of the kind turned to."""
        most = max(line.next_care for line in self._lines)
        return most if most >= Care.ISOLATED else self._lines[self.kind].next_care

    @property
    def head(self) -> tuple[float, ...]:
        """See `PendingItems.head`."""
        return min((line.head for line in self._lines if line), default=(9.0,))

    @property
    def any_apart(self) -> bool:
        """True where an item has to run while nothing else does."""
        return any(line.any_apart for line in self._lines)

    def take(self, size: int) -> tuple[Sequence[int], Care]:
        """Up to ``size`` items of the kind that was turned to; they are to be handled with the same care."""
        return self._lines[self.kind].take(size)

    def add(self, indices: range) -> None:
        """More fresh items have come."""
        kinds, start = self._kinds, indices.start
        for at in range(indices.start + 1, indices.stop + 1):
            if at == indices.stop or kinds[at] != kinds[start]:
                self._lines[kinds[start]].add(range(start, at))
                start = at

    def put_group(self, indices: Sequence[int], parts: int = 1) -> None:
        """See `PendingItems.put_group`; all are of one kind, since they were sent together."""
        self._line(indices[0]).put_group(indices, parts)

    def put_back(self, indices: Sequence[int]) -> None:
        """These items did not run after all."""
        by_kind: dict[int, list[int]] = {}
        for index in indices:
            by_kind.setdefault(self._kinds[index], []).append(index)
        for kind, own in by_kind.items():
            for part in stretches(own):
                self._lines[kind].put_back(part)

    def remove(self, gone: Collection[int]) -> None:
        """These items do not wait any more, as far as they did."""
        for line in self._lines:
            line.remove(gone)

    def add_due(self, index: int) -> None:
        """A retry's delay is over."""
        self._line(index).add_due(index)

    def suspect(self, indices: Iterable[int]) -> None:
        """See `PendingItems.suspect`."""
        for index in indices:
            self._line(index).suspect([index])

    def handle_with(self, index: int, care: Care) -> None:
        """This item is handled with that much care at least, until the job ends. It must not be waiting now."""
        self._line(index).handle_with(index, care)

    def clear(self) -> None:
        """Forget everything."""
        for line in self._lines:
            line.clear()

    def _line(self, index: int) -> PendingItems:
        return self._lines[self._kinds[index]]
