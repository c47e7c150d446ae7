"""Which of a job's items are which: the items of today against those that a journal has, by what they are.

Both lists are gone through side by side. While they run in parallel, whole stretches are compared. What stands
elsewhere is put aside, packed, 28 bytes an item; in the end each is paired with its like, a part at a time.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from struct import Struct
from typing import NamedTuple

from mpqueue._parent.journal.items.identity import SIZE, UNKNOWN

#: Slots whose identities and keys make one row, and items that are looked at together.
BLOCK = 4096
#: Items from which on both sides count as running in parallel, and how many are looked for one by one until then.
PARALLEL, PATIENCE = 64, 2048
#: Into so many parts is divided what was put aside.
PARTS = 256
#: What stands in for a slot that there is not yet.
NO_SLOT = 0xFFFFFFFF


class Block(NamedTuple):
    """Some items that follow each other: their digests in one, and those of their keys (None: the same ones).

    ``left_out`` are the places in the block of those whose payloads are not in the journal.
    """

    identities: bytes
    keys: bytes | None
    left_out: tuple[int, ...] = ()

    @property
    def states(self) -> bytes:
        """What says in which state each item is."""
        return self.identities if self.keys is None else self.keys

    def cut(self, count: int) -> Block:
        """The first ``count`` of them."""
        if count >= self.size:
            return self
        keys = None if self.keys is None else self.keys[: count * SIZE]
        return Block(self.identities[: count * SIZE], keys, tuple(at for at in self.left_out if at < count))

    @property
    def size(self) -> int:
        """How many items they are."""
        return len(self.identities) // SIZE


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


def match(today: Iterable[Block], recorded: Iterable[Block], order: Iterable[int]) -> Match:
    """``order``: the slots of what is recorded, as they come there; those that are gone already come last."""
    return _Matching(today, recorded, order).match()


class _Side:
    """One of the two lists: what of it has not been looked at, as far as that is loaded."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks: Iterator[Block] | None = iter(blocks)
        self.identities = self.states = b""

    def load(self) -> bool:
        """Have a block at hand, or all that is left; False where nothing is."""
        while self._blocks is not None and len(self.identities) < BLOCK * SIZE:
            more = next(self._blocks, None)
            if more is None:
                self._blocks = None
            else:
                self.identities, self.states = self.identities + more.identities, self.states + more.states
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
    def __init__(self, today: Iterable[Block], recorded: Iterable[Block], order: Iterable[int]) -> None:
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
