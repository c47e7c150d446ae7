"""Where an item's id comes from, which the first item of a job decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._wire.item_names import IdRule, find_id, ids_of, rule_of


class WithId:
    id = 7


@pytest.mark.parametrize(
    ("item", "rule", "item_id"),
    [
        ({"id": "a"}, IdRule.KEY, "a"),
        ({"name": "a"}, IdRule.POSITION, 3),
        (SimpleNamespace(id="b"), IdRule.ATTRIBUTE, "b"),
        (SimpleNamespace(name="b"), IdRule.POSITION, 3),
        (WithId, IdRule.POSITION, 3),
        (WithId(), IdRule.ATTRIBUTE, 7),
        (5, IdRule.POSITION, 3),
    ],
)
def test_the_first_item_says_where_ids_are(item: Any, rule: IdRule, item_id: object) -> None:
    assert rule_of(item) is rule
    assert find_id(rule, item, 3) == item_id
    assert ids_of(rule, [item, item]) == (None if rule is IdRule.POSITION else [item_id] * 2)


@pytest.mark.parametrize(
    ("items", "where"),
    [
        ([{"id": 1}, {"id": 2}, {"name": 3}], 'an "id" key'),
        ([{"id": 1}, {"id": 2}, 3], 'an "id" key'),
        ([WithId(), WithId(), {"id": 3}], r"an \.id attribute"),
    ],
)
def test_an_item_without_an_id_is_named_by_its_place(items: list[Any], where: str) -> None:
    with pytest.raises(TypeError, match=rf"items\[2\]: expected {where}, as the first item has, got"):
        ids_of(rule_of(items[0]), items)
