"""The items of a job on their way into a journal: which are recorded, and the rows to write for the rest.

Everything here runs on the thread that creates the job, since it may run code of the items' classes.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import eq
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.chunk_rows import Row, fresh_row
from mpqueue._parent.journal.identity import (
    SIZE,
    Key,
    NoIdentityError,
    digest_of_key,
    digests,
    name_unstable,
    states_of,
    unknowable,
    why_unstable,
)
from mpqueue._parent.journal.kept_values import Statement, prepare
from mpqueue._parent.journal.lots import CUT, OF_LIST, Lot, keep_ids
from mpqueue._parent.journal.matching import Match, What, match
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.journal_writer import Journal

#: Items looked at together; and items written in one transaction.
BLOCK = 4096
BATCH = 16 * BLOCK


class Inventory:
    """The items of one job. Raises TypeError for items without identity, and errors of ``key``."""

    def __init__(self, table: ItemTable, key: Key | None = None) -> None:
        self.table = table
        self._key = key
        self._left_out: set[int] = set()

    @property
    def left_out(self) -> frozenset[int]:
        """The items that are not in the journal, once they are written or matched."""
        return frozenset(self._left_out)

    # -- what the items are ----------------------------------------------------------------------------------

    def _what(self, indices: Sequence[int], payloads: list[Any], ids: list[Any] | None) -> What:
        """Return the items' current identities and states."""
        try:
            identities = digests(payloads if ids is None else ids)
        except NoIdentityError:
            what = name_unstable(payloads if ids is None else ids, indices)
            raise unknowable(what, has_ids=ids is not None) from None
        if self._key is not None:
            return identities, b"".join(map(self._take_key, indices, payloads))
        return identities, identities if ids is None else states_of(payloads)

    def _values(self, indices: Sequence[int]) -> tuple[list[Any], list[Any] | None]:
        ids = self.table.ids
        return self.table.payloads_of(indices), None if ids is None else [ids[index] for index in indices]

    def _today(self) -> Iterator[What]:
        for lo in range(0, len(self.table), BLOCK):
            indices = range(lo, min(lo + BLOCK, len(self.table)))
            yield self._what(indices, *self._values(indices))

    def _lot(self, first: int, indices: Sequence[int]) -> Lot:
        """Make a lot of these items, in the slots from the first on."""
        payloads, ids = self._values(indices)
        identities, states = self._what(indices, payloads, ids)
        try:
            named = None if ids is None else keep_ids(ids)
        except Exception as error:
            raise TypeError(f"items: expected ids that can be pickled for the journal, got {error}") from error
        lot = Lot.of(first, payloads, identities, states, named)
        self._left_out.update(indices[at] for at in lot.left_out)
        return lot

    def _lots(self, first: int, indices: Sequence[int]) -> list[Lot]:
        """Make lots of these items, in the slots from the first on."""
        return [self._lot(first + lo, indices[lo : lo + OF_LIST]) for lo in range(0, len(indices), OF_LIST)]

    def _take_key(self, index: int, payload: Any) -> bytes:
        assert self._key is not None
        return digest_of_key(self._key, payload, self.table.id_of(index))

    # -- a job that the journal has not ----------------------------------------------------------------------

    def add(self, journal: Journal, columns: dict[str, Any]) -> int:
        """Write a new job; returns its number. The job counts once all of it is on disk. Raises `JournalError`."""
        count = len(self.table)
        number: int | None = None
        try:
            for lo in range(0, max(count, 1), BATCH):
                hi = min(lo + BATCH, count)
                lots = self._lots(lo, range(lo, hi))
                total = {"total": count, "slots": count} if hi == count else {"total": -1}
                changes = {**columns, **total} if number is None else total
                number = journal.ask(_put(number, changes, lots))
        except BaseException:
            if number is not None:
                journal.ask(_remove(number))
            raise
        assert number is not None
        return number

    # -- a job that the journal has

    def match(self, reader: Reader, recorded: RecordedJob) -> Match:
        """Find which items are recorded. Sets the table's slots, those of new items too. Raises `JournalError`."""
        slots_left_out: set[int] = set()
        places = reader.places(recorded)
        order: Sequence[int] = range(recorded.count)
        lots = _noted(reader.lots(recorded, items=False), slots_left_out)
        what: Iterable[What] = (lot.what() for lot in lots)
        present = None
        if places is not None:
            present = _present(places, recorded.count)
            order, what = _in_order(places, present, lots)
        found = match(self._today(), what, order)
        if present is not None:
            found.note_absent(present)
        found.number_new(recorded.count)
        count = len(self.table)
        trivial = recorded.count + len(found.new) == count and all(map(eq, found.slots, range(count)))
        self.table.slots = None if trivial else found.slots
        if slots_left_out:
            self._left_out.update(index for index, slot in enumerate(found.slots) if slot in slots_left_out)
        return found

    def write(
        self,
        journal: Journal,
        recorded: RecordedJob,
        found: Match,
        columns: dict[str, Any],
        afresh: Iterable[int],
        *,
        everything: bool,
    ) -> None:
        """Write the items' current states; those at the indices ``afresh`` become as if they had never run.

        With ``everything`` all recorded items do, gone ones too. Raises `JournalError`; then nothing has changed.
        """
        table = self.table
        self._left_out.difference_update(found.new, found.changed)
        cut: Statement = (CUT, (recorded.number, recorded.count))
        journal.ask(lambda store: store.write([cut] if found.new else []))
        for lo in range(0, len(found.new), BATCH):  # they count once the job's line is written
            journal.ask(_put(recorded.number, {}, self._lots(recorded.count + lo, found.new[lo : lo + BATCH])))
        reader = journal.reader
        lots = reader.at_once(lambda: [*self._changed_lots(reader, recorded, found)])
        if everything:
            slots = range(recorded.count)
            rows = [fresh_row(slots[lo : lo + BATCH]) for lo in range(0, len(slots), BATCH)]
        else:
            slots_afresh = sorted(found.slots[index] for index in afresh)
            rows = [fresh_row(slots_afresh)] if slots_afresh else []
        places = None if table.slots is None else prepare(table.slots.tobytes())
        columns = {
            **columns,
            "total": len(table),
            "slots": recorded.count + len(found.new),
            "places": places,
            "rule": str(table.rule),
        }
        journal.ask(_put(recorded.number, columns, lots, rows))

    def _changed_lots(self, reader: Reader, recorded: RecordedJob, found: Match) -> Iterator[Lot]:
        slot_of = found.slots.__getitem__
        changed = deque(sorted(found.changed, key=slot_of))
        while changed:
            lot, indices = reader.lot_with(recorded, slot_of(changed[0])), list[int]()
            while changed and slot_of(changed[0]) in lot.slots:
                indices.append(changed.popleft())
            yield lot.changed([slot_of(index) - lot.first for index in indices], self._lot(lot.first, indices))

    def name_unknown(self, index: int) -> str:
        """Explain why it can't be known whether that item has changed, for people."""
        payload = self.table.payloads_of([index])[0]
        return f"items[{index}]: {why_unstable(payload) or f'the journal does not say what {shown(payload)} was'}"


