"""Matching of today's items with recorded ones by their identities: for lists, and for streams as items come.

Items that come in the recorded order are found at once, as whole stretches; at the first one out of order, an index is
made of all that are left. Takes 17 bytes per item, 5 more with the index, and 16 if items have ids or a key.
In a stream, equal items are distinguished by their order: the third "a" of an input is the third recorded one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from struct import Struct
from typing import NamedTuple

from mpqueue._parent.journal.identity import SIZE, UNKNOWN, What
from mpqueue._parent.journal.kept_results import NO_ROW, Outcomes
from mpqueue._parent.journal.lots import NOBODY, Lot
from mpqueue.status import COMPLETED

# -- matching ----------------------------------------------------------------------------------------------------------

#: Stands for a slot that does not exist yet.
NO_SLOT = 0xFFFFFFFF


@dataclass(slots=True)
class Match:
    """The match of today's items with a job's recorded ones. Indices are of today's list, in order; ``gone`` are slots.

    ``back`` are those that were gone. ``changed`` includes items that may be the same, but have no stable form: these
    are ``unknown``.
    """

    slots: array[int] = field(default_factory=lambda: array("I"))  #: of each item; `NO_SLOT`: it is new
    new: array[int] = field(default_factory=lambda: array("Q"))
    changed: array[int] = field(default_factory=lambda: array("Q"))
    gone: array[int] = field(default_factory=lambda: array("I"))
    back: array[int] = field(default_factory=lambda: array("Q"))
    unknown: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def is_same(self) -> bool:
        """True if no item is new, changed, gone or back; the order may differ."""
        return not (self.new or len(self.changed) > len(self.unknown) or self.gone or self.back)

    def note_absent(self, present: bytearray) -> None:
        """Correct ``gone`` and ``back`` by ``present``: 1 for each slot whose item was there last time."""
        self.gone = array("I", (slot for slot in self.gone if present[slot]))
        known = len(present)
        self.back = array("Q", (index for index, slot in enumerate(self.slots) if slot < known and not present[slot]))

    def number_new(self, first: int) -> None:
        """Give the new items the slots from ``first`` on."""
        for slot, index in enumerate(self.new, first):
            self.slots[index] = slot

    def __str__(self) -> str:
        counts = (
            (len(self.new), "new"),
            (len(self.changed) - len(self.unknown), "changed"),
            (len(self.gone), "gone"),
            (len(self.back), "back"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def match(today: Iterable[What], recorded: Iterable[What], order: Sequence[int]) -> Match:
    """Match today's items with the recorded ones. ``order``: the slots of these, in order; gone ones come last."""
    known, found = KnownItems(), Match()
    for identities, states in recorded:
        known.add(identities, None if identities == states else states)
    expected = 0  #: where the next one is, if they come in the same order
    for identities, states in today:
        first, count, nth = len(found.slots), len(identities) // SIZE, 0
        while nth < count:
            places = known.take(identities, nth, expected)
            if places:
                found.slots.extend(order[places.start : places.stop])
                now = states[nth * SIZE : (nth + len(places)) * SIZE]
                _compare(found, first + nth, now, known.states_at(places.start, len(places)))
                expected, nth = places.stop, nth + len(places)
            else:
                more = 1 if known.any_left else count - nth
                found.new.extend(range(first + nth, first + nth + more))
                found.slots.extend([NO_SLOT] * more)
                nth += more
    if known.any_left:
        found.gone = array("I", sorted(compress(order, known.left)))
    return found


def _compare(found: Match, first: int, now: bytes, then: bytes) -> None:
    """Note the items, from that index on, whose state has changed or is unknown."""
    if now == then and UNKNOWN not in now:
        return
    for index, at in enumerate(range(0, len(now), SIZE), first):
        one, other = now[at : at + SIZE], then[at : at + SIZE]
        if one != other or one == UNKNOWN:
            found.changed.append(index)
            if UNKNOWN in (one, other):
                found.unknown.append(index)


# -- known items -------------------------------------------------------------------------------------------------------

#: The end of a chain of the index.
_NONE = 0xFFFFFFFF
#: Returns a part of an identity: it is a digest, so any part is a good hash.
_hash = Struct("<I").unpack_from


