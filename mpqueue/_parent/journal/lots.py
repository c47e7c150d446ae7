"""A job's items in a journal: lots of items that came together, how they come, and values on their way between stages.

A lot has the identities of its items, in slots that follow each other, and each one's state. Beside that, with their
own checksum, are the items themselves and their ids: so a job can be viewed, and its failed items run again, without
the program that made it. Big items are kept for open jobs only. A changed item of a list is another one in the same
slot: its lot is rewritten. One of a stream has its own slot, and replaces the first. The outcomes are in ``chunks``.

An item of an open job is known by its id, if it has one. Without ids, items that the user adds are known by their
values, and equal ones by their order; items that handlers add are always new, and their lot has their makers. These are
written with the row of their makers, in one transaction: so the journal has an item's end and the items that it has
added, or neither, and a maker whose items are recorded does not run again. If one can't be pickled for the journal, and
has not ended, its maker runs again when the job goes on.

A stream's slots are places of arrival. An item is written with the first outcomes after it: items that have never run
need not be known.
"""

from __future__ import annotations

import pickle
from array import array
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.chunk_rows import Pickling, RowDraft, numbers_of, written_numbers
from mpqueue._parent.journal.identity import SIZE, identify
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
from mpqueue._wire.parcels import AddedItems, Parcel
from mpqueue._wire.pickling.payload import Packed, without_segment
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED

if TYPE_CHECKING:
    from mpqueue._core.state.pipeline import Path
    from mpqueue._parent.journal.journal_reader import Reader

# -- kept items --------------------------------------------------------------------------------------------------------

#: Types whose values are pickled directly: they have no code, and name no class. Texts up to this many characters.
_SMALL, _TEXTS = frozenset((int, float, bool, type(None))), frozenset((str, bytes))
MOST_TEXT = 4096

#: The kept form of an item: a `Kept`, or the fields that are not empty. None: it is not kept.
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
        return tuple(together)
    return [None if (kept := keep_small(item)) is None else tuple(kept) for item in items]


