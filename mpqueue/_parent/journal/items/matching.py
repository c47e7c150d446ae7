"""Which of a job's items are which: the items of today against those that a journal has, by what they are.

Both lists are gone through side by side. While they run in parallel, whole stretches are compared; an item that stands
elsewhere waits until its like comes on the other side, so that memory is needed for what has moved only.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from mpqueue._parent.journal.items.identity import SIZE

#: Slots whose identities and keys make one row, and items that are looked at together.
BLOCK = 4096
#: Items from which on both sides count as running in parallel, and how many are looked for one by one until then.
PARALLEL, PATIENCE = 64, 2048
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
    """What became of a job's items. Indices are those of today's list, in order; ``gone`` are slots.

    ``back`` are those that were gone.
    """

    slots: array[int] = field(default_factory=lambda: array("I"))  #: of each item; `NO_SLOT`: it is new
    new: array[int] = field(default_factory=lambda: array("Q"))
    changed: array[int] = field(default_factory=lambda: array("Q"))
    gone: array[int] = field(default_factory=lambda: array("I"))
    back: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def is_same(self) -> bool:
        """True where no item is new, changed, gone or back; the order may be another."""
        return not (self.new or self.changed or self.gone or self.back)

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
            (len(self.changed), "changed"),
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


#: Where an item is, and its state.
_Place = tuple[int, bytes]
#: By identity, items that wait for their like: one, or a line of them.
_Waiting = dict[bytes, _Place | deque[_Place]]


class _Matching:
    def __init__(self, today: Iterable[Block], recorded: Iterable[Block], order: Iterable[int]) -> None:
        self._match = Match()
        self._now, self._then, self._slots = _Side(today), _Side(recorded), iter(order)
        self._came: _Waiting = {}  #: of today, without their like: index and state
        self._were: _Waiting = {}  #: recorded, without their like: slot and state

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
        match = self._match
        match.new = array("Q", _places(self._came)) + match.new
        match.gone = array("I", sorted([*_places(self._were), *match.gone]))
        match.changed = array("Q", sorted(match.changed))
        return match

    def _take_same(self, size: int) -> None:
        """So many bytes are the same on both sides."""
        first = len(self._match.slots)
        self._match.slots.extend(islice(self._slots, size // SIZE))
        now, then = self._now.states[:size], self._then.states[:size]
        if now != then:
            places = (at for at in range(0, size, SIZE) if now[at : at + SIZE] != then[at : at + SIZE])
            self._match.changed.extend(first + at // SIZE for at in places)
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
        if self._then.is_over and not self._were:  # nothing that was can be like them
            self._match.new.extend(range(first, len(found)))
        else:
            for at in range(0, now, SIZE):
                self._came_one(identities[at : at + SIZE], first + at // SIZE, states[at : at + SIZE])
        identities, states = self._then.identities, self._then.states
        if self._now.is_over and not self._came:
            self._match.gone.extend(islice(self._slots, then // SIZE))
        else:
            for at in range(0, then, SIZE):
                self._was_one(identities[at : at + SIZE], next(self._slots), states[at : at + SIZE])
        self._now.drop(now)
        self._then.drop(then)

    def _came_one(self, identity: bytes, index: int, state: bytes) -> None:
        like = _pop(self._were, identity)
        if like is not None:
            self._same(index, like[0], state, like[1])
        elif self._then.is_over:
            self._match.new.append(index)
        else:
            _put(self._came, identity, (index, state))

    def _was_one(self, identity: bytes, slot: int, state: bytes) -> None:
        like = _pop(self._came, identity)
        if like is not None:
            self._same(like[0], slot, like[1], state)
        elif self._now.is_over:
            self._match.gone.append(slot)
        else:
            _put(self._were, identity, (slot, state))

    def _same(self, index: int, slot: int, now: bytes, before: bytes) -> None:
        self._match.slots[index] = slot
        if now != before:
            self._match.changed.append(index)


def _put(waiting: _Waiting, identity: bytes, place: _Place) -> None:
    line = waiting.get(identity)
    if line is None:
        waiting[identity] = place
    elif isinstance(line, deque):
        line.append(place)
    else:
        waiting[identity] = deque((line, place))


def _pop(waiting: _Waiting, identity: bytes) -> _Place | None:
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


def _places(waiting: _Waiting) -> list[int]:
    """The places of all that wait, in order."""
    lines = (line if isinstance(line, deque) else (line,) for line in waiting.values())
    return sorted(place[0] for line in lines for place in line)


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
