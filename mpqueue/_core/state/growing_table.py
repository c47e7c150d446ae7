"""The items of an open job: rows are added while it runs, and stay."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._wire.added_items import AddedItems
from mpqueue._wire.ids import IdRule


class GrowingTable(ItemTable):
    """The same columns as `ItemTable`, which grow. An item whose id is there already is not added.

    Where ids come from is decided by the first item: until there is one, the ``rule`` means nothing.
    """

    def __init__(self) -> None:
        super().__init__([], None, IdRule.POSITION)
        columns: Any = self  # arrays in the place of views of memory, which can't grow
        columns.attempts, columns.peak = array("I"), array("I")
        columns.elapsed, columns.cpu = array("f"), array("f")
        self._seen: set[Hashable] = set()

    def look_at(self, items: list[Any], ids: list[Hashable] | None) -> AddedItems:
        """What has to be known of these before they are offered. On the thread of their user, whose code it may run."""
        return AddedItems(items, ids)

    def choose(self, offered: AddedItems, most: int | None) -> tuple[AddedItems, int]:
        """Of these, from the first on, what is to be added where there is room for so many; how many that looks at."""
        if most is None or len(offered.items) <= most:
            return offered, len(offered.items)
        return AddedItems(offered.items[:most], None if offered.ids is None else offered.ids[:most]), most

    def extend(self, added: AddedItems, rule: IdRule, maker: int | None = None) -> None:
        """Add those that are new; says in ``added`` where they are. The payloads come last: they make it longer.

        ``maker`` is the index of the item whose handler adds them; None: their user does.
        """
        items, ids = added.items, added.ids
        if not self.payloads:
            self.rule, self._ids = rule, None if ids is None else []
        if ids is not None:
            items, ids = self._unseen(items, ids)
        first, count = len(self.payloads), len(items)
        self._add_rows(count, maker)
        if self._ids is not None:
            self._ids.extend(ids or ())
        self.payloads.extend(items)
        added.new = range(first, first + count)

    def have_ids(self, ids: list[Hashable]) -> None:
        """Its items, which it is about to have, have these ids."""
        self._ids, self._seen = ids, set(ids)

    def _add_rows(self, count: int, maker: int | None) -> None:  # noqa: ARG002 - for tables that want to know
        columns: Any = self
        for column in (columns.attempts, columns.elapsed, columns.cpu, columns.peak):
            column.frombytes(bytes(count * column.itemsize))
        self.status.extend(bytes(count))
        self.results.extend([None] * count)

    def _unseen(self, items: list[Any], ids: list[Hashable]) -> tuple[list[Any], list[Hashable]]:
        new_items, new_ids = [], []
        for item, item_id in zip(items, ids, strict=True):
            if item_id not in self._seen:
                self._seen.add(item_id)
                new_items.append(item)
                new_ids.append(item_id)
        return new_items, new_ids
