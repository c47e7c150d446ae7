"""Pipelines whose program ends at any moment, and which go on with what a journal has by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.pipeline import Path, Pipeline
from mpqueue._parent.journal.kept_values import Place, unseal
from mpqueue._parent.journal.lots import PassedOn, PassRecord, on_their_way
from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.parcels import Parcel
from mpqueue._wire.pickling.payload import dump
from tests.support.auditor import Auditor
from tests.support.fake_lanes import FakeLanes, succeed
from tests.support.fake_worker import Item
from tests.support.length import IS_LONG

LAST = 3  #: the place of the last of four stages


class Disk:
    """What a journal would have: how inputs ended, and what was passed on."""

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}
        self.entries: list[Any] = []

    def note(self, path: Path, place: int, brought: Sequence[tuple[Path, object]]) -> None:
        """See `PassHook`."""
        self.entries.append(PassedOn(path, place, [(own, place + 1, value) for own, value in brought]))  # type: ignore[misc]

    def values(self, pipeline: Pipeline) -> Mapping[int, Any]:
        """The values on their way, of inputs that have not ended; those that can't be used are forgotten."""
        found = {
            root: own
            for root, own in on_their_way(self.entries).items()
            if root not in self.results and pipeline.can_go_on({place for _, place, _ in own})
        }
        self.entries = [PassedOn((root,), 0, [*own]) for root, own in found.items()]
        return found


@st.composite
def flows(draw: st.DrawFn) -> list[Item]:
    """Inputs, and all that comes of each; the last stages' results are all different."""
    numbers = count()

    def flow(place: int) -> Item:
        item = succeed(draw(st.sampled_from((0.0, 0.01, 0.3, 2.0))))
        if place == LAST:
            return replace(item, returns=succeed(next(numbers)))
        many = draw(st.sampled_from((None, None, 0, 1, 3)))
        if many is None:
            return replace(item, returns=flow(place + 1))
        return replace(item, yields=tuple(flow(place + 1) for _ in range(many)))

    return [flow(0) for _ in range(draw(st.integers(0, 12)))]


def result_of(item: Item, place: int = 0) -> tuple[list[Any], bool]:
    """What comes of it, and whether that is of any number."""
    if place == LAST:
        return [item.returns], False
    if item.yields is None:
        assert item.returns is not None
        return result_of(item.returns, place + 1)
    return [leaf for each in item.yields for leaf in result_of(each, place + 1)[0]], True


def run(
    disk: Disk,
    inputs: Sequence[Item],
    steps: int | None,
    *,
    ordered: bool | Sequence[bool],
    lanes: int,
    most: int | None = None,
    lost: int = 0,
) -> list[tuple[int, int]]:
    """A run that ends with its program after so many steps; returns which inputs' items began in the last stage.

    The journal does not have the values that it has passed on last, as many as are ``lost``.
    """
    fleet = FakeLanes(lanes, latency=0.001)
    auditor = Auditor(fleet)
    head = fleet.stages(inputs, [None] * (LAST + 1), ordered=ordered, most=most)
    pipeline, table = head.pipeline, head.table
    assert pipeline is not None
    for root, result in disk.results.items():
        table.complete([root], [result])
    head.go_on()
    pipeline.go_on(disk.values(pipeline))
    pipeline.record, known = disk, len(disk.entries)
    auditor.restored |= {job.number: (job.completed, job.failed) for job in head.family}
    began: list[tuple[int, int]] = []
    last = pipeline.jobs[LAST]

    def see(chunk: Any, lo: int, hi: int) -> None:  # the rest of a stretch may be cut off
        if chunk.job is last:
            began.append((last.table.id_of(chunk.indices[lo]), chunk.indices[lo]))

    fleet.item_watchers.append(see)
    fleet.start(head)
    while not head.status.final and (steps is None or steps > 0):
        fleet.step()
        steps = None if steps is None else steps - 1
        disk.results.update((root, table.results[root]) for root in table.ended_indices())
    del disk.entries[max(known, len(disk.entries) - lost) :]
    if head.status.final:
        check_end(head, inputs)
    return began


def check_end(head: JobBook, inputs: Sequence[Item]) -> None:
    for root, item in enumerate(inputs):
        leaves, is_many = result_of(item)
        assert head.table.results[root] == (leaves if is_many else leaves[0])
    assert head.completed == len(inputs)


@pytest.mark.parametrize("ordered", [False, True, (False, True, False, True), (False, True, True, False)])
@settings(max_examples=1000 if IS_LONG else 100, deadline=None)
@given(
    inputs=flows(),
    runs=st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 3), st.sampled_from((None, 1, 5)), st.integers(0, 4)), max_size=4
    ),
    lanes=st.integers(1, 3),
    most=st.sampled_from((None, 1, 5)),
)
def test_a_pipeline_goes_on_where_its_program_ended(
    ordered: bool | Sequence[bool],
    inputs: list[Item],
    runs: list[tuple[int, int, int | None, int]],
    lanes: int,
    most: int | None,
) -> None:
    """Each input comes to what its items say; ordered stages get what is left in order; what is passed on stays.

    Each run has its own number of workers, and of items that may be between stages.
    """
    disk = Disk()
    for steps, workers, limit, lost in (*runs, (None, lanes, most, 0)):
        began = run(disk, inputs, steps, ordered=ordered, lanes=workers, most=limit, lost=lost)
        if ordered is True and workers == 1:
            first = [root for root, _ in began]
            assert first == sorted(first)


