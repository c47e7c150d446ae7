"""The rows of a stream: one for each item that has ended, found by what the item is.

So a damaged row costs its item only, and one item's result is read without those of others. A result of plain data
stands in the row itself; all else, and how an item failed, is written as `RowDraft` writes it.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.stream_table import StreamTable
from mpqueue._parent.journal.chunk_rows import Row, RowDraft, kept_together
from mpqueue._parent.journal.items.streams.many_rows import rows_at_once
from mpqueue._parent.journal.items.streams.told import BODY, ITEM, Named
from mpqueue._parent.journal.kept_values import BigFile, Kept, keep
from mpqueue._parent.journal.sealed import Unsealed, prepare
from mpqueue.status import COMPLETED, FAILED

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_file import Statement

PUT = "INSERT OR REPLACE INTO stream_items (job, identity, nth, status, body, item) VALUES "
COUNT = "UPDATE jobs SET completed = completed + ?, failed = failed + ?, total = total + ? WHERE number = ?"


@dataclass(frozen=True, slots=True)
class Awaited:
    """An item under way, and what is known of its row. ``before`` is the status in the row that it replaces."""

    named: Named
    state: bytes
    item: Unsealed
    is_kept: bool  #: the item is in the row
    before: int | None = None


class RecordedStreamTable(StreamTable):
    """The table of a stream that is recorded. ``awaited`` belongs to the consumer's thread until a row is admitted."""

    def __init__(self, generation: int) -> None:
        super().__init__()
        self.generation = generation
        self.consumer_waits = False  #: for the next outcome; set by its thread
        self.awaited: dict[int, Awaited] = {}

    def slots_of(self, indices: Sequence[int]) -> Sequence[int]:
        """See `ItemTable`: numbers that depend on the items only, for random numbers and for marks."""
        try:
            return [self.awaited[index].named.slot for index in indices]
        except KeyError:  # they have ended
            return ()


def keep_item(item: Any, item_id: Hashable) -> tuple[Unsealed, bool]:
    """An item and its id as they stand in its row, for people, and whether the item does. Never raises."""
    kept = _kept(item)
    return prepare((None if item_id is None else _kept(item_id), kept)), kept is not None


def _kept(value: Any) -> tuple[Any, ...] | None:
    """The value, where it is small and can be pickled. An item that can't be fails when its turn comes."""
    if type(value) in _SMALL or (type(value) in _TEXTS and len(value) < MOST_TEXT):
        return tuple(Kept(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)))
    files: list[BigFile] = []
    try:
        kept = keep(value, files)
    except Exception:
        return None
    return None if files else tuple(kept)


#: Types whose values are pickled at once as they are: they have no code, and name no class.
_SMALL, _TEXTS = frozenset((int, float, bool, type(None))), frozenset((str, bytes))
#: How long such a text may be.
MOST_TEXT = 4096


class StreamRows(NamedTuple):
    """Rows on their way into the file. ``left_out`` as in `Row`."""

    rows: tuple[tuple[Awaited, int, Unsealed], ...]
    files: tuple[BigFile, ...] = ()
    left_out: tuple[tuple[int, str], ...] = ()

    def statements(self, job: int) -> list[Statement]:
        """What writes them, and counts them."""
        written: list[Any] = []
        counts = {COMPLETED: 0, FAILED: 0}
        total = 0
        for awaited, status, body in self.rows:
            named = awaited.named
            sealed, item = body.seal(named.place(BODY, job)), awaited.item.seal(named.place(ITEM, job))
            written += (job, named.identity, named.nth, status, sealed, item)
            counts[status] += 1
            if awaited.before is None:
                total += 1
            else:
                counts[awaited.before] -= 1
        return [*rows_at_once(PUT, written, 6), (COUNT, (counts[COMPLETED], counts[FAILED], total, job))]


class StreamDraft:
    """How some items of a stream ended, to be written once it is pickled; as `RowDraft`, and on the same threads.

    What has ended stays as it is until it is announced, which waits for the row.
    """

    def __init__(self, table: RecordedStreamTable, indices: Sequence[int]) -> None:
        self._table = table
        self._indices = indices
        self._awaited = [table.awaited.pop(index) for index in indices]
        self._rows: list[tuple[Awaited, int, Unsealed]] = []  #: of the first items
        self._files: list[BigFile] = []
        self._left_out: list[tuple[int, str]] = []
        self._looked_at = 0  #: so many of the items
        self._draft: RowDraft | None = None  #: of the next one
        self._steps = 0
        self._is_over = False  #: the rows were taken
        self._lock = threading.Lock()  #: of these

    @property
    def step(self) -> int:
        """Goes up with each object that is pickled."""
        draft = self._draft
        return self._steps + (0 if draft is None else draft.step)

    def plain_row(self) -> StreamRows | None:
        """The rows, where nothing failed and the results are small and plain; else None."""
        table = self._table
        if table.failures and any(index in table.history or index in table.failures for index in self._indices):
            return None
        results = [table.results[index] for index in self._indices]
        if kept_together(results) is None:
            return None
        rows = [
            (awaited, COMPLETED, prepare((COMPLETED, awaited.state, table.generation, (result,), table.code)))
            for awaited, result in zip(self._awaited, results, strict=True)
        ]
        return StreamRows(tuple(rows))

    def row(self) -> StreamRows | None:
        """The rows; None where they were cut short meanwhile. An item whose result can't be pickled has none."""
        for at, index in enumerate(self._indices):
            self._draft = draft = self._draft_of(at, index)
            row = draft.row()
            with self._lock:
                if row is None or self._is_over:
                    return None
                self._note(at, index, row)
                self._steps += draft.step + 1
                self._draft = None
        with self._lock:
            return self._take_all()

    def cut_short(self, why: str) -> StreamRows | None:
        """What is pickled by now. None where `row` has just ended."""
        with self._lock:
            draft, first = self._draft, self._looked_at
            for at in range(first, len(self._indices)) if not self._is_over else ():
                index = self._indices[at]
                row = (draft if draft is not None and at == first else self._draft_of(at, index)).cut_short(why)
                if row is not None:
                    self._note(at, index, row)
                else:  # it has just been made, which is not waited for
                    self._left_out.append((index, why))
            return self._take_all()

    def _draft_of(self, at: int, index: int) -> RowDraft:
        return RowDraft(self._table, [index], {}, () if self._awaited[at].is_kept else (index,))

    def _note(self, at: int, index: int, row: Row) -> None:
        self._looked_at = at + 1
        if row.left_out or row.body is None:
            self._left_out += row.left_out
            return
        awaited, status = self._awaited[at], self._table.status[index]
        content = (status, awaited.state, self._table.generation, row.body.data, self._table.code)
        self._rows.append((awaited, status, prepare(content)))
        self._files += row.files

    def _take_all(self) -> StreamRows | None:
        if self._is_over:
            return None
        self._is_over = True
        return StreamRows(tuple(self._rows), tuple(self._files), tuple(self._left_out))
