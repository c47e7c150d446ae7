"""A journal's record of items that come while a job runs, and of values that stages pass on.

An item of an open job is known by its id, if it has one. Without ids, items that the user adds are known by their
values, and equal ones by their order; items that handlers add are always new: they are recorded with their maker's end,
so a maker whose items are recorded does not run again.

A stream is recorded like an open job: lots of items, and rows of outcomes by slot. Its slots are places of arrival. An
item is written with the first outcomes after it: items that have never run need not be known.

Items are written with the row of their makers, in one transaction: so the journal has an item's end and the items that
it has added, or neither. An item that adds one which can't be pickled for the journal is written as not run.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.chunk_rows import RowDraft, kept_together
from mpqueue._parent.journal.identity import SIZE, NoIdentityError, digest, name_unstable, unknowable
from mpqueue._parent.journal.kept_values import BigFile, Place, Statement, prepare, unseal
from mpqueue._parent.journal.lots import (
    BY_USER,
    COUNT,
    KeptItem,
    KeptItems,
    Lot,
    NewItems,
    keep_ids,
    keep_item,
    lots_of,
)
from mpqueue._wire.added_items import AddedItems
from mpqueue._wire.parcels import Parcel
from mpqueue._wire.pickling.payload import Packed, without_segment
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING

if TYPE_CHECKING:
    from mpqueue._core.state.pipeline import Path
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob

# -- recorded growth ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class GivenItems(AddedItems):
    """Items that the user adds, pickled for the journal, and the identities of those without ids.

    ``matched`` are those that are recorded already, by identity.
    """

    kept: list[KeptItem] = field(default_factory=list)
    files: list[list[BigFile]] = field(default_factory=list)  #: of each
    identities: list[bytes] | None = None
    matched: Counter[bytes] = field(default_factory=Counter)

    def only(self, places: list[int], matched: Counter[bytes]) -> GivenItems:
        """Return the items at these places."""
        ids, identities = self.ids, self.identities
        return GivenItems(
            [self.items[at] for at in places],
            None if ids is None else [ids[at] for at in places],
            kept=[self.kept[at] for at in places],
            files=[self.files[at] for at in places],
            identities=None if identities is None else [identities[at] for at in places],
            matched=matched,
        )


class AddedLot:
    """Items that handlers have added, in slots that follow each other. They are pickled with the row of their makers.

    ``makers`` are the indices of the items whose handlers have added them.
    """

    def __init__(self, indices: range, slot: int, makers: array[int]) -> None:
        self.indices = indices
        self.slot = slot
        self.makers = makers
        self.files: tuple[BigFile, ...] = ()
        self._together: tuple[Any, ...] | None = None
        self._each: list[KeptItem] = []

    def join(self, indices: range, makers: array[int]) -> None:
        """Add the items that came next."""
        self.indices = range(self.indices.start, indices.stop)
        self.makers.extend(makers)

    def take_from(self, table: ItemTable) -> AddedLot:
        """Take what has to be pickled: the table goes on meanwhile."""
        self._payloads = table.payloads_of(self.indices)
        self._ids = None if table.ids is None else table.ids[self.indices.start : self.indices.stop]
        self._maker_slots = self.makers if table.slots is None else array("q", table.slots_of(self.makers))
        return self

    @property
    def step(self) -> int:
        """A number that grows with each item."""
        return len(self._each)

    def keep_plain(self) -> bool:
        """Pickle the items if that runs no users' code, and they are small; False if it does not."""
        if self._together is None:
            kept = kept_together(self._payloads)
            self._together = None if kept is None else (kept.by_reference,)
        return self._together is not None

    def keep(self) -> None:
        """Pickle the items, even if that runs users' code."""
        if self.keep_plain():
            return
        for payload in self._payloads:
            files: list[BigFile] = []
            kept = keep_item(payload, files)
            self.files += tuple(files)  # before anything names them
            self._each.append(kept)

    def kept(self) -> KeptItems:
        """Return the items that are pickled by now, None for the others. The files of these are there."""
        if self._together is not None:
            return self._together
        each = [*self._each]
        return [*each, *[None] * (len(self._payloads) - len(each))]

    def makers_of_lost(self, kept: KeptItems) -> set[int]:
        """Return the makers of the items that are not ``kept``."""
        if isinstance(kept, tuple):
            return set()
        return {maker for maker, one in zip(self.makers, kept, strict=True) if one is None}

    def lots(self, kept: KeptItems) -> Iterator[Lot]:
        """Return its lots."""
        return lots_of(self.slot, kept, self._ids, None, self._maker_slots)


class Coming(NamedTuple):
    """New items of a job, to be written with a row: lots, and those that have to be ``added`` once they are pickled.

    ``counts``, of the number of new items and of results in the row, is the statement that counts them.
    """

    lots: Sequence[Lot]
    counts: Callable[[int, int], Statement]
    files: Sequence[BigFile] = ()
    added: Sequence[AddedLot] = ()

    def written(self, kept: Sequence[KeptItems], done: int) -> NewItems:
        """Return them in their written form, with the added ones as far as they are ``kept``."""
        lots = [*self.lots, *(lot for each, own in zip(self.added, kept, strict=True) for lot in each.lots(own))]
        files = (*self.files, *(file for each in self.added for file in each.files))
        return NewItems(lots, self.counts(sum([lot.size for lot in lots]), done), files)


