"""The parts of `imap`: reading the input, and putting what has ended in order. No process, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._dropin.map.input_reader import GROWTH, READ_SECONDS, InputReader
from mpqueue._dropin.stream_results import Arrivals


class Clock:
    """Time that passes only while items are read, each in ``pace`` seconds."""

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.seconds = 0.0
        self.read = 0

    def now(self) -> float:
        return self.seconds

    def items(self) -> Iterator[int]:
        for number in itertools.count():
            self.seconds += self.pace
            self.read += 1
            yield number


def read(reader: InputReader, most: int) -> list[Any]:
    """What it reads, which stays here."""
    batch = reader.read(most)
    reader.kept()
    return batch


def test_slow_input_is_read_item_by_item() -> None:
    clock = Clock(pace=READ_SECONDS)
    reader = InputReader(clock.items(), clock.now)
    assert [len(read(reader, 1000)) for _ in range(5)] == [1, 1, 1, 1, 1]


def test_quick_input_is_read_in_growing_strides_of_limited_time() -> None:
    clock = Clock(pace=READ_SECONDS / 1000)
    reader = InputReader(clock.items(), clock.now)
    strides = [len(read(reader, 100_000)) for _ in range(6)]
    assert strides[:4] == [1, GROWTH, GROWTH**2, GROWTH**3]
    assert strides[4:] == pytest.approx([1000, 1000], abs=1)


def test_input_that_becomes_slow_is_read_item_by_item_again() -> None:
    clock = Clock(pace=READ_SECONDS / 1000)
    reader = InputReader(clock.items(), clock.now)
    for _ in range(6):
        read(reader, 100_000)
    clock.pace = READ_SECONDS * 2
    read(reader, 10)
    assert len(read(reader, 100_000)) == 1


def test_no_more_is_read_than_wanted() -> None:
    clock = Clock(pace=0.0)
    reader = InputReader(clock.items(), clock.now)
    assert [item for _ in range(20) for item in read(reader, 3)] == list(range(clock.read))
    assert clock.read == 1 + 3 * 19
    assert not reader.exhausted


def test_end_of_the_input_is_seen() -> None:
    reader = InputReader(iter("ab"), Clock(0.0).now)
    assert read(reader, 1) == ["a"]
    assert read(reader, 5) == ["b"]
    assert reader.exhausted
    assert read(reader, 5) == []
    assert reader.error is None


def test_what_came_before_the_error_of_the_input_is_kept() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise LookupError

    reader = InputReader(items(), Clock(0.0).now)
    assert [item for _ in range(3) for item in read(reader, 10)] == [0, 1, 2, 3, 4]
    assert reader.exhausted
    assert isinstance(reader.error, LookupError)


def test_interruption_costs_no_item() -> None:
    class Interrupted:
        def __init__(self) -> None:
            self.calls = 0

        def __iter__(self) -> Interrupted:
            return self

        def __next__(self) -> int:
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return self.calls

    reader = InputReader(Interrupted(), Clock(0.0).now)
    assert read(reader, 10) == [1]
    with pytest.raises(KeyboardInterrupt):
        read(reader, 10)
    assert read(reader, 4) == [2, 3, 5, 6]


def test_closed_reader_lets_go_of_its_input() -> None:
    closed = False

    def items() -> Iterator[int]:
        nonlocal closed
        try:
            yield from itertools.count()
        finally:
            closed = True

    reader = InputReader(items(), Clock(0.0).now)
    read(reader, 1)
    reader.close()
    assert closed
    assert read(reader, 1) == []


# --- in which order -------------------------------------------------------------------------------------------------


@st.composite
def ends(draw: st.DrawFn) -> list[Sequence[int]]:
    """Chunks of the numbers from 0 on, as ranges and lists, and empty ones, in any order."""
    bounds = sorted(draw(st.sets(st.integers(1, 60), max_size=12)) | {0, 60})
    chunks: list[Sequence[int]] = [range(lo, hi) for lo, hi in itertools.pairwise(bounds)]
    chunks = [list(chunk) if draw(st.booleans()) else chunk for chunk in chunks]
    chunks += draw(st.lists(st.sampled_from([(), [], range(30, 30)]), max_size=3))  # notices that only ring
    return draw(st.permutations(chunks))


@given(ends(), st.data())
def test_ordered_ones_are_given_in_order_as_soon_as_they_can_be(
    chunks: list[Sequence[int]], data: st.DataObject
) -> None:
    arrivals, given_out, ended = Arrivals(ordered=True), list[int](), set[int]()
    for chunk in chunks:
        arrivals.add(chunk)
        ended.update(chunk)
        while indices := arrivals.take(most := data.draw(st.integers(1, 70))):
            assert len(indices) <= most
            given_out.extend(indices)
        assert given_out == list(range(len(given_out)))
        assert len(given_out) not in ended
    assert given_out == list(range(60))


@given(ends(), st.data())
def test_unordered_ones_are_given_as_they_come(chunks: list[Sequence[int]], data: st.DataObject) -> None:
    arrivals, given_out = Arrivals(ordered=False), list[int]()
    for chunk in chunks:
        arrivals.add(chunk)
    while indices := arrivals.take(most := data.draw(st.integers(1, 70))):
        assert len(indices) <= most
        given_out.extend(indices)
    assert given_out == list(itertools.chain.from_iterable(chunks))
