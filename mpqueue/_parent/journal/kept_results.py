"""Results that are not in memory: they are read from the journal on use.

The table has the number of the result's row, which a row keeps for ever. Later results of the slot are in other rows.
"""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, TypeVar

from mpqueue._core.state.item_table import DISCARDED, Elsewhere
from mpqueue._parent.deliveries import OBJECT
from mpqueue._parent.journal.chunk_rows import (
    ResultPart,
    TableFiller,
    WrittenRow,
    code_in,
    content_of,
    parts_of,
)
from mpqueue._parent.journal.kept_values import NO_RESULT, Kept, ReadFile, Unreadable, restore
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader

#: Stands for the number of a row if there is none; and what is added to it if the item has failed.
NO_ROW, HAS_FAILED = 0, 1 << 31

#: The most bytes of results that are kept for a job's sink when the job goes on.
MOST_CHECKED = 32 << 20

T = TypeVar("T")


class KeptResults:
    """The results of one job, see `ResultSource`. Any thread. It holds the last row that was read.

    Raises `JournalError` for a result that is missing, and with ``strict`` also for an unreadable one; otherwise an
    `Unreadable` is in its place.
    """

    def __init__(self, journal: Reader, job: int, job_id: str, *, strict: bool = False) -> None:
        self._journal = journal
        self._job = job
        self._job_id = job_id
        self._strict = strict
        self._lock = threading.Lock()
        self._owner = os.getpid()  #: the process of that lock
        self._last: tuple[int, _OpenRow] | None = None
        self.read_bytes = 0  #: bytes of all rows that were read
        self._checked: dict[tuple[int, int], Any] = {}  #: by row and slot: results that were just read
        self._checked_bytes = 0

    def keep(self, row: int, slots: Sequence[int], results: Sequence[Any], size: int) -> None:
        """Keep results, with their bytes, that were read to be checked, until `each` needs them once."""
        self._checked_bytes += size + OBJECT * len(results)
        if self._checked_bytes <= MOST_CHECKED:
            self._checked.update(zip(((row, slot) for slot in slots), results, strict=True))

    def read(self, row: int, slot: int) -> Any:
        """Return the result of the item in that slot, which is in that row."""
        return self.read_all(row, [slot])[0]

    def read_all(self, row: int, slots: Sequence[int]) -> list[Any]:
        """Return the results of the items in these slots, which are in that row."""
        with self._own_lock():
            if self._last is not None and self._last[0] == row:
                found = self._last[1].results(slots)
                if found is not None and _unreadable(found) is None:
                    return found
            return self._journal.at_once(lambda: self._take(row, slots))

    def each(
        self,
        results: Sequence[Any],
        slots: Sequence[int],
        make: Callable[[int, Any], T],
        leave_out: Callable[[int, Exception], T],
    ) -> list[T]:
        """Return the value of ``make`` for each place and its result, in one look (implements `ResultSource`)."""

        def make_one(place: int) -> T:
            result = results[place]
            if type(result) is Elsewhere and (kept := (result.row, slots[place])) in self._checked:
                result = self._checked.pop(kept)
            elif type(result) is Elsewhere:
                try:
                    with self._own_lock():  # not while ``make`` runs users' code
                        result = self._take(result.row, [slots[place]])[0]
                except JournalError as error:
                    if not self._strict:
                        raise
                    return leave_out(place, error)
            return make(place, result)

        return self._journal.at_once(lambda: [make_one(place) for place in range(len(results))])

    def _own_lock(self) -> threading.Lock:
        """Return the lock; in a fork a new one, since the thread that held it at the fork does not exist there."""
        if self._owner != os.getpid():
            self._lock, self._owner = threading.Lock(), os.getpid()
        return self._lock

    def fill(self, results: list[Any], slots: Sequence[int] | None) -> None:
        """Replace stand-ins by results. ``slots`` are those of the items; None: their indices."""
        by_row: dict[int, array[int]] = {}
        last, indices = None, array("Q")
        for index, result in enumerate(results):
            if type(result) is Elsewhere and result is not DISCARDED:
                if result is not last:
                    last, indices = result, by_row.setdefault(result.row, array("Q"))
                indices.append(index)

        def take_all() -> None:
            for row, indices in sorted(by_row.items()):
                found = self._take(row, indices if slots is None else [slots[index] for index in indices])
                for index, result in zip(indices, found, strict=True):
                    results[index] = result

        if by_row:
            with self._own_lock():
                self._journal.at_once(take_all)

    def _take(self, row: int, slots: Sequence[int]) -> list[Any]:
        if row == DISCARDED.row:
            found: list[Any] | None = [restore(Kept(NO_RESULT), self._journal.read_file)] * len(slots)
        else:
            found = self._found(row, slots)
        if found is None:
            raise self._missing("none: it was removed, or its item has run again, or is to")
        if self._strict and (unreadable := _unreadable(found)) is not None:
            raise self._missing(repr(unreadable))
        return found

    def _missing(self, found: str) -> JournalError:
        return JournalError(
            f"{self._journal.path}: expected the result of an item of job {self._job_id!r}, got {found}"
        )

    def _found(self, row: int, slots: Sequence[int]) -> list[Any] | None:
        """Return the results; None if one of them is not there."""
        if self._last is None or self._last[0] != row:
            self._last = None
            written = self._journal.row(self._job, row)
            if written is None:
                return None
            self._last = row, _OpenRow(written, self._read_file, self._journal.path)
            self.read_bytes += len(written.body)
        return self._last[1].results(slots)

    def _read_file(self, name: str) -> bytes:
        content = self._journal.read_file(name)
        self.read_bytes += len(content)
        return content


