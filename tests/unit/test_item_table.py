"""The items of a job: where their ids come from, and the columns in which their state is kept."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from mpqueue._core.state.columns import LARGE
from mpqueue._core.state.item_table import (
    DISCARD,
    DISCARDED,
    LEAST_CPU,
    ONWARD,
    Elsewhere,
    Failure,
    ItemTable,
    make_table,
)
from mpqueue._core.state.pending import stretches
from mpqueue._core.state.pipeline import Origins
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._parent.journal.kept_values import no_file
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.parcels import AddedItems, Parcel
from mpqueue.errors import JobStateError
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY
from tests.unit.rows_in_memory import RowsInMemory


@dataclass
class Photo:
    id: Any


def ids(items: Any) -> list[Any]:
    table = make_table(items)
    return [table.id_of(index) for index in range(len(table))]


# -- ids ---------------------------------------------------------------------------------------------------------------


class Record(dict[str, int]):
    """A mapping with an attribute, which is not its id."""

    id = 5


@pytest.mark.parametrize(
    ("items", "known"),
    [
        pytest.param(["a", "b", 3.0], [0, 1, 2], id="plain values by their position"),
        pytest.param([{"id": "a"}, MappingProxyType({"id": 7})], ["a", 7], id="mappings by their key"),
        pytest.param([Photo("x"), Photo(("y", 1))], ["x", ("y", 1)], id="objects by their attribute"),
        pytest.param([{"name": "a"}, {"id": "b"}], [0, 1], id="mappings without an id"),
        pytest.param([1, {"id": "a"}, Photo("b")], [0, 1, 2], id="the first item decides for all"),
        pytest.param([Record(id=3)], [3], id="a mapping's attribute is not its id"),
        pytest.param([Record()], [0], id="nor where it has no key"),
        pytest.param([Photo, Photo], [0, 1], id="a class is no object with an id"),
        pytest.param([], [], id="no items"),
        pytest.param([{"id": None}], [None], id="an id may be None"),
        pytest.param((letter for letter in "abc"), [0, 1, 2], id="a generator"),
    ],
)
def test_items_are_known_by_their_ids_or_their_positions(items: Any, known: list[Any]) -> None:
    assert ids(items) == known


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ([{"id": 1}, {"name": 2}], r'items\[1\]: expected an "id" key'),
        ([{"id": 1}, 5], r'items\[1\]: expected an "id" key'),
        ([{"id": 1}, "text"], r'items\[1\]: expected an "id" key'),
        ([{"id": 1}, [2]], r'items\[1\]: expected an "id" key'),
        ([Photo(1), Photo(2), {"id": 3}], r"items\[2\]: expected an \.id attribute"),
        ([{"id": 1}, {"id": [2]}], r"items\[1\]: expected a hashable id, got \[2\]"),
        (5, "items: expected an iterable, got 5 of type int"),
    ],
)
def test_items_that_do_not_fit_are_refused_by_position(items: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        make_table(items)


@pytest.mark.parametrize("twice", [("a", "a"), (1, True), (1, 1.0), ((1,), (1,)), (math.nan, math.nan)])
def test_ids_that_are_equal_are_refused_with_both_positions(twice: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="positions 0 and 2"):
        make_table([{"id": twice[0]}, {"id": "other"}, {"id": twice[1]}])


def test_what_the_iterable_raises_comes_through() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        make_table(broken())


def test_the_list_is_copied_and_the_items_are_not() -> None:
    item: dict[str, Any] = {"id": 1}
    items = [item]
    table = make_table(items)
    items.clear()
    assert table.payloads == [item]
    assert table.payloads[0] is item


# -- columns -----------------------------------------------------------------------------------------------------------


def table_of(count: int) -> ItemTable:
    return ItemTable(list(range(count)), None, IdRule.POSITION)


def test_a_table_whose_making_was_interrupted_goes_without_a_word() -> None:
    ItemTable.__new__(ItemTable).__del__()  # as a Ctrl-C leaves it that comes before its first column


def test_a_failed_try_is_kept_in_the_history() -> None:
    table, error = table_of(1), ValueError("no")
    assert table.fail_try(0, Failure(error, elapsed=1.5), 99) == 1
    assert table.fail_try(0, Failure(error, elapsed=2.5), 98) == 2
    assert [(tried.message, tried.duration, tried.pid, tried.exception) for tried in table.history[0]] == [
        ("no", 1.5, 99, error),
        ("no", 2.5, 98, error),
    ]
    assert table.elapsed[0] == 2.5


def test_a_failure_s_text_is_its_message_or_its_type() -> None:
    assert Failure(ValueError("no")).message == "no"
    assert Failure(ValueError()).message == "ValueError"
    assert Failure(KeyError("a"), text="a").message == "a"
    assert Failure(ValueError("no"), text="").message == "ValueError"


def test_what_starts_afresh_is_as_if_it_had_never_run() -> None:
    fresh, table = table_of(3), table_of(3)
    table.complete([0], ["fine"])
    table.fail_try(1, Failure(ValueError("no"), elapsed=1.0), 99)
    table.fail(1, Failure(ValueError("no")))
    table.note_times(range(2), [(2, 1.0, 2.0)])
    table.note_peaks({0: 1 << 20, 1: 1 << 20})
    table.note_output([0, 1], {0: ("said", "")})
    table.start_afresh([0, 1])
    columns = ("status", "attempts", "elapsed", "cpu", "peak", "results", "failures", "history", "output")
    assert [list(getattr(table, name)) for name in columns] == [list(getattr(fresh, name)) for name in columns]


@pytest.mark.parametrize("is_stream", [False, True])
def test_items_that_wait_for_a_retry_can_be_made_pending(is_stream: bool) -> None:
    table = ItemTable.of_stream() if is_stream else table_of(5)
    if is_stream:
        table.admit(table.add(range(5)))
    for index in (0, 2, 4):
        table.status[index] = RETRY
    table.status[1] = FAILED
    table.reset_waiting()
    assert [table.status[index] for index in range(5)] == [PENDING, FAILED, PENDING, PENDING, PENDING]


@pytest.mark.parametrize(("told", "kept"), [(0.0, LEAST_CPU), (math.nan, 0.0), (0.25, 0.25)])
def test_a_time_of_nothing_is_not_taken_for_one_that_is_not_known(told: float, kept: float) -> None:
    table = table_of(1)
    table.note_times([0], [(1, 0.5, told)])
    assert table.cpu[0] == pytest.approx(kept)


@pytest.mark.parametrize("count", [LARGE // 4 - 1, LARGE // 4])
def test_columns_of_any_length_begin_as_zeros_and_keep_what_is_written(count: int) -> None:
    table = table_of(count)
    for column in (table.attempts, table.elapsed, table.cpu, table.peak):
        assert not any(list(column)[:10])
        assert not any(list(column)[-10:])
    table.complete(range(count - 3, count), [1, 2, 3])
    table.note_times([count - 1], [(1, 0.5, 0.25)])
    assert (list(table.attempts)[-4:], table.elapsed[count - 1], table.cpu[count - 1]) == ([0, 1, 1, 1], 0.5, 0.25)


def test_what_an_item_cost_is_forgotten_before_its_next_try() -> None:
    table = table_of(2)
    table.note_times(range(2), [(2, 0.5, 0.25)])
    table.note_peaks({0: 3 << 20, 1: 1 << 60})
    assert list(table.peak) == [3 << 10, (1 << 32) - 1]
    table.forget_costs(0)
    assert (table.cpu[0], table.peak[0], table.cpu[1]) == (0, 0, 0.25)
    for output in ({0: ("first", ""), 1: ("other", "")}, {}):
        table.note_output([0], output)
    assert table.output == {1: ("other", "")}, "of the last try"


@pytest.mark.parametrize(
    ("has_user_objects", "ended", "inherits"), [(True, True, True), (False, False, True), (False, True, False)]
)
def test_where_freeing_may_run_users_code_another_has_what_it_held(
    has_user_objects: bool, ended: bool, inherits: bool
) -> None:
    table, inherited = table_of(2), list[Any]()
    table.live.free_elsewhere, table.live.has_user_objects = inherited.append, has_user_objects
    table.complete(range(2 if ended else 1), ["a", "b"][: 2 if ended else 1])
    del table
    assert [left["results"][0] for left in inherited] == ["a"] * inherits


class Written:
    """A journal's rows: a result is named by its row and slot."""

    def read(self, row: int, slot: int) -> Any:
        return row, slot

    def fill(self, results: list[Any], slots: Any) -> None:
        results[:] = [self.read(one.row, at) if type(one) is Elsewhere else one for at, one in enumerate(results)]


