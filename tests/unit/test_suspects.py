"""How far an item is suspected of ending its program, and what follows from that."""

from __future__ import annotations

import pytest

from mpqueue._core.state.pending import Care
from mpqueue._parent.journal.suspects import (
    RunningMark,
    care_of,
    ended_program,
    ends_that_tell,
    is_guilty,
    suspect,
)

BESIDE = RunningMark(1, [0, 1], alone=False)
ALONE = RunningMark(1, [0], alone=True)
EITHER = [("", 0), ("b", 1), ("bb", 2), ("bbbb", 2), ("a", 3), ("ba", 3), ("bba", 3), ("aa", 4), ("ab", 3), ("aab", 4)]


@pytest.mark.parametrize(("ends", "count"), EITHER)
def test_ends_beside_others_make_suspect_and_only_ends_alone_count(ends: str, count: int) -> None:
    counts: dict[int, int] = {}
    for end in ends:
        suspect(counts, ALONE if end == "a" else BESIDE)
    assert counts.get(0, 0) == count
    assert counts.get(1, 0) == min(ends.count("b"), 2)


@pytest.mark.parametrize(("retries", "guilty_at"), [(0, 3), (2, 3), (3, 4), (9, 10)])
def test_an_item_has_failed_after_as_many_ends_alone_as_it_has_tries_but_not_before_three(
    retries: int, guilty_at: int
) -> None:
    assert not is_guilty(2 + guilty_at - 1, retries)
    assert is_guilty(2 + guilty_at, retries)
    assert f"ended {guilty_at} times while this item ran alone" in str(ended_program(2 + guilty_at).error)


def test_who_is_suspected_runs_in_a_chunk_of_its_own_then_with_nothing_beside_it() -> None:
    assert [care_of(count) for count in (1, 2, 3)] == [Care.ALONE, Care.APART, Care.APART]


def test_where_one_was_alone_the_others_had_ended_before() -> None:
    assert [*ends_that_tell([BESIDE, ALONE])] == [ALONE]
    assert [*ends_that_tell([BESIDE])] == [BESIDE]