class Outcomes:
    """The outcomes of a job's items: by slot, the ``row`` that has it.

    That is `NO_ROW` for an item that has not ended; for one that has failed, with the bit `HAS_FAILED`. ``lost`` are
    the slots of damaged rows, and ``damaged`` is the reason. ``count`` is the number of the job's slots.
    """

    def __init__(self, read_file: ReadFile, path: str, count: int, into: TableFiller | None = None) -> None:
        self.row: array[int] = array("I", bytes(4 * count))
        self._firsts: list[int] = []  #: the numbers of the rows with which other code begins
        self._codes: list[int] = []  #: these codes
        self.lost: set[int] = set()
        self.damaged = ""
        self._read_file = read_file
        self._path = path
        self._into = into

    def read(self, row: WrittenRow) -> None:
        """Note the data of a row, in the order in which they were written."""
        count = len(self.row)
        slots: Sequence[int] = range(count)
        try:
            slots = row.spoken(self._path)
            content = content_of(row, self._read_file, self._path)
        except JournalError as error:
            self._lose([slot for slot in slots if slot < count], str(error))
        else:
            if slots:
                self._note(row.number, content, slots)

    def _lose(self, slots: Sequence[int], damage: str) -> None:
        """Count the items of a damaged row as not ended, until a later row says how they have."""
        self.damaged = damage
        self.void(slots)
        self.lost.update(slots)
        if self._into is not None:
            self._into.lose(slots)

    def _note(self, number: int, content: dict[str, Any], slots: Sequence[int]) -> None:
        """Note the data of the row of that number about these slots."""
        if self.lost:
            self.lost.difference_update(slots)
        code, status, count = code_in(content), content["status"], len(self.row)
        if self._codes[-1:] != [code]:
            self._firsts.append(number)
            self._codes.append(code)
        ended = {COMPLETED: number, FAILED: number | HAS_FAILED}
        if isinstance(slots, range) and slots.stop <= count and status == status[:1] * len(slots):
            self.row[slots.start : slots.stop] = array("I", (ended.get(status[0], NO_ROW),)) * len(slots)
        else:
            for slot, each in zip(slots, status, strict=True):
                if slot < count:  # otherwise its lot could not be written
                    self.row[slot] = ended.get(each, NO_ROW)
        if self._into is not None:
            self._into.write(number, content, slots)

    def status_of(self, slot: int) -> int:
        """Return how the item has ended: `COMPLETED`, `FAILED`, or `PENDING` if it has not."""
        row = self.row[slot]
        return PENDING if row == NO_ROW else FAILED if row & HAS_FAILED else COMPLETED

    def ended_by(self, slots: Iterable[int]) -> list[int]:
        """Return for each of these slots the number of the code that ended its item; -1 if it has not ended."""
        count, row = len(self.row), self.row
        return [self.code_of(slot) if slot < count and row[slot] != NO_ROW else -1 for slot in slots]

    def code_of(self, slot: int) -> int:
        """Return the number of the code that made the outcome."""
        if len(self._codes) < 2:
            return self._codes[0] if self._codes else 0
        return self._codes[bisect_right(self._firsts, self.row[slot] & ~HAS_FAILED) - 1]

    def counts(self) -> dict[str, int]:
        """Return the counts of items for the line of the job: ``completed``, ``failed`` and their sum ``total``."""
        total = len(self.row) - self.row.count(NO_ROW)
        failed = sum(1 for row in self.row if row & HAS_FAILED)
        return {"completed": total - failed, "failed": failed, "total": total}

    def void(self, slots: Iterable[int]) -> None:
        """Count these items as not ended."""
        for slot in slots:
            self.row[slot] = NO_ROW


