"""A job's rows written anew say the same as before, of the items that are left."""

from __future__ import annotations

import itertools
import pickle
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from decimal import Decimal
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.state.item_table import DISCARD, DISCARDED, Elsewhere, Failure, ItemTable
from mpqueue._parent.journal import chunk_rows, kept_values
from mpqueue._parent.journal.chunk_rows import Row, RowDraft, TableFiller, WrittenRow, chunk_statement, fresh_row
from mpqueue._parent.journal.compaction import AT_ONCE, compact, files_of, give_back
from mpqueue._parent.journal.kept_results import KeptResults, Outcomes
from mpqueue._parent.journal.kept_values import Kept, NotKept, keep, plain_list, prepare
from mpqueue._wire.item_names import IdRule
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY
from tests.unit.rows_in_memory import RowsInMemory, read_all

#: How many slots the job has.
COUNT = 8
#: Bytes of what has a file of its own here.
BIG = 300
#: Bytes from which on rows are in files, so that some are.
IN_FILES = 400

RESULTS = (1, "text", [2, {"a": None}], Decimal("1.5"), b"b" * BIG, [Decimal(2)] * BIG)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("complete", "complete", "discard", "try", "fail", "output", "fresh")),
        st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT, unique=True).map(sorted),
        st.sampled_from(RESULTS),
    ),
    max_size=10,
)


def new_table(payloads: list[Any], slots: list[int] | None = None) -> ItemTable:
    table = ItemTable(payloads, None, IdRule.POSITION)
    table.slots = None if slots is None else array("I", slots)
    return table


