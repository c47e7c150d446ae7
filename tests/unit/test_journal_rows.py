"""What a journal writes, read again: results, errors and items; whatever becomes of the program that reads."""

from __future__ import annotations

import itertools
import pickle
import sys
import threading
import types
from array import array
from collections.abc import Collection, Hashable
from fractions import Fraction
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mpqueue._core.state.item_table import DISCARDED, Elsewhere, Failure, ItemTable, make_table
from mpqueue._parent.journal import chunk_rows, kept_values, lots
from mpqueue._parent.journal.chunk_rows import (
    Row,
    RowDraft,
    TableFiller,
    WrittenRow,
    make_row,
    written_numbers,
    written_slots,
)
from mpqueue._parent.journal.identity import SIZE
from mpqueue._parent.journal.kept_results import KeptResults, Outcomes
from mpqueue._parent.journal.kept_values import (
    BIG,
    MOST_CAUSES,
    BigFile,
    Kept,
    NotKept,
    Place,
    ReadFile,
    Unreadable,
    keep,
    keep_error,
    prepare,
    restore,
    restore_error,
    seal,
    stamped,
    unseal,
    unstamped,
)
from mpqueue._parent.journal.lots import USERS, AddedLot, Lot, NewItems, keep_items, present_slots, read_lot
from mpqueue._queue.recorded.code_parts import code_of
from mpqueue._wire.item_names import IdRule
from mpqueue.errors import ItemTimeoutError, JournalError, RemoteError, RemoteTraceback
from mpqueue.status import COMPLETED, FAILED, PENDING
from tests.unit.rows_in_memory import RowsInMemory, read_all

HERE = Place("chunks", 1, 1)


#: Of rows, which are read in any order here.
numbers = itertools.count(1)


def sealed(row: Row, number: int | None = None) -> WrittenRow:
    """The row as it would be written, as that of this number."""
    assert row.body is not None
    assert row.slots is not None
    number = number or next(numbers)
    body, slots = row.body.seal(Place("chunks", 1, number)), row.slots.seal(Place("chunks.slots", 1, number))
    return WrittenRow(1, number, body, slots)


def no_file(name: str) -> bytes:
    raise FileNotFoundError(name)


def copied(table: ItemTable, *rows: WrittenRow, read_file: ReadFile = no_file, lost: Collection[int] = ()) -> ItemTable:
    """A new table of the same items, with these rows read into it, of which these items are ``lost``."""
    fresh = ItemTable(list(table.payloads), None, table.rule)
    fresh.source = KeptResults(RowsInMemory(rows, read_file), 1, "job")
    filler = TableFiller(fresh, len(fresh), read_file, checked=False)
    outcomes = read_all(rows, Outcomes(read_file, "run.db", len(fresh), filler))
    assert set(filler.present(outcomes.lost)) == outcomes.lost == set(lost)
    ended = {index: status for index, status in enumerate(fresh.status) if status != PENDING}
    assert {slot: outcomes.status_of(slot) for slot in range(len(fresh)) if outcomes.row[slot]} == ended
    assert not outcomes.lost & {*ended}
    return fresh


def failed(text: str, trace: str = "Traceback of the worker") -> Failure:
    error = ValueError(text)
    error.__cause__ = RemoteTraceback(trace)
    return Failure(error, trace, 0.25)


def test_numbers_are_written_once_where_all_are_the_same_and_slots_by_the_first_and_last() -> None:
    one, two = array("I", [3]).tobytes(), array("I", [3, 4]).tobytes()
    assert [written_numbers(array("I", numbers)) for numbers in ([3] * 5, [3], [3, 4])] == [one, one, two]
    assert [written_slots(slots) for slots in (range(4, 7), [4, 5, 6], [4])] == [(4, 7), (4, 7), (4, 5)]
    assert written_slots([4, 6]) == array("Q", [4, 6]).tobytes()


