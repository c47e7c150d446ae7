"""`StreamRecord`: what a journal is to know of a stream's items while it runs, and its drafts of what is written.

A stream is recorded as an open job is: lots of items, and rows of outcomes by slot. Its slots are places of arrival. An
item is written with the first outcomes that follow it, in one transaction: what has never run need not be known.
"""

from __future__ import annotations

import pickle
from array import array
from collections import deque
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._parent.journal.chunk_rows import Row, RowDraft, written_numbers
from mpqueue._parent.journal.items.growth_draft import GrowthDraft
from mpqueue._parent.journal.items.lots import BY_USER, AddedRow, KeptItem, NewItems
from mpqueue._parent.journal.kept_values import keep_small
from mpqueue.status import COMPLETED, FAILED, PENDING

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import ItemTable
    from mpqueue._parent.journal.items.known_items import Known
    from mpqueue._parent.journal.items.stream_items import StreamItem

#: Its slots count from when they are written; its items, from when they have ended.
COUNT = """UPDATE jobs SET completed = completed + ?, failed = failed + ?, total = total + ?, slots = max(slots, ?)
WHERE number = ?"""
#: The user has added them.
_MAKERS = written_numbers(array("q", (BY_USER,)))
#: Types whose values are pickled as they are: they have no code, and name no class; texts up to so many characters.
_SMALL, _TEXTS = frozenset((int, float, bool, type(None))), frozenset((str, bytes))
MOST_TEXT = 4096


class ComingLot(NamedTuple):
    """New items. ``unkept``: indices of those that are left out; ``replaced``: how what they replace had ended."""

    lot: AddedRow
    unkept: Sequence[int]
    replaced: Sequence[int]


def lot_of(
    first: int, indices: Sequence[int], entries: Sequence[StreamItem], replaced: Sequence[tuple[int, Known]]
) -> ComingLot:
    """New items at these indices, in the slots from the ``first`` on, with the places of those that replace others.

    Pickles them, and their ids, which may run any code.
    """
    kept = _kept_items([entry.item for entry in entries])
    unkept: Sequence[int] = ()
    if isinstance(kept, list):
        unkept = [index for index, one in zip(indices, kept, strict=True) if one is None]
    identities = b"".join([entry.identity for entry in entries])
    states = b"".join([entry.state for entry in entries])
    lot = AddedRow(
        first,
        len(entries),
        kept,
        None if entries[0].id is None else _kept_ids([entry.id for entry in entries]),
        identities,
        _MAKERS,
        (),
        None if states == identities else states,
        tuple([(at, known.first) for at, known in replaced]),
    )
    return ComingLot(lot, unkept, [known.status for _, known in replaced])


class StreamRecord:
    """The consumer's thread adds items; all else is on the coordinator's. ``next_slot``: of the next new item."""

    def __init__(self, next_slot: int) -> None:
        self.consumer_waits = False  #: for the next outcome; set by its thread
        self.next_slot = next_slot
        self._unwritten: deque[ComingLot] = deque()
        self._before: dict[int, int] = {}  #: by index: how an item that runs again had ended, by the journal
        self._unkept: set[int] = set()  #: indices of items that are not in their lot

    def put(self, came: ComingLot) -> None:
        """New items have come, and are about to run."""
        self.next_slot = came.lot.first + came.lot.size
        self._unkept.update(came.unkept)
        self._unwritten.append(came)

    def runs_again(self, index: int, status: int) -> None:
        """The item at that index had ended so, by the journal."""
        if status != PENDING:
            self._before[index] = status

    def draft(self, table: ItemTable, indices: Sequence[int]) -> GrowthDraft:
        """What these items, which have ended, bring into the journal."""
        came = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        before = [status for each in came for status in each.replaced]
        if self._before:
            before += [self._before.pop(index, PENDING) for index in indices]
        unkept = self._unkept.intersection(indices) if self._unkept else ()
        self._unkept.difference_update(unkept)
        draft = RowDraft(table, [*indices], {}, unkept)  # no slices of it: it has no columns
        lots = [each.lot for each in came]
        failed = sum([table.status[index] == FAILED for index in indices]) if table.failures else 0
        completed_before, failed_before = before.count(COMPLETED), before.count(FAILED)

        def new_items(row: Row) -> NewItems:
            slots = lots[-1].first + lots[-1].size if lots else 0
            counts = (len(row.done) - completed_before, failed - failed_before)
            return NewItems(lots, (COUNT, (*counts, sum(counts), slots)))

        return GrowthDraft(draft, (), new_items)


def _kept_items(items: list[Any]) -> tuple[Any, ...] | list[KeptItem]:
    """All in one, where they are small and plain; else each by itself: None for one that is not to be kept."""
    if all(_is_small(item) for item in items):
        return (pickle.dumps(items, pickle.HIGHEST_PROTOCOL),)
    return [None if (kept := keep_small(item)) is None else tuple(kept) for item in items]


def _kept_ids(ids: list[Hashable]) -> list[Hashable] | tuple[Any, ...]:
    """As they are, where they are plain; else in one pickle."""
    if all(_is_small(each) for each in ids):
        return ids
    nothing: list[Hashable] = [None] * len(ids)
    kept = keep_small(ids)
    return nothing if kept is None else tuple(kept)


def _is_small(value: Any) -> bool:
    return type(value) in _SMALL or (type(value) in _TEXTS and len(value) < MOST_TEXT)
