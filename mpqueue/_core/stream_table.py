"""The items of a stream: rows that come while the job runs, and go when their outcome has been taken.

The same columns as `ItemTable`, sparse: a stream of ten million items holds only those between the one that was added
last and the one that was taken last. Rows are added, and ended ones taken, by the consumer's thread; everything between
is the coordinator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpqueue._core.item_table import Failure, ItemTable
from mpqueue._wire.ids import IdRule
from mpqueue.status import COMPLETED, PENDING, RETRY


class _Column(dict[int, Any]):
    """A column of which only what differs from the default is kept."""

    def __init__(self, default: Any) -> None:
        super().__init__()
        self._default = default

    def __missing__(self, index: int) -> Any:
        return self._default


class StreamTable(ItemTable):
    """A table whose rows come and go. Ids are positions, counted from 0 over the whole stream."""

    def __init__(self) -> None:
        super().__init__([], None, IdRule.POSITION)
        self._count = 0
        self._items: dict[int, Any] = {}
        self._statuses, self._tries, self._times, self._values = (
            _Column(PENDING),
            _Column(0),
            _Column(0.0),
            _Column(None),
        )
        columns: Any = self  # sparse here, which the columns' readers don't notice
        columns.payloads, columns.status, columns.results = self._items, self._statuses, self._values
        columns.attempts, columns.elapsed = self._tries, self._times

    def __len__(self) -> int:
        return self._count

    def append(self, item: Any) -> int:
        """Add a row; returns its index. On the consumer's thread, before the scheduler hears of it."""
        index = self._count
        self._items[index] = item
        self._count = index + 1
        return index

    def take(self, index: int) -> tuple[Any, Failure | None]:
        """The outcome of an ended item; its row is gone then. On the consumer's thread."""
        failure, result = self.failures.pop(index, None), self._values.pop(index, None)
        for column in (self._items, self._statuses, self._tries, self._times, self.history):
            column.pop(index, None)
        return result, failure

    def payloads_of(self, indices: Sequence[int]) -> list[Any]:
        """The items at these indices."""
        return [self._items[index] for index in indices]

    def unfinished(self) -> list[int]:
        """The indices of the items that have not ended."""
        return [index for index in sorted(self._items) if not self.ended(index)]

    def ended_indices(self) -> list[int]:
        """The indices of the items that ended and were not taken."""
        return [index for index in sorted(self._items) if self.ended(index)]

    def any_ended(self, indices: Sequence[int]) -> bool:
        """True where at least one of these items has its final status."""
        return any(self.ended(index) for index in indices)

    def complete(self, indices: Sequence[int], results: list[Any]) -> None:
        """These items completed, with these results; none of them had ended before."""
        tries, statuses = self._tries, self._statuses
        self._values.update(zip(indices, results, strict=True))
        for index in indices:
            tries[index] += 1
            statuses[index] = COMPLETED

    def time_stretch(self, indices: Sequence[int], seconds: float) -> None:
        """These items took ``seconds`` each."""
        self._times.update(dict.fromkeys(indices, seconds))

    def reset_waiting(self) -> None:
        """Items that wait for a retry are pending again."""
        for index, status in list(self._statuses.items()):
            if status == RETRY:
                self._statuses[index] = PENDING

    def forget_failures(self) -> list[int]:
        """A stream's failures are its consumer's: nothing is tried again."""
        return []
