"""The items that wait to be dispatched."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.state.pending import MOST_JOINED, Care, LongestFirst, PendingItems
from tests.support.invariants import waiting_items


@pytest.mark.parametrize(
    ("count", "taken", "back", "due", "takes"),
    [
        pytest.param(0, 0, [], [], [], id="nothing"),
        pytest.param(10, 0, [], [], [(4, range(4)), (4, range(4, 8)), (4, range(8, 10))], id="fresh ones as ranges"),
        pytest.param(100, 20, [range(15, 20)], [], [(3, range(15, 18))], id="in the old place"),
        pytest.param(100, 20, [range(15, 20), range(10, 15)], [], [(30, range(10, 40))], id="with what follows"),
        pytest.param(9000, 2000, [range(5, 10)], [], [(10, range(5, 10)), (5, range(2000, 2005))], id="up to a gap"),
        # A list would cost more than a chunk.
        pytest.param(9000, 2000, [range(5, 10)], [], [(MOST_JOINED + 1, range(5, 10))], id="a range before a gap"),
        pytest.param(
            100, 20, [range(5, 7), range(15, 17)], [], [(8, [5, 6, 15, 16, 20, 21, 22, 23]), (8, range(24, 32))],
            id="the few before a gap with what follows it",
        ),
        pytest.param(20, 20, [range(5, 7)], [], [(8, range(5, 7))], id="the few that are left alone"),
        pytest.param(10, 5, [], [4, 1, 3], [(2, [4, 1]), (2, [3]), (2, range(5, 7))], id="retries first, as they fell"),
    ],
)  # fmt: skip
def test_items_go_out_in_their_order_retries_before_fresh_ones(
    count: int, taken: int, back: list[range], due: list[int], takes: list[tuple[int, Sequence[int]]]
) -> None:
    pending = PendingItems(count)
    if taken:
        pending.take(taken)
    for indices in back:
        pending.put_back(indices)
    for index in due:
        pending.add_due(index)
    waiting = len(pending)
    assert [(size, *pending.take(size)) for size, _ in takes] == [(size, found, Care.NONE) for size, found in takes]
    assert len(pending) == waiting - sum(len(found) for _, found in takes)


def waiting_cost(pending: PendingItems) -> int:
    return len(pending._fresh) + len(pending._due) + len(pending._suspects)


def test_care_is_never_taken_back() -> None:
    pending = PendingItems(3)
    pending.take(3)
    pending.suspect([1])
    pending.handle_with(0, Care.ALONE)
    pending.handle_with(0, Care.CAREFUL)
    pending.put_back([0, 1])
    assert [pending.take(1) for _ in range(2)] == [([0], Care.ALONE), ([1], Care.CAREFUL)]
    pending.add_due(1)
    assert pending.take(1) == ([1], Care.CAREFUL)


def test_many_items_cost_one_entry_also_while_there_are_suspects_among_others() -> None:
    assert waiting_cost(PendingItems(1_000_000)) == 1
    pending = PendingItems(1000)
    pending.take(1000)
    pending.suspect(range(100))
    pending.put_back(range(500, 1000))
    assert waiting_cost(pending) == 1


@given(st.integers(0, 40), st.lists(st.tuples(st.sampled_from(("take", "back", "suspect")), st.integers(1, 50))))
@settings(max_examples=50)
def test_no_item_is_lost_or_there_twice_however_they_go_and_come(count: int, moves: list[tuple[str, int]]) -> None:
    pending, waiting, out = PendingItems(count), set(range(count)), list[Sequence[int]]()
    for move, size in moves:
        if move == "take" and pending:
            taken, care = pending.take(size)
            assert taken
            assert len(taken) <= size or care is Care.ALONE, "a group is taken as a whole"
            assert waiting.issuperset(taken)
            waiting.difference_update(taken)
            out.append(taken)
        elif move != "take" and out:
            rest = out.pop()[-size:]
            if move == "suspect":
                pending.suspect(rest[:3])
            pending.put_back(rest)
            waiting.update(rest)
        assert sorted(waiting_items(pending)) == sorted(waiting)


@given(
    costs=st.lists(st.sampled_from((0.0, 1.0, 1.5, 7.0)), max_size=40),
    sizes=st.lists(st.integers(1, 9), min_size=60, max_size=60),
    back=st.sets(st.integers(0, 30)),
)
def test_the_costliest_items_go_first_and_equal_ones_in_their_order(
    costs: list[float], sizes: list[int], back: set[int]
) -> None:
    pending, order = LongestFirst(costs), list[int]()
    for at, size in enumerate(sizes):
        if not pending:
            break
        taken, _ = pending.take(size)
        assert 1 <= len(taken) <= size
        if at in back:
            pending.add(range(taken[0], taken[0] + 1))
            taken = taken[1:]
        order += taken
    assert sorted(order) == [*range(len(costs))]
    if not back:
        assert order == sorted(range(len(costs)), key=lambda index: (-costs[index], index))
    pending.clear()
    assert len(pending) == 0


def test_one_that_comes_back_among_many_goes_by_its_cost() -> None:
    pending = LongestFirst([5.0, 1.0, 3.0, 4.0, 2.0])
    assert pending.take(2)[0] == [0, 3]
    for index in (3, 0):
        pending.add(range(index, index + 1))
    assert pending.take(9)[0] == [0, 3, 2, 4, 1]


@pytest.fixture(params=["any", "of a kind", "costly"])
def every_line(request: pytest.FixtureRequest) -> PendingItems:
    """Two groups, two suspects, two due retries, fresh ones."""
    pending = {
        "any": PendingItems(10),
        "of a kind": PendingItems(10, [7] * 10),
        "costly": LongestFirst([1.0] * 10, [7] * 10),
    }[request.param]
    pending.take(8)
    pending.suspect([4, 5])
    for index in (6, 7, 4, 5):
        pending.add_due(index)
    pending.put_group([0, 1, 2, 3], halved=True)
    return pending


def test_groups_go_first_then_suspects_then_retries_then_fresh_ones_and_the_head_says_so(
    every_line: PendingItems,
) -> None:
    pending = every_line
    heads, taken = [], []
    for _ in range(5):
        heads.append(pending.head)
        care = pending.next_care
        taken.append((list(pending.take(2)[0]), care))
    assert heads == [0, 2, 4, 6, 8]
    assert taken == [
        ([0, 1], Care.ALONE),
        ([2, 3], Care.ALONE),
        ([4, 5], Care.CAREFUL),
        ([6, 7], Care.NONE),
        ([8, 9], Care.NONE),
    ]


def test_what_is_removed_waits_in_no_line_any_more_and_the_rest_stays_in_order(every_line: PendingItems) -> None:
    pending = every_line
    pending.remove([])
    assert len(pending) == 10
    pending.remove({0, 2, 3, 4, 7, 8, 99})
    assert len(pending) == 4
    assert [list(pending.take(9)[0]) for _ in range(4)] == [[1], [5], [6], [9]]


def test_what_was_in_a_group_stays_in_one_when_it_comes_back(every_line: PendingItems) -> None:
    pending = every_line
    group, _ = pending.take(1)
    pending.put_back([*group, *pending.take(1)[0]])
    assert pending.take(1) == ([0, 1, 2, 3], Care.ALONE)
    pending.add_due(2)
    assert pending.take(1) == ([2], Care.ALONE)
    pending.put_group([0, 1, 2], halved=True)
    assert [pending.take(1)[0] for _ in range(2)] == [[0, 1], [2]]


@pytest.mark.parametrize("costs", [None, [float(9 - index) for index in range(9)]])
def test_items_that_are_taken_together_need_the_same(costs: list[float] | None) -> None:
    kinds = [0, 0, 1, 1, 1, 0, 2, 2, 0]
    pending = PendingItems(9, kinds) if costs is None else LongestFirst(costs, kinds)
    assert [*pending.take(2)[0]] == [0, 1]
    assert [*pending.take(2)[0]] == [2, 3]
    pending.suspect([0, 2])
    for index in (1, 3, 0, 2):
        pending.add_due(index)
    assert [(pending.head, [*pending.take(9)[0]]) for _ in range(8)] == [
        (0, [0]),  # suspects
        (2, [2]),
        (1, [1]),  # due ones
        (3, [3]),
        (4, [4]),
        (5, [5]),
        (6, [6, 7]),
        (8, [8]),
    ]
