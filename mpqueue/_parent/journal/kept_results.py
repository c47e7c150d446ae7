"""Results that are not in memory: they are read from the journal on use.

The table has the number of the result's row, as of when the table got it: pruning moves results to other rows. So a
result that is not found there is looked for in all rows of the job, once. Later results of the slot are not mistaken
for it: they were written under a higher number, which pruning keeps.
"""

from __future__ import annotations

import logging
import os
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, groupby
from typing import Any, Protocol, TypeVar

from mpqueue._core.state.item_table import DISCARDED, Elsewhere
from mpqueue._parent.journal.chunk_rows import (
    ResultPart,
    WrittenRow,
    content_of,
    full_column,
    origins_of,
    parts_of,
)
from mpqueue._parent.journal.kept_values import NO_RESULT, Kept, ReadFile, Unreadable, restore
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING

log = logging.getLogger("mpqueue")

#: Stands for the number of a row if there is none.
NO_ROW = 0

#: The most bytes of results that are kept for a job's sink when the job goes on; and the bytes of an object beside its
#: content.
MOST_CHECKED, OBJECT = 32 << 20, 48

T = TypeVar("T")


class Rows(Protocol):
    """One look at the rows of a journal."""

    def row(self, job: int, number: int) -> WrittenRow | None:
        """Return one row of a job; None if it is not there (any more)."""

    def rows(self, job: int) -> Iterator[WrittenRow]:
        """Return the rows of a job, in the order in which they were written."""


class Asked(Protocol):
    """A journal, as far as it is read here."""

    path: str

    def ask(self, question: Callable[[Rows], list[Any]]) -> list[Any]:
        """Run a function in one look; again if the file has changed meanwhile."""

    def read_file(self, name: str) -> bytes:
        """Read a big value's file."""


