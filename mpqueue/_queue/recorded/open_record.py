"""`OpenRecord`: the record of an open job in its queue's journal."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._parent.journal.chunk_rows import chunk_statement, fresh_row
from mpqueue._parent.journal.growth import GivenItems, RecordedGrowth
from mpqueue._parent.journal.journal_file import Store
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._parent.journal.kept_values import NotKept, Statement, Unreadable
from mpqueue._parent.journal.lots import BY_USER, present_slots
from mpqueue._parent.journal.recorder import Recorder, Recording
from mpqueue._queue.new_job import replay_item, send_results_to, take_rule
from mpqueue._queue.recorded.job_plan import case_of
from mpqueue._queue.recorded.job_record import JobRecord, heed, tell_of_lost
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue._queue.recorded.resume import AGAIN, GONE, Case, Found, Grown, Kind, agree, indices_of, regrow
from mpqueue._wire.added_items import plain_ids
from mpqueue._wire.item_names import IdRule
from mpqueue.status import COMPLETED, FAILED

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._queue.recorded.code_parts import CodeNow


class OpenRecord(JobRecord):
    """The record of an open job that has not started. Its table has the items that its user gives it now.

    Recorded items come before them.
    """

    def record_or_go_on(self, recorder: Recorder, created_at: float, options: RecordOptions) -> None:
        """Record the job, or continue its record: recorded items count even if they are not given; others are new.

        With another ``version``, or if ``redo`` asks for it, the job begins anew: its record is removed.
        """
        journal, code = recorder.journal, self._take_code()
        recorded = journal.find(self.book.id)
        case = None if recorded is None else self._case(journal.reader, recorded, code, options)
        terms = None if case is None else agree(case)
        if terms is not None and terms.anew:
            case = None
        first = self._first_items(None if case is None else case.recorded)
        if case is None:
            number = self._begin(recorder, recorded, {**self._columns(created_at, code, options), "is_open": 1})
        else:
            assert terms is not None
            heed(terms.refused, terms.warnings)
            number = self._go_on_with(recorder, case, self._changes(case, terms))
        self._add_first(recorder, number, *first)

    def _case(self, reader: Reader, recorded: RecordedJob, code: CodeNow, options: RecordOptions) -> Case:
        """Return the recorded job. Raises `JournalMismatchError` if it is of another kind."""
        case = case_of(reader, recorded, Kind.OPEN, self._brought(code, options))
        if case.made.may_differ:
            case.made.look(reader.outcomes(recorded).ended_by(range(recorded.count)))
        return case

    def _begin(self, recorder: Recorder, recorded: RecordedJob | None, columns: dict[str, Any]) -> int:
        """Begin a new job without items; remove the ``recorded`` one. Returns its number."""
        book, journal = self.book, recorder.journal
        if recorded is not None:
            before = recorded.number
            journal.ask(lambda store: store.remove_job(before))
        number = journal.ask(lambda store: store.put_job(None, {**columns, "total": 0, "slots": 0}))
        empty = ItemTable([], None, IdRule.POSITION, grows=True)
        empty.growth = RecordedGrowth()
        self._have(empty)
        book.table.source = KeptResults(journal.reader, number, book.id, strict=True)
        recorder.add(book, Recording(number))
        return number

    def _write_found(self, recorder: Recorder) -> None:
        """Write what does not count any more. Only its handlers add more items."""
        assert self._regrown is not None
        recorder.journal.ask(self._regrown.write)

    _regrown: Regrown | None = None

    def regrow(
        self, reader: Reader, recorded: RecordedJob, redo: Collection[Any] = (), *, wants_results: bool = False
    ) -> None:
        """Return the journal's items, see `Regrown`. Changes nothing there. Raises `JournalError`."""
        self._regrown = reader.at_once(lambda: Regrown(reader, reader.now(recorded), redo, wants_results=wants_results))
        self._have(self._regrown.table)
        tell_of_lost(recorded.id, self._regrown.plan, self._regrown.items, "outcomes", reader.path)
        self.book.retries, self.book.past = recorded.retries, recorded.past
        self.book.go_on()

    # -- what it has -----------------------------------------------------------------------------------------

    def _have(self, table: ItemTable) -> None:
        book, sink, label = self.book, self.book.table.sink, self.book.table.label
        table.code = book.table.code
        book.table = table
        table.label = label
        book.order_by(None)
        if sink is not None:
            send_results_to(sink, book)
        table.replay = partial(replay_item, book.handler)

    def _go_on_with(self, recorder: Recorder, case: Case, columns: dict[str, Any]) -> int:
        """Continue the recorded job; returns its number."""
        book, journal, recorded, redo = self.book, recorder.journal, case.recorded, case.options.redo
        ids = () if redo is None or isinstance(redo, str) else redo
        self.regrow(journal.reader, recorded, ids, wants_results=book.table.sink is not DISCARD)
        indices_of(ids, book.table.ids or ())
        if columns:
            journal.ask(lambda store: store.put_job(recorded.number, columns))
        self._write_found(recorder)
        if len(book.table):
            take_rule(book, IdRule(recorded.rule))
        self._take_seed(recorded.seed)
        recorder.add(book, self._take_up(recorder, recorded.number, retried=redo == "failed"))
        return recorded.number

    # -- what it is given ------------------------------------------------------------------------------------

    def _first_items(self, recorded: RecordedJob | None) -> tuple[GivenItems, IdRule]:
        """Look at the given items. Raises TypeError, and then nothing has changed."""
        given = self.book.table
        rule = IdRule(recorded.rule) if recorded is not None and recorded.count else given.rule
        ids = plain_ids(rule, given.payloads)
        return RecordedGrowth.look_at(given.payloads, ids), rule

    def _add_first(self, recorder: Recorder, number: int, given: GivenItems, rule: IdRule) -> None:
        """Add the given items on the thread that creates the job: no other has it yet."""
        book, table, growth = self.book, self.book.table, self.book.table.growth
        assert isinstance(growth, RecordedGrowth)
        chosen, _ = table.choose(given, None)
        if not chosen.items:
            table.take_in(chosen, rule)
            return
        if not len(table):
            take_rule(book, rule)
        book.take_in(chosen, rule)
        coming = growth.take(table)
        assert coming is not None
        items = coming.written((), 0)
        files = [(file, number) for file in items.files]
        recorder.journal.ask(lambda store: store.write(items.statements(number), files))