def _put(
    number: int | None, columns: dict[str, Any], lots: Sequence[Lot], rows: Sequence[Row] = ()
) -> Callable[[Any], int]:
    return lambda store: store.put_job(number, columns, lots, rows)


def _remove(number: int) -> Callable[[Any], None]:
    return lambda store: store.remove_job(number)


def _noted(lots: Iterable[Lot], left_out: set[int]) -> Iterator[Lot]:
    """Yield the lots, and note the slots that are left out on the way."""
    for lot in lots:
        left_out.update(lot.first + at for at in lot.left_out)
        yield lot


def _present(places: array[int], count: int) -> bytearray:
    """Return a 1 for each slot whose item was in the last list."""
    present = bytearray(count)
    for slot in places:
        present[slot] = 1
    return present


def _in_order(places: array[int], present: bytearray, lots: Iterable[Lot]) -> tuple[Sequence[int], Iterator[What]]:
    """Return the slots in the order of the last list, then the gone ones; with their identities and states."""
    identities, states = bytearray(), bytearray()
    known = bytearray(b"\1") * len(present)
    for lot in lots:
        columns = lot.what()
        identities += columns[0]
        states += columns[1]
        for at in lot.gone:  # forgotten
            known[lot.first + at] = 0
    gone = array("I", (slot for slot, there in enumerate(present) if not there and known[slot]))
    order = places + gone

    def pieces() -> Iterator[What]:
        for lo in range(0, len(order), BLOCK):
            part = order[lo : lo + BLOCK]
            which = b"".join([identities[slot * SIZE : (slot + 1) * SIZE] for slot in part])
            state = b"".join([states[slot * SIZE : (slot + 1) * SIZE] for slot in part])
            yield which, state

    return order, pieces()