def test_results_that_are_written_are_read_again_until_all_are_recalled() -> None:
    table = table_of(3)
    table.complete(range(3), [*"abc"])
    assert table.evict([0], 4) == [], "they are nowhere else"
    source: Any = Written()
    table.source = source
    assert table.evict(range(2), 5) == ["a", "b"]
    assert [table.result_of(index) for index in range(3)] == [(5, 0), (5, 1), "c"] == table.all_results()
    assert (table.row(1).result_of(0), type(table.results[1])) == ((5, 1), Elsewhere)
    table.results[2] = DISCARDED
    with pytest.raises(JobStateError, match="of which 1 are discarded; the first is that of item 2"):
        table.all_results()
    table.results[2] = "c"
    table.recall()
    assert table.results == [(5, 0), (5, 1), "c"]
    assert table.evict(range(3), 6) == [], "they are kept here from now on"
    assert table.release([2]) == ["c"]
    assert table.results[2] is None


@pytest.mark.parametrize(
    ("sink", "where"),
    [(DISCARD, "are discarded"), (ONWARD, "go on to the next stage"), ({"a": "sink"}, "are in {'a': 'sink'}")],
)
def test_a_result_that_is_not_kept_is_asked_for_in_vain(sink: Any, where: str) -> None:
    table = table_of(1)
    table.complete(range(1), ["a"])
    table.sink = sink
    assert not table.has_result(0)
    with pytest.raises(JobStateError, match=f"item 0: expected a job that keeps its results, .* {where}"):
        table.result_of(0)