class KeptResults:
    """The results of one job, see `ResultSource`. Any thread. It holds the last row that was read.

    Raises `JournalError` for a result that is missing, and with ``strict`` also for an unreadable one; otherwise an
    `Unreadable` is in its place.
    """

    def __init__(self, journal: Asked, job: int, job_id: str, *, strict: bool = False) -> None:
        self._journal = journal
        self._job = job
        self._job_id = job_id
        self._strict = strict
        self._lock = threading.Lock()
        self._owner = os.getpid()  #: the process of that lock
        self._last: tuple[int, _OpenRow] | None = None
        self._where: array[int] | None = None  #: by slot, the row that has its result, once looked for
        self.read_bytes = 0  #: bytes of all rows that were read
        self._checked: dict[int, tuple[int, Any]] = {}  #: by index: the row and the result, which were just read
        self._checked_bytes = 0

    def read(self, row: int, slot: int) -> Any:
        """Return the result of the item in that slot, which is or was in that row. Costs up to a look at all rows."""
        return self.read_all(row, [slot])[0]

    def read_all(self, row: int, slots: Sequence[int]) -> list[Any]:
        """Return the results of the items in these slots, which are or were in that row. Costs as much as `read`."""
        with self._own_lock():
            if self._last is not None and self._last[0] == row:
                found = self._last[1].results(slots, row)
                if found is not None and _unreadable(found) is None:
                    return found
            return self._journal.ask(lambda rows: self._take(rows, row, slots))

    def keep(self, row: int, indices: Sequence[int], results: list[Any], size: int) -> None:
        """Keep results, with their bytes, that were read while the job was created and that its sink will need."""
        self._checked_bytes += size + OBJECT * len(results)
        if self._checked_bytes <= MOST_CHECKED:
            self._checked.update(zip(indices, ((row, result) for result in results), strict=True))

    def take_kept(self, results: Sequence[Any], indices: Sequence[int]) -> list[Any] | None:
        """Take out these results if all are in memory since their check, else None (implements `ResultSource`)."""
        found: list[Any] = []
        for index, result in zip(indices, results, strict=True) if self._checked else ():
            if type(result) is Elsewhere:
                row, kept = self._checked.pop(index, (NO_ROW, None))
                if row != result.row:
                    return None
                found.append(kept)
            else:
                found.append(result)
        return found if len(found) == len(results) else None

    def each(
        self,
        results: Sequence[Any],
        slots: Sequence[int],
        make: Callable[[int, Any], T],
        leave_out: Callable[[int, Exception], T],
    ) -> list[T]:
        """Return the value of ``make`` for each place and its result, in one look (implements `ResultSource`)."""

        def make_one(rows: Rows, place: int) -> T:
            result = results[place]
            if type(result) is Elsewhere:
                try:
                    with self._own_lock():  # not while ``make`` runs users' code
                        result = self._take(rows, result.row, [slots[place]])[0]
                except JournalError as error:
                    if not self._strict:
                        raise
                    return leave_out(place, error)
            return make(place, result)

        return self._journal.ask(lambda rows: [make_one(rows, place) for place in range(len(results))])

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

        def take_all(rows: Rows) -> list[Any]:
            for row, indices in sorted(by_row.items()):
                found = self._take(rows, row, indices if slots is None else [slots[index] for index in indices])
                for index, result in zip(indices, found, strict=True):
                    results[index] = result
            return results

        if by_row:
            with self._own_lock():
                self._journal.ask(take_all)

    def _take(self, rows: Rows, row: int, slots: Sequence[int]) -> list[Any]:
        if row == DISCARDED.row:
            found = [restore(Kept(NO_RESULT), self._journal.read_file)] * len(slots)
        else:
            found = self._sought(rows, row, slots)
        if self._strict and (unreadable := _unreadable(found)) is not None:
            raise self._missing(repr(unreadable))
        return found

    def _sought(self, rows: Rows, row: int, slots: Sequence[int]) -> list[Any]:
        found = self._found(rows, row, slots)
        if found is None or _unreadable(found) is not None:
            self._last = None  # it may be from before a pruning
            found = self._found(rows, row, slots)
        if found is None:
            self._find_rows(rows)
            found = self._found(rows, row, slots)
        if found is None:
            raise self._missing("none: it was removed, or its item has run again, or is to")
        return found

    def _missing(self, found: str) -> JournalError:
        return JournalError(
            f"{self._journal.path}: expected the result of an item of job {self._job_id!r}, got {found}"
        )

    def _found(self, rows: Rows, row: int, slots: Sequence[int]) -> list[Any] | None:
        """Return the results; None if one of them is not where it is looked for."""
        where = self._where
        if where is None:
            return self._found_in(rows, row, slots, row)
        results: list[Any] = []
        for number, those in groupby(slots, lambda slot: (where[slot] if slot < len(where) else NO_ROW) or row):
            found = self._found_in(rows, number, [*those], row)
            if found is None:
                return None
            results += found
        return results

    def _found_in(self, rows: Rows, row: int, slots: Sequence[int], known: int) -> list[Any] | None:
        """Return the results from one row, as of the ``known`` row; None if one of them is not in it."""
        if self._last is None or self._last[0] != row:
            self._last = None
            written = rows.row(self._job, row)
            if written is None:
                return None
            self._last = row, _OpenRow(written, self._read_file, self._journal.path)
            self.read_bytes += len(written.body)
        return self._last[1].results(slots, known)

    def _read_file(self, name: str) -> bytes:
        content = self._journal.read_file(name)
        self.read_bytes += len(content)
        return content

    def _find_rows(self, rows: Rows) -> None:
        """Find the row of each slot that has a result. Costs a look at all rows of the job, and 7 bytes per slot."""
        self._where = Outcomes(rows.rows(self._job), self._journal.read_file, self._journal.path).row