def test_what_was_passed_on_is_not_made_again() -> None:
    def then(item: Item) -> Item:
        return replace(succeed(1.0), returns=item)

    disk, inputs, left = Disk(), [then(then(then(then(succeed(9.0)))))] * 4, set[int]()
    for steps in range(200):
        disk = Disk()
        run(disk, inputs, steps, ordered=False, lanes=1)
        left = {root for root in on_their_way(disk.entries) if root not in disk.results}
        if left:
            break
    assert left
    run(disk, inputs, None, ordered=False, lanes=1)
    firsts = [entry.path[0] for entry in disk.entries if entry.place == 0]
    assert all(firsts.count(root) == 1 for root in left), "that it was on its way, and no more"


@pytest.mark.parametrize("steps", range(30, 45))
def test_an_input_that_had_its_turn_goes_on_while_an_earlier_one_begins_again(steps: int) -> None:
    """The program ends while only some of the first input's items have passed the second stage."""

    def way(number: int, seconds: float) -> Item:
        return replace(
            succeed(seconds), returns=replace(succeed(), returns=replace(succeed(), returns=succeed(number)))
        )

    spread = replace(succeed(), yields=tuple(way(number, 0.3 * (number > 0)) for number in range(3)))
    inputs = [spread, *(replace(succeed(), returns=way(number, 0.3)) for number in (3, 4))]
    disk = Disk()
    for until in (steps, None):
        run(disk, inputs, until, ordered=(False, True, False, True), lanes=3)
    assert sorted(disk.results) == [0, 1, 2]  # `run` checks what they are


def test_fewer_may_be_between_stages_than_when_the_program_ended() -> None:
    """Many inputs wait for the first one's turn, which begins again, in a run that lets fewer of them begin."""

    def way(number: int, seconds: float) -> Item:
        last = replace(succeed(), returns=succeed(number))
        return replace(succeed(seconds), returns=replace(succeed(), returns=replace(succeed(), returns=last)))

    inputs = [way(number, 100.0 * (number in (0, 3, 9))) for number in range(20)]
    disk = Disk()
    run(disk, inputs, 100, ordered=(False, False, True, False), lanes=4)
    assert len(on_their_way(disk.entries)) > 10
    run(disk, inputs, None, ordered=(False, False, True, False), lanes=1, most=1)
    assert sorted(disk.results) == [*range(20)]  # `run` checks what they are


def test_an_input_that_nothing_comes_of_lets_those_through_that_wait_further_on() -> None:
    """The second input had its turn in the second stage, in a run that the first one had reached it in, too."""

    on_its_way = replace(succeed(), returns=replace(succeed(), returns=succeed(7)))
    second = replace(succeed(), returns=replace(succeed(), returns=on_its_way))
    disk = Disk()
    disk.entries = [PassedOn((1,), 0, [((1,), 2, on_its_way)])]  # type: ignore[list-item]
    run(disk, [replace(succeed(), yields=()), second], None, ordered=(False, True, True, False), lanes=1)
    assert sorted(disk.results) == [0, 1]  # `run` checks what they are


def test_entries_of_what_is_not_on_its_way_say_nothing() -> None:
    first = PassedOn((7,), 0, [((7,), 1, b"old")])
    anew = PassedOn((7,), 0, [((7, 0), 1, b"a"), ((7, 1), 1, b"b")])
    assert on_their_way([first, anew]) == {7: [((7,), 1, b"old")]}
    assert on_their_way([anew, PassedOn((7, 1), 1, [((7, 1), 2, b"c")])]) == {7: [((7, 0), 1, b"a"), ((7, 1), 2, b"c")]}
    assert on_their_way([PassedOn((7,), 1, [((7,), 2, b"c")])]) == {}, "of a value that was never there"
    assert on_their_way([PassedOn((7,), 0, [])]) == {}, "its input begins again"


def test_rows_go_once_their_inputs_have_ended() -> None:
    record, store = PassRecord([10, 20, 30]), SegmentStore()
    record.note((0,), 0, [((0,), Parcel(b"a"))])
    big = Parcel(dump(np.arange(100_000), store))
    record.note((1,), 0, [((1, 0), Parcel(b"b")), ((1, 1), big)])
    (written,) = record.statements(5)
    entries = [PassedOn(*each) for each in unseal(written[1][2], Place("passed", 5, 0), "")]
    ((first, _, _), (second, place, data)) = on_their_way(entries)[20]
    assert (first, second, place) == ((20, 0), (20, 1), 1)
    assert Parcel(data).load().tolist() == [*range(100_000)]
    assert (written[1][:2], record.statements(5)) == ((5, 0), [])
    record.note((1, 0), 1, [((1, 0), Parcel(b"d"))])
    assert [values[:2] for _, values in record.statements(5)] == [(5, 1)]
    assert record.ended(5, [0]) == []
    assert [values for _, values in record.ended(5, [1, 2])] == [(5, 0), (5, 1)]
    assert not record._inputs_left, "nothing is kept of inputs that have ended"


def test_values_that_are_too_big_are_made_again() -> None:
    record = PassRecord([0])
    record.note((0,), 0, [((0, 0), Parcel(b"small")), ((0, 1), Parcel(bytes(5 << 20)))])
    assert record.statements(1) == []