def test_a_result_that_a_journal_has_too_can_be_asked_for_unless_it_is_discarded() -> None:
    table = table_of(2)
    table.complete(range(2), ["a", DISCARDED])
    table.source = KeptResults(RowsInMemory([], no_file), 1, "job")
    for sink, has in (({"a": "sink"}, True), (None, True), (DISCARD, False)):
        table.sink = sink
        assert [table.has_result(index) for index in range(2)] == [has, False]
    assert table.results_at_hand([0]) is None
    table.sink = None
    assert table.results_at_hand([0]) == ["a"]


def test_what_has_left_a_stage_holds_no_memory_but_for_small_values_that_failed() -> None:
    held: Any = object()
    table = ItemTable([1, 2, Parcel(b"3"), Parcel(b"4", held), Parcel(b"5", held)], None, IdRule.POSITION, grows=True)
    table.origins = Origins(table_of(5))
    table.origins.note([(at,) for at in range(5)])
    assert table.slots_of([2, 4]) == [2, 4], "the random numbers of their inputs"
    small = table.payloads[2]
    table.complete([0, 4], [1, 5])
    for index in (1, 2, 3):
        table.fail(index, Failure(ValueError("no")))
    table.pass_on(range(5), {1, 2, 3})
    assert table.payloads == [None, 2, small, None, None]
    assert table.results == [None] * 5


def test_a_row_stays_as_it_was() -> None:
    table = make_table([{"id": "a"}, {"id": "b"}])
    table.fail_try(1, Failure(ValueError("no"), elapsed=1.0), 99)
    table.status[1] = RETRY
    table.note_times([1], [(1, 1.0, 0.25)])
    table.note_peaks({1: 3 << 20})
    row = table.row(1)
    table.fail_try(1, Failure(ValueError("again")), 99)
    table.fail(1, Failure(ValueError("again")))
    assert (row.id_of(0), row.status[0], row.attempts[0], row.elapsed[0]) == ("b", RETRY, 1, 1.0)
    assert (row.cpu[0], row.peak[0]) == (0.25, 3 << 10)
    assert row.failures[0].message == "no"
    assert len(row.history[0]) == 1


# -- a table that grows ------------------------------------------------------------------------------------------------


def test_an_item_is_added_once_by_its_id_which_the_first_one_has_decided() -> None:
    table = ItemTable([], None, IdRule.POSITION, grows=True)
    lots = [AddedItems([*text], [*text]) for text in ("aba", "bc")]
    for lot in lots:
        table.take_in(lot, IdRule.KEY)
    assert [lot.new for lot in lots] == [range(2), range(2, 3)]
    assert (table.rule, table.ids, table.payloads) == (IdRule.KEY, [*"abc"], [*"abc"])
    assert (table.knows("c"), table.knows("d")) == (True, False)