def test_many_items_that_were_added_are_in_rows_that_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def lots_of(items: list[Any], ids: list[Hashable] | None, identities: bytes) -> list[Lot]:
        table = ItemTable(items, ids, IdRule.POSITION if ids is None else IdRule.KEY)
        added = AddedLot(range(len(items)), 7, array("q", (-1,)) * len(items), identities).take_from(table)
        added.pickling.keep()
        rows = [*added.lots()]
        assert [item for row in rows for item in row.items(no_file)] == items
        return rows

    monkeypatch.setattr(lots, "MOST", 2)
    identities = b"".join([bytes([at]) * SIZE for at in range(5)])
    rows = lots_of([Fraction(at) for at in range(5)], [*"abcde"], identities)
    assert [(row.first, row.size, row.ids) for row in rows] == [(7, 2, ["a", "b"]), (9, 2, ["c", "d"]), (11, 1, ["e"])]
    assert b"".join(row.identities or b"" for row in rows) == identities
    (together,) = lots_of([*range(5)], None, b"")
    assert (together.first, together.size, together.ids) == (7, 5, None)
    few = lots_of([bytes([at % 256]) * (BIG // 400) for at in range(800)], None, b"")
    assert len(few) > 1, "too big for one pickle"
    assert [slot for row in few for slot in row.slots] == [*range(7, 807)]
    assert not any(isinstance(row.parts[0][1], list) for row in few)


def test_of_added_items_a_lot_has_a_slot_for_each_while_they_are_pickled() -> None:
    seen: list[list[Any]] = []

    class Slow:
        def __reduce__(self) -> Any:
            seen.append([type(item) for lot in added.lots() for item in lot.items(no_file)])
            return str, ("slow",)

    table = make_table([Fraction(1), Slow(), Fraction(2)])
    added = AddedLot(range(3), 7, array("q", (-1,)) * 3).take_from(table)
    added.pickling.keep()
    assert seen == [[Fraction, NotKept, NotKept]]


def test_a_job_that_grows_may_have_items_that_its_reader_does_not_know_of() -> None:
    table = make_table(range(6))
    table.complete(range(6), [*"abcdef"])
    row = sealed(make_row(table, range(1, 6), {}), 1)
    for slots in (None, array("I", [0, 3])):
        known = ItemTable([0, 1], None, table.rule)
        known.slots = slots
        count = 2 if slots is None else 4
        filler = TableFiller(known, count, no_file, checked=True)
        outcomes = read_all([row], Outcomes(no_file, "run.db", count, filler))
        assert bytes(known.status) == bytes((PENDING, COMPLETED))
        assert bytes(map(outcomes.status_of, known.slots or range(2))) == bytes(known.status)


# -- values ------------------------------------------------------------------------------------------------------------


def test_a_class_of_the_script_is_that_scripts_class_again_and_comes_by_value_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = ModuleType("__main__")
    exec("class Result:\n    def __init__(self): self.pixels = None", vars(script))
    monkeypatch.setitem(sys.modules, "__main__", script)
    small, big = script.Result(), script.Result()
    big.pixels = np.zeros(BIG)
    files: list[BigFile] = []
    kept = [keep(small, files), keep(big, files)]
    read = {file.name: b"".join(map(bytes, file.parts)) for file in files}.__getitem__
    assert [type(restore(one, read)) for one in kept] == [script.Result] * 2
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    elsewhere = [restore(one, read) for one in kept]
    assert [type(one).__name__ for one in elsewhere] == ["Result"] * 2
    assert len(elsewhere[1].pixels) == BIG


def test_what_can_not_be_read_is_told_by_a_stand_in() -> None:
    module = ModuleType("gone")
    exec("class Result: pass", vars(module))
    module.Result.__module__ = "gone"
    sys.modules["gone"] = module
    kept = keep(module.Result(), [])
    del sys.modules["gone"]
    found = restore(kept, no_file)
    assert isinstance(found, Unreadable)
    assert "gone" in repr(found)
    big = keep(b"x" * BIG, [])
    assert isinstance(restore(big, no_file), Unreadable)
    assert isinstance(restore(big, lambda _: b"half of it"), Unreadable)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_comes_back_with_its_traceback_its_notes_and_its_cause() -> None:
    error = ItemTimeoutError("too long", "where it hung")
    error.__cause__ = KeyError("deeper")
    noted = ValueError("wrong")
    noted.add_note("a note")
    assert restore_error(keep_error(noted, []), no_file).__notes__ == ["a note"]
    found = restore_error(keep_error(error, []), no_file)
    assert isinstance(found, ItemTimeoutError)
    assert (str(found), found.stack) == ("too long", "where it hung")
    assert repr(found.__cause__) == "KeyError('deeper')"
    outer: BaseException | None = None
    kind = type("Failed", (RuntimeError,), {})  # a new one: tblib, which others install, keeps the causes of known ones
    for text in "abcdef":
        inner, outer = outer, kind(text)
        outer.__cause__ = inner
    assert outer is not None
    causes, outer = list[str](), restore_error(keep_error(outer, []), no_file)
    while (outer := outer.__cause__) is not None:
        causes.append(str(outer))
    assert causes == [*"edcb"][:MOST_CAUSES]
    remote = restore_error(keep_error(failed("bad").error, []), no_file)
    assert isinstance(remote.__cause__, RemoteTraceback)
    assert "Traceback of the worker" in str(remote.__cause__)


def test_an_error_that_can_not_be_pickled_has_a_stand_in() -> None:
    class Odd(ValueError):
        def __reduce__(self) -> Any:
            raise TypeError("not me")

    found = restore_error(keep_error(Odd("text"), []), no_file)
    assert isinstance(found, RemoteError)
    assert found.message == "text"
    assert "builtins.ValueError" in found.bases


# -- rows --------------------------------------------------------------------------------------------------------------


def test_failed_items_that_are_to_run_again_are_pending_and_keep_their_history() -> None:
    table, seen = make_table("ab"), dict[int, int]()
    table.fail_try(1, failed("once"), 5)
    table.fail(1, failed("once"))
    one = make_row(table, [1], seen)
    table.forget_failures()
    fresh = copied(table, sealed(one), sealed(make_row(table, [1], seen)))
    assert (fresh.status[1], fresh.attempts[1], fresh.failures) == (PENDING, 0, {})
    assert [entry.message for entry in fresh.history[1]] == ["once"]


def test_an_item_whose_result_can_not_be_pickled_is_written_as_not_run() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise TypeError("not me")

    table = make_table("abc")
    table.complete(range(3), [1, Odd(), 3])
    row = make_row(table, range(3), {})
    fresh = copied(table, sealed(row))
    assert list(fresh.status) == [COMPLETED, PENDING, COMPLETED]
    assert fresh.all_results() == [1, None, 3]
    assert row.left_out == ((1, "TypeError: not me"),)


def test_items_that_were_added_are_kept_but_for_those_that_can_not_be_pickled() -> None:
    table = make_table(["a", "b", threading.Lock(), "c"])
    table.complete(range(2), [0, 1])
    added = AddedLot(range(2, 4), 2, array("q", (0, 1))).take_from(table)
    draft = RowDraft(table, range(2), {}, coming=NewItems((), lambda new, done: ("", (new, done)), [added]))
    assert draft.plain_row() is None
    row = draft.row()
    assert row is not None
    assert row.items is not None
    assert row.items.statements(1)[-1] == ("", (2, 2, 1))
    assert [type(item) for lot in row.items.lots for item in lot.items(no_file)] == [NotKept, str]
    assert copied(table, sealed(row)).all_results() == [0, 1, None, None], "the makers have run"


def test_of_a_row_that_is_cut_short_there_is_what_was_pickled_by_then() -> None:
    drafts: list[RowDraft] = []
    cut: list[Row | None] = []
    steps: list[int] = []

    class Slow:
        def __reduce__(self) -> Any:
            cut.append(drafts[0].cut_short("it took too long"))
            steps.append(drafts[0].step)
            return str, ("slow",)

    table = make_table("abc")
    table.complete(range(2), [bytes(2 * BIG), Slow()])
    failure = failed("no")
    table.fail_try(2, failure, 11)
    table.fail(2, failure)
    drafts.append(RowDraft(table, range(3), {}))
    steps.append(drafts[0].step)
    assert drafts[0].plain_row() is None
    assert drafts[0].row() is None
    [row, *_] = cut
    assert row is not None
    assert drafts[0].cut_short("again") is None
    assert steps[0] < steps[1] < drafts[0].step
    fresh = copied(table, sealed(row), read_file=lambda _: bytes(row.files[0].parts[0]))
    assert list(fresh.status) == [COMPLETED, PENDING, FAILED]
    assert fresh.result_of(0) == bytes(2 * BIG)
    assert row.left_out == ((1, "it took too long"),)
    error = fresh.failures[2].error
    assert isinstance(error, RemoteError), "none of its code was run"
    assert (error.type_name, error.message, error.bases[-1]) == ("builtins.ValueError", "no", "builtins.BaseException")
    assert fresh.history[2][0].message == "no"


def test_an_error_with_much_data_has_a_file() -> None:
    table = make_table("a")
    failure = Failure(ValueError(bytes(2 * BIG)), text="no")
    table.fail_try(0, failure, 1)
    table.fail(0, failure)
    row = make_row(table, range(1), {})
    content = {file.name: b"".join(map(bytes, file.parts)) for file in row.files}
    fresh = copied(table, sealed(row), read_file=content.__getitem__)
    assert fresh.failures[0].error.args == fresh.history[0][0].exception.args == (bytes(2 * BIG),)
    assert fresh.failures[0].text == "no"


def test_an_item_that_an_earlier_version_has_written_into_its_row_is_there() -> None:
    table = make_table(["a", "b", "c"])
    for index in (1, 2):
        table.fail(index, failed("no"))
    row = make_row(table, range(3), {})
    assert row.body is not None
    content = pickle.loads(row.body.data) | {"payloads": {1: tuple(keep("b", []))}}
    gone = NotKept()
    again = sealed(row._replace(body=prepare(content)))
    assert copied(make_table(["a", gone, gone]), again).payloads == ["a", "b", gone]


def test_a_stand_in_is_kept_as_it_stood() -> None:
    stand_in = RemoteError("users.Odd", "said", "its trace", ("users.Odd", "builtins.Exception"))
    stand_in.__cause__ = KeyError("before")
    kept = keep_error(stand_in, [])
    for each in (kept, (None, *kept[1:])):  # the second can't be read
        met = restore_error(each, no_file)
        assert isinstance(met, RemoteError)
        assert (met.type_name, met.message, met.traceback) == ("users.Odd", "said", "its trace")
        assert met.bases == stand_in.bases
        assert repr(met.__cause__) == "KeyError('before')"


def flipped(body: bytes, at: int) -> bytes:
    """The body with a bit flipped."""
    data = bytearray(body)
    data[at] ^= 4
    return bytes(data)


@pytest.mark.parametrize("at", [0, 3, 4, 20, -1])
def test_a_damaged_row_costs_its_items_what_they_had_and_no_others(at: int) -> None:
    table = make_table("abcd")
    table.complete(range(4), [1, 2, 3, 4])
    before, row = sealed(make_row(table, range(2), {})), sealed(make_row(table, range(1, 3), {}))
    after, again = sealed(make_row(table, range(3, 4), {})), sealed(make_row(table, range(1, 3), {}))
    for bad in (row._replace(body=flipped(row.body, at)), row._replace(body=b""), row._replace(body="text")):
        fresh = copied(table, before, bad, after, lost={1, 2})
        assert (list(fresh.status), fresh.all_results()) == (
            [COMPLETED, PENDING, PENDING, COMPLETED],
            [1, None, None, 4],
        )
        assert copied(table, before, bad, after, again).all_results() == [1, 2, 3, 4]
    # Which items it spoke of is damaged too: of none is known that what was told before still holds.
    fresh = copied(table, before, row._replace(slots=flipped(row.slots, 5)), after, lost={0, 1, 2})
    assert fresh.all_results() == [None, None, None, 4]


def test_many_small_results_of_a_row_are_pickled_in_as_few_parts_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(range(300))
    table.complete(range(300), [*range(299), "a" * 2 * BIG])
    assert len(make_row(table, range(300), {}).files) == 1, "a big one is not among small ones"
    monkeypatch.setattr(chunk_rows, "BIG", 1000)
    for count, parts in ((100, 1), (1000, 7), (2000, 15)):
        table = make_table(range(count))
        table.complete(range(count), [300 + at for at in range(count)])
        row = sealed(make_row(table, range(count), {}))
        content = chunk_rows.content_of(row, no_file, "run.db")
        assert len([*chunk_rows.parts_of(content, count)]) == pytest.approx(parts, abs=2)
        fresh = copied(table, row)
        assert fresh.all_results() == table.results == [fresh.result_of(at) for at in range(count)]


def test_a_row_that_is_too_big_for_the_database_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_rows, "MOST_ROW", 3000)
    table = make_table(range(4))
    table.complete(range(4), [bytes([at]) * 1000 for at in range(4)])
    row = make_row(table, range(4), {})
    (file,) = row.files
    content = {file.name: b"".join(map(bytes, file.parts))}
    assert len(sealed(row).body) < 300
    assert copied(table, sealed(row), read_file=content.__getitem__).all_results() == table.results
    content[file.name] = flipped(content[file.name], 1500)
    assert copied(table, sealed(row), read_file=content.__getitem__, lost=range(4)).all_results() == [None] * 4
    assert copied(table, sealed(row), lost=range(4)).all_results() == [None] * 4


def test_a_result_that_can_not_be_read_costs_no_other_of_its_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("a_module_of_its_own")
    kind = module.Kind = type("Kind", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    table = make_table("abc")
    table.complete(range(3), [1, kind(), 3])
    row = sealed(make_row(table, range(3), {}))
    monkeypatch.delitem(sys.modules, module.__name__)
    results = copied(table, row).all_results()
    assert (results[0], repr(results[1])[:18], results[2]) == (1, "<unreadable here: ", 3)


def test_code_of_another_python_is_never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[BigFile] = []
    with monkeypatch.context() as other:
        other.setattr(kept_values, "VERSION", "3.9")
        code, big, data = (keep(value, files) for value in (lambda: 1, (lambda: 1, b"x" * BIG), [1, "CodeType"]))
    content = {file.name: b"".join(map(bytes, file.parts)) for file in files}
    monkeypatch.setattr(kept_values, "load_parts", lambda *_: pytest.fail("loaded"))
    for kept in (code, big):
        assert "code that Python 3.9 compiled, and this is" in repr(restore(kept, content.__getitem__))
    assert ["3.9" in repr(one) for one in Lot(0, 2, None, ids=tuple(code)).all_ids() or ()] == [True, True]
    monkeypatch.undo()
    assert [unstamped(stamped(data)) for data in (b"plain", b"CodeType")] == [b"plain", b"CodeType"]
    assert Lot(0, 2, None, ids=tuple(keep([5, 6], files))).all_ids() == [5, 6]
    lost = Lot(0, 2, None, parts=[(None, tuple(big))]).items(no_file)
    assert [type(item) for item in lost] == [Unreadable] * 2
    assert restore(data, no_file) == [1, "CodeType"]
    assert restore(keep(lambda: 1, files), no_file)() == 1


def unreadable(rows: list[WrittenRow]) -> set[int]:
    """The items of two whose results can't be read after these rows."""
    filler = TableFiller(make_table("ab"), 2, no_file, checked=True)
    read_all(rows, Outcomes(no_file, "run.db", 2, filler))
    return filler.unreadable


def test_a_result_that_was_made_anew_is_not_missing_any_more() -> None:
    table = make_table("ab")
    table.complete(range(2), [bytes(BIG), 2])
    rows = [sealed(make_row(table, range(2), {}))]
    assert unreadable(rows) == {0}
    table.results[0] = 1
    rows.append(sealed(make_row(table, range(1), {})))
    assert unreadable(rows) == set()


def test_results_that_were_read_to_be_checked_are_given_once_and_only_the_last_of_an_item() -> None:
    table = make_table("abc")
    table.complete(range(3), [["old"], {2}, 3])
    first = sealed(make_row(table, range(3), {}))
    table.results[0] = ["new"]
    second = sealed(make_row(table, range(1), {}))
    fresh, nothing = make_table("abc"), RowsInMemory([], no_file)
    fresh.source = source = KeptResults(nothing, first.job, "job", strict=True)
    filler = TableFiller(fresh, 3, no_file, checked=True, keep=source.keep)
    read_all([first, second], Outcomes(no_file, "run.db", 3, filler))
    for expected in ([["new"], {2}, 3], ["lost"] * 3):  # the second time they would have to be read
        assert source.each(fresh.results, range(3), lambda _, result: result, lambda *_: "lost") == expected


def test_a_file_that_is_another_result_s_is_noticed() -> None:
    files: list[BigFile] = []
    kept = [keep(bytes([at]) * BIG, files) for at in range(2)]
    content = [b"".join(map(bytes, file.parts)) for file in files]
    for other in (content[1], flipped(content[0], 5000)):
        assert "damaged, or that of another" in repr(restore(kept[0], {kept[0].file: other}.__getitem__))


def test_a_file_of_another_length_is_noticed_where_its_checksum_is_not_known() -> None:
    kept = Kept(None, None, "file", (3, 2), (False, True), None)
    assert "expected 5 bytes in file, got 4" in repr(restore(kept, lambda _: b"1234"))


@pytest.mark.parametrize("place", [Place("lots", 1, 1), Place("chunks", 2, 1), Place("chunks", 1, 2)])
def test_a_row_that_stands_elsewhere_is_noticed(place: Place) -> None:
    body = seal([1], HERE)
    assert unseal(body, HERE, "run.db") == [1]
    with pytest.raises(JournalError, match="damaged"):
        unseal(body, place, "run.db")


# -- payloads and code -------------------------------------------------------------------------------------------------


def test_items_are_kept_but_for_big_ones_and_those_that_can_not_be_pickled() -> None:
    for items in [{"id": at} for at in range(300)], [{"id": 1}, b"x" * BIG, threading.Lock(), [2]]:
        lot = Lot(5, len(items), None, parts=[(None, keep_items(items))])
        _, (_, *row) = lot.put(1)
        again = read_lot(tuple(row), 1, "run.db")
        assert (again.first, again.size, again.makers) == (5, len(items), USERS)
        for item, found in zip(items, again.items(no_file), strict=True):
            assert found == item or (isinstance(found, NotKept) and not isinstance(item, dict | list))


def test_what_has_changed_in_a_lot_is_read_instead_of_what_was_there_and_what_is_gone_is_not_read() -> None:
    def lot_of(*values: Any) -> Lot:
        identities = b"".join(str(value).encode().ljust(SIZE, b".") for value in values)
        return Lot(
            0, len(values), identities, ids=[f"id {value}" for value in values], parts=[(None, keep_items([*values]))]
        )

    lot = lot_of(1, 2, 3, 4).changed([1, 3], lot_of(20, 40)).changed([1], lot_of(21)).without([2])
    first, second, third, fourth = lot.items(no_file)
    assert (first, second, fourth) == (1, 21, 40)
    assert third is None
    assert lot.identities is not None
    assert [lot.identity(at).strip(b".\0") for at in range(4)] == [b"1", b"21", b"", b"40"]
    assert (lot.all_ids(), lot.gone) == (["id 1", "id 21", None, "id 40"], (2,))
    assert lot.changed(range(4), lot_of(5, 6, 7, 8)).items(no_file) == [5, 6, 7, 8]
    assert present_slots([lot], 5) == bytes((1, 1, 0, 1, 0))
    named_since = lot_of(1, 2, 3)._replace(ids=None).changed([1], lot_of(20))
    assert named_since.all_ids() == [None, "id 20", None]


class CountedRows(RowsInMemory):
    """Says how often a row was read."""

    reads = 0

    def row(self, job: int, number: int) -> WrittenRow | None:
        self.reads += 1
        return super().row(job, number)


#: The items of four rows: two that follow each other, one in another order, one alone. 3 and 7 failed.
LAID = (range(5), [5, 8, 6], range(9, 12), [7])
ROW_OF = {index: number for number, indices in enumerate(LAID, 1) for index in indices}
DONE = [index for index in range(12) if index not in (3, 7)]


def laid_rows() -> list[WrittenRow]:
    """Twelve results in these rows."""
    table = make_table(range(12))
    table.complete(range(12), [{"of": index} for index in range(12)])
    for index in (3, 7):
        table.results[index] = None
        table.fail(index, failed("no"))
    return [sealed(make_row(table, indices, {}), number) for number, indices in enumerate(LAID, 1)]


@pytest.mark.parametrize(
    "chosen",
    [DONE, DONE[::-1], [0, 1, 2], [9, 10, 11], [10, 11], [5, 6], [6, 5, 8], [2, 9, 1, 10, 5, 0], [4], [8]],
    ids=str,
)
def test_each_way_to_read_results_finds_those_of_its_slots(chosen: list[int]) -> None:
    expected = [{"of": index} for index in chosen]

    def fresh() -> KeptResults:
        return KeptResults(CountedRows(laid_rows(), no_file), 1, "job")

    source = fresh()
    assert [source.read(ROW_OF[index], index) for index in chosen] == expected
    stand_ins: list[Any] = ["held", *(Elsewhere(ROW_OF[index]) for index in chosen)]
    filled = [*stand_ins]
    fresh().fill(filled, [99, *chosen])
    assert filled == ["held", *expected]
    told = fresh().each(stand_ins, [99, *chosen], lambda place, result: (place, result), lambda *what: what)
    assert told == [*enumerate(["held", *expected])]
    in_place: list[Any] = [Elsewhere(ROW_OF[index]) if index in chosen else None for index in range(12)]
    fresh().fill(in_place, None)
    assert in_place == [{"of": index} if index in chosen else None for index in range(12)]


def test_a_row_is_read_once_for_results_that_are_looked_at_one_after_the_other() -> None:
    rows = CountedRows(laid_rows(), no_file)
    source = KeptResults(rows, 1, "job")
    for number, indices in enumerate(LAID[:3], 1):
        for index in indices:
            if index != 3:
                assert source.read(number, index) == {"of": index}
    assert rows.reads == 3
    assert source.read_bytes == sum(len(row.body) for row in laid_rows()[:3])


@pytest.mark.parametrize("row", [1, 4, 9])
@pytest.mark.parametrize("slot", [3, 7, 12, 50])
def test_a_result_that_is_nowhere_is_no_other_item_s(row: int, slot: int) -> None:
    source = KeptResults(RowsInMemory(laid_rows(), no_file), 1, "job")
    with pytest.raises(JournalError, match=r"run\.db: expected the result of an item of job 'job', got none"):
        source.read(row, slot)
    with pytest.raises(JournalError, match="got none"):
        source.fill([Elsewhere(row)], [slot])
    with pytest.raises(JournalError, match="got none"):
        source.each([Elsewhere(row)], [slot], lambda _, result: result, lambda *_: None)
    assert source.read(1, 0) == {"of": 0}


@pytest.mark.parametrize("strict", [False, True])
def test_a_result_that_can_not_be_read_has_a_stand_in_or_is_an_error_and_costs_no_other(strict: bool) -> None:
    table = make_table(range(3))
    table.complete(range(3), [1, bytes(2 * BIG), 3])  # whose file is gone
    source = KeptResults(RowsInMemory([sealed(make_row(table, range(3), {}), 1)], no_file), 1, "job", strict=strict)
    stand_ins = [Elsewhere(1)] * 3
    left_out: list[Any] = []
    told = source.each(stand_ins, range(3), lambda _, result: result, lambda *what: left_out.append(what))
    assert (told[0], told[2]) == (1, 3)
    if strict:
        ((place, error),) = left_out
        assert (place, told[1]) == (1, None)
        assert "expected the result of an item of job 'job', got <unreadable" in str(error)
        with pytest.raises(JournalError, match="got <unreadable"):
            source.read(1, 1)
    else:
        assert not left_out
        assert isinstance(told[1], Unreadable)
        assert isinstance(source.read(1, 1), Unreadable)


def test_what_was_discarded_is_said_to_be() -> None:
    source = KeptResults(RowsInMemory(laid_rows(), no_file), 1, "job")
    told = source.each([DISCARDED, Elsewhere(1), DISCARDED], [0, 1, 2], lambda _, result: result, lambda *what: what)
    assert [repr(one) for one in told] == [
        "<unreadable here: it was discarded>",
        "{'of': 1}",
        "<unreadable here: it was discarded>",
    ]


def test_files_count_among_what_was_read() -> None:
    table = make_table("ab")
    table.complete(range(2), [bytes(2 * BIG), 2])
    row = make_row(table, range(2), {})
    (file,) = row.files
    content = b"".join(map(bytes, file.parts))
    source = KeptResults(RowsInMemory([sealed(row, 1)], lambda _: content), 1, "job")
    assert source.read(1, 0) == bytes(2 * BIG)
    assert source.read_bytes == len(sealed(row).body) + len(content)


def test_a_handler_that_moved_is_the_same_one_that_does_something_else_is_not() -> None:
    def compiled(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(text, names)
        return names["f"]

    same = [
        compiled("def f(x):\n    return x in {'a', 'b'}"),
        compiled("\n\n# moved\ndef f(x):\n  return x in {'a', 'b'}"),
    ]
    other = compiled("def f(x):\n    return x in {'a', 'c'}")
    assert number(same[0]) == number(same[1]) != number(other)
    assert number(partial(same[0], y=2)) == number(partial(same[1], y=2))
    assert number(same[0], None) != number(same[0], other)
    assert number(len) != number(str.upper)


def number(handler: Any, setup: Any = None) -> int:
    """What stands for the code of these."""
    return code_of([("the handler", handler), ("the setup", setup)]).code.number


def handler_with(text: str, **names: Any) -> Any:
    """The function ``f`` of a module of that text."""
    module = {"__name__": "module", **names}
    exec(text, module)
    return module["f"]


CLOSURE = "def make(limit):\n    def f(x):\n        return x + limit\n    return f\nf = make({})"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(partial(pow, 2), partial(pow, 3), id="arguments"),
        pytest.param(partial(pow, exp=2), partial(pow, exp=3), id="keywords"),
        pytest.param(handler_with(CLOSURE.format(1)), handler_with(CLOSURE.format(2)), id="closure"),
        pytest.param(handler_with(CLOSURE.format("min")), handler_with(CLOSURE.format("max")), id="function in it"),
        pytest.param(handler_with("def f(x, y=1): pass"), handler_with("def f(x, y=2): pass"), id="default"),
        pytest.param(handler_with("def f(x, *, y=1): pass"), handler_with("def f(x, *, y=2): pass"), id="keyword"),
        pytest.param(
            handler_with("def f(x): return lambda: RATE", RATE=[1, {"a"}]),
            handler_with("def f(x): return lambda: RATE", RATE=[1, {"b"}]),
            id="global",
        ),
    ],
)
def test_the_hash_covers_what_the_handler_brings_along(one: Any, other: Any) -> None:
    assert number(one) != number(other)
    assert number(one) == number(one)


def test_functions_that_are_called_count_and_globals_that_are_not_used_do_not() -> None:
    text = "def g(): return {}\ndef f(x): return g(), USED, lock"
    one = handler_with(text.format(1), USED=1, OTHER=1, lock=threading.Lock())
    assert number(one) == number(handler_with(text.format(1), USED=1, OTHER=2, lock=threading.Lock()))
    assert number(one) != number(handler_with(text.format(2), USED=1, OTHER=1, lock=threading.Lock()))


def test_a_function_that_refers_to_itself_has_a_hash() -> None:
    def f(x: int) -> Any:
        return f(x - 1) if x else 0

    assert number(f) == number(f)
