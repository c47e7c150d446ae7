"""`GrowthDraft`: items that an open job has got, on their way into the journal with the row of those that added them.

All of it is one transaction: so the journal has an item's end and what it has added, or neither. An item that brings
one which can't be pickled for the journal is written as not run.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.chunk_rows import NO_ROW, Row, RowDraft, kept_together
from mpqueue._parent.journal.items.lots import BY_USER, COUNT, KeptItem, NewItems, keep_item, rows_of
from mpqueue._parent.journal.items.recorded_growth import Lot, RecordedGrowth
from mpqueue._parent.journal.kept_values import BigFile


class GrowthDraft:
    """As `RowDraft`, and on the same threads: that of the items that have ended (None: there are none), and of others.

    These are the items of the ``lots``, which are pickled first. With the row, ``new_items`` gives all that are new.
    """

    def __init__(
        self, draft: RowDraft | None, lots: Sequence[LotDraft], new_items: Callable[[Row], NewItems | None]
    ) -> None:
        self._draft = draft
        self._lots = lots
        self._new_items = new_items
        self._lock = threading.Lock()  #: of the next two
        self._is_over = False  #: the items were taken as far as they are pickled
        self._has_items = False  #: all of them are: `draft` comes next

    @property
    def step(self) -> int:
        """Goes up with each object that is pickled."""
        draft = 0 if self._draft is None else self._draft.step
        return draft + sum(lot.step for lot in self._lots)

    def plain_row(self) -> Row | None:
        """The row, where nothing failed and items and results are small and plain; else None."""
        for lot in self._lots:
            if not lot.keep_plain():
                return None
        row = NO_ROW if self._draft is None else self._draft.plain_row()
        return None if row is None else self._grown(row)

    def row(self) -> Row | None:
        """The row; None where it was cut short meanwhile."""
        for lot in self._lots:
            lot.keep()
        with self._lock:
            if self._is_over:
                return None
            self._has_items = True
        self._withhold("it added an item that can't be pickled")
        row = NO_ROW if self._draft is None else self._draft.row()
        return None if row is None else self._grown(row)

    def cut_short(self, why: str) -> Row | None:
        """What is pickled by now. None where `row` has just ended."""
        with self._lock:
            has_items, self._is_over = self._has_items, True
        if not has_items:
            for lot in self._lots:
                lot.cut_short()
            self._withhold(why)
        if self._draft is None:
            return None if has_items else self._grown(NO_ROW)
        row = self._draft.cut_short(why)
        return None if row is None else self._grown(row)

    def _withhold(self, why: str) -> None:
        makers = {maker for lot in self._lots for maker in lot.makers_of_lost()}
        if makers and self._draft is not None:
            self._draft.withhold(makers, why)

    def _grown(self, row: Row) -> Row:
        return row._replace(growth=self._new_items(row))


def draft_of(growth: RecordedGrowth, table: ItemTable, draft: RowDraft | None) -> GrowthDraft:
    """What an open job has got since the last time, to be written with these items that have ended."""
    lots = [LotDraft(table, lot) for lot in growth.take_lots()]
    slots, rule = growth.next_slot, str(table.rule)

    def new_items(_: Row) -> NewItems | None:
        rows = [each for lot in lots for each in lot.rows()]
        files = tuple(file for lot in lots for file in lot.files)
        return NewItems(rows, (COUNT, (sum(row.size for row in rows), slots, rule)), files) if rows else None

    return GrowthDraft(draft, lots, new_items)


class LotDraft:
    """The items of one lot, pickled one after the other."""

    def __init__(self, table: ItemTable, lot: Lot) -> None:
        self._lot = lot
        self._payloads = table.payloads_of(lot.indices)
        ids = table.ids
        self._ids = None if ids is None else ids[lot.indices.start : lot.indices.stop]
        self._makers = lot.makers  #: by their slots
        if table.slots is not None and lot.makers[0] != BY_USER:
            self._makers = array("q", table.slots_of(lot.makers))
        self._together: tuple[Any, ...] | None = None
        self._each: list[KeptItem] = []
        self.files: list[BigFile] = []
        if lot.given is not None:
            self._each = lot.given.kept
            self.files = [file for beside in lot.given.files for file in beside]

    @property
    def step(self) -> int:
        """Goes up with each item."""
        return len(self._each)

    def keep_plain(self) -> bool:
        """Pickle them if that runs no user's code, and they are small; False if it does not."""
        if self._lot.given is None and self._together is None:
            kept = kept_together(self._payloads)
            self._together = None if kept is None else (kept.by_reference,)
        return self._lot.given is not None or self._together is not None

    def keep(self) -> None:
        """Pickle them, whatever code that runs."""
        if self.keep_plain():
            return
        each, beside = self._each, self.files  # who cuts this short has lists of its own
        for payload in self._payloads:
            files: list[BigFile] = []
            kept = keep_item(payload, files)
            beside += files  # first: whatever names them
            each.append(kept)

    def cut_short(self) -> None:
        """Those that are not pickled by now are not kept."""
        if self._together is None:
            each, files = self._each[: len(self._payloads)], [*self.files]
            self._each, self.files = [*each, *[None] * (len(self._payloads) - len(each))], files

    def makers_of_lost(self) -> Sequence[int]:
        """The items that have brought one which is not kept, by their indices."""
        if self._together is not None or self._lot.given is not None:
            return ()
        return [maker for maker, kept in zip(self._lot.makers, self._each, strict=True) if kept is None]

    def rows(self) -> Sequence[Any]:
        """See `rows_of`."""
        given = self._lot.given
        identities = None if given is None or self._makers[0] != BY_USER else given.identities
        kept = self._each if self._together is None else self._together
        return [*rows_of(self._lot.slot, kept, self._ids, identities, self._makers)]
