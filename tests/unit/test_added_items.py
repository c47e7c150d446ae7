"""Items on their way to an open job: which ids they may have, and what a result brings along."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from typing import Any

import pytest

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.identity import digest
from mpqueue._parent.journal.kept_values import no_file
from mpqueue._parent.journal.lots import BY_USER, RecordedGrowth
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.parcels import AddedItems, ResultWithItems, plain_ids


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("item_id", ["a", 1, 1.5, b"a", True, None, ("a", (1, None))])
def test_a_plain_id_is_taken(item_id: Any) -> None:
    assert plain_ids(IdRule.KEY, [{"id": item_id}]) == [item_id]


@pytest.mark.parametrize("item_id", [Text("a"), frozenset(), ("a", Text("b")), ("a", (1, frozenset()))])
def test_any_other_is_refused_by_its_place(item_id: Any) -> None:
    with pytest.raises(TypeError, match=r"items\[1\]: expected an id that is text"):
        plain_ids(IdRule.KEY, [{"id": 1}, {"id": item_id}])


def test_positions_are_no_ids() -> None:
    assert plain_ids(IdRule.POSITION, [frozenset()]) is None


def test_a_result_brings_the_items_of_all_calls() -> None:
    added = ResultWithItems("result", [(["a"], ["x"]), (("b", "c"), ["y", "z"])]).added()
    assert (added.items, added.ids) == (["a", "b", "c"], ["x", "y", "z"])
    by_place = ResultWithItems("result", [(["a"], None), (["b"], None)]).added()
    assert (by_place.items, by_place.ids) == (["a", "b"], None)


@pytest.mark.parametrize("has_ids", [False, True])
@pytest.mark.parametrize("number", range(20))
def test_of_items_that_are_added_to_a_recorded_job_the_new_ones_are_chosen_and_written(
    number: int, has_ids: bool
) -> None:
    """The user adds items again, in any order, and so many as there is room for; handlers add others meanwhile."""
    chance, rule = random.Random(number), IdRule.KEY if has_ids else IdRule.POSITION
    recorded, slots = [chance.randrange(6) for _ in range(4)], chance.choice([[0, 1, 2, 3], [0, 2, 5, 6]])
    table = ItemTable([*recorded], [*recorded] if has_ids else None, rule, grows=True)
    table.slots = None if slots[3] == 3 else array("I", slots)
    table.growth = growth = RecordedGrowth(slots[3] + 1)
    growth.expected.update(map(digest, () if has_ids else recorded))
    left, known = Counter(recorded), {*recorded}
    written: list[tuple[Any, ...]] = []  #: slot, item, id, maker, and the identity if the item is known by that
    for _ in range(5):
        maker = chance.choice([None, None, 0, 2])
        items, most, new, looked_at = [chance.randrange(9) for _ in range(chance.randrange(6))], None, list[int](), 0
        if maker is None:
            most = chance.choice([None, *range(4)])
        for item in items:
            if item in known if has_ids else maker is None and left[item] > 0:
                left[item] -= 1
            elif len(new) == most:
                break
            else:
                new.append(item)
                known.add(item)
            looked_at += 1
        ids: list[Any] | None = [*items] if has_ids else None
        added = AddedItems(items, ids)
        if maker is None:
            added, count = table.choose(growth.look_at(items, ids), most)
            assert (added.items, added.ids, count) == (new, new if has_ids else None, looked_at)
        table.take_in(added, rule, maker)
        by = BY_USER if maker is None else slots[maker]
        written += [
            (slot, item, item if has_ids else None, by, digest(item) if by == BY_USER and not has_ids else None)
            for slot, item in enumerate(new, slots[-1] + 1)
        ]
        slots += range(slots[-1] + 1, slots[-1] + 1 + len(new))
        assert [*(table.slots_of(range(len(table))) or range(len(table)))] == slots
        if chance.random() < 0.5:
            assert rows_taken(growth, table) == written
            written.clear()
    assert rows_taken(growth, table) == written
    assert growth.take(table) is None


def rows_taken(growth: RecordedGrowth, table: ItemTable) -> list[tuple[Any, ...]]:
    """What is written of each item that was added since the last time."""
    found: list[tuple[Any, ...]] = []
    taken = growth.take(table)
    for added in () if taken is None else taken.added:
        added.pickling.keep()
        for lot in added.lots():
            identities = [lot.identity(at) if lot.identities else None for at in range(lot.size)]
            found += zip(
                lot.slots, lot.items(no_file), lot.ids or [None] * lot.size, lot.all_makers(), identities, strict=True
            )
    if taken is not None:
        assert taken.pickled(0).statements(1)[-1][1] == (len(found), growth.next_slot, str(table.rule), 1)
    return found
