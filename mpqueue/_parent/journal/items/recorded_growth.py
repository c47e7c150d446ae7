"""`RecordedGrowth`: what a journal knows of the items of an open job, which it knows again by what they are.

An item with an id is known by that. Of those without, the ones that the user adds are known by their values, and equal
ones by their order; the ones that handlers add are always new: what a handler adds is recorded with its maker's end, so
one whose items are recorded does not run again.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.items.identity import NoIdentityError, digest, name_unstable
from mpqueue._parent.journal.items.inventory import unknowable
from mpqueue._parent.journal.items.lots import BY_USER, KeptItem, keep_item
from mpqueue._parent.journal.kept_values import BigFile
from mpqueue._wire.added_items import AddedItems


@dataclass(slots=True, eq=False)
class GivenItems(AddedItems):
    """Items that the user adds, pickled for the journal, and what those without ids are known by.

    ``matched`` are those of them that are recorded already, by identity.
    """

    kept: list[KeptItem] = field(default_factory=list)
    files: list[list[BigFile]] = field(default_factory=list)  #: of each
    identities: list[bytes] | None = None
    matched: Counter[bytes] = field(default_factory=Counter)

    def only(self, places: list[int], matched: Counter[bytes]) -> GivenItems:
        """Those at these places."""
        ids, identities = self.ids, self.identities
        return GivenItems(
            [self.items[at] for at in places],
            None if ids is None else [ids[at] for at in places],
            range(0),
            [self.kept[at] for at in places],
            [self.files[at] for at in places],
            None if identities is None else [identities[at] for at in places],
            matched,
        )


class Lot(NamedTuple):
    """Items that came together and are not in the journal yet. ``makers`` are indices; ``given``: by the user."""

    indices: range
    slot: int
    makers: array[int]
    given: GivenItems | None


class RecordedGrowth:
    """Beside the job's table: see `GrowthHook`. ``next_slot`` is the slot of the item that comes next.

    ``expected`` counts the recorded items that the user, who had added them, has not added again so far.
    """

    def __init__(self, next_slot: int = 0) -> None:
        self.expected: Counter[bytes] = Counter()
        self.next_slot = next_slot
        self._unwritten: list[Lot] = []

    @staticmethod
    def look_at(items: list[Any], ids: list[Hashable] | None) -> GivenItems:
        """See `GrowthHook`. Pickles each item. Raises TypeError for one without an id, and without an identity."""
        identities = None
        if ids is None:
            try:
                identities = [*map(digest, items)]
            except NoIdentityError:
                raise unknowable(name_unstable(items, range(len(items))), has_ids=False) from None
        files: list[list[BigFile]] = [[] for _ in items]
        kept = [keep_item(item, beside) for item, beside in zip(items, files, strict=True)]
        return GivenItems(items, ids, range(0), kept, files, identities)

    def choose(self, table: ItemTable, offered: AddedItems, most: int | None) -> tuple[AddedItems, int]:
        """See `GrowthHook`. What is recorded needs no room."""
        assert isinstance(offered, GivenItems)
        matched, places = Counter[bytes](), list[int]()
        seen, ids, identities = set[Hashable](), offered.ids, offered.identities
        count = len(offered.items)
        for at in range(count):
            if ids is not None:
                known = table.knows(ids[at]) or ids[at] in seen
                seen.add(ids[at])
            else:
                assert identities is not None
                known = matched[identities[at]] < self.expected[identities[at]]
                if known:
                    matched[identities[at]] += 1
            if known:
                continue
            if most is not None and len(places) == most:
                return offered.only(places, +matched), at
            places.append(at)
        return offered.only(places, +matched), count

    def note(self, table: ItemTable, added: AddedItems, maker: int | None) -> None:
        """See `GrowthHook`."""
        given = added if isinstance(added, GivenItems) else None
        if given is not None:
            self.expected.subtract(given.matched)
        count, first = len(added.new), self.next_slot
        if not count:
            return
        self.next_slot += count
        if table.slots is not None:
            table.slots.extend(range(first, self.next_slot))
        makers = array("q", (BY_USER if maker is None else maker,)) * count
        self._unwritten.append(Lot(added.new, first, makers, given))

    @property
    def has_lots(self) -> bool:
        """True if there are items that have not been taken to be written."""
        return bool(self._unwritten)

    def take_lots(self) -> list[Lot]:
        """What has come since the last time, to be written. What handlers have added meanwhile is one lot."""
        lots: list[Lot] = []
        for lot in self._unwritten:
            last = lots[-1] if lots else None
            if last is not None and last.given is None and lot.given is None:
                lots[-1] = Lot(range(last.indices.start, lot.indices.stop), last.slot, last.makers + lot.makers, None)
            else:
                lots.append(lot)
        self._unwritten = []
        return lots
