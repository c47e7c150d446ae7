"""A job's items in a journal: lots of items that came together, in slots that follow each other.

A lot has the identities of its items, and each one's state. Beside that, with their own checksum, are the items
themselves and their ids: so a job can be viewed, and its failed items run again, without the program that made it. A
big item of a list or a stream is kept when it fails for good; those of an open job are always kept.

For an open job, a lot also has the makers of its items, and identities only for items that the user has added without
ids. A changed item of a list is another one in the same slot: its lot is rewritten. One of a stream has its own slot,
and replaces the first. The outcomes are in ``chunks``.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mpqueue._parent.journal.chunk_rows import numbers_of, written_numbers
from mpqueue._parent.journal.identity import SIZE
from mpqueue._parent.journal.kept_values import (
    BigFile,
    Kept,
    NotKept,
    Place,
    ReadFile,
    Statement,
    Unreadable,
    keep,
    keep_small,
    plain_list,
    prepare,
    restore,
    unseal,
)
from mpqueue.errors import JournalError

# -- kept items --------------------------------------------------------------------------------------------------------

#: Types whose values are pickled directly: they have no code, and name no class. Texts up to this many characters.
_SMALL, _TEXTS = frozenset((int, float, bool, type(None))), frozenset((str, bytes))
MOST_TEXT = 4096

#: The kept form of an item: a `Kept` without the empty fields at its end. None: it is not kept.
KeptItem = tuple[Any, ...] | None
#: The kept form of several: all in one pickle (a tuple), or each by itself.
KeptItems = tuple[Any, ...] | list[KeptItem]
#: Those at these places of a lot (None: all of them).
Part = tuple[tuple[int, ...] | None, KeptItems]


class Damaged(Unreadable):
    """Stands for an item whose row is damaged or missing."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("its row in the journal is damaged")


_MISSING = Damaged()


def keep_items(items: list[Any]) -> KeptItems:
    """Pickle items: together if they are small; else each by itself, without big ones and those that can't be pickled.

    The cost is the pickling. Never raises: an item that can't be pickled fails when its turn comes.
    """
    if _are_small(items):
        return (pickle.dumps(items, pickle.HIGHEST_PROTOCOL),)
    together = keep_small(items)
    if together is not None:
        return _trimmed(together)
    return [None if (kept := keep_small(item)) is None else _trimmed(kept) for item in items]


def keep_ids(ids: list[Hashable]) -> list[Hashable] | tuple[Any, ...]:
    """Return ids unchanged if they are plain; else in one pickle. Raises errors of pickling."""
    if _are_small(ids):
        return ids
    files: list[BigFile] = []
    kept = keep(ids, files)
    return ids if files else _trimmed(kept)


def keep_item(item: Any, files: list[BigFile]) -> KeptItem:
    """Keep an item, even a big one. One that can't be pickled fails when its turn comes."""
    try:
        return _trimmed(keep(item, files))
    except Exception:
        return None


def _trimmed(kept: Kept) -> tuple[Any, ...]:
    return (kept.by_reference,) if kept.by_value is None and kept.file is None else tuple(kept)


def _are_small(values: list[Any]) -> bool:
    kinds = set(map(type, values))
    return kinds <= _SMALL or (kinds <= _TEXTS and max(map(len, values)) < MOST_TEXT)


def _restored(kept: KeptItems, count: int, read_file: ReadFile) -> list[Any]:
    if isinstance(kept, list):
        return [NotKept() if one is None else restore(Kept(*one), read_file) for one in kept]
    together = restore(Kept(*kept), read_file)
    return together if isinstance(together, list) else [together] * count


# -- lots --------------------------------------------------------------------------------------------------------------

PUT = "INSERT OR REPLACE INTO lots (job, first, count, body, items) VALUES (?, ?, ?, ?, ?)"
#: Rows left by a maker that ended before they counted.
CUT = "DELETE FROM lots WHERE job = ? AND first >= ?"
#: A job that had ended is pending again, because of the new items.
COUNT = """UPDATE jobs SET total = total + ?, slots = ?, rule = ?,
status = CASE WHEN status IN ('completed', 'completed_with_errors') THEN 'pending' ELSE status END WHERE number = ?"""

#: The identity of a slot that has no item: no digest equals it.
NOBODY = bytes(SIZE)
#: Stands for the slot of an item's maker if the user has added it.
BY_USER = -1
USERS = written_numbers(array("q", (BY_USER,)))
#: The most items of a lot of a list; and of any lot whose items are not in one pickle.
OF_LIST, MOST = 512, 4096


