"""Where an item's id comes from: asked in the parent for a whole job, and in a worker for the item at hand."""

from __future__ import annotations

from collections.abc import Hashable
from enum import StrEnum
from typing import Any


class IdRule(StrEnum):
    """Where an item's id comes from; decided for the whole job by its first item."""

    KEY = "key"  #: ``item["id"]``
    ATTRIBUTE = "attribute"  #: ``item.id``
    POSITION = "position"  #: its place in the list, from 0


def find_id(rule: IdRule, item: Any, position: int) -> Hashable:
    """The id of one item."""
    if rule is IdRule.POSITION:
        return position
    found: Hashable = item["id"] if rule is IdRule.KEY else item.id
    return found
