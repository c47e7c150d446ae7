"""Items on their way to an open job: which ids they may have, and what a result brings along."""

from __future__ import annotations

from typing import Any

import pytest

from mpqueue._wire.item_names import IdRule
from mpqueue._wire.parcels import ResultWithItems, plain_ids


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
