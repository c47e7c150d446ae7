"""Items for a job that is open, on their way to it: given by the program, or by a handler with its result."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from mpqueue._wire.item_names import IdRule, ids_of
from mpqueue.errors import shown

#: What an id in an open job may be made of: what is compared where no code of users' may run.
_PLAIN = frozenset({str, int, float, bytes, bool, type(None)})


@dataclass(slots=True, eq=False)
class AddedItems:
    """Items added to a job. ``ids`` is None where those are the items' places; ``new`` has the places of new items."""

    items: list[Any]
    ids: list[Hashable] | None
    new: range = range(0)


class ResultWithItems:
    """A result that brings items along: one pickle, so that both arrive or neither does.

    ``lots``: the items of each call of `add`, of whatever class while they are pickled in the worker, and their ids.
    """

    __slots__ = ("lots", "result")

    def __init__(self, result: Any, lots: list[tuple[Any, list[Hashable] | None]]) -> None:
        self.result = result
        self.lots = lots

    def added(self) -> AddedItems:
        """Return the items of all calls of `add`, with their ids."""
        items = [item for lot, _ in self.lots for item in lot]
        ids: list[Hashable] = []
        for _, own in self.lots:
            if own is None:
                return AddedItems(items, None)
            ids += own
        return AddedItems(items, ids)


def plain_ids(rule: IdRule, items: Sequence[Any]) -> list[Hashable] | None:
    """The ids of items that are to be added. Raises TypeError for an item that has none, or one that is not plain."""
    ids = ids_of(rule, items)
    for position, item_id in enumerate(ids or ()):
        if not _is_plain(item_id):
            raise TypeError(
                f"items[{position}]: expected an id that is text, a number, bytes or a tuple of these, as an open job "
                f"needs it, got {shown(item_id)} of type {type(item_id).__name__}"
            )
    return ids


def _is_plain(item_id: object) -> bool:
    return type(item_id) in _PLAIN or (type(item_id) is tuple and all(map(_is_plain, item_id)))
