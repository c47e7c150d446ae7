"""Which of today's items are which recorded ones, by what they are: of a list, and of a stream as they come.

Two lists are gone through side by side. While they run in parallel, whole stretches are compared. What stands
elsewhere is put aside, packed, 28 bytes an item; in the end each is paired with its like, a part at a time.

Of a stream, equal items are distinguished by their order: the third "a" of an input is the third that is recorded. An
item that comes in the order in which it was recorded is found at once; the first that does not has an index made of all
that are left. Takes 24 bytes an item, six more with the index, and eight where items have ids or a key.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._parent.journal.identity import SIZE, UNKNOWN
from mpqueue._parent.journal.kept_results import Outcomes

if TYPE_CHECKING:
    from mpqueue._parent.journal.lots import Lot

# -- matching ----------------------------------------------------------------------------------------------------------

#: Items that are looked at together.
BLOCK = 4096
#: Items from which on both sides count as running in parallel, and how many are looked for one by one until then.
PARALLEL, PATIENCE = 64, 2048
#: Into so many parts is divided what was put aside.
PARTS = 256
#: What stands in for a slot that there is not yet.
NO_SLOT = 0xFFFFFFFF


#: Some items that follow each other: their identities in one, and their states.
What = tuple[bytes, bytes]


@dataclass(slots=True)
class Match:
    """How a job's items ended. Indices are those of today's list, in order; ``gone`` are slots.

    ``back`` are those that were gone. ``changed`` are also those that may be the same, but have no form that says so:
    these are ``unknown``.
    """

    slots: array[int] = field(default_factory=lambda: array("I"))  #: of each item; `NO_SLOT`: it is new
    new: array[int] = field(default_factory=lambda: array("Q"))
    changed: array[int] = field(default_factory=lambda: array("Q"))
    gone: array[int] = field(default_factory=lambda: array("I"))
    back: array[int] = field(default_factory=lambda: array("Q"))
    unknown: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def is_same(self) -> bool:
        """True where no item is new, changed, gone or back; the order may be another."""
        return not (self.new or len(self.changed) > len(self.unknown) or self.gone or self.back)

    def note_absent(self, present: bytearray) -> None:
        """``present`` has a 1 for each slot whose item was there last time: the others were gone already."""
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


def match(today: Iterable[What], recorded: Iterable[What], order: Iterable[int]) -> Match:
    """``order``: the slots of what is recorded, as they come there; those that are gone already come last."""
    return _Matching(today, recorded, order).match()


class _Side:
    """One of the two lists: what of it has not been looked at, as far as that is loaded."""

    def __init__(self, blocks: Iterable[What]) -> None:
        self._blocks: Iterator[What] | None = iter(blocks)
        self.identities = self.states = b""

    def load(self) -> bool:
        """Have a block at hand, or all that is left; False where nothing is."""
        while self._blocks is not None and len(self.identities) < BLOCK * SIZE:
            more = next(self._blocks, None)
            if more is None:
                self._blocks = None
            else:
                self.identities, self.states = self.identities + more[0], self.states + more[1]
        return bool(self.identities)

    @property
    def is_over(self) -> bool:
        """True where nothing is left of it."""
        return self._blocks is None and not self.identities

    def drop(self, size: int) -> None:
        """So many bytes of it are done with."""
        self.identities, self.states = self.identities[size:], self.states[size:]

    def find(self, identity: bytes) -> int:
        """The byte at which the next item of that identity begins, among those at hand; -1: none does."""
        at = self.identities.find(identity)
        while at % SIZE and at >= 0:
            at = self.identities.find(identity, at + 1)
        return at


_packed = Struct(f"<{SIZE}s8sI")
_pack, _items_of = _packed.pack, _packed.iter_unpack


class _Aside:
    """Items of one side without their like so far, in the order in which they came, by the first byte of what they are.

    Of a state eight bytes are kept: it is compared with one other state only.
    """

    def __init__(self) -> None:
        self._parts = [bytearray() for _ in range(PARTS)]
        self.any = False

    def put(self, identity: bytes, place: int, state: bytes) -> None:
        """One item: its index, or its slot."""
        self.any = True
        self._parts[identity[0]] += _pack(identity, state, place)

    def take(self, part: int) -> Iterator[tuple[bytes, bytes, int]]:
        """The items of one part: identity, state, place. They are gone then."""
        taken, self._parts[part] = self._parts[part], bytearray()
        return _items_of(taken)


class _Matching:
    def __init__(self, today: Iterable[What], recorded: Iterable[What], order: Iterable[int]) -> None:
        self._match = Match()
        self._now, self._then, self._slots = _Side(today), _Side(recorded), iter(order)
        self._came, self._were = _Aside(), _Aside()  #: of today, and recorded

    def match(self) -> Match:
        now, then = self._now, self._then
        apart = 0  # items that were taken one by one since the sides ran in parallel
        while now.load() | then.load():
            size = _common(now.identities, then.identities)
            if size:
                self._take_same(size)
                apart = 0 if size >= PARALLEL * SIZE else apart
            elif not now.identities or not then.identities or apart > PATIENCE:
                self._take(len(now.identities), len(then.identities))
                apart = PATIENCE  # looked for once more, then
            else:
                apart += self._come_together()
        if self._came.any or self._were.any:
            self._pair()
        return self._match

    def _pair(self) -> None:
        """Pair what was put aside: equal ones in their order."""
        match = self._match
        for part in range(PARTS):
            were: dict[bytes, _Line] = {}
            for identity, state, slot in self._were.take(part):
                _wait(were, identity, (slot, state))
            for identity, state, index in self._came.take(part):
                like = _pop(were, identity) if were else None
                if like is not None:
                    match.slots[index] = like[0]
                    if like[1] != state or state == UNKNOWN[:8]:
                        match.changed.append(index)
                        if UNKNOWN[:8] in (like[1], state):
                            match.unknown.append(index)
            for line in were.values():
                match.gone.extend(place[0] for place in (line if isinstance(line, deque) else (line,)))
        match.new = array("Q", (index for index, slot in enumerate(match.slots) if slot == NO_SLOT))
        match.gone = array("I", sorted(match.gone))
        match.changed = array("Q", sorted(match.changed))
        match.unknown = array("Q", sorted(match.unknown))

    def _take_same(self, size: int) -> None:
        """So many bytes are the same on both sides."""
        first = len(self._match.slots)
        self._match.slots.extend(islice(self._slots, size // SIZE))
        now, then = self._now.states[:size], self._then.states[:size]
        if now != then or UNKNOWN in now:
            for index, at in enumerate(range(0, size, SIZE), first):
                one, other = now[at : at + SIZE], then[at : at + SIZE]
                if one != other or one == UNKNOWN:
                    self._match.changed.append(index)
                    if UNKNOWN in (one, other):
                        self._match.unknown.append(index)
        self._now.drop(size)
        self._then.drop(size)

    def _come_together(self) -> int:
        """The first items differ: take those before the place where one side goes on with the first of the other."""
        now, then = self._now, self._then
        ahead, behind = then.find(now.identities[:SIZE]), now.find(then.identities[:SIZE])
        if ahead > 0 and (behind < 0 or ahead <= behind):
            self._take(0, ahead)
            return ahead // SIZE
        if behind > 0:
            self._take(behind, 0)
            return behind // SIZE
        self._take(SIZE, SIZE)
        return 1

    def _take(self, now: int, then: int) -> None:
        """So many bytes of each side are taken one by one."""
        found, first = self._match.slots, len(self._match.slots)
        found.extend([NO_SLOT] * (now // SIZE))
        identities, states = self._now.identities, self._now.states
        if self._then.is_over and not self._were.any:  # nothing that was can be like them
            self._match.new.extend(range(first, len(found)))
        else:
            put = self._came.put
            for index, at in enumerate(range(0, now, SIZE), first):
                put(identities[at : at + SIZE], index, states[at : at + SIZE])
        identities, states = self._then.identities, self._then.states
        if self._now.is_over and not self._came.any:
            self._match.gone.extend(islice(self._slots, then // SIZE))
        else:
            put = self._were.put
            for at, slot in zip(range(0, then, SIZE), self._slots):  # noqa: B905 - as many as there are
                put(identities[at : at + SIZE], slot, states[at : at + SIZE])
        self._now.drop(now)
        self._then.drop(then)


#: Where an item is, and its state; items of one identity: one, or a line of them.
_Place = tuple[int, bytes]
_Line = _Place | deque[_Place]


def _wait(waiting: dict[bytes, _Line], identity: bytes, place: _Place) -> None:
    line = waiting.get(identity)
    if line is None:
        waiting[identity] = place
    elif isinstance(line, deque):
        line.append(place)
    else:
        waiting[identity] = deque((line, place))


def _pop(waiting: dict[bytes, _Line], identity: bytes) -> _Place | None:
    """The first that waits, which does so no longer; None where none does."""
    line = waiting.get(identity)
    if isinstance(line, deque):
        found = line.popleft()
        if not line:
            del waiting[identity]
        return found
    if line is not None:
        del waiting[identity]
    return line


def _common(one: bytes, other: bytes) -> int:
    """Bytes of the items that both begin with."""
    low, high = 0, min(len(one), len(other)) // SIZE
    if one[: high * SIZE] == other[: high * SIZE]:
        return high * SIZE
    while low < high - 1:  # the first `low` are the same, the first `high` are not
        middle = (low + high) // 2
        if one[low * SIZE : middle * SIZE] == other[low * SIZE : middle * SIZE]:
            low = middle
        else:
            high = middle
    return low * SIZE


# -- known items -------------------------------------------------------------------------------------------------------

#: Bytes of a state that are kept: it is compared with one other state only.
STATE = 8
#: Ends a chain of the index.
_NONE = 0xFFFFFFFF


class Known(NamedTuple):
    """A recorded item: its slot, how it ended by the journal, the row of its result (or `NO_ROW`), and by which code.

    One that has ``changed`` is another item, in the place of this one, which had the slot ``first`` at first.
    """

    slot: int
    status: int
    row: int
    code: int
    first: int
    changed: bool


class KnownItems:
    """Made of all lots of a stream. Not for several threads."""

    def __init__(self, lots: Iterable[Lot], outcomes: Outcomes) -> None:
        self._identities = bytearray()
        self._states: bytearray | None = None
        self._left = bytearray()  #: by slot, 1 for an item that may come
        self._now: dict[int, int] = {}  #: the slot of an item that has changed, by the one that it had first
        for lot in lots:
            outcomes.void(lot.supersedes(self._now))
            self._load(lot)
        self._outcomes = outcomes
        self._at = 0  #: none before that slot is left
        self._heads: array[int] | None = None  #: by the first bytes of an identity: a slot of one that has them
        self._next: array[int] = array("I")  #: by slot: the next one that has them

    def _load(self, lot: Lot) -> None:
        assert lot.identities is not None
        missing = lot.first - len(self._left)  # of lots that could not be written
        self._identities += bytes(missing * SIZE) + lot.identities
        if lot.states is not None and self._states is None:
            self._states = _shortened(self._identities[: len(self._left) * SIZE])
        if self._states is not None:
            self._states += bytes(missing * STATE) + _shortened(lot.identities if lot.states is None else lot.states)
        left = bytearray(b"\1") * lot.size
        for at in lot.gone:
            left[at] = 0
        for at, first in lot.replaces:
            left[at] = 0
            if self._states is not None:
                end = (lot.first + at + 1) * STATE
                self._states[first * STATE : (first + 1) * STATE] = self._states[end - STATE : end]
        self._left += bytes(missing) + left

    @property
    def any_left(self) -> bool:
        """False once no recorded item can come any more."""
        self._at = self._left.find(1, self._at) if self._at >= 0 else -1
        return self._at >= 0

    def take(self, identity: bytes, state: bytes) -> Known | None:
        """What is known of the next item of that identity; None where there is none. It is not found again."""
        if not self.any_left:
            return None
        first = self._at
        if self._identities[first * SIZE : (first + 1) * SIZE] != identity:
            first = self._look_up(identity)
            if first < 0:
                return None
        self._left[first] = 0
        slot = self._now.get(first, first)
        outcomes, states, size = self._outcomes, self._states, STATE
        if states is None:
            states, size = self._identities, SIZE
        changed = states[first * size : first * size + STATE] != state[:STATE]
        code = outcomes.code_of(slot) if outcomes.row[slot] else 0
        return Known(slot, outcomes.status[slot], outcomes.row[slot], code, first, changed)

    def _look_up(self, identity: bytes) -> int:
        """The first slot of an item of that identity that is left; -1: there is none. About 1 us."""
        if self._heads is None:
            self._make_index()
        assert self._heads is not None
        heads, following, left = self._heads, self._next, self._left
        at, before = _hash(identity) % len(heads), _NONE
        slot = heads[at]
        while slot != _NONE:
            after = following[slot]
            if not left[slot]:  # it came: it need not be passed again
                if before == _NONE:
                    heads[at] = after
                else:
                    following[before] = after
            elif self._identities[slot * SIZE : (slot + 1) * SIZE] == identity:
                return slot
            else:
                before = slot
            slot = after
        return -1

    def _make_index(self) -> None:
        """Of all that are left. About 0.5 us an item."""
        size = max(1, len(self._left) // 2)
        self._heads, self._next = array("I", (_NONE,)) * size, array("I", (_NONE,)) * len(self._left)
        heads, following, identities, left = self._heads, self._next, self._identities, self._left
        for slot in range(len(self._left) - 1, self._at - 1, -1):  # so that the first of a chain has the lowest slot
            if left[slot]:
                at = _hash(identities[slot * SIZE : slot * SIZE + 4]) % size
                following[slot] = heads[at]
                heads[at] = slot


def _hash(identity: bytes | bytearray) -> int:
    """An identity is a digest: any part of it is as good as a hash."""
    return int.from_bytes(identity[:4], "little")


def _shortened(states: bytes | bytearray) -> bytearray:
    return bytearray().join([states[at : at + STATE] for at in range(0, len(states), SIZE)])