@pytest.mark.parametrize(("most", "looked_at"), [(None, 3), (3, 3), (2, 2), (0, 0)])
def test_of_what_is_offered_as_much_is_chosen_as_there_is_room_for(most: int | None, looked_at: int) -> None:
    table = ItemTable([], None, IdRule.POSITION, grows=True)
    chosen, seen = table.choose(AddedItems([*"abc"], [1, 2, 3]), most)
    assert (chosen.items, chosen.ids, seen) == ([*"abc"][:looked_at], [1, 2, 3][:looked_at], looked_at)


# -- a stream's columns ------------------------------------------------------------------------------------------------


def test_a_stream_s_table_answers_as_any_other() -> None:
    rng, count = random.Random(3), 60
    plain, stream = table_of(count), ItemTable.of_stream()
    stream.admit(stream.add(range(count)))
    assert (plain.is_stream, stream.is_stream) == (False, True)
    for table in (plain, stream):
        rng.seed(3)
        for lo in range(0, count, 6):
            if rng.random() < 0.3:
                table.fail_try(lo, Failure(ValueError("no")), 1)
            if rng.random() < 0.3:
                table.fail(lo + 1, Failure(ValueError("no")))
                table.complete([lo, *range(lo + 2, lo + 5)], [lo, *range(lo + 2, lo + 5)])
            else:
                table.complete(range(lo, lo + 5), list(range(lo, lo + 5)))
    for column in ("status", "attempts", "results"):
        expected, whole = list(getattr(plain, column)), getattr(stream, column)
        assert [whole[index] for index in range(count)] == list(whole) == expected
    assert bytes(stream.status) == bytes(plain.status)
    assert [stream.status.count(code) for code in range(4)] == [plain.status.count(code) for code in range(4)]
    assert stream.unfinished() == plain.unfinished()
    assert stream.ended_indices() == plain.ended_indices()


def test_a_stream_s_rows_are_counted_from_its_beginning_on() -> None:
    table = ItemTable.of_stream()
    assert len(table) == 0
    table.admit(table.add(["a", "b"]))
    assert table.add(["c"]) == range(2, 3)
    assert table.add(["d"]) == range(3, 4)
    table.complete([0], ["A"])
    table.take(0)
    assert (len(table), table.added) == (2, 4), "the scheduler has not heard of the last two"
    assert (list(table.payloads), list(table.status)) == ([None, "b"], [COMPLETED, PENDING])
    assert ([*table.ended_stretches()], [*table.unfinished_stretches()]) == ([range(1)], [range(1, 2)])
    table.admit(range(2, 4))
    assert len(table) == 4
    assert table.payloads_of(range(1, 4)) == ["b", "c", "d"]


@pytest.mark.parametrize("any_failed", [False, True])
def test_a_stream_keeps_nothing_of_what_was_taken(any_failed: bool) -> None:
    stream = ItemTable.of_stream()
    stream.add(["a", "b", "c"])
    stream.slots = {0: 10, 1: 11, 2: 12}  # with a journal
    error = Failure(ValueError("no"))
    if any_failed:
        stream.fail_try(1, error, 1)
        stream.fail(1, error)
        stream.complete([0, 2], ["A", "C"])
    else:
        stream.complete([0, 1, 2], ["A", "B", "C"])
    assert stream.take_all([0, 1, 2]) == ["A", error if any_failed else "B", "C"]
    columns: list[Any] = [stream.payloads, stream.status, stream.attempts, stream.results, stream.elapsed]
    assert not any(column.kept for column in columns)
    assert not any((stream.failures, stream.history, stream.slots))
    assert stream.add(["d"]) == range(3, 4)


@pytest.mark.parametrize("ended", [[], [0], [4], [1, 2], [0, 2, 4], [0, 1, 2, 3, 4]])
def test_what_has_not_ended_comes_in_stretches_as_long_as_can_be(ended: list[int]) -> None:
    table = make_table("abcde")
    table.complete(ended, [None] * len(ended))
    assert [*table.unfinished_stretches()] == [*stretches(table.unfinished())]
