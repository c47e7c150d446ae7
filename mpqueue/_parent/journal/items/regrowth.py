"""`Regrown`: the items of an open job as a journal has them, to be run from there on, whatever is added again.

What has not ended runs, also what handlers had added. So each item has to be there, or to be added again:

- An item that can't be had from the journal (it could not be pickled, or can't be read here) does not count until it
  is added again: by the user, or by its maker, which runs again for that.
- Where a maker runs again, since its result is lost say, it adds its items again. Those that have ids are left out
  then, since they are there. Those without are new: so the ones that it had added do not count any more.

In both cases the journal has to say in one transaction that the items do not count, and that their maker runs again.
Else a program which ends before it does would leave an ended maker without its items, to one that can read the result,
or does not want it.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.chunk_rows import NUMBERS, fresh_row
from mpqueue._parent.journal.items.lots import BY_USER, AddedRow
from mpqueue._parent.journal.items.recorded_growth import RecordedGrowth
from mpqueue._parent.journal.journal_file import Statement, Store, chunk_statement
from mpqueue._parent.journal.kept_results import KeptResults, run_discarded_again
from mpqueue._parent.journal.kept_values import Unreadable
from mpqueue._wire.ids import IdRule
from mpqueue.status import COMPLETED, FAILED, PENDING

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob

log = logging.getLogger("mpqueue")

TOTAL = "UPDATE jobs SET total = ?, completed = ?, failed = ? WHERE number = ?"


class Regrown:
    """Reads the job. ``redo`` are the ids of items that run again by their user's word, which has to be a job with ids.

    Where it ``wants_results``, items whose results were discarded run again.
    ``table`` has what counts. Raises `JournalError` where what the items are is damaged: then it can't be known which
    would be lost.
    """

    def __init__(
        self, reader: Reader, recorded: RecordedJob, redo: Collection[Any] = (), *, wants_results: bool
    ) -> None:
        self._number = recorded.number
        self._rows = reader.added(recorded)
        self._rule = IdRule(recorded.rule)
        payloads: list[Any] = []
        ids: list[Any] = []
        self._makers: array[int] = array("q")
        self._present = bytearray(b"\1") * recorded.count
        for row in self._rows:
            payloads += row.items(reader.read_file)
            ids += row.ids or ()
            self._makers.extend(row.all_makers())
            for at in row.gone:
                self._present[row.first + at] = 0
        self._all = ItemTable(payloads, None if self._rule is IdRule.POSITION else ids, self._rule)
        self._gone: list[int] = []  #: slots of items that do not count any more
        self._afresh: set[int] = set()  #: slots of items that had ended, and run again, also by the journal
        unreadable = reader.fill(self._all, recorded)
        for slot in unreadable:
            self._all.status[slot], self._all.results[slot] = PENDING, None
        self._ended_there = set(unreadable)  #: slots of items that run again, and have ended by the journal so far
        if unreadable:
            log.warning("job %r: the outcomes of %d items can't be read from %s, so these run again; the first is %s",
                        recorded.id, len(unreadable), reader.path, self._all.named(unreadable[0]))  # fmt: skip
        if wants_results:
            self._ended_there.update(run_discarded_again(self._all, recorded.id, reader.path))
        wanted = set(redo)
        self._run_again(slot for slot, item_id in enumerate(ids) if item_id in wanted)
        self._drop_lost(recorded.id, reader.path)
        self._drop_orphans()
        self.table = self._grown_table()
        self.table.source = KeptResults(reader, recorded.number, recorded.id, strict=True)

    def _run_again(self, slots: Any) -> None:
        again = [slot for slot in slots if self._present[slot] and self._has_ended(slot)]
        self._all.start_afresh(again)
        self._afresh.update(again)

    def _has_ended(self, slot: int) -> bool:
        """By the journal."""
        return self._all.status[slot] != PENDING or slot in self._ended_there

    def _drop_lost(self, job_id: str, path: str) -> None:
        """Items that are to run, and are not in the journal, from the last one on: a maker comes before its items."""
        lost: list[int] = []
        for slot in range(len(self._present) - 1, -1, -1):
            if self._present[slot] and not self._all.ended(slot) and type(self._all.payloads[slot]) is Unreadable:
                lost.append(slot)
                self._drop(slot)
                if (maker := self._makers[slot]) != BY_USER:
                    self._run_again([maker])
        if lost:
            log.warning("job %r: %d items that are to run can't be read from %s: the makers of those that handlers had "
                        "added run again; the others run once their program adds them again; the first is %r",
                        job_id, len(lost), path, self._all.payloads[lost[-1]])  # fmt: skip

    def _drop_orphans(self) -> None:
        """Items without ids whose maker runs again, or does not count any more, from the first one on."""
        if self._rule is not IdRule.POSITION:
            return
        for slot, maker in enumerate(self._makers):
            if maker == BY_USER or not self._present[slot]:
                continue
            if not self._present[maker] or self._all.status[maker] != COMPLETED:
                self._drop(slot)
                if maker in self._ended_there:
                    self._run_again([maker])

    def _drop(self, slot: int) -> None:
        self._present[slot] = 0
        self._gone.append(slot)

    def _grown_table(self) -> ItemTable:
        found = self._all
        slots: Sequence[int] = [slot for slot, there in enumerate(self._present) if there]
        ids = None if found.ids is None else [found.ids[slot] for slot in slots]
        table = ItemTable([found.payloads[slot] for slot in slots], ids, self._rule, grows=True)
        columns: Any = table
        for name, code in NUMBERS.items():
            column = getattr(found, name)
            setattr(columns, name, array(code, (column[slot] for slot in slots)))
        table.status = bytearray(found.status[slot] for slot in slots)
        table.results = [found.results[slot] for slot in slots]
        for name in ("failures", "history", "output"):
            told = getattr(found, name)
            if told:
                setattr(table, name, {index: told[slot] for index, slot in enumerate(slots) if slot in told})
        table.slots = None if len(slots) == len(self._present) else array("I", slots)
        table.growth = growth = RecordedGrowth(len(self._present))
        if self._rule is IdRule.POSITION:
            by_user = (row.identity(at) for row, at in self._places() if self._is_expected(row, at))
            growth.expected.update(by_user)
        return table

    def _places(self) -> Any:
        return ((row, at) for row in self._rows for at in range(row.size))

    def _is_expected(self, row: AddedRow, at: int) -> bool:
        slot = row.first + at
        return bool(self._present[slot]) and self._makers[slot] == BY_USER

    def write(self, store: Store) -> None:
        """Have the journal say so: which items do not count any more, and which run again. Raises `sqlite3.Error`."""
        if not self._gone and not self._afresh:
            return
        gone = set(self._gone)
        statements: list[Statement] = []
        for row in self._rows:
            places = [at for at in range(row.size) if row.first + at in gone]
            if places:
                statements.append(row.without(places).change(self._number))
        afresh = sorted(self._afresh)
        if afresh:
            statements.append(chunk_statement(store.next_chunk(), self._number, fresh_row(afresh)))
        status = self.table.status
        counts = len(status), status.count(COMPLETED), status.count(FAILED), self._number
        store.write([*statements, (TOTAL, counts)])
