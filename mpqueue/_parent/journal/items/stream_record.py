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
from mpqueue._parent.journal.items.growth_draft import GrownRow
from mpqueue._parent.journal.items.lots import BY_USER, AddedRow, KeptItem
from mpqueue._parent.journal.kept_values import BigFile, keep
from mpqueue.status import COMPLETED, FAILED, PENDING

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import ItemTable
    from mpqueue._parent.journal.items.known_items import Known
    from mpqueue._parent.journal.items.stream_items import StreamItem
    from mpqueue._parent.journal.journal_file import Statement

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

    def draft(self, table: ItemTable, indices: Sequence[int]) -> StreamDraft:
        """What these items, which have ended, bring into the journal."""
        came = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        before = [status for each in came for status in each.replaced]
        if self._before:
            before += [self._before.pop(index, PENDING) for index in indices]
        unkept = self._unkept.intersection(indices) if self._unkept else ()
        self._unkept.difference_update(unkept)
        draft = RowDraft(table, [*indices], {}, unkept)  # no slices of it: it has no columns
        return StreamDraft(draft, table, indices, [each.lot for each in came], before)


class StreamLots(NamedTuple):
    """Items on their way into the file, and by how much the counts of their stream change: completed, failed."""

    lots: Sequence[AddedRow]
    completed: int
    failed: int
    files: tuple[BigFile, ...] = ()

    def statements(self, job: int) -> list[Statement]:
        """What writes them, and counts them."""
        slots = self.lots[-1].first + self.lots[-1].size if self.lots else 0
        counts = (self.completed, self.failed, self.completed + self.failed, slots, job)
        return [*(lot.put(job) for lot in self.lots), (COUNT, counts)]


class StreamDraft:
    """As `RowDraft`, and on the same threads: that of the ``draft``, and the items that are written with it."""

    def __init__(
        self,
        draft: RowDraft,
        table: ItemTable,
        indices: Sequence[int],
        lots: Sequence[AddedRow],
        before: Sequence[int],
    ) -> None:
        self._draft = draft
        self._failed = sum([table.status[index] == FAILED for index in indices]) if table.failures else 0
        self._lots = lots
        self._before = before

    @property
    def step(self) -> int:
        """Goes up with each object that is pickled."""
        return self._draft.step

    def plain_row(self) -> GrownRow | None:
        """The row, where nothing failed and the results are small and plain; else None."""
        return self._grown(self._draft.plain_row())

    def row(self) -> GrownRow | None:
        """The row; None where it was cut short meanwhile."""
        return self._grown(self._draft.row())

    def cut_short(self, why: str) -> GrownRow | None:
        """What is pickled by now. None where `row` has just ended."""
        return self._grown(self._draft.cut_short(why))

    def _grown(self, row: Row | None) -> GrownRow | None:
        if row is None:
            return None
        completed, failed = self._before.count(COMPLETED), self._before.count(FAILED)
        return GrownRow(row, StreamLots(self._lots, len(row.done) - completed, self._failed - failed))


def _kept_items(items: list[Any]) -> tuple[Any, ...] | list[KeptItem]:
    """All in one, where they are small and plain; else each by itself: None for one that is not to be kept."""
    if all(_is_small(item) for item in items):
        return (pickle.dumps(items, pickle.HIGHEST_PROTOCOL),)
    return [_kept(item) for item in items]


def _kept_ids(ids: list[Hashable]) -> list[Hashable] | tuple[Any, ...]:
    """As they are, where they are plain; else in one pickle."""
    if all(_is_small(each) for each in ids):
        return ids
    nothing: list[Hashable] = [None] * len(ids)
    return _kept(ids) or nothing


def _is_small(value: Any) -> bool:
    return type(value) in _SMALL or (type(value) in _TEXTS and len(value) < MOST_TEXT)


def _kept(value: Any) -> tuple[Any, ...] | None:
    """The value, where it is small and can be pickled. An item that can't be fails when its turn comes."""
    files: list[BigFile] = []
    try:
        kept = keep(value, files)
    except Exception:
        return None
    return None if files else tuple(kept)
