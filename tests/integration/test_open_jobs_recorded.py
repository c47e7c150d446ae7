"""Open jobs with a journal: whatever ends the program, nothing is lost, and nothing runs twice."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.state.item_table import Failure
from mpqueue._options import JobOptions
from mpqueue._parent.journal.chunk_rows import RowDraft
from mpqueue._parent.journal.items.growing.growth_draft import GrowthDraft
from mpqueue._parent.journal.items.growing.recorded_table import RecordedGrowingTable
from mpqueue._parent.journal.journal_file import Statement, chunk_statement
from mpqueue._parent.journal.journal_writer import Entry, Journal
from mpqueue._parent.journal.recorder import Recorder
from mpqueue._queue.growing.open_job import make_growing
from mpqueue._queue.new_job import record_options
from mpqueue._queue.recorded.new_open_job import NewOpenJob
from mpqueue._wire.added_items import AddedItems, plain_ids
from mpqueue._wire.ids import rule_of
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED
from tests.integration.test_journal_edits import opened
from tests.support import handlers as do

pytestmark = pytest.mark.slow

#: Which items an item brings along, by its value: greater ones.
CHILDREN = {0: (1, 2, 2), 1: (3, 4), 2: (4,), 3: (5, 5), 4: (6,), 5: (), 6: (), 7: (6, 6)}


class Program:
    """One start of a program whose user adds ``USER``, driven by hand: what it posts is on disk once it is flushed."""

    USER = (0, 7, 0, 5)

    def __init__(self, journal: Journal, *, has_ids: bool, first: int) -> None:
        self._journal = journal
        self._has_ids = has_ids
        self._posted: list[tuple[list[Statement], list[int]]] = []  #: with the items that are completed by it
        self._makers: dict[int, int] = {}  #: of the items that were added by this program, by indices
        self.added = first
        new = NewOpenJob(
            "job", make_growing(self._first(first)), JobOptions(RetryPolicy()), do.succeed, None, is_open=True
        )
        new.record_or_go_on(Recorder(journal), 0.0, record_options())
        self.book = new.book
        assert isinstance(new.book.table, RecordedGrowingTable)
        self.table = new.book.table
        found = journal.find("job")
        assert found is not None
        self._number = found.number
        self._done = {index for index in range(len(self.table)) if self.table.status[index] == COMPLETED}

    def _first(self, count: int) -> list[Any]:
        values = self.USER[:count]
        return self._items(dict.fromkeys(values) if self._has_ids else values)  # two with one id are refused

    def _items(self, values: Any) -> list[Any]:
        return [{"id": value} for value in values] if self._has_ids else [*values]

    def value(self, index: int) -> int:
        """The value of the item there."""
        return self.table.id_of(index) if self._has_ids else self.table.payloads[index]  # type: ignore[return-value]

    def add_next(self) -> None:
        """The user's next item."""
        if self.added < len(self.USER):
            items = self._items([self.USER[self.added]])
            self.added += 1
            rule = self.table.rule if len(self.table) else rule_of(items[0])
            chosen, _ = self.table.choose(self.table.look_at(items, plain_ids(rule, items)), None)
            self.book.take_in(chosen, rule)
            self._post(GrowthDraft(self.table, None))

    def end(self, index: int, *, way: str) -> None:
        """An item completes, its result or what it adds can't be pickled for the journal, or it fails."""
        table = self.table
        if way == "fails":
            failure = Failure(ValueError("no"))
            table.fail_try(index, failure, 1)
            table.fail(index, failure)
            self._post(RowDraft(table, [index], {}))
            return
        children = self._items(CHILDREN[self.value(index)])
        if children:
            added = AddedItems(children, plain_ids(table.rule, children))
            self.book.take_in(added, table.rule, index)
            self._makers.update(dict.fromkeys(added.new, index))
        table.complete([index], [threading.Lock() if way == "is lost" else self.value(index)])
        draft = GrowthDraft(table, RowDraft(table, [index], {}))
        self._post(draft, [index] if way == "completes" else [], cut=way == "is cut short")

    def _post(self, draft: Any, done: Any = (), *, cut: bool = False) -> None:
        row = draft.cut_short("slow") if cut else draft.plain_row() or draft.row()
        statements: list[Statement] = []
        if isinstance(draft, GrowthDraft):
            statements += row.growth.statements(self._number)
            row = row.row
        if row.body is not None:
            statements.append(chunk_statement(self._journal.next_chunk(), self._number, row))
        self._posted.append((statements, [*done]))

    def flush(self, lost: int) -> Counter[int]:
        """The program ends, and the last transactions are lost; the values of what does not run again."""
        for statements, done in self._posted[: max(0, len(self._posted) - lost)]:
            self._journal.post(Entry(statements))
            self._done.update(done)
        self._journal.flush()
        return Counter(self.value(index) for index in self._done if self._has_ids or self._counts(index))

    def _counts(self, index: int) -> bool:
        """An item without an id counts as long as its maker does not run again."""
        maker = self._makers.get(index)
        return maker is None or (maker in self._done and self._counts(maker))

    def pending(self) -> list[int]:
        """What has not ended."""
        return self.table.unfinished()


def all_of(values: Any) -> Counter[int]:
    """What comes of these in the end."""
    found = Counter[int](values)
    for value in values:
        found += all_of(CHILDREN[value])
    return found


WAYS = st.sampled_from(["completes"] * 4 + ["is lost", "is cut short", "fails"])
DAYS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.lists(st.one_of(st.just(None), st.tuples(st.integers(0, 100), WAYS)), max_size=25),
        st.integers(0, 4),
    ),
    max_size=5,
)


@settings(max_examples=40)
@given(DAYS, st.booleans())
def test_whenever_the_program_ends_each_item_ends_once(days: list[Any], has_ids: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "run.db"))
        there = Counter[int]()
        for first, steps, lost in days:
            journal = opened(path)
            program = Program(journal, has_ids=has_ids, first=first)
            check_there(program, there)
            for step in steps:
                pending = program.pending()
                if step is None:
                    program.add_next()
                elif pending:
                    program.end(pending[step[0] % len(pending)], way=step[1])
            there = program.flush(lost)
            journal.close()
        journal = opened(path)
        program = Program(journal, has_ids=has_ids, first=0)
        check_there(program, there)
        for _ in range(2):
            while program.added < len(Program.USER):
                program.add_next()
            program.table.forget_failures()
            while pending := program.pending():
                program.end(pending[0], way="completes")
            program.flush(0)
            found = Counter(map(program.value, range(len(program.table))))
            expected = all_of(Program.USER)
            assert found == (Counter([*expected]) if has_ids else expected)
            journal.close()
            journal = opened(path)
            program = Program(journal, has_ids=has_ids, first=0)
            assert not program.pending()
        journal.close()


def completed(program: Program) -> Counter[int]:
    """The values of what has completed, by the journal."""
    table = program.table
    done = [index for index in range(len(table)) if table.status[index] == COMPLETED]
    assert all(table.result_of(index) == program.value(index) for index in done)
    return Counter(map(program.value, done))


def check_there(program: Program, there: Counter[int]) -> None:
    """All of these have completed."""
    assert completed(program) == there