class Rows:
    """A table of rows, and the files beside it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.run = connection.execute
        self.run(
            "CREATE TABLE chunks (number INTEGER PRIMARY KEY, job INTEGER NOT NULL, body BLOB NOT NULL, slots BLOB)"
        )
        self.files: dict[str, bytes] = {}
        self._number = 0
        self.table = new_table([f"item {slot}" for slot in range(COUNT)])
        self._tries_kept: dict[int, int] = {}
        self._codes = [-1] * COUNT  #: by slot: the code that ended the item

    def take(self, what: str, slots: list[int], result: Any) -> None:
        """Items end or are tried, and a row tells of it."""
        table = self.table
        table.code = self._number % 3
        for slot in slots:
            self._codes[slot] = -1 if what in ("fresh", "try") else table.code
        if what == "fresh":
            table.start_afresh(slots)
            for slot in slots:
                self._tries_kept.pop(slot, None)
            self._add(fresh_row(slots))
            return
        for slot in slots:
            table.elapsed[slot], table.cpu[slot], table.peak[slot] = 0.25 * slot, 0.5, len(slots)
            if what in ("try", "fail"):
                failure = Failure(ValueError(f"{slot}: {result!r}"), "traceback", 0.25, charged=slot % 3 > 0)
                table.fail_try(slot, failure, 7)
                table.status[slot] = RETRY
                if what == "fail":
                    table.fail(slot, failure)
            else:
                own = [slot, result if slot % 3 else self._number] if len(slots) > 1 else result
                table.complete([slot], [DISCARDED if what == "discard" else own])
                if what == "output":
                    table.output[slot] = ("out", f"err of {slot}")
        follow = slots == [*range(slots[0], slots[-1] + 1)]
        indices = range(slots[0], slots[-1] + 1) if follow else slots
        table.sink = DISCARD if what == "discard" else None
        row = RowDraft(table, indices, self._tries_kept).row()
        assert row is not None
        assert row.body is not None
        if what == "fail" and "row" not in (content := pickle.loads(row.body.data)):  # as earlier versions did
            payloads = {at: tuple(keep(f"item {slot}", [])) for at, slot in enumerate(slots) if slot in (0, 1)}
            row = row._replace(body=prepare(content | {"payloads": payloads}))
        self.files.update({file.name: b"".join(map(bytes, file.parts)) for file in row.files})
        self._add(row)

    def _add(self, row: Row) -> None:
        self._number += 2
        self.run(*chunk_statement(self._number, 1, row))

    def __iter__(self) -> Iterator[WrittenRow]:
        for number, body, at in self.run("SELECT number, body, slots FROM chunks ORDER BY number").fetchall():
            yield WrittenRow(1, number, body, at)

    def source(self) -> KeptResults:
        """Where results are read that are not in memory."""
        return KeptResults(RowsInMemory(self, self._read_file), 1, "job", strict=True)

    def _read_file(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def reopen(self) -> None:
        """The next row gets the number that it gets from a queue which opens the journal now."""
        self._number = self.run("SELECT coalesce(max(number), 0) FROM chunks").fetchone()[0] - 1

    def told(self, slots: list[int] | None = None) -> list[Any]:
        """What the rows say of each item; of these slots only."""
        payloads: list[Any] = [NotKept() for _ in range(COUNT if slots is None else len(slots))]
        table = new_table(payloads, slots)
        filler = TableFiller(table, COUNT, self.files.__getitem__, checked=True)
        outcomes = read_all(self, Outcomes(self._read_file, "run.db", COUNT, filler))
        assert not filler.unreadable | outcomes.lost
        table.source = self.source()
        discarded = table.discarded()
        done = [index for index in range(len(table)) if table.status[index] == COMPLETED and index not in discarded]
        together = [table.results[index] for index in done]
        table.source.fill(together, done if slots is None else [slots[index] for index in done])
        assert together == [self._result(table, index) for index in done]
        if slots is None:
            assert discarded == self.table.discarded()
            assert outcomes.ended_by(range(COUNT)) == self._codes
            completed, failed = (self.table.status.count(status) for status in (COMPLETED, FAILED))
            assert outcomes.counts() == {"completed": completed, "failed": failed, "total": completed + failed}
            assert [*map(self._recorded, [table] * COUNT, range(COUNT))] == [
                *map(self._recorded, [self.table] * COUNT, range(COUNT))
            ]
        return [
            (
                *(table.status[index], self._result(table, index), index in discarded),
                *(table.attempts[index], table.output.get(index)),
                repr(table.payloads[index]),
                [tried.error for tried in table.history.get(index, ())],
                table.failures[index].message if table.status[index] == FAILED else None,
            )
            for index in range(len(table))
        ]

    @staticmethod
    def _recorded(table: ItemTable, index: int) -> tuple[Any, ...]:
        """What rows say of an item beside its result."""
        failure = None if table.status[index] == COMPLETED else table.failures.get(index)
        return (
            table.status[index] if table.status[index] != RETRY else PENDING,
            *(column[index] for column in (table.attempts, table.elapsed, table.cpu, table.peak)),
            [(each.message, each.duration, each.pid, type(each.exception)) for each in table.history.get(index, ())],
            failure and (failure.message, failure.traceback, failure.elapsed, failure.charged),
            table.output.get(index),
        )

    def results(self) -> dict[int, tuple[int, Any]]:
        """Of the items that have completed, by slots: the number of the row that has the result now, and that."""
        table = new_table([NotKept() for _ in range(COUNT)])
        filler = TableFiller(table, COUNT, self._read_file, checked=False)
        read_all(self, Outcomes(self._read_file, "run.db", COUNT, filler))
        table.source = self.source()
        return {
            slot: (found.row, table.result_of(slot))
            for slot, found in enumerate(table.results)
            if table.status[slot] == COMPLETED and type(found) is Elsewhere and found is not DISCARDED
        }

    @staticmethod
    def _result(table: ItemTable, index: int) -> Any:
        has_result = table.status[index] == COMPLETED and table.has_result(index)
        return table.result_of(index) if has_result else None

    def compact(self, present: list[int] | None) -> frozenset[str]:
        """Write the rows anew, and remove the files that may go."""
        marks = None if present is None else bytearray(slot in present for slot in range(COUNT))
        done = compact(self.run, 1, COUNT, marks, "run.db")
        for name in done:
            del self.files[name]
        return done

    @property
    def count(self) -> int:
        return int(self.run("SELECT count(*) FROM chunks").fetchone()[0])


@contextmanager
def rows_where_little_is_big(most_row: int = chunk_rows.MOST_ROW) -> Iterator[Rows]:
    """Rows of a new database, where values are big early, and rows too big for it from that many bytes on."""
    with (
        closing(sqlite3.connect(":memory:", isolation_level=None)) as connection,
        mock.patch.object(kept_values, "BIG", BIG),
        mock.patch.object(chunk_rows, "BIG", BIG),
        mock.patch.object(chunk_rows, "MOST_ROW", most_row),
    ):
        yield Rows(connection)


@settings(deadline=None)
@given(STEPS, st.none() | st.lists(st.integers(0, COUNT - 1), unique=True), STEPS, st.sampled_from((IN_FILES, 1 << 20)))
def test_rows_written_anew_say_the_same_of_what_is_left(
    steps: list[Any], present: list[int] | None, more: list[Any], most_row: int
) -> None:
    with rows_where_little_is_big(most_row) as rows:
        for step in steps:
            rows.take(*step)
        before = rows.told(present)
        rows.compact(present)
        assert rows.told(present) == before
        if present is not None and most_row != IN_FILES:  # rows in files stay whole
            gone = [slot for slot in range(COUNT) if slot not in present]
            assert all(told[0] == PENDING and not told[6] for told in rows.told(gone)), (
                "no row has anything of an item that is gone"
            )
        assert rows.compact(present) == frozenset(), "nothing is left that could go"
        assert rows.told(present) == before
        if present is None:
            for step in more:
                rows.take(*step)
            before = rows.told()
            rows.compact(None)
            assert rows.told() == before


@settings(deadline=None, max_examples=40)
@given(st.lists(STEPS, min_size=2, max_size=4), st.booleans())
def test_a_result_that_was_replaced_is_never_another_one(days: list[list[Any]], reopens: bool) -> None:
    """A job that was replaced is looked at once its rows were written anew, and again with another queue."""
    with rows_where_little_is_big() as rows:
        seen: list[tuple[KeptResults, dict[int, tuple[int, Any]]]] = []  #: by slot, in which row it was, and the result
        number = itertools.count()
        for day in days:
            for what, slots, _ in day:
                rows.take(what, slots, ["result", next(number)] if what == "complete" else next(number))
                seen.append((rows.source(), rows.results()))
            rows.compact(None)
            seen.append((rows.source(), rows.results()))
            if reopens:
                rows.reopen()
            last = {slot: result for slot, (_, result) in rows.results().items()}
            for source, results in seen:
                for slot, (row, result) in results.items():
                    with nullcontext() if last.get(slot) == result else suppress(JournalError):
                        assert source.read(row, slot) == result


def test_the_files_that_a_row_names_are_those_of_its_results_items_and_errors() -> None:
    def big(name: str) -> tuple[Any, ...]:
        return tuple(Kept(None, None, name))

    error = (big("error"), 0, 0, (big("its cause"), 0, 0, None))
    content = {"parts": [(big("part"),), (Kept(b""),)], "payloads": {0: big("item")}, "errors": [error]}
    assert files_of(content) == {"part", "item", "error", "its cause"}
    assert files_of({"results": [big("result"), Kept(b"")]}) == {"result"}
    assert files_of({"results": big("results")}) == {"results"}
    assert files_of({"row": ("all", 1)}) == {"all"}


def test_a_list_is_plain_where_reading_it_runs_no_code_of_users() -> None:
    assert plain_list(Kept(pickle.dumps([1, "a", {"b": None}]))) == [1, "a", {"b": None}]
    for value in ((1,), {1: 2}, [Failure(ValueError())]):
        assert plain_list(Kept(pickle.dumps(value))) is None
    assert plain_list(Kept(pickle.dumps([1]), None, "file")) is None


def test_rows_and_files_of_what_was_replaced_go() -> None:
    with rows_where_little_is_big() as rows:
        for slot in range(COUNT):
            rows.take("complete", [slot], b"b" * BIG)
        for slot in range(1, COUNT):
            rows.take("complete", [slot], slot)
        assert len(rows.compact(None)) == COUNT - 1
        assert (rows.count, len(rows.files)) == (COUNT, 1)
        assert [told[1] for told in rows.told()] == [b"b" * BIG, *range(1, COUNT)]
        rows.take("fresh", [1], None)
        rows.take("complete", [2], 2)
        rows.compact(None)
        assert rows.count == COUNT - 1, "nothing is left of what was made fresh, nor of that it was"


def test_a_row_in_a_file_that_no_longer_counts_does_not_count_again() -> None:
    with rows_where_little_is_big(most_row=IN_FILES) as rows:
        rows.take("complete", [0, 1], "x" * 250)
        rows.take("fresh", [0], None)
        rows.take("complete", [2], 2)
        rows.compact(None)
        assert [told[0] for told in rows.told([0, 1, 2])] == [PENDING, COMPLETED, COMPLETED]


def test_free_pages_are_given_back_some_at_a_time_where_the_file_allows_it() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        run = connection.execute
        assert give_back(connection) == 0
        for allows in (False, True):
            run("PRAGMA auto_vacuum=INCREMENTAL" if allows else "PRAGMA auto_vacuum=NONE")
            run("VACUUM")
            run("CREATE TABLE big (data BLOB)")
            run("INSERT INTO big VALUES (zeroblob(?))", [20 << 20])
            run("DROP TABLE big")
            (free,) = run("PRAGMA freelist_count").fetchone()
            assert free > 2 * AT_ONCE
            assert give_back(connection) == (free - AT_ONCE if allows else free)
        while give_back(connection):
            pass
        assert run("PRAGMA freelist_count").fetchone() == (0,)
