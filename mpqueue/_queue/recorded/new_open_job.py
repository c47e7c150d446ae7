"""`NewOpenJob`: an open job that is being created on a queue with a journal, and goes on with what that has of it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._parent.journal.code.made_by import MadeBy
from mpqueue._parent.journal.items.growth_draft import GrowthDraft
from mpqueue._parent.journal.items.recorded_growth import GivenItems, RecordedGrowth
from mpqueue._parent.journal.items.regrowth import Regrown
from mpqueue._parent.journal.journal_file import JobItems
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._queue.new_job import NewJob, RecordOptions, replay_item, send_results_to
from mpqueue._wire.added_items import plain_ids
from mpqueue._wire.ids import IdRule
from mpqueue.errors import JournalMismatchError, shown
from mpqueue.status import FAILED

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.recorder import Recorder

log = logging.getLogger("mpqueue")


class NewOpenJob(NewJob):
    """Its book's table has the items that its user gives it now; those that are recorded come before them."""

    def record_or_go_on(self, recorder: Recorder, created_at: float, options: RecordOptions) -> None:
        """See `NewJob`: recorded items count as they are, whether they are given now or not; others are new.

        With another ``version``, and where ``redo`` says so, the job begins anew: the journal forgets all of it.
        """
        book, journal = self.book, recorder.journal
        code = self._take_code()
        recorded, made = journal.find(book.id), None
        if recorded is not None:
            _check_is_open(recorded, journal.reader)
            made = MadeBy(journal.reader, recorded, code)
            if made.may_differ:
                recorded_ones = ItemTable([None] * recorded.count, None, IdRule.POSITION)
                made.look(recorded_ones.status, journal.reader.fill_statuses(recorded_ones, recorded))
        begins_anew = recorded is not None and self._begins_anew(recorded, options, made)
        first = self._first_items(None if begins_anew else recorded)
        if recorded is not None and begins_anew:
            number = recorded.number
            journal.ask(lambda store: store.remove_job(number))
            recorded = None
        if recorded is None:
            columns = {**self._columns(created_at, code, options), "total": 0, "slots": 0, "is_open": 1}
            number = journal.ask(lambda store: store.put_job(None, columns, JobItems()))
            empty = ItemTable([], None, IdRule.POSITION, grows=True)
            empty.growth = RecordedGrowth()
            self._have(empty)
            book.table.source = KeptResults(journal.reader, number, book.id, strict=True)
            recorder.add(book, self.recording(number, frozenset()))
        else:
            number = recorded.number
            self._check(journal.reader, recorded, made, options)
            columns = self._code_columns(code, options, made)
            if columns:
                journal.ask(lambda store: store.put_job(number, columns, JobItems()))
            redo = options.redo
            self._go_on_with(recorder, recorded, redo if redo is not None and not isinstance(redo, str) else ())
            failed = {index for index in book.table.failures if book.table.status[index] == FAILED}
            if redo == "failed":
                book.table.forget_failures()
            self._take_up_suspects(recorder, number)
            recorder.add(book, dataclasses.replace(self.recording(number, frozenset()), failed=failed))
        self._add_first(recorder, number, *first)

    def record_as_it_is(self, recorder: Recorder, number: int) -> None:
        """See `NewJob`. No more items come but from its handlers."""
        regrown = self._regrown
        assert regrown is not None
        self._note_code(recorder, number)
        recorder.journal.ask(regrown.write)
        self._take_up_suspects(recorder, number)
        recorder.add(self.book, self.recording(number, frozenset()))

    _regrown: Regrown | None = None

    def regrow(
        self, reader: Reader, recorded: RecordedJob, redo: Collection[Any] = (), *, wants_results: bool = False
    ) -> None:
        """Have the items that the journal has, see `Regrown`. Changes nothing there. Raises `JournalError`."""
        self._regrown = reader.at_once(lambda: Regrown(reader, reader.now(recorded), redo, wants_results=wants_results))
        self._have(self._regrown.table)
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

    def _go_on_with(self, recorder: Recorder, recorded: RecordedJob, redo: Collection[Any]) -> None:
        book, journal = self.book, recorder.journal
        self.regrow(journal.reader, recorded, redo, wants_results=book.table.sink is not DISCARD)
        unknown = [item_id for item_id in redo if item_id not in (book.table.ids or ())]
        if unknown:
            raise ValueError(f"redo: expected ids of the job's items, got {shown(unknown[0])}")
        assert self._regrown is not None
        journal.ask(self._regrown.write)
        if len(book.table):
            self._take_rule(IdRule(recorded.rule))
        if not self._seed_given:
            self._take_seed(recorded.seed)

    def _take_rule(self, rule: IdRule) -> None:
        """Ids come from where the job's first item has them."""
        book = self.book
        book.handler = book.handler._replace(frame=book.handler.frame._replace(id_rule=str(rule)))
        book.table.replay = partial(replay_item, book.handler)

    def _take_up_suspects(self, recorder: Recorder, number: int) -> None:
        suspects = self._judge_suspects(recorder, number)
        self.book.go_on({} if suspects is None else suspects.care())
        if suspects is not None:
            self._record_suspects(recorder, number, suspects)

    # -- what it is given ------------------------------------------------------------------------------------

    def _first_items(self, recorded: RecordedJob | None) -> tuple[GivenItems, IdRule]:
        """What it is given now, looked at. Raises TypeError, and then nothing was changed."""
        given = self.book.table
        rule = IdRule(recorded.rule) if recorded is not None and recorded.slots else given.rule
        ids = plain_ids(rule, given.payloads)
        return RecordedGrowth.look_at(given.payloads, ids), rule

    def _add_first(self, recorder: Recorder, number: int, given: GivenItems, rule: IdRule) -> None:
        """As if they were added now, by the thread that creates the job: no other has it yet."""
        book, table, growth = self.book, self.book.table, self.book.table.growth
        assert isinstance(growth, RecordedGrowth)
        chosen, _ = table.choose(given, None)
        if not chosen.items:
            table.take_in(chosen, rule)
            return
        if not len(table):
            self._take_rule(rule)
        book.take_in(chosen, rule)
        row = GrowthDraft(growth, table, None).row()
        assert row is not None
        files = [(file, number) for file in row.growth.files]
        statements = row.growth.statements(number)
        recorder.journal.ask(lambda store: store.write(statements, files))

    # -- what has changed ------------------------------------------------------------------------------------

    def _begins_anew(self, recorded: RecordedJob, options: RecordOptions, made: MadeBy | None) -> bool:
        redo = options.redo
        if redo is not None and not isinstance(redo, str) and recorded.rule == IdRule.POSITION and redo:
            raise ValueError(
                f"redo: expected 'failed', 'changed-code' or 'all' for an open job whose items have no ids, got "
                f"{shown(redo)}: items that it adds again could not be distinguished from those it had added before"
            )
        is_other_code = made is not None and bool(made.changed)
        return options.begins_anew(recorded) or (redo == "changed-code" and is_other_code)


def _check_is_open(recorded: RecordedJob, reader: Reader) -> None:
    if not recorded.is_open:
        kind = "a job with a list" if recorded.generation is None else "a stream"
        raise JournalMismatchError(
            f"job {recorded.id!r} in {reader.path}: expected an open one, got {kind}; nothing was changed; use "
            "another id, or call clear_job()"
        )
