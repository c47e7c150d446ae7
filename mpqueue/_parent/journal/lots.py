"""A job's items in a journal: those of a list, and the lots of a job that grew while it ran.

Of a list, small items are kept, so that a job can be looked at, and its failed items run again, without the program
that made it. One that is big is kept when it fails for good.

Of an open job or a stream there is a row for each lot that came together. It has the items, and what they are known by:
their ids, or, of those that the user has added without ids, and of a stream's, their identities. It also says whose
handler has added each. How the items ended is in ``chunks``, as for any job. An item of a stream that has changed is
another one, which takes the place of the first.
"""

from __future__ import annotations

import hashlib
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
    Unsealed,
    keep,
    keep_small,
    prepare,
    restore,
    unseal,
)
from mpqueue.errors import JournalError

# -- kept payloads -----------------------------------------------------------------------------------------------------

#: Items that are pickled together.
BLOCK = 256


class Damaged(Unreadable):
    """Stands for an item whose row is damaged, or not there any more."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("its row in the journal is damaged")


_MISSING = Damaged()


def keep_payloads(slots: Sequence[int], payloads: list[Any]) -> tuple[list[Unsealed], list[int]]:
    """What goes into the journal of the items of these slots, and the places in the list of those that do not.

    Costs what pickling them costs. Never raises: an item that can't be pickled fails when its turn comes.
    """
    bodies: list[Unsealed] = []
    left_out: list[int] = []
    for lo in range(0, len(payloads), BLOCK):
        block, at = payloads[lo : lo + BLOCK], slots[lo : lo + BLOCK]
        named = (at[0], at[-1] + 1) if isinstance(at, range) else array("Q", at).tobytes()
        together = keep_small(block)
        if together is not None:
            bodies.append(prepare((named, tuple(together))))
            continue
        each = [keep_small(item) for item in block]
        left_out += [lo + nth for nth, one in enumerate(each) if one is None]
        bodies.append(prepare((named, [None if one is None else tuple(one) for one in each])))
    return bodies, left_out


def hash_payloads(payloads: list[Any]) -> str:
    """What version 1 knew items by."""
    digest = hashlib.blake2b(digest_size=16)
    for lo in range(0, len(payloads), BLOCK):
        block = payloads[lo : lo + BLOCK]
        if not _hash(block, digest):
            for item in block:
                _hash(item, digest)
    return digest.hexdigest()


def _hash(value: Any, digest: Any) -> bool:
    """Have the bytes of the value counted; True where it is small, and can be pickled."""
    files: list[BigFile] = []
    try:
        kept = keep(value, files)
    except Exception:
        digest.update(type(value).__name__.encode())
        return False
    for part in files[0].parts if files else (kept.by_reference or kept.by_value or b"",):
        digest.update(part)
    return not files


def read_payloads(total: int, bodies: Iterable[tuple[bytes, Place]], path: str) -> list[Any]:
    """The items by their slots, `NotKept` where one was left out, `Damaged` where its row is."""
    payloads: list[Any] = [_MISSING] * total
    for body, place in bodies:
        try:
            named, kept = unseal(body, place, f"{path}: the items of a job")
        except JournalError:
            continue
        slots = named_slots(named, total)
        if isinstance(kept, tuple):
            together = restore(Kept(*kept))
            values = together if isinstance(together, list) else [together] * len(slots)
        else:
            values = [NotKept() if one is None else restore(Kept(*one)) for one in kept]
        for slot, value in zip(slots, values, strict=False):
            if slot < total:  # else its maker ended before it counted
                payloads[slot] = value
    return payloads


def named_slots(named: Any, total: int) -> Sequence[int]:
    """The slots of a row, as it names them; version 1 wrote the first one only."""
    if isinstance(named, int):
        return range(named, min(named + BLOCK, total))
    if isinstance(named, tuple):
        return range(*named)
    slots = array("Q")
    slots.frombytes(named)
    return slots


# -- lots --------------------------------------------------------------------------------------------------------------

PUT = "INSERT INTO added_items (job, first, count, body) VALUES (?, ?, ?, ?)"
CHANGE = "UPDATE added_items SET body = ? WHERE job = ? AND first = ?"
#: A job that had ended is pending again, since the new items are.
COUNT = """UPDATE jobs SET total = total + ?, slots = ?, rule = ?,
status = CASE WHEN status IN ('completed', 'completed_with_errors') THEN 'pending' ELSE status END WHERE number = ?"""

#: Stands for the slot of an item's maker where the user has added it.
BY_USER = -1
#: Items of one row, at most.
MOST = 4096

#: How an item is kept: a `Kept` without the empty fields at its end. None: it can't be pickled.
KeptItem = tuple[Any, ...] | None


class AddedRow(NamedTuple):
    """Items in slots that follow each other. ``kept`` are all of them in one pickle (a tuple), or each by itself.

    So are the ``ids``, or they stand there as they are.

    ``makers`` are the slots of the items whose handlers have added them. ``gone`` are the places of items that do not
    count any more. Of a stream: ``states`` say in which each is (None: the identities do), and ``replaces`` are the
    places of items that have changed, each with the slot that it had first.
    """

    first: int
    size: int
    kept: tuple[Any, ...] | list[KeptItem]
    ids: list[Hashable] | tuple[Any, ...] | None
    identities: bytes | None
    makers: bytes
    gone: tuple[int, ...] = ()
    states: bytes | None = None
    replaces: tuple[tuple[int, int], ...] = ()

    def put(self, job: int) -> Statement:
        """What writes it."""
        return PUT, (job, self.first, self.size, self._body(job))

    def change(self, job: int) -> Statement:
        """What writes it in the place of the row that begins with the same slot."""
        return CHANGE, (self._body(job), job, self.first)

    def _body(self, job: int) -> bytes:
        return prepare(tuple(self[2:])).seal(place_of(job, self.first))

    @property
    def slots(self) -> range:
        """Where its items are."""
        return range(self.first, self.first + self.size)

    def supersedes(self, now: dict[int, int]) -> Iterator[int]:
        """The slots that do not count any more with this lot; ``now`` has those that do, by the first of each item."""
        for at, first in self.replaces:
            yield now.get(first, first)
            now[first] = self.first + at

    def items(self, read_file: ReadFile) -> list[Any]:
        """The items; an `Unreadable` for one that can't be read, or was not kept."""
        if isinstance(self.kept, tuple):
            together = restore(Kept(*self.kept), read_file)
            return together if isinstance(together, list) else [together] * self.size
        return [
            Unreadable("it can't be pickled") if one is None else restore(Kept(*one), read_file) for one in self.kept
        ]

    def all_ids(self) -> list[Any] | None:
        """The ids; an `Unreadable` for each where they can't be read; None where items have none."""
        if not isinstance(self.ids, tuple):
            return self.ids
        found = restore(Kept(*self.ids))
        return found if isinstance(found, list) else [Unreadable(found.reason) for _ in range(self.size)]

    def all_makers(self) -> Sequence[int]:
        """The maker of each."""
        makers: array[int] = numbers_of("q", self.makers)
        return makers * self.size if len(makers) < self.size else makers

    def identity(self, at: int) -> bytes:
        """What the item at that place is known by, where its user has added it, and it has no id."""
        assert self.identities is not None
        return self.identities[at * SIZE : (at + 1) * SIZE]

    def without(self, places: Sequence[int]) -> AddedRow:
        """The same, where these items do not count any more, and are not kept."""
        gone = tuple(sorted({*self.gone, *places}))
        if isinstance(self.kept, list):
            return self._replace(gone=gone, kept=[None if at in gone else one for at, one in enumerate(self.kept)])
        return self._replace(gone=gone)


