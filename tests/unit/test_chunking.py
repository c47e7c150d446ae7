"""How many items travel together."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.commands import Capabilities
from mpqueue._core.rules.chunking import (
    AHEAD_BYTES,
    AHEAD_CHUNKS,
    AHEAD_SECONDS,
    BIG_ITEM,
    END,
    LEAST_AHEAD,
    LEAST_OF_SHARE,
    LONGEST,
    MOST_BIG,
    MOST_OF_SHARE,
    RESULTS_OF_ITEMS,
    SHARE,
    SMALLEST,
    TARGET_BYTES,
    ChunkSizer,
    aim,
)
from mpqueue._wire.frames import CHUNK_SECONDS
from mpqueue._wire.memory.ledger import MAX_CHUNK_ITEMS

MANY = 10_000_000


def sizer_for(seconds_per_item: float, chunks: int = 10) -> ChunkSizer:
    """A sizer that has seen enough of a job to know it."""
    sizer = ChunkSizer(None)
    for _ in range(chunks):
        size = sizer.size(MANY, 1)
        sizer.learn(size, size * seconds_per_item)
    return sizer


@pytest.mark.parametrize(
    ("sizer", "waiting", "size"),
    [
        pytest.param(ChunkSizer(None), MANY, 1, id="one of which nothing is known"),
        pytest.param(sizer_for(0.001), MANY, 45, id="as many as take 45 ms"),
        pytest.param(sizer_for(1.0), MANY, 1, id="one that is slow"),
        pytest.param(sizer_for(0.0), MANY, MAX_CHUNK_ITEMS, id="as many as the ledger can count, without any time"),
        pytest.param(ChunkSizer(10**9), MANY, MAX_CHUNK_ITEMS, id="as many as the ledger can count, if asked for"),
        pytest.param(ChunkSizer(7), 100, 7, id="as many as are asked for"),
        pytest.param(ChunkSizer(7), 3, 3, id="as many as there are"),
    ],
)
def test_a_chunk_has_so_many_items(sizer: ChunkSizer, waiting: int, size: int) -> None:
    assert sizer.size(waiting, 4) == size
    assert CHUNK_SECONDS == 0.045


def test_chunks_are_as_long_as_they_aim_at_once_an_item_has_told_its_time() -> None:
    sizer, sizes = ChunkSizer(None), []
    for _ in range(3):
        sizes.append(sizer.size(MANY, 1))
        sizer.learn(sizes[-1], sizes[-1] * 1e-6)
    assert sizes == [1, CHUNK_SECONDS / 1e-6, CHUNK_SECONDS / 1e-6]


def test_a_chunk_aims_at_what_the_engine_says_in_all_that_it_does() -> None:
    sizer = sizer_for(0.02)
    assert sizer.size(MANY, 4) == 2
    sizer.chunk_seconds = sizer.aim = 0.2
    assert sizer.size(MANY, 4) == 10
    assert sizer.size(8, 4) == 1, "towards the end they become smaller there, too"
    assert sizer_for(0.3).may_prefetch is False
    sizer.learn(1, 0.3)
    assert sizer.may_prefetch, "what is short beside a chunk there is sent in advance"


def test_with_many_lanes_chunks_are_as_long_as_one_coordinator_needs() -> None:
    engine = Capabilities(chunk_seconds=0.045, chunk_cost=1e-4)
    assert [aim(engine, lanes) for lanes in (1, 64, 125)] == [0.045] * 3
    for lanes in (200, 1_000, 10_000):
        assert lanes / aim(engine, lanes) * engine.chunk_cost == pytest.approx(SHARE)
    assert aim(engine, 10**6) == LONGEST


def test_a_stream_holds_some_items_for_each_lane_however_little_is_known_of_them_and_however_long_they_take() -> None:
    unknown, slow = ChunkSizer(None), sizer_for(60.0)
    assert unknown.window(3) == slow.window(3) == 3 * LEAST_AHEAD


def test_of_big_items_a_stage_holds_few_but_some_for_each_lane() -> None:
    sizer, small, big = sizer_for(0.0001), sizer_for(0.0001), sizer_for(0.0001)
    big.learn_results(10, 10 * BIG_ITEM)
    for lanes, few in ((1, MOST_BIG), (1_000, LEAST_AHEAD * 1_000)):
        assert few == sizer.between_stages(lanes, big) < sizer.between_stages(lanes, small) == sizer.window(lanes)


def test_a_longer_aim_counts_for_sizes_and_for_what_a_stream_holds_but_not_for_what_goes_in_advance() -> None:
    sizer = sizer_for(0.05)
    assert sizer.window(1_000) == AHEAD_SECONDS * 1_000 / 0.05
    sizer.aim = 1.0
    assert sizer.size(MANY, 1_000) == 20
    assert sizer.window(1_000) == AHEAD_CHUNKS * 1_000 / 0.05
    assert sizer.nears_end(END * 1_000 * 20 - 1, 1_000)
    assert sizer.may_prefetch
    assert sizer.is_short(0.1)
    assert not sizer.is_short(1.0), "beside a chunk of a second the way to the worker is short"


def test_towards_the_end_chunks_become_smaller() -> None:
    sizer = sizer_for(0.001)
    sizes, pending = [], 400
    while pending:
        sizes.append(sizer.size(pending, 4))
        pending -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 45
    assert sizes[-1] == 1


def test_towards_the_end_a_lane_gets_what_the_others_have_more() -> None:
    sizer = sizer_for(0.001)
    assert sizer.nears_end(60, 2)
    assert sizer.size(60, 2, held=0.0, own=0.0) == MOST_OF_SHARE * 30
    # 50 ms for each of the two; it has 10 already, the other one 30.
    assert sizer.size(60, 2, held=0.040, own=0.010) == MOST_OF_SHARE * 40
    assert sizer.size(60, 2, held=0.040, own=0.030) == MOST_OF_SHARE * 20
    assert sizer.size(60, 2, held=0.100, own=0.100) == 2, "it has more than its share: the smallest chunk in reserve"


def test_before_the_end_it_does_not_matter_what_lanes_hold() -> None:
    sizer = sizer_for(0.001)
    assert not sizer.nears_end(300, 2)
    assert sizer.size(300, 2, held=0.090, own=0.090) == sizer.size(300, 2) == 45


def test_the_more_uneven_items_are_the_less_goes_out_at_once() -> None:
    even, uneven, unknown = sizer_for(0.001), sizer_for(0.001), ChunkSizer(None)
    for _ in range(10):
        uneven.learn(1, 0.0001)
        uneven.learn(1, 0.01)
    uneven.seconds_per_item = 0.001
    unknown.learn(16, 0.016)
    assert even.size(60, 2) == MOST_OF_SHARE * 30
    assert uneven.size(60, 2) == LEAST_OF_SHARE * 30
    assert unknown.size(60, 2) == LEAST_OF_SHARE * 30


def test_no_chunk_is_cut_below_what_it_costs_to_send() -> None:
    size = sizer_for(10e-6).size(1_000, 4)
    assert size * 10e-6 >= SMALLEST * CHUNK_SECONDS * 0.99


def test_big_items_travel_in_small_chunks() -> None:
    sizer = sizer_for(1e-6)
    sizer.learn_bytes(10, 10 * TARGET_BYTES // 5)
    assert sizer.size(MANY, 1) == 5
    sizer.chunk_bytes = 4 * TARGET_BYTES  # as an engine says
    assert sizer.size(MANY, 1) == 20
    sizer.learn_bytes(1, 100 * TARGET_BYTES)
    assert sizer.size(MANY, 1) == 1


def test_a_chunk_brings_no_more_results_home_than_can_wait_for_a_disk() -> None:
    sizer = sizer_for(0.0001)
    usual, ahead = sizer.size(MANY, 1), sizer.window(2)
    sizer.learn_results(10, 10 << 20)
    assert sizer.size(MANY, 1) == RESULTS_OF_ITEMS * TARGET_BYTES >> 20
    assert sizer.window(2) == AHEAD_BYTES >> 20
    for _ in range(100):
        sizer.learn_results(10, 10)
    assert (sizer.size(MANY, 1), sizer.window(2)) == (usual, ahead)


def test_only_items_known_to_be_short_are_sent_in_advance() -> None:
    assert not ChunkSizer(None).may_prefetch
    assert sizer_for(0.001).may_prefetch
    assert not sizer_for(0.2).may_prefetch


def test_an_item_of_a_thousand_times_the_others_length_is_forgotten_within_five_chunks() -> None:
    sizer = sizer_for(0.0001)
    usual = sizer.size(MANY, 1)
    sizer.learn(0, 5.0)
    assert sizer.size(MANY, 1) == usual
    sizer.learn(1, 0.1)
    assert sizer.size(MANY, 1) == 1
    for _ in range(5):
        size = sizer.size(MANY, 1)
        sizer.learn(size, size * 0.0001)
    assert sizer.size(MANY, 1) > 0.7 * usual


def test_items_that_become_much_longer_go_in_small_chunks_at_once() -> None:
    sizer = sizer_for(0.00001)
    sizer.learn(20, 0.05)
    assert sizer.size(MANY, 1) <= 40


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 10))), st.integers(1, 10**6), st.integers(1, 1024))
@settings(max_examples=50)
def test_a_size_is_always_between_one_and_what_waits(
    reports: list[tuple[int, float]], pending: int, lanes: int
) -> None:
    sizer = ChunkSizer(None)
    for items, seconds in reports:
        sizer.learn(items, seconds)
    assert 1 <= sizer.size(pending, lanes) <= min(pending, MAX_CHUNK_ITEMS)