def _unreadable(results: list[Any]) -> Unreadable | None:
    """Return the first unreadable result; None if there is none."""
    if Unreadable not in set(map(type, results)):
        return None
    return next(result for result in results if type(result) is Unreadable)


class _OpenRow:
    """A row whose results are read one by one. Results that were pickled together are kept once read."""

    def __init__(self, row: WrittenRow, read_file: ReadFile, path: str) -> None:
        content = content_of(row, read_file, path)
        self._read_file = read_file
        slots, status = row.spoken(path), content["status"]
        if status.count(COMPLETED) < len(status):
            slots = [slot for slot, code in zip(slots, status, strict=True) if code == COMPLETED]
        #: The places of the results, by slots; a range: they follow each other.
        self._places = slots if isinstance(slots, range) else {slot: nth for nth, slot in enumerate(slots)}
        self._parts: list[ResultPart] = [*parts_of(content, len(slots))]
        self._in_part = [part.places for part in self._parts]
        self._ends = [*accumulate(map(len, self._in_part))]
        self._together: dict[int, Any] = {}

    def results(self, slots: Sequence[int]) -> list[Any] | None:
        """Return the results of these slots; None if the row does not have them all."""
        stretch = self._stretch(slots)
        if stretch is not None:
            return stretch
        places = self._places
        if not all(slot in places for slot in slots):
            return None
        if isinstance(places, range):
            return [self._result(slot - places.start) for slot in slots]
        return [self._result(places[slot]) for slot in slots]

    def _stretch(self, slots: Sequence[int]) -> list[Any] | None:
        """Return the results of consecutive slots, if all of the row were pickled together; else None."""
        row = self._places
        if len(slots) < 2 or not isinstance(row, range):
            return None
        at = slots[0] - row.start
        if [*slots] != [*row[at : at + len(slots)]]:
            return None
        if any(part.size is None or part.dropped for part in self._parts):
            return None
        lists = [self._list(number) for number in range(len(self._parts))]
        if any(type(each) is not list for each in lists):
            return None
        return [*chain.from_iterable(lists)][at : at + len(slots)]

    def _list(self, number: int) -> Any:
        """Return the results of one part that were pickled together, or an `Unreadable`."""
        if number not in self._together:
            self._together[number] = restore(Kept(*self._parts[number].kept), self._read_file)
        return self._together[number]

    def _result(self, nth: int) -> Any:
        number = bisect_right(self._ends, nth)
        part = self._parts[number]
        if part.size is None:
            return restore(Kept(*part.kept), self._read_file)
        together = self._list(number)
        if type(together) is Unreadable:
            return together
        return together[self._in_part[number][nth - self._ends[number]]]  # counted from its end