def place_of(job: int, first: int) -> Place:
    """Where a row of ``added_items`` belongs."""
    return Place("added_items", job, first)


def read_added(first: int, count: int, body: Any, job: int, path: str) -> AddedRow:
    """A row, as it is in the file. Raises `JournalError` for one that is damaged."""
    return AddedRow(first, count, *unseal(body, place_of(job, first), f"{path}: items of an open job"))


def keep_item(item: Any, files: list[BigFile]) -> KeptItem:
    """An item, however big. One that can't be pickled fails when its turn comes."""
    try:
        kept = keep(item, files)
    except Exception:
        return None
    return (kept.by_reference,) if kept.by_value is None and kept.file is None else tuple(kept)


def rows_of(
    first: int,
    kept: tuple[Any, ...] | list[KeptItem],
    ids: list[Hashable] | None,
    identities: list[bytes] | None,
    makers: array[int],
) -> Iterator[AddedRow]:
    """Rows of these items, which follow each other from that slot on. What is in one pickle is in one row."""
    count = len(makers)
    size = count if isinstance(kept, tuple) else MOST
    for lo in range(0, count, max(size, 1)):
        hi = min(lo + size, count)
        yield AddedRow(
            first + lo,
            hi - lo,
            kept if isinstance(kept, tuple) else kept[lo:hi],
            None if ids is None else ids[lo:hi],
            None if identities is None else b"".join(identities[lo:hi]),
            written_numbers(makers[lo:hi]),
        )


class NewItems(NamedTuple):
    """Items on their way into the file, with their files, and what counts them: all of it but the job's number."""

    lots: Sequence[AddedRow]
    counts: Statement
    files: tuple[BigFile, ...] = ()

    def statements(self, job: int) -> list[Statement]:
        """What writes them, and counts them."""
        sql, arguments = self.counts
        return [*(lot.put(job) for lot in self.lots), (sql, (*arguments, job))]


def check_complete(rows: Sequence[AddedRow], slots: int, path: str) -> None:
    """Raise `JournalError` unless these are all rows of a job with so many slots."""
    end = 0
    for row in rows:
        if row.first != end:
            break
        end += row.size
    if end != slots:
        raise JournalError(f"{path}: expected the items of {slots} slots, got {end}; it is left as it is")


def lots_of(run: Callable[..., Any], job: int, path: str) -> list[AddedRow]:
    """All rows of a job's items. Raises `JournalError` for rows that are damaged."""
    found = run("SELECT first, count, body FROM added_items WHERE job = ? ORDER BY first", (job,)).fetchall()
    return [read_added(first, count, body, job, path) for first, count, body in found]


def slots_that_count(run: Callable[..., Any], job: int, slots: int, path: str) -> bytearray:
    """By slot, 1 for those whose item counts. Raises `JournalError` for rows that are damaged."""
    rows = lots_of(run, job, path)
    check_complete(rows, slots, path)
    present = bytearray(b"\1") * slots
    for row in rows:
        for at in row.gone:
            present[row.first + at] = 0
    return present
