"""The items of a stream: rows that come while the job runs, and go when their outcome has been taken.

The same columns as `ItemTable`, sparse: a stream of ten million items holds only those between the one that was added
last and the one that was taken last. Rows are added, and ended ones taken, by the consumer's thread; everything between
is the coordinator's. The scheduler counts a row from when a message has told it, and decides nothing by one that has
ended, so it makes no difference to it when rows come and go. Whatever is done to all rows is done by one call into C,
which costs 0.2 us a row in all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue._wire.ids import IdRule
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY


class _Column(dict[int, Any]):
    """A column of which only what is not as expected is kept: ``before`` an item has its result, ``after`` that."""

    def __init__(self, results: dict[int, Any], before: Any, after: Any, format: str = "B") -> None:
        super().__init__()
        self.format = format  #: that of the column of an `ItemTable`
        self._results = results
        self._before = before
        self._after = after

    def __missing__(self, index: int) -> Any:
        return self._after if index in self._results else self._before


class _Results(dict[int, Any]):
    """What completed items returned."""

    def __missing__(self, index: int) -> None:
        return None


class StreamTable(ItemTable):
    """A table whose rows come and go. Ids are positions, counted from 0 over the whole stream."""

    def __init__(self) -> None:
        super().__init__([], None, IdRule.POSITION)
        self._count = 0  #: rows that the scheduler knows of
        self._added = 0  #: rows that there are, counted by the consumer
        self._items: dict[int, Any] = {}
        self._values = _Results()
        self._statuses = _Column(self._values, PENDING, COMPLETED)
        self._tries = _Column(self._values, 0, 1, "I")
        self._times = _Column(self._values, 0.0, 0.0, "f")
        columns: Any = self  # sparse here, which the columns' readers don't notice
        columns.payloads, columns.status, columns.results = self._items, self._statuses, self._values
        columns.attempts, columns.elapsed = self._tries, self._times
        self.slots: dict[int, int] | None = None
        columns.cpu, columns.peak = _Column(self._values, 0.0, 0.0, "f"), _Column(self._values, 0, 0, "I")

    def __len__(self) -> int:
        return self._count

    def append(self, item: Any) -> int:
        """Add a row; returns its index. On the consumer's thread, before the scheduler gets it."""
        return self.extend([item]).start

    def extend(self, items: Sequence[Any]) -> range:
        """Add rows; returns their indices. On the consumer's thread, before the scheduler gets them."""
        indices = range(self._added, self._added + len(items))
        rows = zip(indices, items, strict=True)
        try:
            self._items.update(rows)
        finally:  # a Ctrl-C comes between two calls: after the rows it must not leave them uncounted
            self._added = indices.stop
        return indices

    def take_over(self, indices: Sequence[int], outcomes: Sequence[Any]) -> None:
        """These rows have ended already, with these results or `Failure`s. On the consumer's thread, once added."""
        for index, outcome in zip(indices, outcomes, strict=True):
            if type(outcome) is Failure:
                self.fail(index, outcome)
            else:
                self._values[index] = outcome

    @property
    def added(self) -> int:
        """How many rows were ever added, also those that the scheduler has not got yet."""
        return self._added

    def admit(self, indices: range) -> None:
        """The scheduler has got these rows: now they count."""
        self._count = indices.stop

    def take(self, index: int) -> tuple[Any, Failure | None]:
        """The outcome of an ended item; its row is gone then. On the consumer's thread."""
        self._items.pop(index, None)
        failed = self._statuses.pop(index, None) == FAILED
        failure = self.failures.pop(index, None)
        for column in (self._tries, self._times, self.history):
            column.pop(index, None)
        if self.slots is not None:
            del self.slots[index]
        return self._values.pop(index, None), failure if failed else None

    def take_all(self, indices: Sequence[int]) -> list[Any]:
        """The outcomes of ended items: a result each, or its `Failure`; their rows are gone then."""
        if not self.failures:  # nor has any of these ever failed
            deque(map(self._items.pop, indices), maxlen=0)
            if self.slots is not None:
                deque(map(self.slots.pop, indices), maxlen=0)
            return [*map(self._values.pop, indices)]
        outcomes = map(self.take, indices)
        return [result if failure is None else failure for result, failure in outcomes]

    def ended(self, index: int) -> bool:
        """True where the item has its final status, or was taken."""
        return index in self._values or index not in self._items or self._statuses[index] == FAILED

    @property
    def _is_through(self) -> bool:
        """See `ItemTable`."""
        return not self._items

    def payloads_of(self, indices: Sequence[int]) -> list[Any]:
        """The items at these indices."""
        return [*map(self._items.__getitem__, indices)]

    def slots_of(self, indices: Sequence[int]) -> Sequence[int]:
        """See `ItemTable`; empty too for items that were taken."""
        try:
            return super().slots_of(indices)
        except KeyError:
            return ()

    def unfinished(self) -> list[int]:
        """The indices of the items that have not ended."""
        return [index for index in sorted(self._items) if index < self._count and not self.ended(index)]

    def ended_indices(self) -> list[int]:
        """The indices of the items that ended and were not taken."""
        return [index for index in sorted(self._items) if index < self._count and self.ended(index)]

    def complete(self, indices: Sequence[int], results: list[Any]) -> None:
        """These items completed, with these results; none of them had ended before."""
        again = [index for index in indices if index in self.history] if self.failures else ()
        for index in again:
            self._tries[index] += 1
        self._values.update(zip(indices, results, strict=True))
        for index in again:
            self._statuses[index] = COMPLETED

    def note_times(self, indices: Sequence[int], stretches: Iterable[tuple[int, float, float]]) -> None:
        """What its items cost is nothing that a stream keeps."""

    def note_peaks(self, peaks: Mapping[int, int]) -> None:
        """See `note_times`."""

    def forget_costs(self, index: int) -> None:
        """See `note_times`."""

    def reset_waiting(self) -> None:
        """Items that wait for a retry are pending again."""
        for index, status in list(self._statuses.items()):
            if status == RETRY:
                self._statuses[index] = PENDING

    def forget_failures(self, which: Iterable[int] | None = None) -> list[int]:  # noqa: ARG002 - the form of all
        """A stream's failures are its consumer's: nothing is tried again."""
        return []