class Outcomes:
    """The outcomes of a job's items, by slots: ``status``, and the row of the result (`NO_ROW`: there is none).

    ``lost`` are the slots of damaged rows, and ``damaged`` is the reason. ``count`` is the number of the job's slots;
    None: those in rows.
    """

    def __init__(self, rows: Iterable[WrittenRow], read_file: ReadFile, path: str, count: int | None = None) -> None:
        self.status = bytearray()
        self.row: array[int] = array("I")
        self._code: array[int] | None = None  #: a place in the next one; None: all have the first
        self._codes: list[int] = []  #: the numbers of all codes
        self._grow(count or 0)
        self.lost: set[int] = set()
        self.damaged = ""
        for row in rows:
            spoken: Sequence[int] | None = None
            try:
                spoken = row.spoken(path)
                content = content_of(row, read_file, path)
            except JournalError as error:
                self.damaged = str(error)
                count_now = len(self.status)
                lost = range(count_now) if spoken is None else [slot for slot in spoken if slot < count_now]
                self.void(lost)
                self.lost.update(lost)
                continue
            if count is None:
                self._grow(max(spoken, default=-1) + 1)
            self._note(row.number, content, spoken)

    def _grow(self, count: int) -> None:
        """Make room for that many slots."""
        more = max(count - len(self.status), 0)
        self.status.extend(bytes(more))
        self.row.frombytes(bytes(self.row.itemsize * more))
        if self._code is not None:
            self._code.extend(bytes(more))

    def _note(self, number: int, content: dict[str, Any], slots: Sequence[int]) -> None:
        """Note the data of the row of that number about these slots."""
        if self.lost:
            self.lost.difference_update(slots)
        codes: array[int] = full_column("I", content.get("code", bytes(4)), len(slots))
        self._codes += {*codes}.difference(self._codes)
        if self._code is None and len(self._codes) > 1:
            self._code = array("H", bytes(2 * len(self.status)))
        for slot, status, code in zip(slots, content["status"], codes, strict=True):
            if slot < len(self.status):  # otherwise it came after this was asked for
                self.status[slot] = status if status in (COMPLETED, FAILED) else PENDING
                self.row[slot] = number if status == COMPLETED else NO_ROW
                if self._code is not None:
                    self._code[slot] = self._codes.index(code)

    def ended_by(self, slots: Iterable[int]) -> list[int]:
        """Return for each of these slots the number of the code that ended its item; -1 if it has not ended."""
        count, status = len(self.status), self.status
        return [self.code_of(slot) if slot < count and status[slot] != PENDING else -1 for slot in slots]

    def code_of(self, slot: int) -> int:
        """Return the number of the code that made the outcome."""
        return self._codes[0 if self._code is None else self._code[slot]] if self._codes else 0

    def counts(self) -> dict[str, int]:
        """Return the counts of items for the line of the job: ``completed``, ``failed`` and their sum ``total``."""
        completed, failed = self.status.count(COMPLETED), self.status.count(FAILED)
        return {"completed": completed, "failed": failed, "total": completed + failed}

    def void(self, slots: Iterable[int]) -> None:
        """Count these items as not ended."""
        for slot in slots:
            self.status[slot], self.row[slot] = PENDING, NO_ROW


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
        self._slots = row.spoken(path)
        self._places = None if isinstance(self._slots, range) else {slot: at for at, slot in enumerate(self._slots)}
        self._status: bytes = content["status"]
        self._all_done = self._status.count(COMPLETED) == len(self._status)
        self._parts: list[ResultPart] = [*parts_of(content, self._status.count(COMPLETED))]
        self._in_part = [part.places for part in self._parts]
        self._ends = [*accumulate(map(len, self._in_part))]
        self._together: dict[int, Any] = {}
        #: None: all of it first came with this row
        self._origins = origins_of(content, row.number) if "origins" in content else None
        self._newest = row.number if self._origins is None else max(self._origins, default=0)

    def results(self, slots: Sequence[int], known: int) -> list[Any] | None:
        """Return the results of these slots, written up to that row; None if the row does not have them all."""
        if self._newest > known and not self._are_known(slots, known):
            return None
        stretch = self._stretch(slots)
        if stretch is not None:
            return stretch
        found = []
        for slot in slots:
            at = self._place(slot)
            if at is None or self._status[at] != COMPLETED:
                return None
            nth = at if self._all_done else self._status.count(COMPLETED, 0, at)
            found.append(self._result(nth))
        return found

    def _are_known(self, slots: Sequence[int], known: int) -> bool:
        if self._origins is None:
            return False
        places = [self._place(slot) for slot in slots]
        return all(at is not None and self._origins[at] <= known for at in places)

    def _stretch(self, slots: Sequence[int]) -> list[Any] | None:
        """Return the results of consecutive slots, if all of the row were pickled together; else None."""
        row = self._slots
        if len(slots) < 2 or not isinstance(row, range) or not self._all_done:
            return None
        first, last = slots[0], slots[-1]
        if first not in row or last not in row or [*slots] != [*range(first, last + 1)]:
            return None
        if any(part.size is None or part.dropped for part in self._parts):
            return None
        lists = [self._list(number) for number in range(len(self._parts))]
        if any(type(each) is not list for each in lists):
            return None
        return [*chain.from_iterable(lists)][first - row.start : last + 1 - row.start]

    def _list(self, number: int) -> Any:
        """Return the results of one part that were pickled together, or an `Unreadable`."""
        if number not in self._together:
            self._together[number] = restore(Kept(*self._parts[number].kept), self._read_file)
        return self._together[number]

    def _place(self, slot: int) -> int | None:
        if self._places is not None:
            return self._places.get(slot)
        return self._slots.index(slot) if slot in self._slots else None

    def _result(self, nth: int) -> Any:
        number = bisect_right(self._ends, nth)
        part = self._parts[number]
        if part.size is None:
            return restore(Kept(*part.kept), self._read_file)
        together = self._list(number)
        if type(together) is Unreadable:
            return together
        return together[self._in_part[number][nth - self._ends[number]]]  # counted from its end