class KnownItems:
    """Recorded items, by their places in the recorded order. Each is found once.

    ``left`` has a 1 for each that may come. Not for several threads.
    """

    def __init__(self) -> None:
        self.left = bytearray()
        self._identities = bytearray()
        self._states: bytearray | None = None  #: None: the identities
        self._at = 0  #: none before that place is left
        self._heads: array[int] | None = None  #: by the first bytes of an identity: a place of one that has them
        self._next: array[int] = array("I")  #: by place: the next one that has them

    def add(self, identities: bytes, states: bytes | None) -> None:
        """Add more items; ``states`` None: the identities."""
        if states is not None and self._states is None:
            self._states = self._identities[:]
        self._identities += identities
        if self._states is not None:
            self._states += identities if states is None else states
        self.left += b"\1" * (len(identities) // SIZE)

    def states_at(self, place: int, count: int = 1) -> bytes:
        """Return the states of that many items, from that place on."""
        states = self._identities if self._states is None else self._states
        return bytes(states[place * SIZE : (place + count) * SIZE])

    def set_state(self, place: int, state: bytes) -> None:
        """Set the state of the item at this place."""
        if self._states is None:
            self._states = self._identities[:]
        self._states[place * SIZE : (place + 1) * SIZE] = state

    @property
    def any_left(self) -> bool:
        """False once none can come any more."""
        if self._at >= 0:
            self._at = self.left.find(1, self._at)
        return self._at >= 0

    def take(self, identities: bytes, nth: int, expected: int | None = None) -> range:
        """Return the places of the next items, from the nth on: several that follow each other, one, or none.

        They are looked for at the ``expected`` place, else (None) at the first that is left; then anywhere: of equal
        ones, the first that is left is found. They are not found again.
        """
        if not self.any_left:
            return range(0)
        place = self._at if expected is None else expected
        identity = identities[nth * SIZE : (nth + 1) * SIZE]
        if self._identities[place * SIZE : (place + 1) * SIZE] == identity and self.left[place]:
            return range(place, place + self._take_run(identities, nth, place))
        return self._look_up(identity)

    def _take_run(self, identities: bytes, nth: int, place: int) -> int:
        """Return how many items from the nth on equal those from that place on, of which the first does."""
        most = min(len(self.left) - place, len(identities) // SIZE - nth)
        end = self.left.find(0, place, place + most)
        most = most if end < 0 else end - place
        size, step, known = 1, 1, self._identities
        while size < most and step:
            step = min(step, most - size)
            one, other = (nth + size) * SIZE, (place + size) * SIZE
            if identities[one : one + step * SIZE] == known[other : other + step * SIZE]:
                size, step = size + step, 2 * step
            else:
                step //= 2
        self.left[place : place + size] = bytes(size)
        return size

    def _look_up(self, identity: bytes) -> range:
        """Find an item like `take`, with the index, if it does not come first. About 2 us."""
        if self._heads is None:
            self._make_index()
        assert self._heads is not None
        heads, following, left, identities = self._heads, self._next, self.left, self._identities
        at: int = _hash(identity)[0] % len(heads)
        before, place = _NONE, heads[at]
        while place != _NONE:
            after = following[place]
            if not left[place]:  # it came: it need not be passed again
                if before == _NONE:
                    heads[at] = after
                else:
                    following[before] = after
            elif identities[place * SIZE : place * SIZE + SIZE] == identity:
                left[place] = 0
                return range(place, place + 1)
            else:
                before = place
            place = after
        return range(0)

    def _make_index(self) -> None:
        """Make the index of all items that are left. About 0.5 us per item."""
        places = array("I", compress(range(len(self.left)), self.left))
        size = max(1, len(places) // 4)
        self._heads, self._next = array("I", (_NONE,)) * size, array("I", (_NONE,)) * len(self.left)
        heads, following, identities = self._heads, self._next, self._identities
        for place in reversed(places):  # so that the first of a chain has the lowest place
            at = _hash(identities, place * SIZE)[0] % size
            following[place] = heads[at]
            heads[at] = place


# -- a stream's items --------------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """A recorded item: its slot, its outcome, and the row of its result (or `NO_ROW`).

    One that has ``changed`` is another item in place of this one, whose first slot was ``first``.
    """

    slot: int
    status: int
    row: int
    first: int
    changed: bool


class KnownStream:
    """The known items of a stream, made of all its lots; each is known by its first slot. Not for several threads."""

    def __init__(self, lots: Iterable[Lot], outcomes: Outcomes) -> None:
        self._items = items = KnownItems()
        self._now: dict[int, int] = {}  #: the slot of a changed item, by its first slot
        for lot in lots:
            outcomes.void(lot.supersedes(self._now))
            missing = lot.first - len(items.left)  # of lots that could not be written
            identities, states = lot.what()
            items.add(NOBODY * missing, None)
            items.add(identities, lot.states)
            for at, first in lot.replaces:
                items.set_state(first, states[at * SIZE : (at + 1) * SIZE])
            for slot in (*range(lot.first - missing, lot.first), *(lot.first + at for at in lot.gone)):
                items.left[slot] = 0
            for at, _ in lot.replaces:
                items.left[lot.first + at] = 0
        self._outcomes = outcomes

    @property
    def any_left(self) -> bool:
        """False once no recorded item can come any more."""
        return self._items.any_left

    def take(self, identities: bytes, states: bytes) -> list[Known | None]:
        """Return the records of the next items, each once; None for those without one. About 1 us each."""
        found: list[Known | None] = []
        count = len(identities) // SIZE
        while len(found) < count:
            nth = len(found)
            places = self._items.take(identities, nth)
            then = self._items.states_at(places.start, len(places))
            now = states[nth * SIZE : (nth + len(places)) * SIZE]
            if then == now:
                found += [self._known(first, changed=False) for first in places]
            else:
                pieces = zip(places, range(0, len(now), SIZE), strict=True)
                found += [
                    self._known(first, changed=now[at : at + SIZE] != then[at : at + SIZE]) for first, at in pieces
                ]
            if not places:
                found += [None] * (1 if self.any_left else count - nth)
        return found

    def _known(self, first: int, *, changed: bool) -> Known:
        slot, outcomes = self._now.get(first, first), self._outcomes
        status = outcomes.status_of(slot)
        row = outcomes.row[slot] if status == COMPLETED else NO_ROW
        return Known(slot, status, row, first, changed)