class RecordedGrowth:
    """The growth of a recorded job (a `GrowthHook`). ``next_slot`` is the slot of the next item.

    ``expected`` counts recorded items of the user that the user has not added again so far.
    """

    def __init__(self, next_slot: int = 0) -> None:
        self.expected: Counter[bytes] = Counter()
        self.next_slot = next_slot
        self._lots: list[Lot] = []
        self._files: list[BigFile] = []
        self._added: list[AddedLot] = []

    @staticmethod
    def look_at(items: list[Any], ids: list[Hashable] | None) -> GivenItems:
        """Pickle each item, with its identity if it has no id. Raises TypeError for one with neither."""
        identities = None
        if ids is None:
            try:
                identities = [*map(digest, items)]
            except NoIdentityError:
                raise unknowable(name_unstable(items, range(len(items))), has_ids=False) from None
        files: list[list[BigFile]] = [[] for _ in items]
        kept = [keep_item(item, beside) for item, beside in zip(items, files, strict=True)]
        return GivenItems(items, ids, kept=kept, files=files, identities=identities)

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
        """Note items that are being added, to be written later (implements `GrowthHook`)."""
        first, new = self.next_slot, added.new
        if isinstance(added, GivenItems):
            self.expected.subtract(added.matched)
        if not new:
            return
        self.next_slot += len(new)
        if table.slots is not None:
            table.slots.extend(range(first, self.next_slot))
        makers = array("q", (BY_USER if maker is None else maker,)) * len(new)
        if isinstance(added, GivenItems):
            self._lots += lots_of(first, added.kept, added.ids, added.identities, makers)
            self._files += [file for beside in added.files for file in beside]
        elif self._added and self._added[-1].indices.stop == new.start:
            self._added[-1].join(new, makers)
        else:
            self._added.append(AddedLot(new, first, makers))

    def take(self, table: ItemTable) -> Coming | None:
        """Return the items since the last call, for writing; None if there are none."""
        if not self._lots and not self._added:
            return None
        slots, rule = self.next_slot, str(table.rule)
        coming = Coming(
            self._lots,
            lambda new, _: (COUNT, (new, slots, rule)),
            self._files,
            [lot.take_from(table) for lot in self._added],
        )
        self._lots, self._files, self._added = [], [], []
        return coming


# -- stream record -----------------------------------------------------------------------------------------------------

#: Its slots count once they are written; its items, once they have ended.
COUNT_ENDED = """UPDATE jobs SET completed = completed + ?, failed = failed + ?, total = total + ?,
slots = max(slots, ?) WHERE number = ?"""


class StreamItems(NamedTuple):
    """Items of a stream as they come, with their identities and states, joined; ``ids`` is None if they have none."""

    items: list[Any]
    identities: bytes
    states: bytes
    ids: list[Hashable] | None = None

    def only(self, places: Sequence[int]) -> StreamItems:
        """Return the items at these places."""
        if len(places) == len(self.items):
            return self
        identities, states = (
            b"".join([column[at * SIZE : (at + 1) * SIZE] for at in places])
            for column in (self.identities, self.states)
        )
        ids = None if self.ids is None else [self.ids[at] for at in places]
        return StreamItems([self.items[at] for at in places], identities, states, ids)

    @classmethod
    def of(cls, parts: Sequence[StreamItems]) -> StreamItems:
        """Return the items of all parts."""
        return cls(
            [item for part in parts for item in part.items],
            b"".join([part.identities for part in parts]),
            b"".join([part.states for part in parts]),
            [id_ for part in parts for id_ in part.ids or ()] if parts and parts[0].ids is not None else None,
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


class StreamGrowth:
    """The growth of a recorded stream, by its items as they come. ``next_slot``: of the next new item.

    The consumer's thread adds items; all else runs on the coordinator's.
    """

    def __init__(self, next_slot: int) -> None:
        self.consumer_waits = False  #: for the next outcome; set by its thread
        self.next_slot = next_slot
        self._unwritten: deque[tuple[Lot, Sequence[int]]] = deque()
        self._before: dict[int, int] = {}  #: by index: how an item that runs again had ended, by the journal
        self._unkept: set[int] = set()  #: indices of items that are not in their lot

    def put(self, lot: Lot, indices: Sequence[int], replaced: Sequence[int]) -> None:
        """Add new items at these indices, which are about to run; ``replaced``: outcomes of those they replace."""
        self.next_slot = lot.first + lot.size
        self._unkept.update([indices[at] for at in lot.left_out])
        self._unwritten.append((lot, replaced))

    def runs_again(self, index: int, status: int) -> None:
        """Note how an item that runs again had ended, by the journal."""
        if status != PENDING:
            self._before[index] = status

    def draft(self, table: ItemTable, indices: Sequence[int]) -> RowDraft:
        """Return a draft of these ended items for the journal."""
        came = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        before = [status for _, replaced in came for status in replaced]
        if self._before:
            before += [self._before.pop(index, PENDING) for index in indices]
        unkept = self._unkept.intersection(indices) if self._unkept else ()
        self._unkept.difference_update(unkept)
        lots = [lot for lot, _ in came]
        failed = sum([table.status[index] == FAILED for index in indices]) if table.failures else 0
        completed_before, failed_before = before.count(COMPLETED), before.count(FAILED)

        def counts(_: int, done: int) -> Statement:
            more = (done - completed_before, failed - failed_before)
            return COUNT_ENDED, (*more, sum(more), lots[-1].first + lots[-1].size if lots else 0)

        return RowDraft(table, [*indices], {}, unkept, Coming(lots, counts))  # a list: it has no columns to slice


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


def read_passed(reader: Reader, job: RecordedJob) -> dict[int, list[Value]]:
    """Return each input's values that are on their way, by its slot; no entry if there are none. Skips damage."""
    entries: list[PassedOn] = []
    for row, body in reader.at_once(lambda: reader.passed(job)):
        try:
            entries += [PassedOn(*each) for each in unseal(body, Place("passed", job.number, row), reader.path)]
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