class Lot(NamedTuple):
    """Items in slots that follow each other. ``makers`` are the slots of the items whose handlers have added them.

    ``states`` are their states (None: the identities are). ``gone`` are the places of items that no longer count, and
    ``left_out`` those that are not kept. ``replaces`` are the places of a stream's changed items, each with
    its first slot. ``ids`` are in one pickle (a tuple), or plain; later ``parts`` replace earlier ones.
    """

    first: int
    size: int
    identities: bytes | None
    states: bytes | None = None
    makers: bytes = USERS
    gone: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    replaces: tuple[tuple[int, int], ...] = ()
    ids: list[Any] | tuple[Any, ...] | None = None
    parts: Sequence[Part] = ()

    @classmethod
    def of(
        cls,
        first: int,
        items: list[Any],
        identities: bytes,
        states: bytes,
        ids: list[Any] | tuple[Any, ...] | None,
        replaces: tuple[tuple[int, int], ...] = (),
    ) -> Lot:
        """Make a lot of new items, in the slots from the first on, with kept ids. Pickles the items."""
        kept = keep_items(items)
        left_out = tuple([at for at, one in enumerate(kept) if one is None]) if isinstance(kept, list) else ()
        return cls(first, len(items), identities, None if states == identities else states, left_out=left_out,
                   replaces=replaces, ids=ids, parts=[(None, kept)])  # fmt: skip

    def put(self, job: int) -> Statement:
        """Return the statement that writes this lot, replacing one that begins with the same slot."""
        what, items = prepare(tuple(self[2:8])), prepare((self.ids, self.parts))
        body = what.seal(Place("lots", job, self.first))
        return PUT, (job, self.first, self.size, body, items.seal(Place("lots.items", job, self.first)))

    @property
    def slots(self) -> range:
        """The slots of its items."""
        return range(self.first, self.first + self.size)

    def what(self) -> tuple[bytes, bytes]:
        """Return the identities and the states."""
        assert self.identities is not None
        return self.identities, self.identities if self.states is None else self.states

    def supersedes(self, now: dict[int, int]) -> Iterator[int]:
        """Return the slots that no longer count with this lot; ``now`` has the current ones by the items' first."""
        for at, first in self.replaces:
            yield now.get(first, first)
            now[first] = self.first + at

    def items(self, read_file: ReadFile) -> list[Any]:
        """Return the items; `NotKept` for one that was not kept, an `Unreadable` for one that can't be read."""
        items: list[Any] = [_MISSING] * self.size
        for places, kept in self.parts:
            if places is None:
                items = _restored(kept, self.size, read_file)
            else:
                for at, item in zip(places, _restored(kept, len(places), read_file), strict=False):
                    items[at] = item
        return items

    def all_ids(self) -> list[Any] | None:
        """Return the ids; an `Unreadable` for each if they can't be read; None if items have none."""
        if not isinstance(self.ids, tuple):
            return self.ids
        found = restore(Kept(*self.ids))
        return found if isinstance(found, list) else [Unreadable(found.reason) for _ in range(self.size)]

    def all_makers(self) -> Sequence[int]:
        """Return the maker of each item."""
        makers: array[int] = numbers_of("q", self.makers)
        return makers * self.size if len(makers) < self.size else makers

    def identity(self, at: int) -> bytes:
        """Return the identity of the item at that place, which the user has added without an id."""
        assert self.identities is not None
        return self.identities[at * SIZE : (at + 1) * SIZE]

    def without(self, places: Sequence[int]) -> Lot:
        """Return this lot without these items: they no longer count, and little is kept of them."""
        gone, nobody = {*self.gone, *places}, NOBODY * len(places)
        return self._replace(
            identities=None if self.identities is None else _put(self.identities, places, nobody),
            states=None if self.states is None else _put(self.states, places, nobody),
            gone=tuple(sorted(gone)),
            left_out=tuple(at for at in self.left_out if at not in gone),
            ids=[None if at in gone else one for at, one in enumerate(self.ids)]
            if type(self.ids) is list
            else self.ids,
            parts=[(which, _without(which or range(self.size), kept, gone)) for which, kept in self.parts],
        )

    def changed(self, places: Sequence[int], now: Lot) -> Lot:
        """Return this lot with the items of another lot at these places. Raises errors of pickling ids."""
        (identities, states), (others, their_states) = self.what(), now.what()
        left_out = {*self.left_out}.difference(places).union(places[at] for at in now.left_out)
        ids, their_ids = self.ids, now.all_ids()
        if their_ids is not None:
            named = self.all_ids() or [None] * self.size
            for at, each in zip(places, their_ids, strict=True):
                named[at] = each
            ids = keep_ids(named)
        parts = [part for part in self.parts if part[0] is None or not set(part[0]).issubset(places)]
        parts.append((tuple(places), now.parts[0][1]))
        return self._replace(
            identities=_put(identities, places, others),
            states=_put(states, places, their_states),
            left_out=tuple(sorted(left_out)),
            ids=ids,
            parts=now.parts if len(places) == self.size else parts,
        )


