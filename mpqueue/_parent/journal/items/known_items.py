"""`KnownItems`: which items of a stream a journal has, found by what they are, and how they ended.

Equal items are distinguished by their order: the third "a" of an input is the third that is recorded. An item that
comes in the order in which it was recorded is found at once; the first that does not has an index made of all that are
left. Takes 24 bytes an item, six more with the index, and eight where items have ids or a key.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._parent.journal.items.identity import SIZE
from mpqueue._parent.journal.kept_results import Outcomes

if TYPE_CHECKING:
    from mpqueue._parent.journal.items.lots import AddedRow

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

    def __init__(self, lots: Iterable[AddedRow], outcomes: Outcomes) -> None:
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

    def _load(self, lot: AddedRow) -> None:
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
