"""The rule for items' ids: found in the parent for a whole job, and used in a worker for the item at hand."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from mpqueue.errors import shown


class IdRule(StrEnum):
    """The place from which an item's id is taken; decided for the whole job by its first item."""

    KEY = "key"  #: ``item["id"]``
    ATTRIBUTE = "attribute"  #: ``item.id``
    POSITION = "position"  #: its place in the list, from 0


def find_id(rule: IdRule, item: Any, position: int) -> Hashable:
    """The id of one item."""
    if rule is IdRule.POSITION:
        return position
    found: Hashable = item["id"] if rule is IdRule.KEY else item.id
    return found


def rule_of(item: Any) -> IdRule:
    """Return the rule for the ids of a job of which this is the first item."""
    if isinstance(item, Mapping):
        return IdRule.KEY if "id" in item else IdRule.POSITION
    return IdRule.ATTRIBUTE if not isinstance(item, type) and hasattr(item, "id") else IdRule.POSITION


def ids_of(rule: IdRule, items: Sequence[Any]) -> list[Hashable] | None:
    """The ids of these items; None where those are their positions. Raises TypeError for one that has none."""
    if rule is IdRule.POSITION:
        return None
    try:
        if rule is IdRule.KEY:
            return [item["id"] for item in items]
        return [item.id for item in items]
    except (KeyError, TypeError, IndexError, AttributeError):
        raise _missing_id(rule, items) from None


def _missing_id(rule: IdRule, items: Sequence[Any]) -> TypeError:
    for position, item in enumerate(items):
        try:
            find_id(rule, item, position)
        except (KeyError, TypeError, IndexError, AttributeError):
            break
    where = 'an "id" key' if rule is IdRule.KEY else "an .id attribute"
    return TypeError(f"items[{position}]: expected {where}, as the first item has, got {shown(item)}")
