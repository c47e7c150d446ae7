"""`Regrown`: the items of an open job as a journal has them, to be run from there on, whatever is added again.

Which of them count, and run again, `regrow` decides. The journal has to say in one transaction that items do not count,
and that their maker runs again. Else a program which ends before it does would leave an ended maker without its items,
to one that can read the result, or does not want it.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.chunk_rows import NUMBERS, chunk_statement, fresh_row
from mpqueue._parent.journal.growth import RecordedGrowth
from mpqueue._parent.journal.journal_file import Store
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._parent.journal.kept_values import NotKept, Statement, Unreadable
from mpqueue._parent.journal.lots import BY_USER, Lot
from mpqueue._queue.recorded.resume import AGAIN, GONE, Found, Grown, regrow
from mpqueue._wire.ids import IdRule
from mpqueue.status import COMPLETED, FAILED

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob

TOTAL = "UPDATE jobs SET total = ?, completed = ?, failed = ? WHERE number = ?"


class Regrown:
    """The recorded items of an open job. ``redo`` are the ids to run again, only of a job with ids.

    Where it ``wants_results``, items whose results were discarded run again. ``plan`` says by slots what is done;
    ``table`` has what counts. Raises `JournalError` where what the items are is damaged: then it can't be known which
    would be lost.
    """

    def __init__(
        self, reader: Reader, recorded: RecordedJob, redo: Collection[Any] = (), *, wants_results: bool
    ) -> None:
        self._number = recorded.number
        self._rows = [*reader.lots(recorded, items=True)]
        self._rule = rule = IdRule(recorded.rule)
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
        #: All items, by their slots.
        self.items = ItemTable(payloads, None if rule is IdRule.POSITION else ids, rule)
        rows = reader.fill(self.items, recorded)
        discarded = self.items.discarded() if wants_results else ()
        found = Found(self.items.status, ids, sorted(rows.unreadable | rows.lost), discarded)
        grown = Grown(
            self._present,
            self._makers,
            lambda slot: isinstance(payloads[slot], NotKept | Unreadable),
            rule is IdRule.POSITION,
        )
        self.plan = regrow(found, grown, redo)
        self.plan.follow(self.items)
        self.table = self._grown_table()
        self.table.source = KeptResults(reader, recorded.number, recorded.id, strict=True)

    def _grown_table(self) -> ItemTable:
        found = self.items
        slots: Sequence[int] = [slot for slot, how in enumerate(self.plan.stands) if how != GONE]
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

    def _is_expected(self, row: Lot, at: int) -> bool:
        slot = row.first + at
        return self.plan.stands[slot] != GONE and self._makers[slot] == BY_USER

    def write(self, store: Store) -> None:
        """Write which items do not count any more, and which run again. Raises `sqlite3.Error`."""
        gone = {slot for slot in self.plan.those(GONE) if self._present[slot]}
        afresh = [*self.plan.those(AGAIN)]
        if not gone and not afresh:
            return
        statements: list[Statement] = []
        for row in self._rows:
            places = [at for at in range(row.size) if row.first + at in gone]
            if places:
                statements.append(row.without(places).put(self._number))
        if afresh:
            statements.append(chunk_statement(store.next_chunk(), self._number, fresh_row(afresh)))
        status = self.table.status
        counts = len(status), status.count(COMPLETED), status.count(FAILED), self._number
        store.write([*statements, (TOTAL, counts)])