# -- `Regrown`: the recorded items of an open job, from which a run continues, even if items are added again. ----------
#
# `regrow` decides which of them count, and which run again. One transaction has to write that items do not count, and
# that their maker runs again. Otherwise, if the program ended in between, a later program that has the maker's result
# would never get its items.

TOTAL = "UPDATE jobs SET total = ?, completed = ?, failed = ? WHERE number = ?"


class Regrown:
    """The recorded items of an open job. ``redo`` are the ids to run again, only of a job with ids.

    If it ``wants_results``, items whose results were discarded run again. ``plan`` has the decision for each slot;
    ``table`` has the items that count. Raises `JournalError` if the items' records are damaged, since some might be
    lost.
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
        self._present = present_slots(self._rows, recorded.count)
        for row in self._rows:
            payloads += row.items(reader.read_file)
            ids += row.ids or ()
            self._makers.extend(row.all_makers())
        #: All items, by slot.
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
        slots: Sequence[int] = [slot for slot, how in enumerate(self.plan.stands) if how != GONE]
        ids = None if self.items.ids is None else [self.items.ids[slot] for slot in slots]
        table = self.items.picked(slots, ids, grows=True)
        table.slots = None if len(slots) == len(self._present) else array("I", slots)
        table.growth = growth = RecordedGrowth(len(self._present))
        if self._rule is IdRule.POSITION:
            places = ((lot, at, slot) for lot in self._rows for at, slot in enumerate(lot.slots))
            growth.expected.update(
                lot.identity(at)
                for lot, at, slot in places
                if self.plan.stands[slot] != GONE and self._makers[slot] == BY_USER
            )
        return table

    def write(self, store: Store) -> None:
        """Write which items no longer count, and which run again. Raises `sqlite3.Error`."""
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