def present_slots(lots: Iterable[Lot], count: int, now: dict[int, int] | None = None) -> bytearray:
    """Return, by slot, 1 for each item that counts: it is neither gone nor replaced.

    ``now`` gets the slots of the changed items of a stream, by their first ones.
    """
    present, now = bytearray(count), {} if now is None else now
    for lot in lots:
        for slot in lot.supersedes(now):
            present[slot] = 0
        present[lot.first : lot.first + lot.size] = b"\1" * lot.size
        for at in lot.gone:
            present[lot.first + at] = 0
    return present


def _put(column: bytes, places: Sequence[int], values: bytes) -> bytes:
    changed = bytearray(column)
    for nth, at in enumerate(places):
        changed[at * SIZE : (at + 1) * SIZE] = values[nth * SIZE : (nth + 1) * SIZE]
    return bytes(changed)


def _without(places: Sequence[int], kept: KeptItems, gone: set[int]) -> KeptItems:
    """Remove items that are gone; items pickled together as more than plain data stay until all of them are gone."""
    lost = [at in gone for at in places]
    if all(lost):
        return [None] * len(lost)
    if isinstance(kept, list) or not any(lost):
        return [None if is_lost else one for is_lost, one in zip(lost, kept, strict=True)] if any(lost) else kept
    values = plain_list(Kept(*kept))
    if values is None:
        return kept
    return (pickle.dumps([None if is_lost else one for is_lost, one in zip(lost, values, strict=True)],
                         pickle.HIGHEST_PROTOCOL),)  # fmt: skip


def lots_of(
    first: int,
    kept: KeptItems,
    ids: list[Hashable] | None,
    identities: list[bytes] | None,
    makers: array[int],
) -> Iterator[Lot]:
    """Return lots of these consecutive items, from that slot on. Items in one pickle are in one lot."""
    count = len(makers)
    size = count if isinstance(kept, tuple) else MOST
    for lo in range(0, count, max(size, 1)):
        hi = min(lo + size, count)
        yield Lot(
            first + lo,
            hi - lo,
            None if identities is None else b"".join(identities[lo:hi]),
            makers=written_numbers(makers[lo:hi]),
            ids=None if ids is None else ids[lo:hi],
            parts=[(None, kept if isinstance(kept, tuple) else kept[lo:hi])],
        )


class NewItems(NamedTuple):
    """Items on their way into the file, with their files and counts: complete except for the job's number."""

    lots: Sequence[Lot]
    counts: Statement
    files: tuple[BigFile, ...] = ()

    def statements(self, job: int) -> list[Statement]:
        """Return the statements that write the items and count them."""
        sql, arguments = self.counts
        return [*(lot.put(job) for lot in self.lots), (sql, (*arguments, job))]


# -- reading -----------------------------------------------------------------------------------------------------------


def unknown_lot(first: int, size: int) -> Lot:
    """Return the stand-in for a lot that is damaged or missing: its items are unknown."""
    return Lot(first, size, NOBODY * size, ids=[Unreadable("its row in the journal is damaged") for _ in range(size)])


def read_lot(row: tuple[int, int, Any, Any], job: int, path: str) -> Lot:
    """Read a row of the file. Without its items if these are damaged; raises `JournalError` for other damage.

    Without ``items`` it has neither items nor ids.
    """
    first, size, body, items = row
    lot = Lot(first, size, *unseal(body, Place("lots", job, first), f"{path}: items of a job"))
    if items is None:
        return lot
    try:
        ids, parts = unseal(items, Place("lots.items", job, first), f"{path}: items of a job")
    except JournalError:
        return lot._replace(ids=unknown_lot(first, size).ids)
    return lot._replace(ids=ids, parts=parts)


def each_lot(run: Callable[..., Any], job: int, path: str, *, items: bool) -> Iterator[Lot]:
    """Yield the lots of a job, one at a time, which may be rewritten meanwhile; `unknown_lot` for a damaged one."""
    query = f"SELECT first, count, body, {'items' if items else 'NULL'} FROM lots WHERE job = ? AND first = ?"  # noqa: S608
    for (first,) in run("SELECT first FROM lots WHERE job = ? ORDER BY first", (job,)).fetchall():
        row = run(query, (job, first)).fetchone()
        try:
            yield read_lot(row, job, path)
        except JournalError:
            yield unknown_lot(*row[:2])