def keep_ids(ids: list[Hashable]) -> list[Hashable] | tuple[Any, ...]:
    """Return ids unchanged if they are plain; else in one pickle. Raises errors of pickling."""
    if _are_small(ids):
        return ids
    files: list[BigFile] = []
    kept = keep(ids, files)
    return ids if files else tuple(kept)


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

    ``states`` are their states (None: the identities are). ``gone`` are the places of items that no longer count.
    ``replaces`` are the places of a stream's changed items, each with
    its first slot. ``ids`` are in one pickle (a tuple), or plain; later ``parts`` replace earlier ones.
    """

    first: int
    size: int
    identities: bytes | None
    states: bytes | None = None
    makers: bytes = USERS
    gone: tuple[int, ...] = ()
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
        return cls(first, len(items), identities, None if states == identities else states, replaces=replaces, ids=ids,
                   parts=[(None, keep_items(items))])  # fmt: skip

    def put(self, job: int) -> Statement:
        """Return the statement that writes this lot, replacing one that begins with the same slot."""
        what, items = prepare(tuple(self[2:7])), prepare((self.ids, self.parts))
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
            ids=[None if at in gone else one for at, one in enumerate(self.ids)]
            if type(self.ids) is list
            else self.ids,
            parts=[(which, _without(which or range(self.size), kept, gone)) for which, kept in self.parts],
        )

    def changed(self, places: Sequence[int], now: Lot) -> Lot:
        """Return this lot with the items of another lot at these places. Raises errors of pickling ids."""
        (identities, states), (others, their_states) = self.what(), now.what()
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


def slots_in(places: Iterable[int], count: int) -> bytearray:
    """Return, by slot, 1 for each of the items of a list, whose slots are its ``places``."""
    present = bytearray(count)
    for slot in places:
        present[slot] = 1
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
    if not any(lost):
        return kept
    if isinstance(kept, list):
        return [None if is_lost else one for is_lost, one in zip(lost, kept, strict=True)]
    values = plain_list(Kept(*kept))
    if values is None:
        return kept
    return (pickle.dumps([None if is_lost else one for is_lost, one in zip(lost, values, strict=True)],
                         pickle.HIGHEST_PROTOCOL),)  # fmt: skip


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


# -- recorded growth ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class GivenItems(AddedItems):
    """Items as they come to an open job or a stream, with their identities and states, joined.

    Those of an open job have no states, and no identities if they have ids. ``matched`` are those of its items that are
    recorded already, by identity.
    """

    identities: bytes = b""
    states: bytes = b""
    matched: Counter[bytes] = field(default_factory=Counter)

    def only(self, places: Sequence[int]) -> GivenItems:
        """Return the items at these places."""
        if len(places) == len(self.items):
            return self
        identities, states = (
            b"".join([column[at * SIZE : (at + 1) * SIZE] for at in places])
            for column in (self.identities, self.states)
        )
        return GivenItems(
            [self.items[at] for at in places],
            None if self.ids is None else [self.ids[at] for at in places],
            identities=identities,
            states=states,
        )

    def lot(self, first: int, replaces: Sequence[tuple[int, int]]) -> Lot:
        """Return a lot of them, in the slots from the first on. Pickles them, and their ids, which may run any code."""
        ids: list[Any] | tuple[Any, ...] | None = self.ids
        if self.ids is not None:
            try:
                ids = keep_ids(self.ids)
            except Exception:
                ids = [None] * len(self.ids)
        return Lot.of(first, self.items, self.identities, self.states, ids, tuple(replaces))


class AddedLot:
    """Items that were added, in slots that follow each other. They are pickled with the row of their makers.

    ``makers`` are the slots of the items whose handlers have added them, or `BY_USER`.
    """

    def __init__(self, indices: range, slot: int, makers: array[int], identities: bytes = b"") -> None:
        self.indices = indices
        self.slot = slot
        self.makers = makers
        self.identities = identities  #: joined; empty: the items have ids, or handlers have added them

    def join(self, indices: range, makers: array[int]) -> None:
        """Add the items that came next."""
        self.indices = range(self.indices.start, indices.stop)
        self.makers.extend(makers)

    def take_from(self, table: ItemTable) -> AddedLot:
        """Take what has to be pickled: the table goes on meanwhile."""
        self.pickling = Pickling(table.payloads_of(self.indices))
        self._ids = None if table.ids is None else table.ids[self.indices.start : self.indices.stop]
        return self

    def lots(self) -> Iterator[Lot]:
        """Return its lots with the items that are pickled by now. Items in one pickle are in one lot.

        One that can't be pickled fails when its turn comes.
        """
        lo = 0
        for kept, size in self._kept():
            hi = lo + size
            yield Lot(
                self.slot + lo,
                size,
                self.identities[lo * SIZE : hi * SIZE] or None,
                makers=written_numbers(self.makers[lo:hi]),
                ids=None if self._ids is None else self._ids[lo:hi],
                parts=[(None, kept)],
            )
            lo = hi

    def _kept(self) -> Iterator[tuple[KeptItems, int]]:
        """Return the items of each lot, and how many these are."""
        if self.pickling.together is not None:
            for part in self.pickling.together:
                yield tuple(Kept(*part.kept)), len(part.places)
            return
        kept = [tuple(one) if isinstance(one, Kept) else None for one in self.pickling.each]
        kept += [None] * (len(self.indices) - len(kept))
        for lo in range(0, len(kept), MOST):
            yield kept[lo : lo + MOST], len(kept[lo : lo + MOST])


class NewItems(NamedTuple):
    """New items of a job, to be written with a row: lots, and those that are ``added`` to these once they are pickled.

    ``counts``, of the number of new items and of the row's results (``done``), is the statement that counts them.
    """

    lots: Sequence[Lot]
    counts: Callable[[int, int], Statement]
    added: Sequence[AddedLot] = ()
    files: Sequence[BigFile] = ()
    done: int = 0

    def pickled(self, done: int) -> NewItems:
        """Return them with the added ones among the lots, as far as they are pickled by now."""
        lots = [*self.lots, *(lot for each in self.added for lot in each.lots())]
        return NewItems(lots, self.counts, (), [file for each in self.added for file in each.pickling.files], done)

    def statements(self, job: int) -> list[Statement]:
        """Return the statements that write the items and count them."""
        sql, arguments = self.counts(sum([lot.size for lot in self.lots]), self.done)
        return [*(lot.put(job) for lot in self.lots), (sql, (*arguments, job))]


class RecordedGrowth:
    """The growth of a recorded job (a `GrowthHook`). ``next_slot`` is the slot of the next item.

    ``expected`` counts recorded items of the user that the user has not added again so far.
    """

    def __init__(self, next_slot: int = 0) -> None:
        self.expected: Counter[bytes] = Counter()
        self.next_slot = next_slot
        self._added: list[AddedLot] = []

    @staticmethod
    def look_at(items: list[Any], ids: list[Hashable] | None) -> GivenItems:
        """Find the identity of each item without an id. Raises TypeError for one that has none."""
        identities = identify(items, None, range(len(items)))[0] if ids is None else b""
        return GivenItems(items, ids, identities=identities)

    def choose(self, table: ItemTable, offered: AddedItems, most: int | None) -> tuple[AddedItems, int]:
        """Choose the new ones of the offered items, at most ``most`` (implements `GrowthHook`). Others need no room."""
        assert isinstance(offered, GivenItems)
        matched, places = Counter[bytes](), list[int]()
        seen, ids, identities = set[Hashable](), offered.ids, offered.identities
        count = len(offered.items)
        for at in range(count):
            if ids is not None:
                known = table.knows(ids[at]) or ids[at] in seen
                seen.add(ids[at])
            else:
                identity = identities[at * SIZE : (at + 1) * SIZE]
                known = matched[identity] < self.expected[identity]
                if known:
                    matched[identity] += 1
            if known:
                continue
            if most is not None and len(places) == most:
                count = at
                break
            places.append(at)
        chosen = offered.only(places)
        chosen.matched = +matched
        return chosen, count

    def note(self, table: ItemTable, added: AddedItems, maker: int | None) -> None:
        """Note items that are being added, to be written later (implements `GrowthHook`)."""
        first, new, identities = self.next_slot, added.new, b""
        if isinstance(added, GivenItems):
            self.expected.subtract(added.matched)
            identities = added.identities
        if not new:
            return
        self.next_slot += len(new)
        if table.slots is not None:
            table.slots.extend(range(first, self.next_slot))
        by = BY_USER if maker is None else (table.slots_of((maker,)) or (maker,))[0]
        makers = array("q", (by,)) * len(new)
        if self._added and not (identities or self._added[-1].identities):
            self._added[-1].join(new, makers)
        else:
            self._added.append(AddedLot(new, first, makers, identities))

    def take(self, table: ItemTable) -> NewItems | None:
        """Return the items since the last call, for writing; None if there are none."""
        if not self._added:
            return None
        slots, rule = self.next_slot, str(table.rule)
        added, self._added = [lot.take_from(table) for lot in self._added], []
        return NewItems((), lambda new, _: (COUNT, (new, slots, rule)), added)


# -- stream record -----------------------------------------------------------------------------------------------------

#: Its slots count once they are written; its items, once they have ended.
COUNT_ENDED = """UPDATE jobs SET completed = completed + ?, failed = failed + ?, total = total + ?,
slots = max(slots, ?) WHERE number = ?"""


class StreamGrowth:
    """The growth of a recorded stream, by its items as they come. ``next_slot``: of the next new item.

    The consumer's thread adds items; all else runs on the coordinator's.
    """

    def __init__(self, next_slot: int) -> None:
        self.consumer_waits = False  #: for the next outcome; set by its thread
        self.next_slot = next_slot
        self._unwritten: deque[tuple[Lot | None, Sequence[int]]] = deque()

    def put(self, lot: Lot | None, before: Sequence[int]) -> None:
        """Add new items, which are about to run; None: only recorded ones run again.

        ``before`` are the outcomes that count no more: of items that are replaced, or run again.
        """
        if lot is not None:
            self.next_slot = lot.first + lot.size
        self._unwritten.append((lot, before))

    def draft(self, table: ItemTable, indices: Sequence[int]) -> RowDraft:
        """Return a draft of these ended items for the journal."""
        came = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        before = [status for _, outcomes in came for status in outcomes]
        lots = [lot for lot, _ in came if lot is not None]
        failed = sum([table.status[index] == FAILED for index in indices]) if table.failures else 0
        completed_before, failed_before = before.count(COMPLETED), before.count(FAILED)

        def counts(_: int, done: int) -> Statement:
            more = (done - completed_before, failed - failed_before)
            return COUNT_ENDED, (*more, sum(more), lots[-1].first + lots[-1].size if lots else 0)

        return RowDraft(table, [*indices], {}, NewItems(lots, counts))  # a list: it has no columns to slice


# -- values between stages ---------------------------------------------------------------------------------------------
#
# For a job with stages, a row has many values that were passed on together. An entry names the value that they come
# from: the *place* of the stage that took it, and its path. Paths begin with the input's slot. A journal has the values
# of inputs that have not ended; so a run that goes on begins with the values that the last stages were about to take.
# Entries count in the order in which they were written; an entry of a value that is not on its way any more, since its
# input began anew, is ignored. No caller waits for them: values that are not on disk are made again.

PUT_PASSED = "INSERT INTO passed (job, row, body) VALUES (?, ?, ?)"
REMOVE = "DELETE FROM passed WHERE job = ? AND row = ?"
REMOVE_ALL = "DELETE FROM passed WHERE job = ?"
#: The most bytes of a kept value. For a bigger one, its stage runs again.
MOST_VALUE = 4 << 20

#: A path, the place of the stage that gets the item, and its value, pickled.
Value = tuple["Path", int, bytes]


class PassedOn(NamedTuple):
    """The values that came from the value at this path, in the stage at this place."""

    path: Path
    place: int
    brought: list[Value]


class PassRecord:
    """The values that a run has passed on and still has to write, and the rows with values of each input.

    On the coordinator's thread.
    """

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots = slots
        self._entries: list[tuple[int, PassedOn]] = []  #: each with the index of its input
        self._next = 0
        self._rows_of: dict[int, list[int]] = {}  #: by input
        self._inputs_left: Counter[int] = Counter()  #: by row: inputs that have not ended

    def note(self, path: Path, place: int, brought: Sequence[tuple[Path, object]]) -> None:
        """Note the values that an ended item passes on to the next stage; none if one of them is too big."""
        values = []
        for own, value in brought:
            if not isinstance(value, Parcel) or value.size > MOST_VALUE:
                return
            values.append((self._known(own), place + 1, _in_one(value)))
        self._entries.append((path[0], PassedOn(self._known(path), place, values)))

    def keep(self, root: int, values: Sequence[Value]) -> None:
        """Record the values of an input that are on their way, from another run's record."""
        self._entries.append((root, PassedOn(self._known((root,)), 0, [*values])))

    def statements(self, job: int) -> list[Statement]:
        """Return the statements that write all new entries."""
        entries, self._entries = self._entries, []
        if not entries:
            return []
        row, self._next = self._next, self._next + 1
        inputs = {root for root, _ in entries}
        self._inputs_left[row] = len(inputs)
        for root in inputs:
            self._rows_of.setdefault(root, []).append(row)
        return [
            (PUT_PASSED, (job, row, prepare([tuple(entry) for _, entry in entries]).seal(Place("passed", job, row))))
        ]

    def ended(self, job: int, roots: Iterable[int]) -> list[Statement]:
        """Return the statements that remove rows of no further use, now that these inputs have ended."""
        gone: list[Statement] = []
        for root in roots:
            for row in self._rows_of.pop(root, ()):
                self._inputs_left[row] -= 1
                if not self._inputs_left[row]:
                    del self._inputs_left[row]
                    gone.append((REMOVE, (job, row)))
        return gone

    def _known(self, path: Path) -> Path:
        return (self._slots[path[0]], *path[1:])


def _in_one(value: Parcel) -> bytes:
    return without_segment(value.packed) if isinstance(value.packed, Packed) else value.packed


def read_passed(reader: Reader, job: int) -> dict[int, list[Value]]:
    """Return the values on their way of the inputs of that job, by slot; no entry without values. Skips damage."""
    entries: list[PassedOn] = []
    for row, body in reader.passed(job):
        try:
            entries += [PassedOn(*each) for each in unseal(body, Place("passed", job, row), reader.path)]
        except JournalError:
            break  # the following ones may come from its values
    return on_their_way(entries)


def on_their_way(entries: Iterable[PassedOn]) -> dict[int, list[Value]]:
    """Return the values that are on their way after these entries, taken in order, by the slots of their inputs."""
    inputs: dict[int, dict[tuple[Path, int], bytes]] = {}
    for entry in entries:
        slot = entry.path[0]
        values = inputs.setdefault(slot, {((slot,), 0): b""})
        if values.pop((entry.path, entry.place), None) is not None:
            values.update({(path, place): data for path, place, data in entry.brought})
    return {
        slot: [(path, place, data) for (path, place), data in values.items()]
        for slot, values in inputs.items()
        if values and ((slot,), 0) not in values
    }
